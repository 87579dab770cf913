"""Endpoints of kind poll over the API: nothing is sent, everything is read once or more, and acknowledged by cursor."""

import json
from typing import Any

import pytest
from django.db import connection, connections
from django.utils import timezone
from standardwebhooks import Webhook

from deliveries.models import Delivery, Endpoint
from deliveries.pipeline import polling
from deliveries.services import stopping
from tenants.models import EventType, Tenant
from tenants.services.audit import COMMAND
from tenants.services.tenants import update_tenant
from tests.support.api import Api, error_codes, make_tenant, tenant_api
from tests.support.builders import deliveries_of, lane_of, publish
from tests.support.running import run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")


def body(response: Any, status: int = 200) -> Any:
    assert response.status_code == status, response.content
    return json.loads(response.content)


def make(**fields: Any) -> tuple[Tenant, Api, str]:
    """A tenant with the type `order.created`, its key, and the path of an endpoint of kind poll."""
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="order.created")
    api = tenant_api(tenant)
    made = body(api.post(f"/tenants/{tenant.slug}/endpoints", {"kind": "poll", "url": None} | fields), 201)
    assert (made["kind"], made["url"]) == ("poll", None)
    return tenant, api, f"/tenants/{tenant.slug}/endpoints/{made['id']}"


def numbers(reply: Any) -> list[int]:
    return [json.loads(item["body"])["data"]["n"] for item in reply["data"]]


def statuses(tenant: Tenant) -> list[str]:
    return [each.status for each in deliveries_of(tenant)]


def test_what_is_published_is_read_in_order_and_signed_as_it_would_be_sent() -> None:
    tenant, api, path = make()
    for n in range(3):
        publish(tenant, b'{"n": %d}' % n)
    secret = body(api.get(f"{path}/secret"))["secret"]

    reply = body(api.get(f"{path}/poll"))

    assert numbers(reply) == [0, 1, 2]
    assert [item["event_type"] for item in reply["data"]] == ["order.created"] * 3
    for item in reply["data"]:
        verified = Webhook(secret).verify(item["body"], item["headers"])
        assert verified["type"] == "order.created"
        assert item["headers"]["webhook-id"] == item["event"]
        assert item["headers"]["content-type"] == "application/json"
    assert reply["cursor"] == reply["data"][-1]["cursor"]


def test_it_is_read_again_until_it_is_acknowledged() -> None:
    tenant, api, path = make()
    for n in range(3):
        publish(tenant, b'{"n": %d}' % n)

    first = body(api.get(f"{path}/poll", limit=2))
    again = body(api.get(f"{path}/poll", limit=2))
    assert numbers(first) == numbers(again) == [0, 1]
    assert statuses(tenant) == ["pending"] * 3

    rest = body(api.get(f"{path}/poll", after=first["data"][0]["cursor"]))
    assert numbers(rest) == [1, 2]
    assert statuses(tenant) == ["succeeded", "pending", "pending"]
    # Without `after` it goes on where the consumer was.
    assert numbers(body(api.get(f"{path}/poll"))) == [1, 2]
    assert numbers(body(api.get(f"{path}/poll", after=rest["cursor"]))) == []
    assert statuses(tenant) == ["succeeded"] * 3
    # An earlier cursor reads again, and ends nothing anew.
    assert numbers(body(api.get(f"{path}/poll", after=first["data"][0]["cursor"]))) == [1, 2]
    assert numbers(body(api.get(f"{path}/poll"))) == []


def test_each_consumer_has_a_place_of_its_own() -> None:
    tenant, api, path = make()
    for n in range(2):
        publish(tenant, b'{"n": %d}' % n)

    mail = body(api.get(f"{path}/poll", consumer="mail"))
    body(api.get(f"{path}/poll", consumer="mail", after=mail["cursor"]))

    assert numbers(body(api.get(f"{path}/poll", consumer="audit"))) == [0, 1]
    assert numbers(body(api.get(f"{path}/poll", consumer="mail"))) == []
    publish(tenant, b'{"n": 2}')
    assert numbers(body(api.get(f"{path}/poll", consumer="mail"))) == [2]
    assert numbers(body(api.get(f"{path}/poll", consumer="audit"))) == [0, 1, 2]


def test_no_dispatcher_touches_it() -> None:
    tenant, api, path = make()
    publish(tenant, b'{"n": 0}')

    run_until_dry()

    endpoint: Endpoint = Endpoint.objects.for_tenant(tenant).get()
    assert lane_of(endpoint).is_paused
    assert statuses(tenant) == ["pending"]
    assert deliveries_of(tenant)[0].attempt_count == 0
    assert numbers(body(api.get(f"{path}/poll"))) == [0]


def test_disabling_ends_what_waits_and_enabling_starts_afresh() -> None:
    tenant, api, path = make()
    publish(tenant, b'{"n": 0}')

    body(api.post(f"{path}/disable"))
    refused = api.get(f"{path}/poll")
    run_until_dry()

    assert body(refused, 409)["code"] == "endpoint_disabled"
    assert [(each.status, each.cancel_reason) for each in deliveries_of(tenant)] == [
        ("cancelled", "endpoint_disabled")
    ]
    body(api.post(f"{path}/enable"))
    publish(tenant, b'{"n": 1}')
    run_until_dry()
    assert numbers(body(api.get(f"{path}/poll"))) == [1]


def test_deleting_ends_what_waits() -> None:
    tenant, api, path = make()
    publish(tenant, b'{"n": 0}')

    assert api.delete(path).status_code == 204
    run_until_dry()

    assert statuses(tenant) == ["cancelled"]
    assert api.get(f"{path}/poll").status_code == 404


def test_suspension_holds_it_and_resuming_does_not_send_it() -> None:
    tenant, api, path = make()
    publish(tenant, b'{"n": 0}')

    update_tenant(actor=COMMAND, tenant=tenant, status="suspended")
    assert numbers(body(api.get(f"{path}/poll"))) == []
    update_tenant(actor=COMMAND, tenant=tenant, status="active")
    run_until_dry()

    assert statuses(tenant) == ["pending"]
    assert numbers(body(api.get(f"{path}/poll"))) == [0]


def test_an_operators_pause_holds_it() -> None:
    tenant, api, path = make()
    publish(tenant, b'{"n": 0}')
    endpoint: Endpoint = Endpoint.objects.for_tenant(tenant).get()

    stopping.pause_endpoint(actor=COMMAND, endpoint=endpoint)
    assert numbers(body(api.get(f"{path}/poll"))) == []
    stopping.continue_endpoint(actor=COMMAND, endpoint=endpoint)
    run_until_dry()

    assert numbers(body(api.get(f"{path}/poll"))) == [0]


def test_a_retry_comes_again_and_an_erased_payload_never() -> None:
    tenant, api, path = make()
    for n in range(2):
        publish(tenant, b'{"n": %d}' % n)
    first = body(api.get(f"{path}/poll"))
    body(api.get(f"{path}/poll", after=first["cursor"]))

    body(api.post(f"/tenants/{tenant.slug}/deliveries/{first['data'][0]['delivery']}/retry"), 202)
    assert numbers(body(api.get(f"{path}/poll"))) == [0]

    assert api.delete(f"/tenants/{tenant.slug}/events/{first['data'][0]['event']}/data").status_code == 204
    assert numbers(body(api.get(f"{path}/poll"))) == []


def test_what_is_scheduled_waits_for_its_time() -> None:
    from datetime import timedelta

    tenant, api, path = make()
    publish(tenant, b'{"n": 0}', deliver_at=timezone.now() + timedelta(hours=1))
    publish(tenant, b'{"n": 1}')

    assert numbers(body(api.get(f"{path}/poll"))) == [1]
    Delivery.objects.for_tenant(tenant).filter(next_attempt_at__isnull=False).update(
        next_attempt_at=timezone.now()
    )
    assert numbers(body(api.get(f"{path}/poll"))) == [1, 0]


def test_a_commit_that_comes_late_is_not_passed_over() -> None:
    """Ids are minted before their transaction commits. One publisher mints, another publishes and is read, then the
    first one commits: a cursor over ids would have passed it."""
    tenant, api, path = make()
    publish(tenant, b'{"n": 0}')
    publish(tenant, b'{"n": 1}')
    early, late = deliveries_of(tenant)
    other = connections.create_connection("default")
    try:
        # As if the first were not committed yet: nobody can take it.
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("UPDATE deliveries_delivery SET next_attempt_at = NULL WHERE id = %s", [early.id])
            other.commit()
            first = body(api.get(f"{path}/poll"))
            assert [item["delivery"] for item in first["data"]] != []
            cursor.execute("UPDATE deliveries_delivery SET next_attempt_at = now() WHERE id = %s", [early.id])
            other.commit()
    finally:
        other.close()

    rest = body(api.get(f"{path}/poll", after=first["cursor"]))

    assert (numbers(first), numbers(rest)) == ([1], [0])
    assert early.id < late.id


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ({"after": "x"}, [("after", "invalid_cursor")]),
        ({"after": "999999999999"}, [("after", "invalid_cursor")]),
        ({"limit": "0"}, [("limit", "too_small")]),
        ({"consumer": "a b"}, [("consumer", "invalid")]),
        ({"other": "1"}, [("other", "unknown_parameter")]),
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    query: dict[str, str], wrong: list[tuple[str, str]]
) -> None:
    _, api, path = make()

    refused = api.get(f"{path}/poll", **query)

    assert refused.status_code == 422
    assert error_codes(refused) == wrong


def test_an_endpoint_that_is_called_is_not_polled() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    made = body(api.post(f"/tenants/{tenant.slug}/endpoints", {"url": "https://shop.example.com"}), 201)

    assert made["kind"] == "http"
    refused = api.get(f"/tenants/{tenant.slug}/endpoints/{made['id']}/poll")
    assert body(refused, 409)["code"] == "not_polled"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, [("url", "required")]),
        ({"url": None}, [("url", "null")]),
        ({"kind": "poll", "url": "https://a.example.com"}, [("url", "does_not_fit")]),
        ({"kind": "poll", "ordering": "fifo"}, [("ordering", "does_not_fit")]),
        ({"kind": "poll", "method": "GET"}, [("method", "does_not_fit")]),
        ({"kind": "push", "url": "https://a.example.com"}, [("kind", "invalid_choice")]),
    ],
)
def test_kind_and_url_go_together(fields: dict[str, Any], wrong: list[tuple[str, str]]) -> None:
    tenant = make_tenant()

    refused = tenant_api(tenant).post(f"/tenants/{tenant.slug}/endpoints", fields)

    assert refused.status_code == 422, refused.content
    assert error_codes(refused) == wrong


def test_put_by_uid_makes_it_once_and_its_kind_stays() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/endpoints/laptop"

    made = body(api.put(path, {"kind": "poll", "url": None}), 201)
    again = body(api.put(path, {"kind": "poll", "url": None, "description": "d"}), 200)
    refused = api.put(path, {"kind": "http", "url": "https://a.example.com"})

    assert (again["id"], again["description"]) == (made["id"], "d")
    assert error_codes(refused) == [("kind", "not_changeable")]


def test_items_are_forgotten_after_their_days() -> None:
    tenant, api, path = make()
    publish(tenant, b'{"n": 0}')
    body(api.get(f"{path}/poll"))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE deliveries_pollitem SET created_at = now() - interval '31 days'")

    polling.forget(days=30)

    assert numbers(body(api.get(f"{path}/poll"))) == []


def test_what_could_not_be_transformed_fails_and_is_not_acknowledged_with_the_others() -> None:
    tenant, api, path = make()
    for n in range(3):
        publish(tenant, b'{"n": %d}' % n)
    broken = deliveries_of(tenant)[1]
    Delivery.unscoped.filter(id=broken.id).update(preparation_error="no such key")

    reply = body(api.get(f"{path}/poll"))
    assert numbers(reply) == [0, 2]
    body(api.get(f"{path}/poll", after=reply["cursor"]))

    assert statuses(tenant) == ["succeeded", "failed", "succeeded"]
    broken.refresh_from_db()
    assert (broken.last_outcome, broken.completed_at is None) == ("transformation_failed", False)
