"""What happens now, for people who watch: deliveries as they are made and as they end, attempts of older ones, events
that nobody wanted.

Called by the portal, every two seconds for each page that is looked at. Three ranges of keys: deliveries and events
along the indexes of the tenant's own rows, attempts along their key, of which a few seconds are looked through. What
nobody watches costs nothing, and no worker waits with the watcher.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection

from deliveries.models import Delivery, Event
from deliveries.services.deliveries import BODIES
from tenants import ids
from tenants.ids import floor_of
from tenants.models import Tenant

SETTLED: Final = timedelta(seconds=1)
"""What is younger is left for the next look: a transaction with a smaller key may commit after one with a larger."""

MOST: Final = 50
"""Rows of one look. Of more the newest are shown."""

WATCHED: Final = 200
"""Rows of a page that are looked at again for how they ended."""

LOOK_BACK: Final = timedelta(seconds=30)
"""Attempts that ended before are not looked for, however long ago the look before was."""

MOST_ATTEMPTS: Final = 20_000
"""Attempts of all tenants that one look goes through, the newest first: there is no index of a tenant's own, which each
of them would have to pay for."""


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt that ended, of a delivery that is not on the page."""

    id: UUID
    number: int
    outcome: str
    status_code: int | None
    delivery: Delivery

    @property
    def ended_at(self) -> datetime:
        return ids.time_of(self.id)


@dataclass(frozen=True, slots=True)
class Look:
    new: list[Delivery | Event | Tried]
    """The newest first. Events are those without a delivery."""
    changed: list[Delivery]
    """Among what was shown before: still pending, or ended since."""
    skipped: bool
    """More happened than is shown."""
    cursor: UUID
    """Where the next look begins."""
    oldest: UUID
    """From here on the page has everything that happened."""


def look(tenant: Tenant, *, after: UUID | None, oldest: UUID | None = None, now: datetime) -> Look:
    """`after` and `oldest`: of the look before, None at the first."""
    until = floor_of(now - SETTLED)
    deliveries = Delivery.objects.for_tenant(tenant).defer(*BODIES).filter(id__lt=until)
    events = Event.objects.for_tenant(tenant).defer("data").filter(id__lt=until)
    # Partitions are told by their keys: without a lower end all of them would be opened.
    first = floor_of(now - timedelta(days=1)) if after is None else after
    made = _merged(deliveries.filter(id__gte=first), events.filter(id__gte=first))
    if after is None:
        made = made[:MOST]
        return Look(list(made), [], skipped=False, cursor=until, oldest=made[-1].id if made else until)
    changed = [] if oldest is None else _changed(deliveries, oldest=oldest, after=after)
    on_page = {row.id for row in [*made, *changed]}
    begin = max(after, floor_of(now - LOOK_BACK))
    rows = sorted(
        [*made, *_tried(tenant, begin=begin, until=until, on_page=on_page)],
        key=lambda row: row.id,
        reverse=True,
    )
    if len(rows) > MOST:
        rows = rows[:MOST]
        return Look(rows, [], skipped=True, cursor=until, oldest=rows[-1].id)
    if oldest is None:
        oldest = rows[-1].id if rows else until
    return Look(rows, changed, skipped=False, cursor=until, oldest=oldest)


def _merged(deliveries: Any, events: Any) -> list[Delivery | Event]:
    """One more than fits, so that it is known that there is more."""
    # Told apart here: asked for alone, rare ones would be looked for through all of history.
    lonely = [event for event in events.order_by("-id")[:WATCHED] if event.delivery_count == 0]
    rows = [*deliveries.order_by("-id")[: MOST + 1], *lonely]
    return sorted(rows, key=lambda row: row.id, reverse=True)[: MOST + 1]


def _changed(deliveries: Any, *, oldest: UUID, after: UUID) -> list[Delivery]:
    # A second before the look before: what ended while that was read must not stay pending on the page.
    since = ids.time_of(after)
    return [
        row
        for row in deliveries.filter(id__lt=after, id__gte=oldest).order_by("-id")[:WATCHED]
        if row.status == Delivery.Status.PENDING
        or (row.completed_at is not None and row.completed_at >= since)
    ]


# The ids of attempts are made when they end.
TRIED = """
SELECT id, delivery_id, number, outcome, status_code FROM (
    SELECT id, tenant_id, delivery_id, number, outcome, status_code FROM deliveries_attempt
    WHERE id >= %(begin)s AND id < %(until)s
    ORDER BY id DESC LIMIT %(most_attempts)s
) newest
WHERE tenant_id = %(tenant)s
ORDER BY id DESC LIMIT %(most)s
"""


def _tried(tenant: Tenant, *, begin: UUID, until: UUID, on_page: set[UUID]) -> list[Tried]:
    """The last attempt of each delivery that the page does not show anyway. Two queries; one if there is none."""
    parameters: dict[str, Any] = {
        "begin": begin,
        "until": until,
        "tenant": tenant.id,
        "most_attempts": MOST_ATTEMPTS,
        "most": MOST + 1 + len(on_page),
    }
    with connection.cursor() as cursor:
        cursor.execute(TRIED, parameters)
        found: dict[UUID, Any] = {}
        for row in cursor.fetchall():
            if row[1] not in on_page:
                found.setdefault(row[1], row)
    if not found:
        return []
    deliveries = Delivery.objects.for_tenant(tenant).defer(*BODIES).in_bulk(list(found))
    return [
        Tried(row[0], row[2], row[3], row[4], deliveries[delivery_id])
        for delivery_id, row in found.items()
        if delivery_id in deliveries
    ]
