"""A list of events or deliveries by its filters, as a value: shown in pages, walked by jobs, exported.

Called by the portal and by the services that work on everything that a filter finds.
"""

from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, assert_never
from uuid import UUID

from deliveries.services import deliveries, events
from tenants.models import Tenant
from tenants.scoping import TenantQuerySet


class Kind(StrEnum):
    EVENTS = "events"
    DELIVERIES = "deliveries"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFilter:
    """What does not belong to the kind is None."""

    kind: Kind
    event_type: str | None = None
    channel: str | None = None
    endpoint_id: UUID | None = None
    event_id: UUID | None = None
    status: str | None = None
    outcome: str | None = None
    text: str | None = None
    """In payloads. `rows` leaves it to `searching.py`, which looks at a few of them at a time."""
    since: datetime | None = None
    until: datetime | None = None

    def rows(self, tenant: Tenant) -> "TenantQuerySet[Any]":
        match self.kind:
            case Kind.EVENTS:
                return events.find_events(
                    tenant, type=self.event_type, channel=self.channel, since=self.since, until=self.until
                )
            case Kind.DELIVERIES:
                return deliveries.find_deliveries(
                    tenant,
                    endpoint_id=self.endpoint_id,
                    event_id=self.event_id,
                    event_type=self.event_type,
                    status=self.status,
                    outcome=self.outcome,
                    since=self.since,
                    until=self.until,
                )
            case _:
                assert_never(self.kind)

    def before(self, until: datetime) -> Self:
        """Nothing that is made later: what a job works through must not grow while it works."""
        return replace(self, until=until if self.until is None else min(self.until, until))

    def to_json(self) -> dict[str, str]:
        """For the row of a job, and its audit entry."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in given.items()
            if value is not None
        }

    @classmethod
    def from_json(cls, stored: dict[str, str]) -> Self:
        values: dict[str, Any] = dict(stored)
        for name in ("since", "until"):
            if name in values:
                values[name] = datetime.fromisoformat(values[name])
        for name in ("endpoint_id", "event_id"):
            if name in values:
                values[name] = UUID(values[name])
        return cls(**(values | {"kind": Kind(stored["kind"])}))
