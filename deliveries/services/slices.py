"""Work in slices of about a second, whose place is in a row: what jobs and operators' actions have in common.

Whoever works on a row writes its `heartbeat_at` with every step. A task of `deliveries/job_tasks.py` does one slice and
sends itself again; a sweep finds rows whose worker is gone.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now

SLICE_SECONDS: Final = 1.0
"""How long a task works before it gives way: the sweeps share its queue."""

STALE_SECONDS: Final = 30
"""A row that nobody has worked on for so long is taken up by the sweep."""

STALE_AT_ONCE: Final = 100
"""Rows that one sweep hands to workers; the next one goes on."""


class Progress(StrEnum):
    """What the caller of `work` should do next."""

    AT_ONCE = "at once"
    """Go on."""
    LATER = "later"
    """Go on when the endpoint has caught up."""
    ENDED = "ended"
    """Nothing is left to do, for this caller."""


def stale(rows: "QuerySet[Any]") -> list[UUID]:
    """Those that are running and that nobody works on, the longest alone first."""
    alone = rows.filter(status="running", heartbeat_at__lt=Now() - timedelta(seconds=STALE_SECONDS))
    return list(alone.order_by("heartbeat_at").values_list("id", flat=True)[:STALE_AT_ONCE])
