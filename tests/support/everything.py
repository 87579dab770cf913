"""A tenant that has everything that its portal can show: each outcome, each state, each kind of job."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from deliveries.inbound.requests import Verdict
from deliveries.models import Delivery, Endpoint, IncomingRequest, Job, Source
from deliveries.pipeline.outcome import Outcome
from deliveries.services.endpoint_deletion import delete_endpoint
from deliveries.services.stopping import disable_endpoint
from tenants.ids import new_id
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tests.support.published import add_attempt, delivery_of, end, make_endpoint, make_type, publish

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["order"],
    "properties": {
        "order": {"type": "string", "description": "Bestellnummer", "minLength": 1, "maxLength": 40},
        "total": {"type": "number", "minimum": 0, "exclusiveMaximum": 1_000_000},
        "currency": {"enum": ["EUR", "CHF", "USD"]},
        "paid": {"type": ["boolean", "null"]},
        "placed": {"type": "string", "format": "date-time"},
        "kind": {"const": "web"},
        "lines": {
            "type": "array",
            "minItems": 1,
            "maxItems": 100,
            "items": {
                "type": "object",
                "properties": {
                    "sku": {"type": "string", "pattern": "^[A-Z]+$"},
                    "count": {"type": "integer"},
                },
            },
        },
        "other": {},
    },
}
EXAMPLE: Final = {"order": "B-1001", "total": 42.5, "currency": "EUR", "lines": [{"sku": "TEE", "count": 2}]}


def make_everything(tenant: Tenant) -> None:
    """An attempt of every outcome, an endpoint in every state, a request of every verdict, a job of every kind."""
    make_type(tenant, description="Eine Bestellung entstand.", schema=SCHEMA, example=EXAMPLE, group="Laden")
    make_type(tenant, "x.y")
    endpoint = make_endpoint(tenant, description="Lager", event_types=["order.*"])
    other = make_endpoint(tenant, "https://b.example.com", event_types=["x.y"], channels=["eu"])
    make_endpoint(tenant, "https://c.example.com", channels=["eu", "us"])
    off = make_endpoint(tenant, "https://d.example.com")
    disable_endpoint(actor=COMMAND, endpoint=off)
    for reason in ("gone", "failing", "receiver"):
        row = make_endpoint(tenant, f"https://{reason}.example.com")
        Endpoint.objects.for_tenant(tenant).filter(id=row.id).update(
            status="disabled", disabled_reason=reason
        )
    delete_endpoint(actor=COMMAND, endpoint=make_endpoint(tenant, "https://e.example.com"))
    for number, outcome in enumerate(Outcome):
        delivery = mine(tenant, endpoint)
        status = 500 if outcome in {Outcome.HTTP_ERROR, Outcome.CREDENTIALS_FAILED} else None
        status = 200 if outcome is Outcome.SUCCEEDED else status
        attempt = {"outcome": outcome, "status_code": status, "trigger": Delivery.Trigger.values[number % 4]}
        add_attempt(delivery, **attempt, detail="The connection was reset." if status is None else "")
        ended = "succeeded" if outcome is Outcome.SUCCEEDED else "failed"
        end(delivery, ended, attempt_count=1, last_outcome=outcome, last_status_code=status)
    for reason in Delivery.CancelReason.values:
        end(mine(tenant, endpoint), "cancelled", cancel_reason=reason)
    make_jobs(tenant, other)
    make_requests(tenant, Source.objects.for_tenant(tenant).get())


def mine(tenant: Tenant, endpoint: Endpoint) -> Delivery:
    event = publish(tenant, only_endpoint=endpoint.id.bytes)
    return delivery_of(event)


def make_jobs(tenant: Tenant, endpoint: Endpoint) -> None:
    for kind in Job.Kind.values:
        for status in Job.Status.values:
            if (kind, status) == ("replay", "running"):
                # One at a time of an endpoint.
                continue
            about: dict[str, Any] = {"endpoint": endpoint, "event_types": ["x.y"]}
            if kind not in {"recover", "replay"}:
                about = {"filter": {"kind": "deliveries", "status": "failed", "outcome": "timeout"}}
            Job(
                id=new_id(),
                tenant=tenant,
                kind=kind,
                only="all",
                status=status,
                since=datetime(2026, 1, 1, tzinfo=UTC),
                until=datetime(2026, 1, 2, tzinfo=UTC),
                completed_at=None if status == "running" else timezone.now() - timedelta(hours=1),
                **about,
            ).save(force_insert=True)


def make_requests(tenant: Tenant, source: Source) -> None:
    """As `services/receiving.py` keeps them."""
    details = [
        "The signature is wrong.",
        "The body is no valid JSON: Expecting value in line 1, column 1.",
        "The event type that came of the mapping cannot be one: Must not be empty.",
        "The mapping of data failed: the data has no key 'x'.",
        "",
    ]
    for number, verdict in enumerate(Verdict):
        IncomingRequest(
            id=new_id(),
            tenant=tenant,
            source=source,
            verdict=verdict.value,
            detail=details[number % len(details)],
            method="POST",
            query=b"",
            headers=b"",
            body=b"{}",
            size=2,
            status_code=200,
            created_at=timezone.now(),
        ).save(force_insert=True)
