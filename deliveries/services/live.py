"""What happens now, for people who watch: deliveries as they are made and as they end, events that nobody wanted.

Called by the portal, every two seconds for each page that is looked at. Two ranges of keys, read along the indexes of
the tenant's own rows: what nobody watches costs nothing, and no worker waits with the watcher.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

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


@dataclass(frozen=True, slots=True)
class Look:
    new: list[Delivery | Event]
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
    new = _merged(deliveries.filter(id__gte=first), events.filter(id__gte=first))
    skipped = len(new) > MOST
    new = new[:MOST]
    complete_from = new[-1].id if new else until
    if after is not None and oldest is not None and not skipped:
        complete_from = oldest
    if after is None:
        return Look(new, [], skipped=False, cursor=until, oldest=complete_from)
    # A second before the look before: what ended while that was read must not stay pending on the page.
    since = ids.time_of(after)
    earlier = deliveries.filter(id__lt=after, id__gte=complete_from)
    changed = [
        row
        for row in earlier.order_by("-id")[:WATCHED]
        if row.status == Delivery.Status.PENDING
        or (row.completed_at is not None and row.completed_at >= since)
    ]
    return Look(new, changed, skipped=skipped, cursor=until, oldest=complete_from)


def _merged(deliveries: Any, events: Any) -> list[Delivery | Event]:
    """One more than fits, so that it is known that there is more."""
    # Told apart here: asked for alone, rare ones would be looked for through all of history.
    lonely = [event for event in events.order_by("-id")[:WATCHED] if event.delivery_count == 0]
    rows = [*deliveries.order_by("-id")[: MOST + 1], *lonely]
    return sorted(rows, key=lambda row: row.id, reverse=True)[: MOST + 1]
