"""What operators change in the libraries' own pages, beat's schedule and groups of rights, is in the audit log."""

from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.urls import reverse
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from tenants import ids
from tenants.ids import new_id
from tenants.models import AuditEntry
from tests.support.operators import make_operator, signed_in

pytestmark = pytest.mark.usefixtures("database")


def entries(target: str) -> list[tuple[str, Any, Any]]:
    """(what, before, after) of what was done to it, the oldest first."""
    rows = AuditEntry.objects.filter(tenant=None, target__startswith=target).order_by("id")
    return list(rows.values_list("action", "before", "after"))


def make_task() -> PeriodicTask:
    interval, _ = IntervalSchedule.objects.get_or_create(every=7, period=IntervalSchedule.HOURS)
    return PeriodicTask.objects.create(
        name=f"task {new_id().hex}", task="deliveries.sweep", interval=interval
    )


def form_of(client: Client, path: str) -> dict[str, Any]:
    """What the page's form would send if nothing were changed."""
    form = client.get(path).context["adminform"].form
    given = {name: form[name].value() for name in form.fields}
    inlines = {"periodictask_set-TOTAL_FORMS": 0, "periodictask_set-INITIAL_FORMS": 0}
    return {name: value for name, value in given.items() if value not in (None, False)} | inlines


def test_a_changed_task_tells_who_what_before_and_after() -> None:
    task, user = make_task(), make_operator()
    other, _ = IntervalSchedule.objects.get_or_create(every=9, period=IntervalSchedule.HOURS)
    path = reverse("admin:django_celery_beat_periodictask_change", args=[task.pk])
    client = signed_in(user)

    unchanged = client.post(path, form_of(client, path))
    answer = client.post(path, form_of(client, path) | {"interval": other.pk, "description": "slower"})

    assert (unchanged.status_code, answer.status_code) == (302, 302)
    task.refresh_from_db()
    assert task.interval == other
    assert entries(f"{task.pk} {task.name}") == [
        (
            "periodic_task.changed",
            {"interval": "every 7 hours", "description": ""},
            {"interval": "every 9 hours", "description": "slower"},
        ),
    ]
    entry = AuditEntry.objects.filter(target__startswith=f"{task.pk} ").latest("id")
    assert entry.actor == f"{ids.to_text('usr', user.id)} {user.email}"
    assert (entry.actor_kind, entry.remote_ip) == ("operator", "127.0.0.1")
    task.delete()


def test_tasks_that_are_stopped_and_deleted_together_are_written_down_one_by_one() -> None:
    tasks = [make_task(), make_task()]
    client = signed_in(make_operator())
    path = reverse("admin:django_celery_beat_periodictask_changelist")
    chosen = {"_selected_action": [task.pk for task in tasks]}

    client.post(path, {"action": "disable_tasks", **chosen})
    asked = client.post(path, {"action": "delete_selected", **chosen})
    before_yes = [entries(f"{task.pk} {task.name}") for task in tasks]
    client.post(path, {"action": "delete_selected", "post": "yes", **chosen})

    assert asked.status_code == 200
    stopped = ("periodic_task.disable_tasks", {"enabled": True}, {"enabled": False})
    assert before_yes == [[stopped], [stopped]]
    assert not PeriodicTask.objects.filter(pk__in=[task.pk for task in tasks]).exists()
    for task in tasks:
        first, second = entries(f"{task.pk} {task.name}")
        assert first == stopped
        assert (second[0], second[1]["task"], second[1]["enabled"]) == (
            "periodic_task.deleted",
            "deliveries.sweep",
            False,
        )


def test_schedules_and_groups_are_made_changed_and_deleted_in_the_audit_log() -> None:
    client = signed_in(make_operator())
    looking, changing = Permission.objects.filter(content_type__app_label="auth").order_by("pk")[:2]
    name = f"group {new_id().hex}"

    client.post(reverse("admin:auth_group_add"), {"name": name, "permissions": [looking.pk]})
    group = Group.objects.get(name=name)
    page = reverse("admin:auth_group_change", args=[group.pk])
    client.post(page, {"name": name, "permissions": [looking.pk, changing.pk]})
    client.post(reverse("admin:auth_group_delete", args=[group.pk]), {"post": "yes"})
    made = client.post(
        reverse("admin:django_celery_beat_intervalschedule_add"),
        {
            "every": 11,
            "period": "hours",
            "periodictask_set-TOTAL_FORMS": 0,
            "periodictask_set-INITIAL_FORMS": 0,
        },
    )

    assert made.status_code == 302
    assert entries(f"{group.pk} {name}") == [
        ("group.created", None, {"name": name, "permissions": [str(looking)]}),
        (
            "group.changed",
            {"permissions": [str(looking)]},
            {"permissions": sorted([str(looking), str(changing)])},
        ),
        (
            "group.deleted",
            {"id": group.pk, "name": name, "permissions": sorted([str(looking), str(changing)])},
            None,
        ),
    ]
    interval = IntervalSchedule.objects.get(every=11, period="hours")
    assert entries(f"{interval.pk} every 11 hours") == [
        ("interval_schedule.created", None, {"every": 11, "period": "hours"})
    ]
    interval.delete()
