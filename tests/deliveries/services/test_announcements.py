"""Operational events: who gets which, once each, and that they never go in circles."""

from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deliveries.models import Announcement, Endpoint, Event, Lane, Subscription
from deliveries.pipeline import announce, ingest, sweeps
from deliveries.pipeline.health import Rules
from deliveries.services import announcements, endpoints, stopping
from tenants import ids
from tenants.models import Tenant
from tenants.services.audit import PLATFORM
from tests.support.builders import (
    delivery_of,
    insert_old,
    make_due,
    make_endpoint,
    make_tenant,
    new_event,
    publish,
    raise_version,
)
from tests.support.racing import at_once
from tests.support.running import Reply, Request, Webhooks, run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")

URL = "https://receiver.example/hooks?token=secret"
AT_ONCE = Rules(
    open_after_seconds=0, open_after_failures=1, first_wait_seconds=0.01, longest_wait_seconds=0.01
)


@pytest.fixture(autouse=True)
def nothing_waits(quiet_lanes: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE deliveries_announcement")


def listener(tenant: Tenant, url: str, *patterns: str) -> Endpoint:
    return make_endpoint(tenant, url, patterns=patterns)


def bodies(requests: list[Request]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(request.body) for request in requests]


def operational(tenant: Tenant) -> list[str]:
    rows = Event.objects.for_tenant(tenant).exclude(type="order.created").order_by("sequence")
    return list(rows.values_list("type", flat=True))


def test_disabling_and_enabling_reach_those_who_name_them_and_a_star_does_not() -> None:
    tenant, other = make_tenant(), make_tenant()
    with Webhooks() as webhooks:
        subject = make_endpoint(tenant, URL, patterns=["*"], uid="shop")
        for path, patterns in {
            "/named": ["endpoint.disabled"],
            "/all": ["endpoint.*"],
            "/star": ["*", "order.*"],
        }.items():
            listener(tenant, webhooks.url(path), *patterns)
        listener(other, webhooks.url("/other"), "endpoint.*")

        stopping.disable_endpoint(actor=PLATFORM, endpoint=subject)
        stopping.enable_endpoint(actor=PLATFORM, endpoint=subject)
        made = announcements.publish_waiting()
        run_until_dry()

    assert made == 2
    assert [body["type"] for body in bodies(webhooks.to("/named"))] == ["endpoint.disabled"]
    assert sorted(body["type"] for body in bodies(webhooks.to("/all"))) == [
        "endpoint.disabled",
        "endpoint.enabled",
    ]
    assert (webhooks.to("/star"), webhooks.to("/other")) == ([], [])
    data = bodies(webhooks.to("/named"))[0]["data"]
    assert data.pop("missed_since") is not None
    assert data == {
        "endpoint": ids.to_text(ids.ENDPOINT, subject.id),
        "uid": "shop",
        "url": "https://receiver.example/hooks?token=***",
        "status": "disabled",
        "disabled_reason": "manual",
    }


def test_nothing_is_stored_for_nobody() -> None:
    tenant = make_tenant()
    subject = make_endpoint(tenant, URL)
    silent = listener(tenant, URL, "endpoint.*")
    Endpoint.unscoped.filter(id=silent.id).update(status="disabled", disabled_reason="manual")
    raise_version(tenant)

    stopping.disable_endpoint(actor=PLATFORM, endpoint=subject)

    assert announcements.publish_waiting() == 0
    assert operational(tenant) == []
    assert not Announcement.objects.for_tenant(tenant).filter(published_at__isnull=True).exists()


def test_a_circuit_that_opens_and_closes_is_told_once_each() -> None:
    tenant = make_tenant()
    answers = iter([*[Reply(500)] * 4, *[Reply()] * 10])
    with Webhooks(a=lambda _: next(answers)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[0] * 10)
        listener(tenant, webhooks.url("/ops"), "endpoint.failing", "endpoint.recovered")
        publish(tenant)
        while delivery_of_only(tenant) == "pending":
            run_until_dry(health_rules=AT_ONCE)
        announcements.publish_waiting()
        run_until_dry()

    told = bodies(webhooks.to("/ops"))
    assert sorted(body["type"] for body in told) == ["endpoint.failing", "endpoint.recovered"]
    by_type = {body["type"]: body["data"] for body in told}
    assert (by_type["endpoint.failing"]["failures"], by_type["endpoint.recovered"]["failures"]) == (1, 4)
    assert by_type["endpoint.failing"]["failing_since"].endswith("Z")


def delivery_of_only(tenant: Tenant) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT status FROM deliveries_delivery WHERE tenant_id = %s AND event_type = 'order.created'",
            [tenant.id],
        )
        ((status,),) = cursor.fetchall()
    return str(status)


def test_a_delivery_that_failed_for_good_is_told_to_those_who_want_it() -> None:
    tenant, other = make_tenant(), make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        subject = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[3600])
        make_endpoint(other, webhooks.url("/a"), retry_schedule=[])
        listener(tenant, webhooks.url("/ops"), "delivery.exhausted")
        event = publish(tenant)
        publish(other)
        run_until_dry()
        before = announcements.publish_waiting()
        make_due(tenant)
        run_until_dry()
        after, again = announcements.publish_waiting(), announcements.publish_waiting()
        run_until_dry()

    delivery = delivery_of_first(event)
    (told,) = bodies(webhooks.to("/ops"))
    assert (before, after, again) == (0, 1, 0)
    assert told["type"] == "delivery.exhausted"
    assert told["data"].pop("completed_at").endswith("Z")
    assert told["data"] == {
        "delivery": ids.to_text(ids.DELIVERY, delivery),
        "event": ids.to_text(ids.EVENT, UUID(bytes=event.event_id)),
        "event_type": "order.created",
        "attempt_count": 2,
        "last_outcome": "http_error",
        "last_status_code": 500,
        "cancel_reason": None,
        "endpoint": ids.to_text(ids.ENDPOINT, subject.id),
        "uid": None,
        "url": webhooks.url("/a"),
    }
    assert not Announcement.unscoped.exists()


def test_a_delivery_that_waited_too_long_is_told_as_one_that_failed() -> None:
    tenant, deaf = make_tenant(retention_days=7), make_tenant(retention_days=7)
    subject, unheard = make_endpoint(tenant, URL), make_endpoint(deaf, URL)
    listener(tenant, "https://receiver.example/ops", "delivery.exhausted")
    old = insert_old(subject, 31)
    # A manual retry that waited too long: it had failed before.
    insert_old(subject, 32, status="failed", next_attempt_at=None, manual_requested_at=timezone.now())
    # One of the platform's own events.
    insert_old(subject, 33, event_type="endpoint.failing")
    insert_old(unheard, 31)

    ended = sweeps.expire_pending(now=timezone.now())
    made = announcements.publish_waiting()

    assert (ended, made) == (4, 1)
    told = Event.objects.for_tenant(tenant).get(type="delivery.exhausted")
    data = msgspec.json.decode(bytes(told.data or b""))
    assert data["delivery"] == ids.to_text(ids.DELIVERY, old.id)
    assert (data["cancel_reason"], data["attempt_count"], data["last_outcome"]) == ("expired", 0, None)
    assert not Announcement.unscoped.exists()


def delivery_of_first(event: ingest.Accepted) -> Any:
    return delivery_of(event).id


def test_exhaustion_in_bulk_costs_one_statement_a_batch_and_no_row_where_nobody_listens() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[], max_in_flight=100)
        ingest.publish([new_event(tenant) for _ in range(300)])

        run_until_dry()

    assert len(webhooks.requests) == 300
    assert not Announcement.unscoped.exists()


def test_whether_anybody_listens_is_asked_of_an_index_alone() -> None:
    tenant = make_tenant()
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(
            "EXPLAIN SELECT FROM deliveries_subscription s WHERE s.tenant_id = %s AND s.event_type IN "
            f"{announce.SUBSCRIBED!r}",
            [tenant.id],
        )
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("RESET enable_seqscan")

    assert "subscription_exhausted" in plan


def test_deliveries_of_operational_events_make_no_operational_events() -> None:
    tenant = make_tenant()
    with Webhooks(ops=Reply(500)) as webhooks:
        subject = make_endpoint(tenant, URL)
        ops = listener(tenant, webhooks.url("/ops"), "endpoint.*", "delivery.*")
        Endpoint.unscoped.filter(id=ops.id).update(retry_schedule=[])
        raise_version(tenant)
        stopping.disable_endpoint(actor=PLATFORM, endpoint=subject)
        announcements.publish_waiting()
        run_until_dry(health_rules=AT_ONCE)

        assert announcements.publish_waiting() == 0

    assert operational(tenant) == ["endpoint.disabled"]
    assert len(webhooks.requests) == 1
    kinds = Announcement.objects.for_tenant(tenant).order_by("id").values_list("kind", "is_quiet")
    assert list(kinds) == [("endpoint.disabled", False), ("endpoint.failing", True)]


def test_two_runs_at_once_tell_everything_once() -> None:
    """Both read the same rows before either has marked them; the keys let one of them write."""
    tenant = make_tenant()
    listener(tenant, URL, "endpoint.*")
    subject = make_endpoint(tenant, URL)
    for _ in range(10):
        stopping.disable_endpoint(actor=PLATFORM, endpoint=subject)
        stopping.enable_endpoint(actor=PLATFORM, endpoint=subject)
    rows = list(announcements._waiting().order_by("id"))

    made = at_once(4, lambda _: announcements._publish(rows))

    assert sum(made) == 20
    assert len(operational(tenant)) == 20
    assert announcements.publish_waiting() == 0


def test_after_a_crash_between_publish_and_mark_nothing_is_told_twice() -> None:
    tenant = make_tenant()
    listener(tenant, URL, "endpoint.*")
    subject = make_endpoint(tenant, URL)
    stopping.disable_endpoint(actor=PLATFORM, endpoint=subject)
    announcements.publish_waiting()
    Announcement.unscoped.update(published_at=None)

    assert announcements.publish_waiting() == 0
    assert operational(tenant) == ["endpoint.disabled"]


def test_a_suspended_tenant_and_its_rate_hold_up_no_operational_event() -> None:
    tenant = make_tenant(limits={"events_per_second": 0.01})
    listener(tenant, URL, "endpoint.*")
    subject = make_endpoint(tenant, URL)
    Tenant.objects.filter(id=tenant.id).update(status="suspended")
    for _ in range(3):
        stopping.disable_endpoint(actor=PLATFORM, endpoint=subject)
        stopping.enable_endpoint(actor=PLATFORM, endpoint=subject)

    assert announcements.publish_waiting() == 6
    assert len(operational(tenant)) == 6


def test_a_run_asks_as_many_questions_for_many_as_for_one() -> None:
    tenant = make_tenant()
    listener(tenant, URL, "endpoint.*")
    subjects = [make_endpoint(tenant, URL) for _ in range(6)]

    counts = []
    for some in (subjects[:1], subjects[1:]):
        for subject in some:
            stopping.disable_endpoint(actor=PLATFORM, endpoint=subject)
        with CaptureQueriesContext(connection) as queries:
            announcements.publish_waiting()
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_what_was_told_is_forgotten_after_a_month() -> None:
    tenant = make_tenant()
    subject = make_endpoint(tenant, URL)
    stopping.disable_endpoint(actor=PLATFORM, endpoint=subject)
    announcements.publish_waiting()
    now = timezone.now()

    kept_untold = announcements.forget_old(now=now + announcements.KEPT * 2)
    Announcement.unscoped.update(notified_at=now, reported_at=now)
    kept_young = announcements.forget_old(now=now + announcements.KEPT / 2)
    dropped = announcements.forget_old(now=now + announcements.KEPT * 2)

    assert (kept_untold, kept_young, dropped) == (0, 0, 1)


def test_subscriptions_to_operational_types_need_no_catalogue() -> None:
    tenant = make_tenant()
    made = endpoints.create_endpoint(
        actor=PLATFORM,
        tenant=tenant,
        url="https://example.com/",
        event_types=["endpoint.disabled", "delivery.*"],
    )

    patterns = Subscription.objects.for_tenant(tenant).filter(endpoint=made).order_by("id")
    assert list(patterns.values_list("event_type", flat=True)) == ["endpoint.disabled", "delivery.*"]
    assert Lane.objects.for_tenant(tenant).get(endpoint=made).failures == 0
