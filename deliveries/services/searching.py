"""Text in payloads, which have no index: a bounded number of rows is looked at, and who asks is told how far that went.

Called by the portal's lists and by jobs that work on what a search finds.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Func, IntegerField

from deliveries.services.listing import Kind, ListFilter
from tenants.models import Tenant

MOST_ROWS: Final = 1_000
"""Rows whose payloads one page looks into: some ten milliseconds, also when payloads are of several kilobytes."""

MOST_BYTES: Final = 4 * 1024 * 1024
"""Of payloads, the same. At least one is looked into, whatever its size."""


class Key(NamedTuple):
    """A row that may match."""

    id: UUID
    event_id: UUID
    created_at: datetime
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    rows: list[Any]
    """The newest first, at most as many as were asked for."""
    looked: int
    """Rows whose payloads were looked into."""
    reached: Key | None
    """The last of them, if there is more behind it."""


def search(tenant: Tenant, wanted: ListFilter, *, before: UUID | None, limit: int) -> Found:
    """A page of what the filter finds, text included, from that key on back. Three queries."""
    assert wanted.text is not None
    rows = wanted.rows(tenant)
    if before is not None:
        rows = rows.filter(id__lt=before)
    keys = _keys(wanted, rows.order_by("-id")[: MOST_ROWS + 1])
    looked = within_budget(keys[:MOST_ROWS])
    matching = matching_events(tenant.id, [key.event_id for key in looked], wanted.text)
    hits = [key for key in looked if key.event_id in matching]
    reached = looked[-1] if len(looked) < len(keys) else None
    if len(hits) > limit:
        # The page is full: the next one begins behind its last row.
        hits, reached = hits[:limit], hits[limit - 1]
        looked = looked[: looked.index(reached) + 1]
    found = {row.id: row for row in wanted.rows(tenant).filter(id__in=[key.id for key in hits])}
    return Found([found[key.id] for key in hits if key.id in found], len(looked), reached)


def _keys(wanted: ListFilter, rows: Any) -> list[Key]:
    match wanted.kind:
        case Kind.EVENTS:
            # Of compressed and outsourced values, too, the length is known without reading them.
            sized = rows.annotate(bytes=Func("data", function="octet_length", output_field=IntegerField()))
            return [
                Key(id_, id_, at, size or 0)
                for id_, at, size in sized.values_list("id", "created_at", "bytes")
            ]
        case Kind.DELIVERIES:
            return [Key(*values) for values in rows.values_list("id", "event_id", "created_at", "size")]


def within_budget(keys: Sequence[Key]) -> list[Key]:
    room = MOST_BYTES
    kept: list[Key] = []
    for key in keys:
        room -= key.size
        if room < 0 and kept:
            break
        kept.append(key)
    return kept


MATCHING: Final = """
SELECT e.id FROM deliveries_event e
WHERE e.id = ANY(%(ids)s) AND e.id >= %(low)s AND e.id <= %(high)s AND e.tenant_id = %(tenant)s
  AND EXISTS (SELECT FROM unnest(%(needles)s::bytea[]) needle WHERE position(needle IN e.data) > 0)
"""


def matching_events(tenant_id: UUID, event_ids: Sequence[UUID], text: str) -> set[UUID]:
    """Those of them whose payload has the text in it. An erased payload has none."""
    if not event_ids:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(
            MATCHING,
            {
                "ids": list(set(event_ids)),
                # Partitions outside are not looked at.
                "low": min(event_ids),
                "high": max(event_ids),
                "tenant": tenant_id,
                "needles": _needles(text),
            },
        )
        return {row[0] for row in cursor.fetchall()}


def _needles(text: str) -> list[bytes]:
    """As it may stand in JSON: as it is, with quotes escaped, in ASCII alone."""
    forms = {text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]}
    return sorted(form.encode("utf-8", "replace") for form in forms)


# --- all of a list, piece by piece ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stretch:
    rows: list[Any]
    """The oldest first. May be none of those that were looked at."""
    reached: UUID
    """The last key that was looked at."""


def walk(
    tenant: Tenant, wanted: ListFilter, *, after: UUID | None, most: int, with_data: bool = False
) -> Stretch | None:
    """The next rows that the filter finds, text included. None: there are no more."""
    rows = wanted.rows(tenant)
    beyond = (rows if after is None else rows.filter(id__gt=after)).order_by("id")[:most]
    if wanted.text is None and not with_data:
        found = list(beyond)
        return Stretch(found, found[-1].id) if found else None
    keys = within_budget(_keys(wanted, beyond))
    if not keys:
        return None
    chosen = [key.id for key in keys]
    if wanted.text is not None:
        matching = matching_events(tenant.id, [key.event_id for key in keys], wanted.text)
        chosen = [key.id for key in keys if key.event_id in matching]
    full = rows.defer(None) if with_data else rows
    return Stretch(list(full.filter(id__in=chosen).order_by("id")) if chosen else [], keys[-1].id)


def count(tenant: Tenant, wanted: ListFilter, *, most: int) -> int:
    """Rows that the filter finds, its text left out; at most one more than `most`."""
    return wanted.rows(tenant).order_by("id").values("id")[: most + 1].count()
