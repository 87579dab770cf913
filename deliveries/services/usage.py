"""What tenants used, by month: for invoices, and for whoever asks who is large. Called by the admin.

Read from the daily counts that `pipeline/counters.py` keeps, so no event is looked at. A process that is killed takes
its last few seconds of counts with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final
from uuid import UUID

from django.db.models import Sum
from django.db.models.functions import TruncMonth

from deliveries.models import Usage
from tenants.models import Tenant

MONTHS: Final = 13
"""On a tenant's page: the same month of last year is still there."""

CHUNK: Final = 1_000
"""Tenants looked at by one statement of the file."""


@dataclass(frozen=True, slots=True)
class Month:
    begins: date
    events: int
    attempts: int
    succeeded: int
    failed: int


SUMS: Final = {name: Sum(name) for name in ("events", "attempts", "succeeded", "failed")}


def months_of(tenant: Tenant) -> list[Month]:
    """The latest first; months without anything are left out."""
    rows = Usage.objects.for_tenant(tenant).annotate(month=TruncMonth("day")).values("month")
    found = rows.annotate(**SUMS).order_by("-month")[:MONTHS]
    return [_month(row["month"], row) for row in found]


def month_of(tenants: Sequence[UUID], month: date) -> dict[UUID, Month]:
    """Of these tenants, those that used anything."""
    rows = Usage.unscoped.filter(tenant_id__in=tenants, day__gte=month, day__lt=next_month(month))
    found = rows.values("tenant_id").annotate(**SUMS).order_by("tenant_id")
    return {row["tenant_id"]: _month(month, row) for row in found}


def everybody(month: date) -> Iterator[tuple[Tenant, Month]]:
    """Every tenant that used anything in the month, in chunks, so that no snapshot is held for long."""
    last = None
    while True:
        rows = Tenant.objects.order_by("id")
        tenants = list((rows if last is None else rows.filter(id__gt=last))[:CHUNK])
        if not tenants:
            return
        used = month_of([tenant.id for tenant in tenants], month)
        yield from ((tenant, used[tenant.id]) for tenant in tenants if tenant.id in used)
        last = tenants[-1].id


def next_month(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def _month(begins: date, row: dict[str, int]) -> Month:
    return Month(begins, row["events"], row["attempts"], row["succeeded"], row["failed"])
