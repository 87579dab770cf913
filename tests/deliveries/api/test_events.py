"""Events over the API: found, shown byte for byte, sent again, erased."""

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections, transaction

from deliveries.models import Attempt, Delivery, Event
from deliveries.services import erasing
from deliveries.services.endpoint_deletion import delete_endpoint
from deliveries.services.stopping import disable_endpoint
from tenants import ids
from tenants.models import IdempotencyRecord, Tenant
from tenants.services.audit import COMMAND
from tests.support.api import Api, error_codes, make_tenant, tenant_api
from tests.support.published import (
    add_attempt,
    deliveries_of,
    delivery_of,
    end,
    make_endpoint,
    make_type,
    publish,
)

pytestmark = pytest.mark.usefixtures("database")


def body(response: Any, status: int = 200) -> Any:
    assert response.status_code == status, response.content
    return json.loads(response.content)


def code(response: Any) -> tuple[int, str]:
    return response.status_code, json.loads(response.content)["code"]


def event_id(event: Event) -> str:
    return ids.to_text("evt", event.id)


def path(tenant: Tenant, event: Event, rest: str = "") -> str:
    return f"/tenants/{tenant.slug}/events/{event_id(event)}{rest}"


def listed(api: Api, tenant: Tenant, **query: Any) -> list[str]:
    return [one["id"] for one in body(api.get(f"/tenants/{tenant.slug}/events", **query))["data"]]


# --- finding ----------------------------------------------------------------------------------------------------------


def test_published_over_the_same_path_that_lists() -> None:
    tenant = make_tenant()
    make_type(tenant)
    api = tenant_api(tenant)

    accepted = body(
        api.post(f"/tenants/{tenant.slug}/events", {"type": "order.created", "data": {"a": 1}}), 202
    )

    assert listed(api, tenant) == [accepted["id"]]


def test_the_list_is_newest_first_and_has_no_data() -> None:
    tenant = make_tenant()
    make_type(tenant)
    first = publish(tenant, channels=["eu"], ordering_key="k")
    second = publish(tenant)

    found = body(tenant_api(tenant).get(f"/tenants/{tenant.slug}/events"))

    assert [one["id"] for one in found["data"]] == [event_id(second), event_id(first)]
    created_at = first.created_at.isoformat().replace("+00:00", "Z")
    assert found["data"][1] == {
        "id": event_id(first),
        "type": "order.created",
        "occurred_at": created_at,
        "created_at": created_at,
        "channels": ["eu"],
        "deliveries": 0,
        "ordering_key": "k",
        "deliver_at": None,
        "schema_warnings": None,
        "data_erased_at": None,
    }


def test_filters() -> None:
    tenant = make_tenant()
    make_type(tenant)
    make_type(tenant, "invoice.paid")
    api = tenant_api(tenant)
    order = publish(tenant, channels=["eu", "vip"])
    invoice = publish(tenant, "invoice.paid", channels=["us"])
    last = publish(tenant)
    between = invoice.created_at.isoformat()

    assert listed(api, tenant, type="invoice.paid") == [event_id(invoice)]
    assert listed(api, tenant, type="no.such") == []
    assert listed(api, tenant, channel="vip") == [event_id(order)]
    assert listed(api, tenant, since=between) == [event_id(last), event_id(invoice)]
    assert listed(api, tenant, until=between) == [event_id(order)]
    assert listed(api, tenant, since=between, until=between) == []


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ({"type": "order created"}, ["type"]),
        ({"channel": ""}, ["channel"]),
        ({"colour": "red", "limit": "0"}, ["colour", "limit"]),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, ["until"]),
    ],
)
def test_wrong_parameters_are_named(query: dict[str, str], fields: list[str]) -> None:
    tenant = make_tenant()

    response = tenant_api(tenant).get(f"/tenants/{tenant.slug}/events", **query)

    assert response.status_code == 422
    assert [field for field, _ in error_codes(response)] == fields


def test_pages_neither_skip_nor_repeat_while_events_arrive() -> None:
    tenant = make_tenant()
    make_type(tenant)
    api = tenant_api(tenant)
    published = [event_id(publish(tenant)) for _ in range(5)]

    first = body(api.get(f"/tenants/{tenant.slug}/events", limit=2))
    publish(tenant)
    second = body(api.get(f"/tenants/{tenant.slug}/events", limit=2, cursor=first["next_cursor"]))
    back = body(api.get(f"/tenants/{tenant.slug}/events", limit=2, cursor=second["prev_cursor"]))

    assert [one["id"] for one in first["data"] + second["data"]] == published[:0:-1]
    assert back["data"] == first["data"]


def test_data_comes_back_byte_for_byte() -> None:
    tenant = make_tenant()
    make_type(tenant)
    data = b'{"b": 1.0,  "a":[1e2,"\\u00e9 \xc3\xa9"], "b2":12345678901234567890123}'
    event = publish(tenant, data=data)

    response = tenant_api(tenant).get(path(tenant, event))

    assert response.status_code == 200
    assert b'"data":' + data + b"}" in response.content


def test_a_warning_stays_with_the_event() -> None:
    tenant = make_tenant(schema_validation="warn")
    make_type(tenant, schema={"type": "object", "required": ["id"]})
    event = publish(tenant)

    shown = body(tenant_api(tenant).get(path(tenant, event)))

    assert [warning["field"] for warning in shown["schema_warnings"]] == ["data"]


def test_what_is_of_another_tenant_or_no_id_is_not_there() -> None:
    tenant, other = make_tenant(), make_tenant()
    make_type(tenant)
    event = publish(tenant)
    api = tenant_api(other)

    assert code(api.get(path(other, event))) == (404, "not_found")
    assert code(api.get(f"/tenants/{other.slug}/events/evt_1")) == (404, "not_found")
    assert code(api.delete(path(other, event, "/data"))) == (404, "not_found")
    event.refresh_from_db()
    assert event.data is not None


def test_deliveries_of_an_event() -> None:
    tenant = make_tenant()
    make_type(tenant)
    make_endpoint(tenant)
    make_endpoint(tenant)
    event = publish(tenant)
    publish(tenant)

    found = body(tenant_api(tenant).get(path(tenant, event, "/deliveries")))

    assert [one["id"] for one in found["data"]] == [
        ids.to_text("dlv", delivery.id) for delivery in reversed(deliveries_of(event))
    ]
    assert {one["event"] for one in found["data"]} == {event_id(event)}


# --- replay -----------------------------------------------------------------------------------------------------------


def test_replay_goes_to_what_matches_now() -> None:
    tenant = make_tenant()
    make_type(tenant)
    gone = make_endpoint(tenant)
    event = publish(tenant, data=b'{"amount":7}')
    delete_endpoint(actor=COMMAND, endpoint=gone)
    wanted = make_endpoint(tenant, event_types=["order.*"])
    make_endpoint(tenant, event_types=["invoice.*"])

    made = body(tenant_api(tenant).post(path(tenant, event, "/replay"), {}), 202)["data"]

    assert [(one["endpoint"], one["trigger"], one["status"]) for one in made] == [
        (ids.to_text("ep", wanted.id), "replay", "pending")
    ]
    assert [one["event"] for one in made] == [event_id(event)]
    assert len(deliveries_of(event)) == 2


def test_a_channel_called_null_is_a_channel() -> None:
    tenant = make_tenant()
    make_type(tenant)
    api = tenant_api(tenant)
    wanted = make_endpoint(tenant, channels=["null"])
    sent = {"type": "order.created", "data": {}, "channels": ["null", "NULL"]}

    accepted = body(api.post(f"/tenants/{tenant.slug}/events", sent), 202)

    shown = body(api.get(f"/tenants/{tenant.slug}/events/{accepted['id']}"))
    assert accepted["channels"] == shown["channels"] == ["null", "NULL"]
    assert listed(api, tenant, channel="null") == [accepted["id"]]
    replayed = body(api.post(f"/tenants/{tenant.slug}/events/{accepted['id']}/replay", {}), 202)
    assert [one["endpoint"] for one in replayed["data"]] == [ids.to_text("ep", wanted.id)]


def test_replay_to_one_endpoint_whether_it_matches_or_not() -> None:
    tenant = make_tenant()
    make_type(tenant)
    endpoint = make_endpoint(tenant, event_types=["invoice.*"], uid="shop")
    event = publish(tenant)
    api = tenant_api(tenant)

    for reference in (ids.to_text("ep", endpoint.id), "shop"):
        made = body(api.post(path(tenant, event, "/replay"), {"endpoint": reference}), 202)["data"]
        assert [one["endpoint"] for one in made] == [ids.to_text("ep", endpoint.id)]


def test_replay_with_an_idempotency_key_happens_once() -> None:
    tenant = make_tenant()
    make_type(tenant)
    make_endpoint(tenant)
    event = publish(tenant)
    api = tenant_api(tenant)

    first = api.post(path(tenant, event, "/replay"), {}, idempotency_key="k")
    again = api.post(path(tenant, event, "/replay"), {}, idempotency_key="k")

    assert again.content == first.content
    assert again["Idempotent-Replayed"] == "true"
    assert len(deliveries_of(event)) == 2


def test_replay_is_refused_where_nothing_can_be_sent() -> None:
    tenant = make_tenant()
    make_type(tenant)
    endpoint = make_endpoint(tenant)
    event = publish(tenant)
    disable_endpoint(actor=COMMAND, endpoint=endpoint)
    api = tenant_api(tenant)

    named = api.post(path(tenant, event, "/replay"), {"endpoint": ids.to_text("ep", endpoint.id)})
    unknown = api.post(path(tenant, event, "/replay"), {"endpoint": "nobody"})
    to_all = api.post(path(tenant, event, "/replay"), {})

    assert code(named) == (409, "endpoint_disabled")
    assert error_codes(unknown) == [("endpoint", "unknown_endpoint")]
    assert body(to_all, 202) == {"data": []}
    assert len(deliveries_of(event)) == 1


# --- erasing ----------------------------------------------------------------------------------------------------------


def test_erasing_reaches_every_copy_and_echo() -> None:
    tenant = make_tenant()
    make_type(tenant)
    make_endpoint(tenant)
    api = tenant_api(tenant)
    published = body(
        api.post(
            f"/tenants/{tenant.slug}/events",
            {"type": "order.created", "data": {"name": "Jo"}, "channels": ["Jo"]},
            idempotency_key="order-1",
        ),
        202,
    )
    event = Event.objects.for_tenant(tenant).get(id=ids.from_text("evt", published["id"]))
    delivery = delivery_of(event)
    Delivery.objects.for_tenant(tenant).filter(id=delivery.id).update(body=b'{"who":"Jo"}')
    add_attempt(delivery, response_body=b"hello Jo", response_headers=b"x-name: Jo")

    response = api.delete(path(tenant, event, "/data"))

    assert (response.status_code, response.content) == (204, b"")
    shown = body(api.get(path(tenant, event)))
    assert shown["data"] is None
    assert shown["data_erased_at"] is not None
    delivery = delivery_of(event)
    assert (delivery.status, delivery.cancel_reason, delivery.body) == ("cancelled", "payload_erased", None)
    (attempt,) = Attempt.objects.for_tenant(tenant).filter(delivery_id=delivery.id)
    assert (
        bytes(attempt.request_headers),
        bytes(attempt.response_headers),
        bytes(attempt.response_body),
    ) == (
        b"",
        b"",
        b"",
    )
    assert attempt.status_code == 500
    record = IdempotencyRecord.objects.get(space=tenant.id, key="order-1")
    assert json.loads(bytes(record.body)) == published | {"channels": None}


def test_erasing_reaches_the_replies_of_whole_batches() -> None:
    tenant = make_tenant()
    make_type(tenant)
    api = tenant_api(tenant)
    batches = f"/tenants/{tenant.slug}/events/batch"
    jo = {"type": "order.created", "data": {}, "channels": ["Jo"], "idempotency_key": "jo"}
    al = {"type": "order.created", "data": {}, "channels": ["Al"]}
    first = body(api.post(batches, {"events": [{}, jo, al]}, idempotency_key="k1"), 202)["data"]
    # A later one, with the event that was accepted then.
    body(api.post(batches, {"events": [jo]}, idempotency_key="k2"), 202)
    event = Event.objects.for_tenant(tenant).get(id=ids.from_text("evt", first[1]["id"]))

    api.delete(path(tenant, event, "/data"))

    again = api.post(batches, {"events": [{}, jo, al]}, idempotency_key="k1")
    assert again["Idempotent-Replayed"] == "true"
    assert body(again, 202) == {
        "data": [first[0], first[1] | {"channels": None}, first[2]],
        "accepted": 2,
        "rejected": 1,
    }
    later = api.post(batches, {"events": [jo]}, idempotency_key="k2")
    assert body(later, 202)["data"] == [first[1] | {"channels": None}]
    assert Event.objects.for_tenant(tenant).count() == 2


def test_a_batch_that_was_under_way_is_reached_when_its_reply_is_kept() -> None:
    tenant = make_tenant()
    make_type(tenant)
    event = publish(tenant, channels=["Jo"])
    api = tenant_api(tenant)
    api.delete(path(tenant, event, "/data"))
    reply = {"data": [{"id": event_id(event), "channels": ["Jo"]}], "accepted": 1, "rejected": 0}
    record = IdempotencyRecord.objects.create(
        space=tenant.id,
        key="k",
        fingerprint=b"f" * 32,
        status_code=202,
        body=json.dumps(reply).encode(),
        event_ids=[event.id],
    )

    erasing.erase_echoes()

    record.refresh_from_db()
    assert json.loads(bytes(record.body))["data"] == [{"id": event_id(event), "channels": None}]


def test_erased_is_erased_for_good() -> None:
    tenant = make_tenant()
    make_type(tenant)
    make_endpoint(tenant)
    event = publish(tenant)
    api = tenant_api(tenant)
    api.delete(path(tenant, event, "/data"))
    erased_at = body(api.get(path(tenant, event)))["data_erased_at"]

    again = api.delete(path(tenant, event, "/data"))
    replay = api.post(path(tenant, event, "/replay"), {})
    delivery = ids.to_text("dlv", delivery_of(event).id)
    retry = api.post(f"/tenants/{tenant.slug}/deliveries/{delivery}/retry")

    assert again.status_code == 204
    assert body(api.get(path(tenant, event)))["data_erased_at"] == erased_at
    assert code(replay) == (409, "payload_erased")
    assert code(retry) == (409, "payload_erased")
    assert len(deliveries_of(event)) == 1


def test_what_was_in_the_air_is_erased_when_it_has_landed() -> None:
    tenant = make_tenant()
    make_type(tenant)
    make_endpoint(tenant)
    event = publish(tenant)
    tenant_api(tenant).delete(path(tenant, event, "/data"))
    attempt = add_attempt(delivery_of(event), response_body=b"hello Jo")

    assert erasing.erase_echoes() >= 1

    attempt.refresh_from_db()
    assert bytes(attempt.response_body) == b""


def test_a_retry_that_meets_an_erasure_comes_after_it() -> None:
    """The retry looks for the payload while the erasure has not committed. It waits for the event's row, and then
    there is nothing to send; without the lock it would have asked for an attempt of nothing."""
    tenant = make_tenant()
    make_type(tenant)
    make_endpoint(tenant)
    event = publish(tenant)
    api = tenant_api(tenant)
    delivery = ids.to_text("dlv", delivery_of(event).id)
    answers: list[Any] = []

    def retry() -> None:
        answers.append(api.post(f"/tenants/{tenant.slug}/deliveries/{delivery}/retry"))
        connections.close_all()

    thread = threading.Thread(target=retry)
    with transaction.atomic():
        erasing.erase_data(actor=COMMAND, tenant=tenant, event=event)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join()

    assert code(answers[0]) == (409, "payload_erased")
    assert delivery_of(event).manual_requested_at is None


def test_ended_deliveries_keep_their_end() -> None:
    tenant = make_tenant()
    make_type(tenant)
    make_endpoint(tenant)
    event = publish(tenant)
    end(delivery_of(event), "succeeded", last_outcome="succeeded", last_status_code=200)

    tenant_api(tenant).delete(path(tenant, event, "/data"))

    assert delivery_of(event).status == "succeeded"


def test_a_scheduled_event_shows_its_time() -> None:
    tenant = make_tenant()
    make_type(tenant)
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    event = publish(tenant, deliver_at=at)

    shown = body(tenant_api(tenant).get(path(tenant, event)))

    assert shown["deliver_at"] == at.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
