"""What a list's filter finds, as a file: CSV for spreadsheets, JSON for programs. Called by the portal and by jobs.

Up to STREAMED rows go out as they are read. Beyond that a job writes the file piece by piece into the database, where it
is kept for a week. A file with payloads goes with the first of them that is erased.
"""

import csv
import io
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, assert_never
from uuid import UUID

import msgspec
from django.db.models import Max, Q, Sum
from django.db.models.functions import Length, Now

from deliveries import validation
from deliveries.models import Delivery, Event, Job, JobPart
from deliveries.pipeline.json_bytes import format_time
from deliveries.services import endpoints, searching
from deliveries.services.listing import Kind, ListFilter
from deliveries.services.searching import Stretch
from tenants import csv_cells, ids
from tenants.models import Tenant

STREAMED: Final = 100_000
"""Rows that a request may send at once: a few seconds."""

BATCH: Final = 2_000
"""Rows read by one statement, and held in memory."""

KEPT: Final = timedelta(days=7)
"""How long a file can be fetched."""

MOST_BYTES: Final = 256 * 1024 * 1024
"""Of one file in the database, compressed: ten million deliveries, or so."""


class Format(StrEnum):
    CSV = "csv"
    JSON = "json"


class TooManyRows(Exception):
    """More than are sent at once: a job makes the file."""


class FileGone(Exception):
    """It expired, or held a payload that was erased, or was never finished."""


# --- at once ----------------------------------------------------------------------------------------------------------


def stream(tenant: Tenant, wanted: ListFilter, form: Format) -> Iterator[bytes]:
    """The whole file, the oldest first. Raises TooManyRows before anything is sent."""
    if searching.count(tenant, wanted, most=STREAMED) > STREAMED:
        raise TooManyRows
    return _pieces(tenant, wanted, form)


def _pieces(tenant: Tenant, wanted: ListFilter, form: Format) -> Iterator[bytes]:
    yield _head(wanted.kind, form)
    after: UUID | None = None
    is_first = True
    while stretch := _next(tenant, wanted, form, after):
        piece = encode(tenant, wanted.kind, form, stretch.rows)
        if piece:
            yield piece if is_first else _between(form) + piece
            is_first = False
        after = stretch.reached
    yield _tail(form)


def _next(tenant: Tenant, wanted: ListFilter, form: Format, after: UUID | None) -> Stretch | None:
    return searching.walk(tenant, wanted, after=after, most=BATCH, with_data=has_payloads(wanted.kind, form))


def has_payloads(kind: Kind, form: Format) -> bool:
    return kind is Kind.EVENTS and form is Format.JSON


# --- by a job ---------------------------------------------------------------------------------------------------------


def add_part(job: Job, wanted: ListFilter, form: Format) -> Stretch | None:
    """The next piece of the job's file. None: the file is whole. Inside the job's transaction."""
    stretch = _next(job.tenant, wanted, form, job.cursor)
    if stretch is None:
        return None
    piece = encode(job.tenant, wanted.kind, form, stretch.rows)
    if piece:
        last = _parts(job).aggregate(last=Max("number"))["last"]
        JobPart.objects.for_tenant(job.tenant_id).bulk_create(
            [
                JobPart(
                    tenant_id=job.tenant_id,
                    job=job,
                    number=0 if last is None else last + 1,
                    data=zlib.compress(piece),
                )
            ]
        )
    return stretch


def is_too_large(job: Job) -> bool:
    return (_parts(job).aggregate(bytes=Sum(Length("data")))["bytes"] or 0) > MOST_BYTES


def file_of(job: Job) -> Iterator[bytes]:
    """Raises FileGone before anything is sent."""
    if job.kind != Job.Kind.EXPORT or job.status != Job.Status.DONE:
        raise FileGone
    # Whoever swept it away did it after this moment at the earliest.
    if not Job.objects.for_tenant(job.tenant_id).filter(id=job.id, expires_at__gt=Now()).exists():
        raise FileGone
    return _stored(job)


def _stored(job: Job) -> Iterator[bytes]:
    assert job.filter is not None
    form = Format(job.filter["format"])
    yield _head(Kind(job.filter["kind"]), form)
    numbers = list(_parts(job).order_by("number").values_list("number", flat=True))
    for number in numbers:
        # One at a time: all together may be large.
        part = _parts(job).get(number=number)
        piece = zlib.decompress(bytes(part.data))
        yield piece if number == 0 else _between(form) + piece
    yield _tail(form)


def _parts(job: Job) -> Any:
    return JobPart.objects.for_tenant(job.tenant_id).filter(job=job)


def file_name(wanted: dict[str, str], at: datetime) -> str:
    return f"{wanted['kind']}-{at:%Y%m%d-%H%M%S}.{wanted['format']}"


def expire() -> int:
    """The files whose time is over, or that nobody can fetch. Each hour. Returns how many pieces went."""
    over = Q(job__expires_at__lte=Now()) | Q(job__status__in=[Job.Status.CANCELLED, Job.Status.FAILED])
    deleted, _ = JobPart.unscoped.filter(over).delete()
    return deleted


def forget_payload(event: Event) -> None:
    """Inside the transaction that erases it: no file that may hold it stays. A job that writes one fails.

    A batch that has read it holds the job's lock, so this waits for its piece and takes that away, too.
    """
    holding = Job.objects.for_tenant(event.tenant_id).filter(
        kind=Job.Kind.EXPORT,
        filter__kind=Kind.EVENTS.value,
        filter__format=Format.JSON.value,
        since__lte=event.created_at,
        until__gt=event.created_at,
        status__in=[Job.Status.RUNNING, Job.Status.DONE],
    )
    held = list(holding.select_for_update().order_by("id"))
    for job in held:
        job.status, job.error = Job.Status.FAILED, "payload_erased"
        job.completed_at = job.completed_at or Now()
        job.save(update_fields=["status", "error", "completed_at"])
    JobPart.objects.for_tenant(event.tenant_id).filter(job__in=held).delete()


# --- rows as text -----------------------------------------------------------------------------------------------------

DELIVERY_COLUMNS: Final = (
    "id",
    "event",
    "event_type",
    "endpoint",
    "endpoint_url",
    "trigger",
    "status",
    "cancel_reason",
    "attempt_count",
    "next_attempt_at",
    "last_outcome",
    "last_status_code",
    "created_at",
    "completed_at",
)
EVENT_COLUMNS: Final = (
    "id",
    "type",
    "occurred_at",
    "created_at",
    "channels",
    "ordering_key",
    "deliver_at",
    "deliveries",
    "data_erased_at",
)


def encode(tenant: Tenant, kind: Kind, form: Format, rows: Sequence[Any]) -> bytes:
    """The lines of these rows, or the items of a JSON list."""
    facts = _deliveries(tenant, rows) if kind is Kind.DELIVERIES else [_event(row) for row in rows]
    if form is Format.CSV:
        return _csv([_cells(each.values()) for each in facts])
    if has_payloads(kind, form):
        for fact, row in zip(facts, rows, strict=True):
            fact["data"] = None if row.data is None else msgspec.Raw(bytes(row.data))
    return b",\n".join(msgspec.json.encode(each) for each in facts)


def _deliveries(tenant: Tenant, rows: Sequence[Delivery]) -> list[dict[str, Any]]:
    named = endpoints.named(tenant=tenant, endpoint_ids=(row.endpoint_id for row in rows))
    urls = {endpoint_id: validation.mask_url(row.url) for endpoint_id, row in named.items()}
    return [
        dict(
            zip(
                DELIVERY_COLUMNS,
                (
                    ids.to_text(ids.DELIVERY, row.id),
                    ids.to_text(ids.EVENT, row.event_id),
                    row.event_type,
                    ids.to_text(ids.ENDPOINT, row.endpoint_id),
                    urls.get(row.endpoint_id),
                    row.trigger,
                    row.status,
                    row.cancel_reason,
                    row.attempt_count,
                    _time(row.next_attempt_at),
                    row.last_outcome,
                    row.last_status_code,
                    _time(row.created_at),
                    _time(row.completed_at),
                ),
                strict=True,
            )
        )
        for row in rows
    ]


def _event(row: Event) -> dict[str, Any]:
    return dict(
        zip(
            EVENT_COLUMNS,
            (
                ids.to_text(ids.EVENT, row.id),
                row.type,
                _time(row.occurred_at),
                _time(row.created_at),
                row.channels,
                row.ordering_key,
                _time(row.deliver_at),
                row.delivery_count,
                _time(row.data_erased_at),
            ),
            strict=True,
        )
    )


def _time(at: datetime | None) -> str | None:
    return None if at is None else format_time(at)


def _head(kind: Kind, form: Format) -> bytes:
    match form:
        case Format.CSV:
            return _csv([DELIVERY_COLUMNS if kind is Kind.DELIVERIES else EVENT_COLUMNS])
        case Format.JSON:
            return b"[\n"
        case _:
            assert_never(form)


def _between(form: Format) -> bytes:
    return b"" if form is Format.CSV else b",\n"


def _tail(form: Format) -> bytes:
    return b"" if form is Format.CSV else b"\n]\n"


def _cells(values: Any) -> list[str]:
    """Some of them are strangers' text."""
    return [csv_cells.cell(" ".join(value) if isinstance(value, list) else value) for value in values]


def _csv(lines: Sequence[Sequence[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(lines)
    return out.getvalue().encode()
