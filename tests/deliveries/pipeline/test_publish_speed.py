"""Publishing with a schema, a filter and an idempotency key on, beside publishing without any of them."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.test import RequestFactory

from deliveries.services.subscriptions import create_subscription
from tenants.ids import new_id
from tenants.models import EventType, Tenant
from tenants.services.audit import COMMAND
from tests.support.api import make_key, make_tenant
from tests.support.published import make_endpoint

IN_A_ROW = 2
"""So few that some are done before the machine turns to other work."""

ROUNDS = 250

LEAST = 0.5
"""Of the speed without them. The promise is 0.7; the machine of a test run has other work."""

SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "maxLength": 64},
        "amount": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD", "GBP"]},
        "customer": {
            "type": "object",
            "properties": {
                "tier": {"type": "string"},
                "email": {"type": "string", "pattern": "^[^@]+@[^@]+$"},
            },
            "required": ["tier"],
        },
        "lines": {"type": "array", "items": {"type": "object", "required": ["sku", "quantity"]}},
    },
    "required": ["id", "amount", "customer"],
}
FILTER = 'data.amount > 100 && data.customer.tier == "gold"'
BODY = json.dumps(
    {
        "type": "order.created",
        "data": {
            "id": "A-17",
            "amount": 120.5,
            "currency": "EUR",
            "customer": {"tier": "gold", "email": "ada@example.com"},
            "lines": [{"sku": f"sku-{number}", "quantity": number, "note": "x" * 40} for number in range(12)],
        },
    }
).encode()


@pytest.mark.usefixtures("database")
def test_schema_filter_and_idempotency_key_cost_less_than_a_third() -> None:
    plain, full = make_tenant(), make_tenant()
    EventType.objects.create(tenant=plain, name="order.created")
    EventType.objects.create(tenant=full, name="order.created", schema=SCHEMA)
    make_endpoint(plain, event_types=["order.created"])
    create_subscription(
        actor=COMMAND, endpoint=make_endpoint(full, event_types=[]), event_type="order.created", filter=FILTER
    )
    handler, plain_key, full_key = WSGIHandler(), make_key(plain), make_key(full)

    # In turn, so that both have the same machine, and the best of many: the work of others only ever slows down.
    rounds = [
        (
            seconds_to_publish(handler, plain, plain_key, is_idempotent=False),
            seconds_to_publish(handler, full, full_key, is_idempotent=True),
        )
        for _ in range(ROUNDS)
    ]

    without, with_all = (min(each) for each in zip(*rounds, strict=True))
    print(f"{1 / without:.0f} events a second, with all three {1 / with_all:.0f}: {without / with_all:.0%}")
    assert without / with_all >= LEAST


def seconds_to_publish(handler: WSGIHandler, tenant: Tenant, key: str, *, is_idempotent: bool) -> float:
    """All of the application that a request goes through, one after the other: an event's share of the time."""
    requests: list[dict[str, Any]] = []
    for _ in range(IN_A_ROW):
        headers = {"Authorization": f"Bearer {key}"}
        if is_idempotent:
            headers["Idempotency-Key"] = new_id().hex
        path = f"/api/v1/tenants/{tenant.slug}/events"
        requests.append(
            RequestFactory(headers=headers).post(path, BODY, content_type="application/json").environ
        )

    began = time.perf_counter()
    replies = [b"".join(handler(environ, start_response)) for environ in requests]
    took = (time.perf_counter() - began) / IN_A_ROW

    assert all(json.loads(reply).get("deliveries") == 1 for reply in replies), replies
    return took


def start_response(*_: Any) -> Callable[[bytes], object]:
    """Headers are no matter here."""
    return lambda _: None
