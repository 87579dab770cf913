"""What the lists of events and deliveries have in common: ranges of time as ranges of keys, so that only those are read."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tenants.ids import floor_of
from tenants.scoping import TenantQuerySet

ROUNDING: Final = timedelta(milliseconds=2)
"""A key holds its row's creation to the millisecond, give or take one."""

AHEAD: Final = timedelta(hours=1)
"""No key is further in the future, however far apart the clocks. The partitions of the coming weeks are not looked at."""


def created_between(
    rows: "TenantQuerySet[Any]", *, since: datetime | None, until: datetime | None
) -> "TenantQuerySet[Any]":
    """From `since` on, before `until`. The keys narrow what is read, the column decides."""
    last = datetime.now(UTC) + AHEAD
    if since is not None:
        rows = rows.filter(id__gte=floor_of(since - ROUNDING), created_at__gte=since)
    if until is not None:
        rows = rows.filter(created_at__lt=until)
        last = min(last, until + ROUNDING)
    return rows.filter(id__lte=floor_of(last))
