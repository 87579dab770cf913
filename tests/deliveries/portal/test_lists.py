"""Finding events and deliveries in the portal by id and by text, and doing something with many of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from deliveries.models import Delivery, Job
from deliveries.services import erasing, job_work, jobs, resending, searching
from deliveries.services.slices import Progress
from deliveries.services.stopping import disable_endpoint
from tenants import ids
from tenants.models import AuditEntry, Tenant
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant
from tests.support.portal import actions_of, browser, text_of
from tests.support.published import add_attempt, delivery_of, end, make_endpoint, make_type, publish

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def tenant(database: None) -> Tenant:
    made = make_tenant()
    make_type(made)
    make_type(made, "invoice.paid")
    return made


def path(tenant: Tenant, rest: str = "deliveries") -> str:
    return f"/portal/{tenant.slug}/{rest}"


def ids_of(page: Any) -> list[str]:
    return [ids.to_text("dlv", row["delivery"].id) for row in page.context["rows"]]


def dlv(delivery: Delivery) -> str:
    return ids.to_text("dlv", delivery.id)


def run(tenant: Tenant) -> Job:
    """The tenant's one job, until it ends."""
    job: Job = jobs.jobs_of(tenant).get()
    for _ in range(20):
        if job_work.work(job_id=job.id) is Progress.ENDED:
            break
    job.refresh_from_db()
    return job


# --- finding ----------------------------------------------------------------------------------------------------------


def test_an_id_in_the_search_box_leads_to_what_it_names(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    event = publish(tenant)
    delivery = delivery_of(event)
    attempt = add_attempt(delivery)
    client = browser(tenant, "viewer")
    named = {
        ids.to_text("evt", event.id): "events",
        dlv(delivery): "deliveries",
        ids.to_text("att", attempt.id): "attempts",
        ids.to_text("ep", endpoint.id): "endpoints",
    }

    for wanted, section in named.items():
        for box in ("events", "deliveries"):
            response = client.get(path(tenant, box), {"q": f" {wanted} "})
            assert response["Location"] == path(tenant, f"{section}/{wanted}")
            assert client.get(response["Location"]).status_code == 200

    gone = client.get(path(tenant), {"q": ids.to_text("dlv", ids.new_id())}, follow=True)
    assert gone.status_code == 404
    assert "This is not here any more" in text_of(gone)


def test_text_in_payloads_is_found_exactly_as_it_is_written(tenant: Tenant) -> None:
    make_endpoint(tenant)
    wanted = publish(tenant, data='{"note": "Grüße an \\"Ada\\"", "amount": 12.50}'.encode())
    escaped = publish(tenant, data=b'{"note":"Gr\\u00fc\\u00dfe"}')
    publish(tenant, data=b'{"note":"other"}')
    client = browser(tenant, "viewer")
    found = {
        "Grüße": [delivery_of(escaped), delivery_of(wanted)],
        'an "Ada"': [delivery_of(wanted)],
        "12.50": [delivery_of(wanted)],
        "12.5000": [],
        "grüße": [],
        "%": [],
    }

    for text, rows in found.items():
        page = client.get(path(tenant), {"q": text})
        assert ids_of(page) == [dlv(row) for row in rows], text
        assert "3 payloads were looked into for exactly this text" in text_of(page)
    events = client.get(path(tenant, "events"), {"q": "12.50"})
    assert [row.id for row in events.context["page"].rows] == [wanted.id]


def test_a_search_says_how_far_it_looked_and_goes_on_from_there(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_endpoint(tenant)
    events = [publish(tenant, data=b'{"n":%d,"x":"%s"}' % (n, b"ab" if n % 2 else b"cd")) for n in range(7)]
    monkeypatch.setattr(searching, "MOST_ROWS", 3)
    client = browser(tenant)

    first = client.get(path(tenant), {"q": "ab"})
    second = client.get(path(tenant), {"q": "ab", "cursor": first.context["page"].next_cursor})
    third = client.get(path(tenant), {"q": "ab", "cursor": second.context["page"].next_cursor})

    found = [ids_of(page) for page in (first, second, third)]
    assert found == [[dlv(delivery_of(events[5]))], [dlv(delivery_of(events[n])) for n in (3, 1)], []]
    assert "Look further back" in text_of(first)
    assert "Look further back" not in text_of(third)


def test_a_search_stops_at_so_many_bytes_but_looks_into_one_payload_at_least(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = publish(tenant, data=b'{"x":"%s wanted"}' % (b"a" * 2000))
    newer = publish(tenant, data=b'{"x":"%s"}' % (b"a" * 2000))
    monkeypatch.setattr(searching, "MOST_BYTES", 1000)
    client = browser(tenant)

    first = client.get(path(tenant, "events"), {"q": "wanted"})
    second = client.get(path(tenant, "events"), {"q": "wanted", "cursor": first.context["page"].next_cursor})

    assert (first.context["search"].looked, first.context["search"].reached.id) == (1, newer.id)
    assert [row.id for row in second.context["page"].rows] == [large.id]


def test_without_a_period_text_is_looked_for_in_the_last_thirty_days(tenant: Tenant) -> None:
    page = browser(tenant).get(path(tenant), {"q": "x"})

    since = page.context["searched"].since
    assert abs(timezone.now() - since - timedelta(days=30)) < timedelta(minutes=1)
    assert "Nothing matches" in text_of(page)


@pytest.mark.parametrize("kind", ["events", "deliveries"])
@pytest.mark.parametrize(
    "period",
    [
        {"until": "0001-01-01T00:00"},
        {"since": "0001-01-01T00:00"},
        {"until": "9999-12-31T23:59"},
        {"since": "9999-12-31T23:59"},
    ],
)
def test_a_period_may_end_where_the_calendar_does(tenant: Tenant, kind: str, period: dict[str, str]) -> None:
    publish(tenant)

    page = browser(tenant).get(path(tenant, kind), {"q": "x", **period})

    assert page.status_code == 200
    assert "Nothing matches" in text_of(page)


def test_a_period_is_a_filter_too_and_a_time_goes_before_it(tenant: Tenant) -> None:
    make_endpoint(tenant)
    publish(tenant)
    client = browser(tenant)

    assert len(ids_of(client.get(path(tenant), {"within": "1h"}))) == 1
    assert len(ids_of(client.get(path(tenant), {"within": "1h", "since": "2100-01-01T00:00"}))) == 0
    assert client.get(path(tenant), {"within": "1y"}).status_code == 422


def test_endpoints_are_offered_by_name_and_a_deleted_one_stays_chosen(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant, description="Warehouse")
    endpoint_id = ids.to_text("ep", endpoint.id)
    client = browser(tenant)

    page = client.get(path(tenant)).content.decode()
    assert f'<option value="{endpoint_id}">Warehouse · shop.example.com/hooks</option>' in page

    gone = ids.to_text("ep", ids.new_id())
    response = client.get(path(tenant), {"endpoint": gone})
    assert response.status_code == 422
    assert f'<option value="{gone}" selected>' in response.content.decode()


# --- what is ticked ---------------------------------------------------------------------------------------------------


def test_what_is_ticked_is_tried_again_or_cancelled_and_the_list_stays_as_it_was(tenant: Tenant) -> None:
    make_endpoint(tenant)
    failed, pending, other = [delivery_of(publish(tenant)) for _ in range(3)]
    end(failed, "failed")
    client = browser(tenant)

    retried = client.post(
        path(tenant, "deliveries/picked"),
        {"delivery": [dlv(failed), "dlv_x"], "action": "retry", "query": "status=failed&cursor="},
    )
    cancelled = client.post(
        path(tenant, "deliveries/picked"), {"delivery": [dlv(failed), dlv(pending)], "action": "cancel"}
    )

    assert retried["Location"] == path(tenant, "deliveries?status=failed&cursor=")
    text = text_of(client.get(cancelled["Location"]))
    assert "Trying 1 delivery again now." in text
    assert "1 delivery cancelled. 1 had ended already." in text
    rows = {row.id: row for row in Delivery.objects.for_tenant(tenant)}
    assert rows[failed.id].manual_requested_at is not None
    assert rows[pending.id].status == "cancelled"
    assert (rows[other.id].status, rows[other.id].manual_requested_at) == ("pending", None)
    assert actions_of(tenant)[-2:] == ["deliveries.retried", "deliveries.cancelled"]
    entry = AuditEntry.objects.filter(tenant=tenant, action="deliveries.retried").get()
    assert entry.after == {"deliveries": [dlv(failed)], "changed": 1}


def test_what_cannot_be_sent_is_left_out_and_said(tenant: Tenant) -> None:
    stopped, running = make_endpoint(tenant, event_types=["invoice.*"]), make_endpoint(tenant)
    lost, kept = publish(tenant, data=b'{"n":1}'), publish(tenant, data=b'{"n":2}')
    refused = publish(tenant, "invoice.paid")
    to_stopped = Delivery.objects.for_tenant(tenant).get(event_id=refused.id, endpoint=stopped)
    erasing.erase_data(actor=COMMAND, tenant=tenant, event=lost)
    disable_endpoint(actor=COMMAND, endpoint=stopped)
    client = browser(tenant)
    chosen = [dlv(delivery_of(lost)), dlv(delivery_of(kept)), dlv(to_stopped)]

    text = text_of(
        client.post(path(tenant, "deliveries/picked"), {"delivery": chosen, "action": "retry"}, follow=True)
    )

    assert "Trying 1 delivery again now. 1 was left out: its endpoint is disabled or deleted." in text
    assert "1 was left out: its payload was erased." in text
    asked = Delivery.objects.for_tenant(tenant).filter(manual_requested_at__isnull=False)
    assert [row.id for row in asked] == [delivery_of(kept).id]
    assert running.id == delivery_of(kept).endpoint_id


def test_of_another_tenant_nothing_is_changed(tenant: Tenant) -> None:
    other = make_tenant()
    make_type(other)
    make_endpoint(other)
    theirs = delivery_of(publish(other))

    for action in ("retry", "cancel"):
        browser(tenant).post(path(tenant, "deliveries/picked"), {"delivery": [dlv(theirs)], "action": action})

    theirs.refresh_from_db()
    assert (theirs.status, theirs.manual_requested_at) == ("pending", None)


def test_nothing_ticked_and_no_verb_say_so(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))
    client = browser(tenant)

    nothing = client.post(path(tenant, "deliveries/picked"), {"action": "retry"}, follow=True)
    no_verb = client.post(path(tenant, "deliveries/picked"), {"delivery": [dlv(delivery)]}, follow=True)

    assert "No delivery was ticked" in text_of(nothing)
    assert "choose what to do with them" in text_of(no_verb)


# --- everything that a filter finds -----------------------------------------------------------------------------------


def test_everything_that_a_filter_finds_is_tried_again_by_a_job(tenant: Tenant) -> None:
    make_endpoint(tenant)
    failed = [end(delivery_of(publish(tenant)), "failed") for _ in range(3)]
    end(delivery_of(publish(tenant)), "succeeded")
    client = browser(tenant)
    asked = path(tenant, "deliveries/everything?status=failed")

    before = client.get(asked)
    begun = client.post(asked, {"action": "retry"})
    later = end(delivery_of(publish(tenant)), "failed")
    again = client.post(asked, {"action": "retry"})
    job = run(tenant)

    assert "3 deliveries." in text_of(before)
    assert begun["Location"] == again["Location"] == path(tenant, f"jobs/{ids.to_text('job', job.id)}")
    assert (job.kind, job.status, job.total, job.done) == ("retry", "done", 3, 3)
    tried = Delivery.objects.for_tenant(tenant).filter(manual_requested_at__isnull=False).order_by("id")
    assert [row.id for row in tried] == [row.id for row in failed]
    assert later.id not in {row.id for row in tried}
    entry = AuditEntry.objects.filter(tenant=tenant, action="deliveries.retried").get()
    assert entry.after is not None
    assert entry.after["filter"]["status"] == "failed"
    text = text_of(client.get(begun["Location"]))
    assert "One of this kind is running." in text
    assert "Try deliveries again" in text
    assert "3 of 3" in text
    assert "Status failed" in text


def test_everything_that_is_pending_is_cancelled_by_a_job_in_batches(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resending, "BATCH", 2)
    make_endpoint(tenant)
    for _ in range(5):
        publish(tenant)
    end(Delivery.objects.for_tenant(tenant).latest("id"), "succeeded")

    browser(tenant).post(path(tenant, "deliveries/everything"), {"action": "cancel"})
    job = run(tenant)

    assert (job.status, job.done) == ("done", 4)
    statuses = Delivery.objects.for_tenant(tenant).order_by("id").values_list("status", flat=True)
    assert list(statuses) == ["cancelled"] * 4 + ["succeeded"]
    assert actions_of(tenant)[-1] == "deliveries.cancelled"


def test_a_job_of_a_search_looks_into_payloads(tenant: Tenant) -> None:
    make_endpoint(tenant)
    wanted = end(delivery_of(publish(tenant, data=b'{"customer":"Ada"}')), "failed")
    end(delivery_of(publish(tenant, data=b'{"customer":"Bob"}')), "failed")
    client = browser(tenant)

    begun = client.post(path(tenant, "deliveries/everything?q=Ada"), {"action": "retry"})
    job = run(tenant)

    tried = Delivery.objects.for_tenant(tenant).filter(manual_requested_at__isnull=False)
    assert [row.id for row in tried] == [wanted.id]
    assert job.done == 1
    assert "q=Ada" in client.get(begun["Location"]).content.decode()


def test_a_filter_that_does_not_parse_leads_back_to_the_list(tenant: Tenant) -> None:
    client = browser(tenant)

    for rest in ("everything", "export"):
        response = client.get(path(tenant, f"deliveries/{rest}?status=lost&format=csv"), follow=True)
        assert response.status_code == 422
        assert list(response.context["form"].errors) == ["status"]


def test_a_job_ends_with_its_tenant(tenant: Tenant) -> None:
    browser(tenant).post(path(tenant, "deliveries/everything"), {"action": "cancel"})
    Tenant.objects.filter(id=tenant.id).update(deleted_at=datetime(2026, 1, 1, tzinfo=UTC))

    assert (run(tenant).status, run(tenant).error) == ("failed", "tenant_deleted")
