"""What the lists of events and deliveries have in common: ranges of time as ranges of keys, so that only those are read."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from tenants.ids import floor_of
from tenants.scoping import TenantQuerySet

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

ROUNDING: Final = timedelta(milliseconds=2)
"""A key holds its row's creation to the millisecond, give or take one."""

AHEAD: Final = timedelta(hours=1)
"""No key is further in the future, however far apart the clocks. The partitions of the coming weeks are not looked at."""


def created_between(
    rows: "TenantQuerySet[Any]", *, since: datetime | None, until: datetime | None
) -> "TenantQuerySet[Any]":
    """From `since` on, before `until`. The keys narrow what is read, the column decides."""
    if since is not None:
        rows = rows.filter(id__gte=first_key(since), created_at__gte=since)
    if until is not None:
        rows = rows.filter(created_at__lt=until)
    return rows.filter(id__lte=last_key(until))


def first_key(since: datetime) -> UUID:
    """No row of that time or later has a smaller one."""
    return floor_of(max(since, EPOCH) - ROUNDING)


def last_key(until: datetime | None = None) -> UUID:
    """No row before that time has a larger one."""
    now = datetime.now(UTC) + AHEAD
    return floor_of((now if until is None else min(until, now)) + ROUNDING)
