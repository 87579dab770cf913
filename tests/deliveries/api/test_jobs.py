"""Recover, replay and their jobs: what is sent again, once, in batches, whoever is killed meanwhile."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from deliveries.job_tasks import run_job
from deliveries.models import Delivery, Endpoint, Event, Job
from deliveries.pipeline.again import deliver_again
from deliveries.services import job_work, jobs, resending
from deliveries.services.endpoint_deletion import delete_endpoint
from deliveries.services.endpoints import update_endpoint
from deliveries.services.slices import Progress
from deliveries.services.stopping import disable_endpoint, enable_endpoint
from deliveries.services.subscriptions import update_subscription
from tenants import ids
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tests.support.api import Api, error_codes, make_tenant, tenant_api
from tests.support.published import deliveries_of, delivery_of, end, make_endpoint, make_type, publish
from tests.support.racing import at_once

pytestmark = pytest.mark.usefixtures("database")

LONG_AGO = "2026-01-01T00:00:00Z"


@pytest.fixture
def tenant(database: None) -> Tenant:
    made = make_tenant()
    make_type(made)
    make_type(made, "invoice.paid")
    return made


def body(response: Any, status: int = 200) -> Any:
    assert response.status_code == status, response.content
    return json.loads(response.content)


def code(response: Any) -> tuple[int, str]:
    return response.status_code, json.loads(response.content)["code"]


def path(tenant: Tenant, endpoint: Endpoint, verb: str) -> str:
    return f"/tenants/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/{verb}"


def finish(tenant: Tenant, started: dict[str, Any]) -> dict[str, Any]:
    """Works until the job ends."""
    job_id = ids.from_text("job", started["id"])
    for _ in range(50):
        if job_work.work(job_id=job_id) is Progress.ENDED:
            break
    shown: dict[str, Any] = body(tenant_api(tenant).get(f"/tenants/{tenant.slug}/jobs/{started['id']}"))
    return shown


def recover(tenant: Tenant, endpoint: Endpoint, **window: Any) -> dict[str, Any]:
    started = body(
        tenant_api(tenant).post(path(tenant, endpoint, "recover"), {"since": LONG_AGO} | window), 202
    )
    return finish(tenant, started)


def replay(tenant: Tenant, endpoint: Endpoint, only: str, **fields: Any) -> dict[str, Any]:
    request = {"since": LONG_AGO, "only": only} | fields
    counted = body(tenant_api(tenant).post(path(tenant, endpoint, "replay"), request | {"dry_run": True}))
    shown = finish(tenant, body(tenant_api(tenant).post(path(tenant, endpoint, "replay"), request), 202))
    assert shown["status"] == "done"
    assert counted == {"total": shown["total"]}
    return shown


def replayed(endpoint: Endpoint) -> list[UUID]:
    """Events that were sent again, in the order of their new deliveries."""
    rows = Delivery.objects.for_tenant(endpoint.tenant_id).filter(endpoint=endpoint, trigger="replay")
    return list(rows.order_by("id").values_list("event_id", flat=True))


# --- recover ----------------------------------------------------------------------------------------------------------


def test_recover_sends_what_failed_or_was_cancelled_by_disabling(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    ends: list[tuple[str, dict[str, Any]]] = [
        ("failed", {"last_outcome": "timeout"}),
        ("cancelled", {"cancel_reason": "endpoint_disabled"}),
        ("cancelled", {"cancel_reason": "requested"}),
        ("succeeded", {}),
    ]
    events = []
    for status, fields in ends:
        events.append(publish(tenant, data=b'{"n":1}'))
        end(delivery_of(events[-1]), status, **fields)
    waiting = publish(tenant)
    api = tenant_api(tenant)

    started = body(api.post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}), 202)
    done = finish(tenant, started)

    assert started == {
        "id": started["id"],
        "endpoint": ids.to_text("ep", endpoint.id),
        "kind": "recover",
        "status": "running",
        "error": None,
        "total": 2,
        "done": 0,
        "created_at": started["created_at"],
        "completed_at": None,
    }
    assert done == started | {"status": "done", "done": 2, "completed_at": done["completed_at"]}
    assert replayed(endpoint) == [events[0].id, events[1].id]
    assert len(deliveries_of(waiting)) == 1
    new = deliveries_of(events[0])[1]
    assert (new.status, new.trigger, new.subscription_id) == (
        "pending",
        "replay",
        deliveries_of(events[0])[0].subscription_id,
    )
    assert new.next_attempt_at is not None


def test_what_came_through_since_is_not_sent_again(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    event = publish(tenant)
    end(delivery_of(event), "failed")
    recover(tenant, endpoint)
    assert recover(tenant, endpoint)["total"] == 0
    end(deliveries_of(event)[1], "failed")

    again = recover(tenant, endpoint)
    end(deliveries_of(event)[2], "succeeded")

    assert (again["total"], again["done"]) == (1, 1)
    assert recover(tenant, endpoint)["total"] == 0
    assert len(deliveries_of(event)) == 3


def test_recover_keeps_to_its_window_and_endpoint(tenant: Tenant) -> None:
    endpoint, other = make_endpoint(tenant), make_endpoint(tenant)
    events = [publish(tenant) for _ in range(3)]
    for event in events:
        for delivery in deliveries_of(event):
            end(delivery, "failed")

    done = recover(
        tenant, endpoint, since=events[1].created_at.isoformat(), until=events[2].created_at.isoformat()
    )

    assert done["done"] == 1
    assert replayed(endpoint) == [events[1].id]
    assert replayed(other) == []


def test_a_failed_test_is_nobodys_loss(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    event = publish(tenant, only_endpoint=endpoint.id.bytes)
    end(delivery_of(event), "failed")

    assert recover(tenant, endpoint)["total"] == 0
    assert replay(tenant, endpoint, "all")["total"] == 0


def test_a_kept_transformation_is_sent_as_it_was_and_a_failed_one_is_made_anew(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    subscription = endpoint.subscriptions.all()[0]
    update_subscription(
        actor=COMMAND, endpoint=endpoint, subscription=subscription, transformation='{"n": data.n}'
    )
    good, bad = publish(tenant, data=b'{"n":1}'), publish(tenant, data=b'{"m":2}')
    assert delivery_of(bad).preparation_error is not None
    for event in (good, bad):
        end(delivery_of(event), "failed")
    update_subscription(
        actor=COMMAND, endpoint=endpoint, subscription=subscription, transformation='{"fixed": true}'
    )

    recover(tenant, endpoint)

    bodies = [bytes(deliveries_of(event)[1].body or b"") for event in (good, bad)]
    assert bodies == [b'{"n":1}', b'{"fixed":true}']
    assert deliveries_of(bad)[1].preparation_error is None


def test_erased_payloads_are_left_out(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    event = publish(tenant)
    end(delivery_of(event), "failed")
    tenant_api(tenant).delete(f"/tenants/{tenant.slug}/events/{ids.to_text('evt', event.id)}/data")

    assert recover(tenant, endpoint)["total"] == 0
    assert replay(tenant, endpoint, "all")["total"] == 0


# --- replay -----------------------------------------------------------------------------------------------------------


def test_missing_is_what_matches_now_and_never_came(tenant: Tenant) -> None:
    before = [
        publish(tenant, data=b'{"a":1}', channels=["eu"]),
        publish(tenant, data=b'{"a":9}', channels=["eu"]),
    ]
    publish(tenant, "invoice.paid", data=b'{"a":9}', channels=["eu"])
    publish(tenant, data=b'{"a":9}', channels=["us"])
    endpoint = make_endpoint(tenant, event_types=["order.*"], channels=["eu"])
    had = publish(tenant, data=b'{"a":9}', channels=["eu"])
    assert len(deliveries_of(had)) == 1
    disable_endpoint(actor=COMMAND, endpoint=endpoint)
    missed = publish(tenant, data=b'{"a":9}', channels=["eu"])
    enable_endpoint(actor=COMMAND, endpoint=endpoint)
    update_subscription(
        actor=COMMAND, endpoint=endpoint, subscription=endpoint.subscriptions.all()[0], filter="data.a > 5"
    )

    done = replay(tenant, endpoint, "missing")

    assert (done["total"], done["done"]) == (2, 2)
    assert replayed(endpoint) == [before[1].id, missed.id]
    assert replay(tenant, endpoint, "missing")["total"] == 0


def test_all_is_everything_that_matches(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    first, invoice, last = publish(tenant), publish(tenant, "invoice.paid"), publish(tenant)
    publish(tenant, deliver_at=datetime.now(UTC) + timedelta(days=1))

    replay(tenant, endpoint, "all", event_types=["order.*"])
    assert replayed(endpoint) == [first.id, last.id]

    replay(tenant, endpoint, "all", until=last.created_at.isoformat())
    assert replayed(endpoint) == [first.id, last.id, first.id, invoice.id]


def test_failed_is_limited_by_types(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    order, invoice = publish(tenant), publish(tenant, "invoice.paid")
    for event in (order, invoice):
        end(delivery_of(event), "failed")

    replay(tenant, endpoint, "failed", event_types=["invoice.paid"])

    assert replayed(endpoint) == [invoice.id]


def test_batches_carry_on_where_the_last_one_ended(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resending, "BATCH", 3)
    monkeypatch.setattr(resending, "LOOK", 5)
    endpoint = make_endpoint(tenant, event_types=["order.*"])
    events = [publish(tenant, "invoice.paid" if number % 3 == 1 else "order.created") for number in range(14)]
    orders = [event.id for event in events if event.type == "order.created"]
    for event in events:
        for delivery in deliveries_of(event):
            end(delivery, "failed")

    replay(tenant, endpoint, "all")
    assert replayed(endpoint) == orders

    for each in Delivery.objects.for_tenant(tenant).filter(trigger="replay"):
        end(each, "failed")
    recover(tenant, endpoint)
    assert replayed(endpoint) == orders * 2


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_one_running_job_an_endpoint(tenant: Tenant) -> None:
    endpoint, other = make_endpoint(tenant), make_endpoint(tenant)
    api = tenant_api(tenant)
    running = body(api.post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}), 202)

    second = api.post(path(tenant, endpoint, "replay"), {"since": LONG_AGO, "only": "all"})

    assert code(second) == (409, "job_running")
    assert running["id"] in json.loads(second.content)["detail"]
    assert api.post(path(tenant, other, "recover"), {"since": LONG_AGO}).status_code == 202
    counted = api.post(path(tenant, endpoint, "replay"), {"since": LONG_AGO, "only": "all", "dry_run": True})
    assert body(counted) == {"total": 0}
    finish(tenant, running)
    assert api.post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}).status_code == 202


def test_two_that_start_at_once_are_one_job(tenant: Tenant) -> None:
    """Both have seen no running job; the unique index lets one of them in."""
    endpoint = make_endpoint(tenant)
    api = tenant_api(tenant)

    def start(_: int) -> int:
        return api.post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}).status_code

    answers = at_once(4, start)

    assert sorted(answers) == [202, 409, 409, 409]
    assert Job.objects.for_tenant(tenant).count() == 1


def test_a_cancelled_job_makes_nothing_more(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resending, "BATCH", 2)
    endpoint = make_endpoint(tenant)
    for _ in range(4):
        end(delivery_of(publish(tenant)), "failed")
    api = tenant_api(tenant)
    started = body(api.post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}), 202)
    assert one_batch(started) is Progress.AT_ONCE

    cancelled = body(api.post(f"/tenants/{tenant.slug}/jobs/{started['id']}/cancel"))

    assert (cancelled["status"], cancelled["total"], cancelled["done"]) == ("cancelled", 4, 2)
    assert finish(tenant, started) == cancelled
    assert len(replayed(endpoint)) == 2
    assert code(api.post(f"/tenants/{tenant.slug}/jobs/{started['id']}/cancel")) == (409, "job_ended")


def one_batch(started: dict[str, Any]) -> Progress:
    return job_work.work(job_id=ids.from_text("job", started["id"]), seconds=0.000_001)


def test_a_killed_worker_loses_nothing_and_repeats_nothing(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies after the deliveries were inserted and before the commit: both roll back together, and the
    next one begins at the place that the last commit wrote."""
    monkeypatch.setattr(resending, "BATCH", 2)
    endpoint = make_endpoint(tenant)
    events = [publish(tenant) for _ in range(6)]
    for event in events:
        end(delivery_of(event), "failed")
    started = body(tenant_api(tenant).post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}), 202)
    assert one_batch(started) is Progress.AT_ONCE

    class Killed(BaseException):
        pass

    def dies(*_: Any, **__: Any) -> Any:
        made = deliver_again(*_, **__)
        assert len(made) == 2
        raise Killed

    monkeypatch.setattr(job_work, "deliver_again", dies)
    with pytest.raises(Killed):
        one_batch(started)
    monkeypatch.setattr(job_work, "deliver_again", deliver_again)
    assert len(replayed(endpoint)) == 2

    assert finish(tenant, started)["done"] == 6
    assert replayed(endpoint) == [event.id for event in events]


def test_a_job_whose_worker_is_gone_is_found(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    started = body(tenant_api(tenant).post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}), 202)
    job_id = ids.from_text("job", started["id"])
    assert job_id not in job_work.stale_jobs()

    long_ago = datetime.now(UTC) - timedelta(seconds=60)
    Job.objects.for_tenant(tenant).filter(id=job_id).update(heartbeat_at=long_ago)

    assert job_id in job_work.stale_jobs()
    finish(tenant, started)
    assert job_id not in job_work.stale_jobs()


def test_the_task_works_a_slice_and_says_what_follows(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    end(delivery_of(publish(tenant)), "failed")
    started = body(tenant_api(tenant).post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}), 202)
    job_id = ids.from_text("job", started["id"])

    assert run_job(str(job_id)) == "ended"

    assert Job.objects.for_tenant(tenant).get(id=job_id).status == "done"
    assert len(replayed(endpoint)) == 1
    assert run_job(str(job_id)) == "ended"


def test_two_workers_of_one_job_do_not_meet(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep took a slow worker for dead. Whoever comes second finds the row locked and goes away."""
    monkeypatch.setattr(resending, "BATCH", 1)
    endpoint = make_endpoint(tenant)
    events = [publish(tenant) for _ in range(20)]
    for event in events:
        end(delivery_of(event), "failed")
    started = body(tenant_api(tenant).post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}), 202)
    job_id = ids.from_text("job", started["id"])

    def run(_: int) -> None:
        for _ in range(100):
            job_work.work(job_id=job_id)

    at_once(3, run)

    assert finish(tenant, started)["done"] == 20
    assert replayed(endpoint) == [event.id for event in events]


def test_a_job_waits_for_an_endpoint_that_is_behind(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resending, "BATCH", 2)
    monkeypatch.setattr(job_work, "MOST_PENDING", 3)
    endpoint = make_endpoint(tenant)
    for _ in range(6):
        end(delivery_of(publish(tenant)), "failed")
    started = body(tenant_api(tenant).post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}), 202)
    job_id = ids.from_text("job", started["id"])

    assert job_work.work(job_id=job_id) is Progress.LATER
    assert len(replayed(endpoint)) == 4
    for delivery in Delivery.objects.for_tenant(tenant).filter(status="pending"):
        end(delivery, "succeeded")

    assert job_work.work(job_id=job_id) is Progress.ENDED
    assert len(replayed(endpoint)) == 6


def test_a_line_in_order_counts_as_behind(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resending, "BATCH", 2)
    monkeypatch.setattr(job_work, "MOST_PENDING", 3)
    endpoint = make_endpoint(tenant, ordering="fifo")
    for _ in range(6):
        end(delivery_of(publish(tenant)), "failed")
    started = body(tenant_api(tenant).post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}), 202)

    assert job_work.work(job_id=ids.from_text("job", started["id"])) is Progress.LATER
    assert len(replayed(endpoint)) == 4


@pytest.mark.parametrize(
    ("stop", "error"), [(disable_endpoint, "endpoint_disabled"), (delete_endpoint, "endpoint_deleted")]
)
def test_a_stopped_endpoint_ends_its_job(tenant: Tenant, stop: Any, error: str) -> None:
    endpoint = make_endpoint(tenant)
    end(delivery_of(publish(tenant)), "failed")
    started = body(tenant_api(tenant).post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}), 202)
    stop(actor=COMMAND, endpoint=endpoint)

    ended = finish(tenant, started)

    assert (ended["status"], ended["error"], ended["done"]) == ("failed", error, 0)


def test_a_disabled_endpoint_gets_no_job(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    disable_endpoint(actor=COMMAND, endpoint=endpoint)
    api = tenant_api(tenant)

    for verb, request in (
        ("recover", {"since": LONG_AGO}),
        ("replay", {"since": LONG_AGO, "only": "all"}),
        ("replay", {"since": LONG_AGO, "only": "all", "dry_run": True}),
    ):
        assert code(api.post(path(tenant, endpoint, verb), request)) == (409, "endpoint_disabled")
    assert Job.objects.for_tenant(tenant).count() == 0


def test_what_takes_long_to_count_is_counted_by_the_worker(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "COUNT_SECONDS", -1.0)
    monkeypatch.setattr(jobs, "DRY_RUN_SECONDS", -1.0)
    endpoint = make_endpoint(tenant)
    end(delivery_of(publish(tenant)), "failed")
    api = tenant_api(tenant)

    refused = api.post(
        path(tenant, endpoint, "replay"), {"since": LONG_AGO, "only": "failed", "dry_run": True}
    )
    started = body(api.post(path(tenant, endpoint, "recover"), {"since": LONG_AGO}), 202)

    assert error_codes(refused) == [("since", "window_too_large")]
    assert started["total"] is None
    assert finish(tenant, started)["total"] == 1


@pytest.mark.parametrize(
    ("verb", "request_", "errors"),
    [
        ("recover", {}, [("since", "required")]),
        ("recover", {"since": "2999-01-01T00:00:00Z"}, [("since", "invalid")]),
        ("recover", {"since": LONG_AGO, "until": "2025-01-01T00:00:00Z"}, [("until", "invalid")]),
        ("recover", {"since": LONG_AGO, "only": "all"}, [("only", "unknown_field")]),
        ("replay", {"since": LONG_AGO}, [("only", "required")]),
        ("replay", {"since": LONG_AGO, "only": "some"}, [("only", "invalid_choice")]),
        (
            "replay",
            {"since": LONG_AGO, "only": "all", "event_types": ["*.created"], "dry_run": "yes"},
            [("event_types.0", "invalid_pattern"), ("dry_run", "invalid_type")],
        ),
    ],
)
def test_wrong_requests_are_named(
    tenant: Tenant, verb: str, request_: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    endpoint = make_endpoint(tenant)

    response = tenant_api(tenant).post(path(tenant, endpoint, verb), request_)

    assert response.status_code == 422
    assert sorted(field for field, _ in error_codes(response)) == sorted(field for field, _ in errors)
    assert Job.objects.for_tenant(tenant).count() == 0


def test_jobs_are_listed_newest_first(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    started = [
        body(api.post(path(tenant, make_endpoint(tenant), "recover"), {"since": LONG_AGO}), 202)["id"]
        for _ in range(3)
    ]

    found = body(api.get(f"/tenants/{tenant.slug}/jobs"))

    assert [one["id"] for one in found["data"]] == started[::-1]


def test_another_tenants_job_is_not_there(tenant: Tenant) -> None:
    started = body(
        tenant_api(tenant).post(path(tenant, make_endpoint(tenant), "recover"), {"since": LONG_AGO}), 202
    )
    other = make_tenant()
    api: Api = tenant_api(other)

    assert code(api.get(f"/tenants/{other.slug}/jobs/{started['id']}")) == (404, "not_found")
    assert code(api.post(f"/tenants/{other.slug}/jobs/{started['id']}/cancel")) == (404, "not_found")


def test_a_change_of_the_endpoint_holds_for_the_rest_of_the_job(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resending, "LOOK", 2)
    endpoint = make_endpoint(tenant)
    events: list[Event] = [publish(tenant) for _ in range(4)]
    started = body(
        tenant_api(tenant).post(path(tenant, endpoint, "replay"), {"since": LONG_AGO, "only": "all"}), 202
    )
    assert one_batch(started) is Progress.AT_ONCE

    update_endpoint(actor=COMMAND, endpoint=endpoint, event_types=["invoice.*"])

    done = finish(tenant, started)
    assert (done["status"], done["total"], done["done"]) == ("done", 2, 2)
    assert replayed(endpoint) == [event.id for event in events[:2]]
