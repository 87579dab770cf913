"""Publishing over HTTP: what a publisher gets for an event and for a batch, to the letter."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.http import HttpResponse
from django.utils import timezone

from deliveries.models import Event
from tenants import ids
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tenants.services.tenants import update_tenant
from tests.support.api import Api, make_tenant, tenant_api
from tests.support.published import make_endpoint, make_type

pytestmark = pytest.mark.usefixtures("database")

ORDER = {"type": "order.created", "data": {"order": 7}}

SCHEMA = {
    "type": "object",
    "properties": {"amount": {"type": "integer"}, "to": {"properties": {"zip": {"type": "string"}}}},
}


@pytest.fixture
def tenant() -> Tenant:
    tenant = make_tenant()
    make_type(tenant)
    return tenant


def path_of(tenant: Tenant, rest: str = "") -> str:
    return f"/tenants/{tenant.slug}/events{rest}"


def events_of(tenant: Tenant) -> list[Event]:
    return list(Event.objects.for_tenant(tenant).order_by("sequence"))


def told(event: Event, **more: Any) -> dict[str, Any]:
    """The reply of a publish, from what is kept of it."""
    return {
        "id": ids.to_text(ids.EVENT, event.id),
        "type": "order.created",
        "occurred_at": event.occurred_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "created_at": event.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "channels": None,
        "deliveries": 0,
    } | more


def problem(status: int, code: str, title: str, detail: str, *errors: tuple[str, str, str]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "type": f"/errors/{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": "the-request",
    }
    if errors:
        document["errors"] = [
            {"field": field, "code": code, "message": message} for field, code, message in errors
        ]
    return document


def assert_refused(response: HttpResponse, document: dict[str, Any]) -> None:
    assert (response.status_code, response["Content-Type"]) == (
        document["status"],
        "application/problem+json",
    )
    assert json.loads(response.content) == document


# --- accepted ---------------------------------------------------------------------------------------------------------


def test_an_event_is_accepted_and_its_data_are_kept_byte_for_byte(tenant: Tenant) -> None:
    make_endpoint(tenant)
    make_endpoint(tenant, channels=["red"])
    make_endpoint(tenant, channels=["green"])
    data = b'{"b": 1.10,\n "a": "\\u00e9"}'
    body = (
        b'{"type":"order.created","occurred_at":"2026-03-01T13:30:00.25+01:00","channels":["red"],"data":%b}'
    )

    response = tenant_api(tenant).post(path_of(tenant), body % data)

    (event,) = events_of(tenant)
    assert (response.status_code, response["Content-Type"]) == (202, "application/json")
    assert json.loads(response.content) == told(
        event, occurred_at="2026-03-01T12:30:00.250000Z", channels=["red"], deliveries=2
    )
    assert bytes(event.data or b"") == data
    assert event.occurred_at == datetime(2026, 3, 1, 12, 30, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
)
def test_json_by_any_of_its_names(tenant: Tenant, content_type: str) -> None:
    response = tenant_api(tenant).send("POST", path_of(tenant), ORDER, content_type=content_type)

    (event,) = events_of(tenant)
    assert json.loads(response.content) == told(event)


def test_four_webhooks_on_the_way_are_not_yet_a_circle(tenant: Tenant) -> None:
    response = tenant_api(tenant).send("POST", path_of(tenant), ORDER, headers={"webhook-hops": "4"})

    (event,) = events_of(tenant)
    assert json.loads(response.content) == told(event)
    assert event.hops == 4


# --- refused ----------------------------------------------------------------------------------------------------------


def test_a_suspended_tenant_publishes_nothing(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    update_tenant(actor=COMMAND, tenant=tenant, status="suspended")

    responses = [api.post(path_of(tenant), ORDER), api.post(path_of(tenant, "/batch"), {"events": [ORDER]})]

    for response in responses:
        assert_refused(
            response,
            problem(
                403, "tenant_suspended", "Tenant suspended", "This tenant is suspended: it takes no events."
            ),
        )
    assert events_of(tenant) == []


def test_a_key_without_the_scope_publishes_nothing(tenant: Tenant) -> None:
    response = tenant_api(tenant, "events:read").post(path_of(tenant), ORDER)

    assert_refused(
        response, problem(403, "missing_scope", "Missing scope", "This key lacks the scope events:write.")
    )
    assert events_of(tenant) == []


def test_another_tenants_events_look_like_those_of_none(tenant: Tenant) -> None:
    api = tenant_api(make_tenant())

    answers = [api.post(path, ORDER) for path in (path_of(tenant), "/tenants/nobody-at-all/events")]

    for answer in answers:
        assert_refused(answer, problem(404, "not_found", "Not found", "There is no such thing here."))
    assert events_of(tenant) == []


def test_data_may_have_as_many_bytes_as_the_tenants_limit() -> None:
    tenant = make_tenant(limits={"payload_bytes": 1024})
    make_type(tenant)
    api = tenant_api(tenant)
    fits, exceeds = ({"type": "order.created", "data": {"x": "y" * size}} for size in (1024 - 9, 1024 - 8))

    accepted, refused = api.post(path_of(tenant), fits), api.post(path_of(tenant), exceeds)

    (event,) = events_of(tenant)
    assert json.loads(accepted.content) == told(event)
    assert len(bytes(event.data or b"")) == 1024
    assert_refused(
        refused,
        problem(
            413,
            "too_large",
            "Too large",
            "data may have at most 1024 bytes.",
            ("data", "too_large", "Must have at most 1024 bytes."),
        ),
    )


@pytest.mark.parametrize("rest", ["", "/batch"])
def test_a_body_may_have_eight_mebibytes(tenant: Tenant, rest: str) -> None:
    body = b" " * (8 * 1024 * 1024 + 1)

    response = tenant_api(tenant).post(path_of(tenant, rest), body)

    assert_refused(
        response, problem(413, "too_large", "Too large", "The body may have at most 8388608 bytes.")
    )


@pytest.mark.parametrize("rest", ["", "/batch"])
def test_what_does_not_say_that_it_is_json_is_refused(tenant: Tenant, rest: str) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/json5", ""):
        response = tenant_api(tenant).send("POST", path_of(tenant, rest), ORDER, content_type=content_type)

        assert_refused(
            response,
            problem(
                415, "unsupported_media_type", "Wrong content type", "Send the body as application/json."
            ),
        )
    assert events_of(tenant) == []


@pytest.mark.parametrize("rest", ["", "/batch"])
def test_parameters_that_there_are_none_of_are_named(tenant: Tenant, rest: str) -> None:
    response = tenant_api(tenant).post(path_of(tenant, rest) + "?dry_run=true&x=1", {"events": [ORDER]})

    says = "There is no such parameter here."
    assert_refused(
        response,
        problem(
            422,
            "invalid",
            "Invalid content",
            "Wrong: dry_run, x.",
            ("dry_run", "unknown_parameter", says),
            ("x", "unknown_parameter", says),
        ),
    )
    assert events_of(tenant) == []


@pytest.mark.parametrize("rest", ["", "/batch"])
@pytest.mark.parametrize("hops", ["5", "1000", "9" * 5000])
def test_what_goes_in_circles_is_ended(tenant: Tenant, rest: str, hops: str) -> None:
    response = tenant_api(tenant).send("POST", path_of(tenant, rest), ORDER, headers={"webhook-hops": hops})

    assert_refused(
        response,
        problem(
            508,
            "loop_detected",
            "Loop detected",
            "This event went through 5 webhooks that lead to one another.",
        ),
    )
    assert events_of(tenant) == []


def test_a_tenant_over_its_rate_is_told_when_to_come_again() -> None:
    # A hundredth a second, so that however slow the machine is, the second comes too early.
    tenant = make_tenant(limits={"events_per_second": 0.01})
    make_type(tenant)
    api = tenant_api(tenant)

    accepted, refused = api.post(path_of(tenant), ORDER), api.post(path_of(tenant), ORDER)

    (event,) = events_of(tenant)
    assert json.loads(accepted.content) == told(event)
    assert_refused(
        refused,
        problem(
            429,
            "tenant_rate_limited",
            "Too many events",
            "The tenant's limit events_per_second is 0.01, and it is used up.",
        ),
    )
    assert refused["Retry-After"] == "100"


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (
            b'{"type": "order.created", "data": {}',
            problem(400, "malformed_json", "Malformed JSON", "Expecting ',' delimiter in line 1, column 37."),
        ),
        (
            b"[]",
            problem(
                422,
                "invalid",
                "Invalid content",
                "Wrong: the body.",
                ("", "invalid_type", "Must be a JSON object."),
            ),
        ),
        (
            {"type": "order created", "data": [], "more": 1},
            problem(
                422,
                "invalid",
                "Invalid content",
                "Wrong: more, type, data.",
                ("more", "unknown_field", "There is no such field."),
                (
                    "type",
                    "invalid",
                    "Must be segments of A-Z, a-z, 0-9, _ and -, joined by dots.",
                ),
                ("data", "invalid_type", "Must be a JSON object."),
            ),
        ),
        (
            {"type": "order.unknown", "data": {}},
            problem(
                422,
                "unknown_event_type",
                "Unknown event type",
                "This event type is in no catalogue of the tenant.",
                ("type", "unknown_event_type", "This event type is in no catalogue of the tenant."),
            ),
        ),
        (
            {"type": "order.old", "data": {}},
            problem(
                422,
                "event_type_archived",
                "Archived event type",
                "This event type is archived.",
                ("type", "event_type_archived", "This event type is archived."),
            ),
        ),
        (
            {"type": "order.paid", "data": {"amount": "1", "to": {"zip": 12}}},
            problem(
                422,
                "schema_violation",
                "The data breaks the event type's schema",
                "2 fields are wrong.",
                ("data.amount", "schema_violation", 'the value is not of type "integer"'),
                ("data.to.zip", "schema_violation", 'the value is not of type "string"'),
            ),
        ),
    ],
    ids=["half a body", "a list", "wrong fields", "unknown type", "archived type", "against its schema"],
)
def test_what_is_wrong_with_an_event_is_named(tenant: Tenant, body: Any, document: dict[str, Any]) -> None:
    make_type(tenant, "order.old", archived_at=timezone.now())
    make_type(tenant, "order.paid", schema=SCHEMA)

    response = tenant_api(tenant).post(path_of(tenant), body)

    assert_refused(response, document)
    assert events_of(tenant) == []


def test_a_time_too_far_ahead_is_refused(tenant: Tenant) -> None:
    deliver_at = (datetime.now(UTC) + timedelta(days=31)).isoformat()

    response = tenant_api(tenant).post(path_of(tenant), ORDER | {"deliver_at": deliver_at})

    assert_refused(
        response,
        problem(
            422,
            "invalid",
            "Invalid content",
            "Wrong: deliver_at.",
            ("deliver_at", "deliver_at_too_far", "Must be at most 30 days ahead."),
        ),
    )
    assert events_of(tenant) == []


# --- keys -------------------------------------------------------------------------------------------------------------

REUSED = problem(
    422,
    "idempotency_key_reused",
    "Idempotency key reused",
    "This Idempotency-Key was used with another request. Use a new one for each request.",
)


def send_keyed(
    api: Api, tenant: Tenant, body: Any, key: str, request_id: str = "the-request"
) -> HttpResponse:
    headers = {"Idempotency-Key": key, "X-Request-Id": request_id}
    return api.send("POST", path_of(tenant), body, headers=headers)


def test_a_repeated_publish_gets_the_first_answer_and_makes_nothing(tenant: Tenant) -> None:
    make_endpoint(tenant)
    api = tenant_api(tenant)

    first = send_keyed(api, tenant, ORDER, "k")
    make_endpoint(tenant)
    again = send_keyed(tenant_api(tenant), tenant, ORDER, "k", "another")

    (event,) = events_of(tenant)
    assert json.loads(first.content) == told(event, deliveries=1)
    assert "Idempotent-Replayed" not in first
    assert (again.status_code, again["Content-Type"]) == (202, "application/json")
    assert again.content == first.content
    assert (again["Idempotent-Replayed"], again["X-Request-Id"]) == ("true", "another")


def test_a_key_of_another_publish_is_refused(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    send_keyed(api, tenant, ORDER, "k")

    refused = send_keyed(api, tenant, ORDER | {"data": {"order": 8}}, "k")

    assert_refused(refused, REUSED)
    assert len(events_of(tenant)) == 1


def test_a_refused_publish_leaves_its_key_free(tenant: Tenant) -> None:
    api = tenant_api(tenant)

    refused = send_keyed(api, tenant, ORDER | {"type": "order.craeted"}, "k")
    corrected = send_keyed(api, tenant, ORDER, "k")

    (event,) = events_of(tenant)
    assert refused.status_code == 422
    assert json.loads(corrected.content) == told(event)
    assert "Idempotent-Replayed" not in corrected


@pytest.mark.parametrize("key", ["", "a\tb", "é", "k" * 256])
def test_a_key_is_printable_and_not_too_long(tenant: Tenant, key: str) -> None:
    api = tenant_api(tenant)

    answers = [
        api.send("POST", path_of(tenant, rest), body, headers={"Idempotency-Key": key})
        for rest, body in (("", ORDER), ("/batch", {"events": [ORDER]}))
    ]

    for answer in answers:
        document = json.loads(answer.content)
        assert (answer.status_code, document["code"]) == (422, "invalid")
        assert [error["field"] for error in document["errors"]] == ["Idempotency-Key"]
    assert events_of(tenant) == []


def test_items_of_batches_and_single_publishes_share_their_keys(tenant: Tenant) -> None:
    api = tenant_api(tenant)
    send_keyed(api, tenant, ORDER, "single")
    item = ORDER | {"idempotency_key": "item"}
    first = api.post(path_of(tenant, "/batch"), {"events": [item]})

    by_single = send_keyed(api, tenant, ORDER, "item")
    batch = {"events": [ORDER | {"idempotency_key": "single"}, item, ORDER | {"data": {}} | item]}
    by_items = api.post(path_of(tenant, "/batch"), batch)

    assert_refused(by_single, REUSED)
    (made,) = json.loads(first.content)["data"]
    assert json.loads(by_items.content) == {
        "data": [{"error": REUSED}, made, made],
        "accepted": 2,
        "rejected": 1,
    }
    assert by_items["Idempotent-Replayed"] == "true"
    assert len(events_of(tenant)) == 2


# --- batches ----------------------------------------------------------------------------------------------------------


def test_one_bad_event_does_not_spoil_the_others_and_the_answer_is_in_their_order(tenant: Tenant) -> None:
    make_type(tenant, "order.paid", schema=SCHEMA)
    make_endpoint(tenant)
    items = [
        {"type": "order.created", "data": {"n": 1}},
        {"type": "order.craeted", "data": {}},
        {"type": "order.created", "data": {"n": 2}, "channels": ["red"]},
        {"type": "order.created"},
        {"type": "order.paid", "data": {"amount": "1"}},
        {"type": "order.created", "data": {"n": 3}},
    ]

    response = tenant_api(tenant).post(path_of(tenant, "/batch"), {"events": items})

    first, second, third = events_of(tenant)
    unknown, broken = (
        "This event type is in no catalogue of the tenant.",
        'the value is not of type "integer"',
    )
    assert (response.status_code, response["Content-Type"]) == (202, "application/json")
    assert json.loads(response.content) == {
        "data": [
            told(first, deliveries=1),
            {
                "error": problem(
                    422,
                    "unknown_event_type",
                    "Unknown event type",
                    unknown,
                    ("type", "unknown_event_type", unknown),
                )
            },
            told(second, channels=["red"], deliveries=1),
            {
                "error": problem(
                    422,
                    "invalid",
                    "Invalid content",
                    "Wrong: data.",
                    ("data", "required", "Must be given."),
                )
            },
            {
                "error": problem(
                    422,
                    "schema_violation",
                    "The data breaks the event type's schema",
                    broken,
                    ("data.amount", "schema_violation", broken),
                )
            },
            told(third, deliveries=1),
        ],
        "accepted": 3,
        "rejected": 3,
    }
    assert [bytes(event.data or b"") for event in (first, second, third)] == [
        b'{"n": 1}',
        b'{"n": 2}',
        b'{"n": 3}',
    ]
    assert first.created_at == second.created_at == third.created_at
    assert "Idempotent-Replayed" not in response


def test_of_a_batch_over_the_rate_the_last_ones_are_refused_one_by_one() -> None:
    tenant = make_tenant(limits={"events_per_second": 2})
    make_type(tenant)

    response = tenant_api(tenant).post(path_of(tenant, "/batch"), {"events": [ORDER] * 4})

    events = events_of(tenant)
    refused = problem(
        429,
        "tenant_rate_limited",
        "Too many events",
        "The tenant's limit events_per_second is 2, and it is used up.",
    )
    assert json.loads(response.content) == {
        "data": [*(told(event) for event in events), {"error": refused}, {"error": refused}],
        "accepted": 2,
        "rejected": 2,
    }
    assert (response.status_code, len(events)) == (202, 2)


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"events": []}, [("events", "too_short", "Must have at least one event.")]),
        ({"events": [ORDER] * 1001}, [("events", "too_long", "Must have at most 1000 events.")]),
        ({"events": {}}, [("events", "invalid_type", "Must be a list.")]),
        ({}, [("events", "required", "Must be given.")]),
        (
            {"events": [ORDER], "dry_run": True},
            [("dry_run", "unknown_field", "There is no such field.")],
        ),
    ],
    ids=["none", "too many", "no list", "no events", "more than events"],
)
def test_a_batch_that_is_none_is_refused_as_a_whole(
    tenant: Tenant, body: Any, errors: list[tuple[str, str, str]]
) -> None:
    response = tenant_api(tenant).post(path_of(tenant, "/batch"), body)

    assert_refused(response, problem(422, "invalid", "Invalid content", f"Wrong: {errors[0][0]}.", *errors))
    assert events_of(tenant) == []


def test_a_thousand_events_are_accepted_at_once_in_their_order(tenant: Tenant) -> None:
    items = [{"type": "order.created", "data": {"n": n}} for n in range(1000)]

    response = tenant_api(tenant).post(path_of(tenant, "/batch"), {"events": items})

    events = events_of(tenant)
    reply = json.loads(response.content)
    assert (reply["accepted"], reply["rejected"]) == (1000, 0)
    assert reply["data"] == [told(event) for event in events]
    assert [bytes(event.data or b"") for event in events] == [b'{"n": %d}' % n for n in range(1000)]


def test_batches_are_only_posted(tenant: Tenant) -> None:
    response = tenant_api(tenant).get(path_of(tenant, "/batch"))

    assert_refused(response, problem(405, "method_not_allowed", "Method not allowed", "Allowed here: POST."))
    assert response["Allow"] == "POST"
    assert Api(None).get(path_of(tenant, "/batch")).status_code == 401
