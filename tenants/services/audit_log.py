"""Reading the audit log of a tenant: filtered, newest first, as a page or as a file."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from django.db.models import QuerySet

from tenants import ids
from tenants.models import AuditEntry, Tenant

MOST_EXPORTED: Final = 100_000
"""Entries in one file, the newest."""

CHUNK: Final = 1_000
"""Entries read by one statement."""


def find(
    tenant: Tenant,
    *,
    action: str | None = None,
    actor: str | None = None,
    target: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> "QuerySet[AuditEntry]":
    """`action` is a word such as `endpoint` or the whole of it; `actor` a part of what people see."""
    rows = AuditEntry.objects.filter(tenant=tenant)
    if action:
        rows = rows.filter(action__startswith=action)
    if actor:
        rows = rows.filter(actor__icontains=actor)
    if target:
        rows = rows.filter(target=target)
    # Ids rise with time, and the index is by id.
    if since is not None:
        rows = rows.filter(id__gte=ids.floor_of(since))
    if until is not None:
        rows = rows.filter(id__lt=ids.floor_of(until))
    return rows


def newest_first(rows: "QuerySet[AuditEntry]") -> Iterator[AuditEntry]:
    """By chunks, so that no snapshot and no connection is held while a slow reader reads."""
    last = None
    for _ in range(MOST_EXPORTED // CHUNK):
        chunk = rows if last is None else rows.filter(id__lt=last)
        found = list(chunk.order_by("-id")[:CHUNK])
        yield from found
        if len(found) < CHUNK:
            return
        last = found[-1].id
