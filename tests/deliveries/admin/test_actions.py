"""What operators do: asked first, done through the services, in the audit log, with what could not be done."""

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deliveries.models import BulkAction, Delivery, Endpoint, Event, Job, Lane
from deliveries.services import bulk, bulk_actions
from deliveries.services.slices import Progress
from deliveries.services.stopping import disable_endpoint
from tenants import ids
from tenants.models import ApiKey, AuditEntry, PlatformState, Tenant
from tenants.services.audit import COMMAND, Actor
from tests.support import builders
from tests.support.api import make_key, make_tenant
from tests.support.operators import make_operator, operator, platform_actions, signed_in
from tests.support.portal import actions_of, text_of
from tests.support.published import deliveries_of, delivery_of, end, make_endpoint, make_type, publish

pytestmark = pytest.mark.usefixtures("database")

OPERATOR = Actor("operator", "usr_1", "op@example.com")


def act(client: Client, action: str, *, follow: bool = True, **data: Any) -> Any:
    return client.post(reverse("admin:act", args=[action]), data, follow=follow)


def failed_delivery(tenant: Tenant) -> Delivery:
    return end(delivery_of(publish(tenant)), "failed", last_outcome="http_error", last_status_code=500)


def world() -> tuple[Tenant, Endpoint]:
    tenant = make_tenant()
    make_type(tenant)
    return tenant, make_endpoint(tenant)


# --- one thing --------------------------------------------------------------------------------------------------------


def test_the_page_asks_and_changes_nothing() -> None:
    tenant, _ = world()
    before = actions_of(tenant)

    page = operator().get(reverse("admin:act", args=["suspend"]), {"ids": str(tenant.pk)})

    assert page.status_code == 200
    assert f"It will be done to 1 : {tenant.slug}" in text_of(page)
    assert "Publishes are refused" in text_of(page)
    tenant.refresh_from_db()
    assert (tenant.status, actions_of(tenant)) == ("active", before)


def test_a_tenant_is_suspended_and_resumed_in_the_operators_name() -> None:
    tenant, endpoint = world()
    user = make_operator()
    client = signed_in(user)

    page = act(client, "suspend", ids=str(tenant.pk))

    tenant.refresh_from_db()
    assert tenant.status == "suspended"
    assert Lane.objects.for_tenant(tenant).get().is_paused
    assert "Suspended: publishes are refused, deliveries are held." in text_of(page)
    entry = AuditEntry.objects.filter(tenant=tenant).latest("id")
    assert entry.action == "tenant.changed"
    assert (entry.actor_kind, entry.actor) == ("operator", f"{ids.to_text('usr', user.id)} {user.email}")
    assert (entry.before, entry.after) == ({"status": "active"}, {"status": "suspended"})
    assert entry.remote_ip == "127.0.0.1"

    act(client, "resume", ids=str(tenant.pk))

    tenant.refresh_from_db()
    assert tenant.status == "active"
    assert not Lane.objects.for_tenant(tenant).get().is_paused
    assert Endpoint.objects.for_tenant(tenant).get().id == endpoint.id


def test_a_paused_endpoint_keeps_what_is_published_and_goes_on_later() -> None:
    tenant, endpoint = world()
    client = operator()

    act(client, "pause", ids=str(endpoint.pk))

    delivery = delivery_of(publish(tenant))
    assert Lane.objects.for_tenant(tenant).get().is_paused
    assert delivery.status == "pending"
    assert actions_of(tenant)[-1] == "endpoint.paused"
    # The tenant's own return does not end an operator's pause.
    act(client, "suspend", ids=str(tenant.pk))
    act(client, "resume", ids=str(tenant.pk))
    assert Lane.objects.for_tenant(tenant).get().is_paused

    act(client, "continue", ids=str(endpoint.pk))

    lane = Lane.objects.for_tenant(tenant).get()
    assert (lane.is_paused, lane.is_ready) == (False, True)
    assert actions_of(tenant)[-1] == "endpoint.continued"


def test_letting_an_endpoint_go_on_does_not_end_the_suspension_of_its_tenant() -> None:
    tenant, endpoint = world()
    client = operator()
    act(client, "pause", ids=str(endpoint.pk))
    act(client, "suspend", ids=str(tenant.pk))

    act(client, "continue", ids=str(endpoint.pk))

    assert Lane.objects.for_tenant(tenant).get().is_paused
    act(client, "resume", ids=str(tenant.pk))
    assert not Lane.objects.for_tenant(tenant).get().is_paused


def test_disable_enable_and_recover() -> None:
    tenant, endpoint = world()
    delivery = failed_delivery(tenant)
    client = operator()

    act(client, "disable", ids=str(endpoint.pk))
    endpoint.refresh_from_db()
    assert (endpoint.status, endpoint.disabled_reason) == ("disabled", "manual")
    refused = act(client, "recover", ids=str(endpoint.pk), since="2020-01-01T00:00")
    assert "It could not be done: The endpoint is disabled." in text_of(refused)
    act(client, "enable", ids=str(endpoint.pk))
    act(client, "recover", ids=str(endpoint.pk), since="2020-01-01T00:00")

    job = Job.objects.for_tenant(tenant).get()
    assert (job.kind, job.only, job.total, job.endpoint_id) == ("recover", "failed", 1, delivery.endpoint_id)
    assert "endpoint.recovered" in actions_of(tenant)
    act(client, "cancel-job", ids=str(job.pk))
    job.refresh_from_db()
    assert job.status == "cancelled"


def test_what_an_endpoint_missed_while_it_was_disabled_is_sent_after_enabling() -> None:
    tenant, endpoint = world()
    waiting = delivery_of(publish(tenant))
    client = operator()
    page_of_endpoint = reverse("admin:deliveries_endpoint_change", args=[endpoint.pk])

    nothing = act(client, "send-missed", ids=str(endpoint.pk))
    assert "It could not be done: It missed nothing, or somebody took care of it." in text_of(nothing)
    disabled = act(client, "disable", ids=str(endpoint.pk))
    assert "Enable it, then send what it missed." in text_of(disabled)
    publish(tenant)
    end(waiting, "cancelled", cancel_reason="endpoint_disabled")
    too_early = act(client, "send-missed", ids=str(endpoint.pk))
    assert "It could not be done: The endpoint is disabled." in text_of(too_early)
    enabled = act(client, "enable", ids=str(endpoint.pk))
    assert "It missed events while it was disabled. They are ready to be sent." in text_of(enabled)
    assert f"/admin/act/send-missed/?ids={endpoint.pk}" in enabled.content.decode()
    endpoint.refresh_from_db()
    missed_since = endpoint.missed_since
    assert missed_since is not None
    assert f"Missed since {missed_since:%Y-%m-%d %H:%M:%S}" in text_of(enabled)
    # What failed is not what was missed, so that recovering leaves it to be sent.
    act(client, "recover", ids=str(endpoint.pk), since="2020-01-01T00:00")
    Job.objects.for_tenant(tenant).update(status="done")
    act(client, "send-missed", ids=str(endpoint.pk))

    job = Job.objects.for_tenant(tenant).latest("id")
    assert (job.kind, job.only, job.total) == ("replay", "missed", 2)
    assert job.since == waiting.created_at
    entry = AuditEntry.objects.filter(tenant=tenant, action="endpoint.replayed").latest("id")
    assert (entry.actor_kind, entry.target) == ("operator", ids.to_text("ep", endpoint.pk))
    endpoint.refresh_from_db()
    assert endpoint.missed_since is None
    assert "Missed since -" in text_of(client.get(page_of_endpoint))


def test_what_all_endpoints_of_a_host_missed_is_sent() -> None:
    host = f"{make_tenant().slug}.missed.example.com"
    pairs = []
    for _ in range(3):
        tenant = make_tenant()
        make_type(tenant)
        pairs.append((tenant, make_endpoint(tenant, f"https://{host}/hooks")))
    for tenant, endpoint in pairs[:2]:
        disable_endpoint(actor=COMMAND, endpoint=endpoint)
        publish(tenant)
    client = operator()
    page = client.get(reverse("admin:host"), {"host": host})
    assert f"/admin/act/send-missed/?host={host}" in page.content.decode()

    act(client, "enable", host=host)
    act(client, "send-missed", host=host)

    row = BulkAction.objects.latest("id")
    assert (row.action, row.status, row.total, row.done, row.refused) == ("send-missed", "done", 3, 2, 1)
    assert row.reasons == {"It missed nothing, or somebody took care of it.": 1}
    for tenant, _endpoint in pairs[:2]:
        assert [job.total for job in Job.objects.for_tenant(tenant)] == [1]
    assert not Job.objects.for_tenant(pairs[2][0]).exists()


def test_recovering_proposes_a_time_before_the_trouble_began() -> None:
    host = f"{make_tenant().slug}.trouble.example.com"
    (_, well), (_, failing), (_, missing) = (
        (tenant := make_tenant(), make_endpoint(tenant, f"https://{host}/x")) for _ in range(3)
    )
    now = timezone.now()
    Lane.unscoped.filter(endpoint=failing).update(failing_since=now - timedelta(days=4))
    Endpoint.unscoped.filter(id=missing.id).update(missed_since=now - timedelta(days=6))
    client = operator()

    def proposed(**selection: str) -> str:
        page = client.get(reverse("admin:act", args=["recover"]), selection).content.decode()
        (value,) = re.findall(r'name="since" value="([^"]*)"', page)
        return str(value)

    assert proposed(ids=str(failing.pk)) == f"{now - timedelta(days=4):%Y-%m-%dT%H:%M}"
    assert proposed(ids=str(missing.pk)) == f"{now - timedelta(days=6):%Y-%m-%dT%H:%M}"
    assert proposed(host=host) == f"{now - timedelta(days=6):%Y-%m-%dT%H:%M}"
    # Fails since a moment ago, or not at all.
    Lane.unscoped.filter(endpoint=failing).update(failing_since=now)
    for each in (well, failing):
        a_day_ago = timezone.now() - timedelta(days=1)
        said = proposed(ids=str(each.pk))
        about = {f"{a_day_ago + timedelta(minutes=more):%Y-%m-%dT%H:%M}" for more in (-1, 0, 1)}
        assert said in about


def test_a_drained_endpoint_has_nothing_pending_and_stays_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, endpoint = world()
    for _ in range(5):
        publish(tenant)
    monkeypatch.setattr(bulk_actions, "DRAINED_AT_ONCE", 2)

    act(operator(), "drain", ids=str(endpoint.pk))

    rows = Delivery.objects.for_tenant(tenant)
    assert set(rows.values_list("status", "cancel_reason")) == {("cancelled", "requested")}
    drained = AuditEntry.objects.filter(tenant=tenant, action="endpoint.drained").order_by("id")
    assert [entry.after for entry in drained] == [{"cancelled": 2}, {"cancelled": 2}, {"cancelled": 1}]
    endpoint.refresh_from_db()
    assert endpoint.status == "enabled"


def test_deliveries_are_retried_and_cancelled() -> None:
    tenant, _ = world()
    failed, pending = failed_delivery(tenant), delivery_of(publish(tenant))
    client = operator()

    act(client, "retry", ids=str(failed.pk))
    act(client, "cancel", ids=str(pending.pk))
    again = act(client, "cancel", ids=str(pending.pk))

    failed.refresh_from_db()
    pending.refresh_from_db()
    assert failed.manual_requested_at is not None
    assert pending.status == "cancelled"
    assert "It could not be done: It has ended already." in text_of(again)
    assert actions_of(tenant)[-2:] == ["delivery.retried", "delivery.cancelled"]


def test_events_are_replayed_and_their_payload_erased() -> None:
    tenant, _ = world()
    event = publish(tenant, data=b'{"a":1}')
    client = operator()

    act(client, "replay-event", ids=str(event.pk))
    act(client, "erase", ids=str(event.pk))
    refused = act(client, "replay-event", ids=str(event.pk))

    assert [each.trigger for each in deliveries_of(event)] == ["automatic", "replay"]
    event = Event.objects.for_tenant(tenant).get()
    assert event.data is None
    assert "It could not be done: Its payload is erased." in text_of(refused)
    assert actions_of(tenant)[-2:] == ["event.replayed", "event.erased"]


def test_limits_change_and_go_back_to_the_default() -> None:
    tenant, _ = world()
    client = operator()

    wrong = act(client, "limits", ids=str(tenant.pk), endpoints="-1", payload_bytes="x")
    assert wrong.status_code == 422
    tenant.refresh_from_db()
    assert tenant.limits == {}
    act(client, "limits", ids=str(tenant.pk), endpoints="7", events_per_second="0.5")
    tenant.refresh_from_db()
    assert tenant.limits == {"endpoints": 7, "events_per_second": 0.5}
    asked = client.get(reverse("admin:act", args=["limits"]), {"ids": str(tenant.pk)})
    assert 'name="endpoints" value="7"' in asked.content.decode()
    act(client, "limits", ids=str(tenant.pk), endpoints="9", retention_days="30", payload_retention_days="3")

    tenant.refresh_from_db()
    assert tenant.limits == {"endpoints": 9}
    assert (tenant.retention_days, tenant.payload_retention_days, tenant.attempt_retention_days) == (
        30,
        3,
        None,
    )
    page = client.get(reverse("admin:tenants_tenant_change", args=[tenant.pk]))
    assert "30 days, payloads 3" in text_of(page)


def test_what_is_changed_for_several_tenants_leaves_the_rest_of_each_as_it_is() -> None:
    first = make_tenant(weight=3, limits={"endpoints": 7}, retention_days=30)
    second = make_tenant(weight=5, payload_retention_days=2)
    client = operator()
    chosen = [str(first.pk), str(second.pk)]

    asked = client.get(reverse("admin:act", args=["limits"]), {"ids": chosen})
    act(client, "limits", ids=chosen, events_per_second="9", attempt_retention_days="4")

    assert not re.findall(r'<input type="number" name="\w+" value=', asked.content.decode())
    # The same one twice is one.
    twice = client.get(reverse("admin:act", args=["limits"]), {"ids": [str(first.pk)] * 2})
    assert 'name="weight" value="3"' in twice.content.decode()
    assert "of several tenants, that each stays as it is." in text_of(asked)
    for tenant in (first, second):
        tenant.refresh_from_db()
    assert (first.weight, first.limits) == (3, {"endpoints": 7, "events_per_second": 9})
    assert (second.weight, second.limits) == (5, {"events_per_second": 9})
    assert (first.retention_days, first.attempt_retention_days) == (30, 4)
    assert (second.retention_days, second.payload_retention_days, second.attempt_retention_days) == (90, 2, 4)


def test_a_weight_is_set_within_its_bounds_and_written_down() -> None:
    tenant, _ = world()
    client = operator()

    for wrong in ("0", "101", "1.5"):
        assert act(client, "limits", ids=str(tenant.pk), weight=wrong).status_code == 422
    tenant.refresh_from_db()
    assert tenant.weight == 1
    act(client, "limits", ids=str(tenant.pk), weight="3")

    tenant.refresh_from_db()
    assert tenant.weight == 3
    entry = AuditEntry.objects.filter(tenant=tenant, action="tenant.changed").latest("id")
    assert (entry.actor_kind, entry.before, entry.after) == ("operator", {"weight": 1}, {"weight": 3})
    assert "Weight 3" in text_of(client.get(reverse("admin:tenants_tenant_change", args=[tenant.pk])))
    asked = client.get(reverse("admin:act", args=["limits"]), {"ids": str(tenant.pk)})
    assert 'name="weight" value="3"' in asked.content.decode()


def test_a_key_is_revoked() -> None:
    tenant = make_tenant()
    make_key(tenant)
    key = ApiKey.objects.get(tenant=tenant)

    act(operator(), "revoke-key", ids=str(key.pk))

    key.refresh_from_db()
    assert key.revoked_at is not None
    assert actions_of(tenant)[-1] == "api_key.revoked"


def test_what_is_gone_or_made_up_is_refused() -> None:
    tenant, endpoint = world()
    disable_endpoint(actor=COMMAND, endpoint=endpoint)
    client = operator()

    assert client.get("/admin/act/no-such-action/").status_code == 404
    assert client.get("/admin/act/pause/?ids=x").status_code == 404
    assert client.get("/admin/act/retry/?tenant=nobody&status=failed").status_code == 404
    assert client.get(f"/admin/act/retry/?tenant={tenant.slug}").status_code == 404
    nothing = client.get("/admin/act/pause/")
    assert "There is nothing of this kind to do it to any more." in text_of(nothing)
    after = act(client, "pause", ids="00000000-0000-7000-8000-000000000000")
    assert "There is nothing of this kind to do it to any more." in text_of(after)


def test_a_form_of_another_site_does_nothing() -> None:
    tenant, _ = world()

    answer = act(operator(enforce_csrf_checks=True), "suspend", follow=False, ids=str(tenant.pk))

    tenant.refresh_from_db()
    assert (answer.status_code, tenant.status) == (403, "active")


# --- many things ------------------------------------------------------------------------------------------------------


def test_rows_chosen_in_a_list_lead_to_the_page_that_asks() -> None:
    tenants = [make_tenant(), make_tenant()]
    client = operator()

    answer = client.get("/admin/act/", {"action": "suspend", "ids": [str(each.pk) for each in tenants]})
    none = client.get("/admin/act/", {"action": "suspend"}, follow=True)

    assert answer["Location"].startswith("/admin/act/suspend/?ids=")
    assert "It will be done to 2 :" in text_of(client.get(answer["Location"]))
    assert "Choose at least one row first." in text_of(none)
    assert client.get("/admin/act/", {"action": "made-up"}).status_code == 404


def test_everything_on_a_host_is_paused_and_what_could_not_be_is_told() -> None:
    host = f"{make_tenant().slug}.shared.example.com"
    pairs = []
    for _ in range(3):
        tenant = make_tenant()
        pairs.append((tenant, make_endpoint(tenant, f"https://{host}/hooks")))
    other = make_endpoint(make_tenant(), f"https://not-{host}/hooks")
    client = operator()
    page = client.get(reverse("admin:host"), {"host": host.upper()})
    assert "3 endpoints of 3 tenants" in text_of(page)
    disable_endpoint(actor=COMMAND, endpoint=pairs[0][1])

    act(client, "pause", host=host)
    recovered = act(client, "recover", host=host, since="2020-01-01T00:00")

    for tenant, endpoint in pairs:
        endpoint.refresh_from_db()
        assert endpoint.is_paused
        assert "endpoint.paused" in actions_of(tenant)
    other.refresh_from_db()
    assert not other.is_paused
    row = BulkAction.objects.latest("id")
    assert (row.action, row.status, row.total, row.done, row.refused) == ("recover", "done", 3, 2, 1)
    assert row.problems == [[str(pairs[0][1].pk), "The endpoint is disabled."]]
    assert row.reasons == {"The endpoint is disabled.": 1}
    assert "The endpoint is disabled. (1)" in text_of(recovered)
    assert platform_actions()[-2:] == ["bulk.pause", "bulk.recover"]


def test_everything_that_a_list_finds_is_retried() -> None:
    tenant, _ = world()
    wanted = [failed_delivery(tenant) for _ in range(3)]
    delivered = end(delivery_of(publish(tenant)), "succeeded")
    client = operator()
    listed = client.get(
        reverse("admin:deliveries_delivery_changelist"), {"tenant": tenant.slug, "status": "failed"}
    )
    assert f"/admin/act/retry/?tenant={tenant.slug}&amp;status=failed" in listed.content.decode()

    act(client, "retry", tenant=tenant.slug, status="failed")

    for each in wanted:
        each.refresh_from_db()
        assert each.manual_requested_at is not None
    delivered.refresh_from_db()
    assert delivered.manual_requested_at is None


def test_what_takes_long_goes_on_in_the_background_where_it_stopped() -> None:
    """A worker is killed between two of them: whoever continues neither repeats nor forgets one."""
    tenants = [make_tenant() for _ in range(4)]
    row = BulkAction.objects.create(
        action="suspend",
        selection={"ids": [str(tenant.pk) for tenant in tenants]},
        actor_id=OPERATOR.id,
        actor_label=OPERATOR.label,
        total=4,
    )

    assert bulk.work(bulk_id=row.id, seconds=0) is Progress.AT_ONCE
    row.refresh_from_db()
    assert (row.done, row.status, row.cursor) == (1, "running", tenants[0].pk)
    page = operator().get(reverse("admin:deliveries_bulkaction_change", args=[row.pk]))
    assert page["Refresh"] == "2"
    assert "1 of 4" in text_of(page)
    assert bulk.work(bulk_id=row.id, seconds=30) is Progress.ENDED

    row.refresh_from_db()
    assert (row.done, row.refused, row.status) == (4, 0, "done")
    for tenant in tenants:
        assert actions_of(tenant).count("tenant.changed") == 1
    assert bulk.work(bulk_id=row.id) is Progress.ENDED


def test_an_action_on_very_many_goes_on_slice_by_slice_and_tells_what_it_could_not_do() -> None:
    tenant = make_tenant()
    make_type(tenant)
    host = f"{tenant.slug}.many.example.com"
    endpoints = builders.make_endpoints(tenant, [f"https://{host}/{number}" for number in range(1_200)])
    missing = {endpoint.id for endpoint in endpoints[::100]}
    Endpoint.objects.for_tenant(tenant).filter(id__in=missing).update(missed_since=timezone.now())

    row = bulk.begin(actor=OPERATOR, name="send-missed", selection={"host": host}, how={})
    slices = 1
    while bulk.work(bulk_id=row.id, seconds=0.3) is Progress.AT_ONCE:
        slices += 1

    row.refresh_from_db()
    assert (row.status, row.total, row.done, row.refused) == ("done", 1_200, 12, 1_188)
    assert row.reasons == {"It missed nothing, or somebody took care of it.": 1_188}
    assert len(row.problems) == bulk.MOST_PROBLEMS
    assert slices > 1
    assert set(Job.objects.for_tenant(tenant).values_list("endpoint_id", flat=True)) == missing
    assert actions_of(tenant).count("endpoint.replayed") == 12
    page = text_of(operator().get(reverse("admin:deliveries_bulkaction_change", args=[row.pk])))
    assert "Done 12 of 1,200 Could not be done 1,188" in page


def test_the_sweep_finds_actions_whose_worker_is_gone() -> None:
    row = BulkAction.objects.create(
        action="suspend", selection={"ids": []}, actor_id="", actor_label="", total=0
    )
    assert row.id not in bulk.stale()
    BulkAction.objects.filter(id=row.id).update(heartbeat_at=timezone.now() - timedelta(minutes=1))

    assert row.id in bulk.stale()
    assert bulk.work(bulk_id=row.id) is Progress.ENDED
    assert row.id not in bulk.stale()


def test_an_operator_stops_an_action() -> None:
    tenants = [make_tenant() for _ in range(2)]
    row = BulkAction.objects.create(
        action="suspend",
        selection={"ids": [str(tenant.pk) for tenant in tenants]},
        actor_id=OPERATOR.id,
        actor_label=OPERATOR.label,
        total=2,
    )
    bulk.work(bulk_id=row.id, seconds=0)

    act(operator(), "stop", ids=str(row.pk))

    assert bulk.work(bulk_id=row.id) is Progress.ENDED
    row.refresh_from_db()
    tenants[1].refresh_from_db()
    assert (row.status, row.done, tenants[1].status) == ("cancelled", 1, "active")
    assert platform_actions()[-1] == "bulk.stopped"


def test_a_fault_on_one_keeps_nobody_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    tenants = [make_tenant() for _ in range(2)]
    row = BulkAction.objects.create(
        action="limits",
        selection={"ids": [str(tenant.pk) for tenant in tenants]},
        arguments={"made_up": 1},
        actor_id=OPERATOR.id,
        actor_label=OPERATOR.label,
        total=2,
    )

    bulk.work(bulk_id=row.id)

    row.refresh_from_db()
    assert (row.status, row.done, row.refused) == ("done", 0, 2)
    assert row.reasons == {"A fault of the platform: AssertionError.": 2}
    assert "a bulk action failed on one of its targets" in caplog.text
    assert [UUID(key) for key, _ in row.problems] == [tenant.pk for tenant in tenants]


# --- the kill switch --------------------------------------------------------------------------------------------------


def test_all_sending_stops_with_a_reason_and_every_page_says_so() -> None:
    client = operator()
    try:
        refused = client.post(reverse("admin:sending"), {"to": "stop", "reason": ""})
        assert refused.status_code == 422
        assert not PlatformState.objects.get().is_sending_stopped

        client.post(reverse("admin:sending"), {"to": "stop", "reason": "a bad release"})

        assert PlatformState.objects.get().is_sending_stopped
        for path in ("/admin/", "/admin/tenants/tenant/", reverse("admin:find")):
            assert "All sending is stopped." in text_of(client.get(path))
        entry = AuditEntry.objects.filter(tenant=None).latest("id")
        assert (entry.action, entry.after) == ("platform.sending_stopped", {"reason": "a bad release"})
        # Two people at once do not undo each other.
        late = client.post(reverse("admin:sending"), {"to": "stop", "reason": "me too"}, follow=True)
        assert "Somebody else did it before." in text_of(late)
        assert PlatformState.objects.get().is_sending_stopped
    finally:
        client.post(reverse("admin:sending"), {"to": "resume", "reason": "mended"})
    assert not PlatformState.objects.get().is_sending_stopped
    assert "All sending is stopped." not in text_of(client.get("/admin/"))
    assert platform_actions()[-1] == "platform.sending_resumed"
