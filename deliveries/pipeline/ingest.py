"""Publishing: events and all their deliveries in one transaction, then lanes, then a nudge.

Called by the publish views, by the test, replay and recover services, and by sources: the one writer of events and
deliveries. The steps, in the order in which they happen (`_publish`):

    read      the database's clock and the current settings version of each tenant
    fan out   validate each event and find its endpoints, by settings of exactly that version
    write     idempotency keys, events, deliveries: one transaction
    wake      the lanes, after the commit; nothing from here on changes the answer

Concurrent callers share transactions (group commit): the first one in leads and takes along whoever waits.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from deliveries.pipeline import arrays, counters, fifo
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.fan_out import OPERATIONAL_PREFIXES, SettingsCache, Target, TenantSettings, fan_out
from deliveries.pipeline.json_bytes import format_time
from deliveries.pipeline.wake import Wanted, wake_lanes
from tenants import ids
from tenants.idempotency import lock_key

logger = logging.getLogger(__name__)

FURTHEST_DELIVER_AT = timedelta(days=30)

GROUP_EVENTS = 2_000
"""Events that share a transaction at most: more only makes the first wait for the last."""

STATEMENT_TIMEOUT_SECONDS = 10


class DatabaseUnavailable(Exception):
    """Nothing is known to be written. The publisher is told to try again (503)."""


class Refusal(StrEnum):
    TENANT_NOT_FOUND = "not_found"
    TENANT_SUSPENDED = "tenant_suspended"
    TENANT_RATE_LIMITED = "tenant_rate_limited"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    EVENT_TYPE_ARCHIVED = "event_type_archived"
    SCHEMA_VIOLATION = "schema_violation"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    DELIVER_AT_TOO_FAR = "deliver_at_too_far"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    IDEMPOTENCY_IN_PROGRESS = "idempotency_in_progress"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Idempotency:
    key: str
    fingerprint: bytes


@dataclass(slots=True)
class NewEvent:
    """An event as its publisher wants it. Shape is checked by the caller, content here."""

    tenant_id: bytes
    type: str
    data: bytes
    occurred_at: datetime | None = None
    channels: list[str] | None = None
    ordering_key: str | None = None
    deliver_at: datetime | None = None
    idempotency: Idempotency | None = None
    hops: int = 0
    only_endpoint: bytes | None = None
    """A test: to this endpoint alone, whatever its subscriptions and the catalogue say."""
    is_fifo: bool = False
    """Of `only_endpoint`."""


@dataclass(slots=True)
class Accepted:
    event_id: bytes
    reply: bytes
    """The JSON that the publisher gets, also on a replay of its idempotency key."""
    is_replayed: bool = False
    delivery_ids: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class Refused:
    reason: Refusal
    errors: list[tuple[str, str]] = field(default_factory=list)
    """(field, message)"""
    limit: float | None = None


Result = Accepted | Refused


@dataclass(slots=True)
class _Prepared:
    """A valid event with its ids and targets, waiting to be written."""

    position: int
    event: NewEvent
    event_id: bytes
    settings_version: int
    targets: list[Target]
    warning: str | None
    delivery_ids: list[bytes]
    reply: bytes = b""


def publish(events: Sequence[NewEvent]) -> list[Result]:
    """Accept or refuse each event, in the order given. What is accepted is durable when this returns.

    Raises DatabaseUnavailable; then nothing was accepted as far as anyone knows.
    """
    return _group_commit.submit(events)


# --- sharing transactions ---------------------------------------------------------------------------------------------


class _Ticket:
    __slots__ = ("error", "events", "results", "wakeup")

    def __init__(self, events: Sequence[NewEvent]) -> None:
        self.events = events
        self.results: list[Result] | None = None
        self.error: Exception | None = None
        self.wakeup = threading.Lock()
        self.wakeup.acquire()


class _GroupCommit:
    """Callers that arrive while a transaction is under way share the next one. One leads at a time, on one connection."""

    def __init__(self, work: Callable[[Sequence[NewEvent]], list[Result]]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._waiting: list[_Ticket] = []
        self._is_led = False

    def submit(self, events: Sequence[NewEvent]) -> list[Result]:
        ticket = _Ticket(events)
        with self._lock:
            self._waiting.append(ticket)
            leads = not self._is_led
            self._is_led = True
        if not leads:
            # Woken with a result, or to lead.
            ticket.wakeup.acquire()
        if ticket.results is None and ticket.error is None:
            self._lead()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.results is not None
        return ticket.results

    def _lead(self) -> None:
        """One transaction for those who wait (the leader is among them), then hand over to whoever came meanwhile."""
        with self._lock:
            group = self._take()
        try:
            results = self._work([event for ticket in group for event in ticket.events])
            start = 0
            for ticket in group:
                ticket.results = results[start : start + len(ticket.events)]
                start += len(ticket.events)
        except Exception as error:  # noqa: BLE001 - every waiter must be told, whatever it was
            for ticket in group:
                ticket.error = error
        with self._lock:
            heir = self._waiting[0] if self._waiting else None
            self._is_led = heir is not None
        for ticket in group:
            ticket.wakeup.release()
        if heir is not None:
            heir.wakeup.release()

    def _take(self) -> list[_Ticket]:
        size = count = 0
        for ticket in self._waiting:
            count += 1
            size += len(ticket.events)
            if size >= GROUP_EVENTS:
                break
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group


class _Publisher:
    """The connection and the settings that one process publishes with. Used by one leader at a time."""

    def __init__(self) -> None:
        self._connection: psycopg.Connection[Row] | None = None
        self._process = 0
        self.settings = SettingsCache()

    def connection(self) -> psycopg.Connection[Row]:
        if self._connection is None or self._connection.closed or self._process != os.getpid():
            self._process = os.getpid()
            self._connection = connect(
                application_name="webhooks-publish", statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS
            )
        return self._connection

    def drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


_publisher = _Publisher()


def _run(events: Sequence[NewEvent]) -> list[Result]:
    for is_retry in (False, True):
        try:
            connection = _publisher.connection()
            read = _read(connection, events)
            break
        except psycopg.OperationalError as error:
            # Nothing was written yet, so a connection that died since the last publish may be replaced once.
            _publisher.drop()
            if is_retry:
                raise _unavailable(events) from error
    try:
        results = _publish(connection, events, read)
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        _publisher.drop()
        raise _unavailable(events) from error
    _count(events, results)
    return results


def _unavailable(events: Sequence[NewEvent]) -> DatabaseUnavailable:
    counters.add_all({"publishes:unavailable": len(events), "database_errors:publish": 1})
    return DatabaseUnavailable()


def _count(events: Sequence[NewEvent], results: Sequence[Result]) -> None:
    """For `/metrics`: once for the whole group."""
    counts: dict[str, float] = {}
    for event, result in zip(events, results, strict=True):
        if isinstance(result, Accepted):
            key = "publishes:replayed" if result.is_replayed else "publishes:accepted"
            if made := len(result.delivery_ids):
                trigger = (
                    "deliveries_made:automatic" if event.only_endpoint is None else "deliveries_made:test"
                )
                counts[trigger] = counts.get(trigger, 0) + made
        else:
            key = f"publishes:{result.reason.value}"
        counts[key] = counts.get(key, 0) + 1
    counters.add_all(counts)


_group_commit = _GroupCommit(_run)


# --- the steps --------------------------------------------------------------------------------------------------------


def _publish(connection: psycopg.Connection[Row], events: Sequence[NewEvent], read: "_Read") -> list[Result]:
    results: list[Result | None] = [None] * len(events)
    prepared = _prepare(connection, events, read, results)
    _write(connection, prepared, read.now, results)
    written = [one for one in prepared if results[one.position] is None]
    for one in written:
        results[one.position] = Accepted(one.event_id, one.reply, delivery_ids=one.delivery_ids)
    _wake(connection, written)
    return _copied(results)


@dataclass(frozen=True, slots=True)
class _Read:
    now: datetime
    tenants: dict[bytes, tuple[int, int, str, bool]]
    """By id: settings version, shared version, status, whether it is deleted."""


READ = """
SELECT t.id, t.settings_version, p.shared_version, t.status, t.deleted_at IS NOT NULL, clock_timestamp()
FROM tenants_platformstate p LEFT JOIN tenants_tenant t ON t.id = ANY(%s)
"""


def _read(connection: psycopg.Connection[Row], events: Sequence[NewEvent]) -> _Read:
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(READ, [arrays.uuids(list({event.tenant_id for event in events}))]).fetchall()
    return _Read(now=rows[0][5], tenants={row[0]: (row[1], row[2], row[3], row[4]) for row in rows if row[0]})


def _prepare(
    connection: psycopg.Connection[Row], events: Sequence[NewEvent], read: _Read, results: list[Result | None]
) -> list[_Prepared]:
    """Validate and fan out. Refusals go to `results`; the rest comes back with ids in the order of publication."""
    now_us = int(read.now.timestamp() * 1_000_000)
    minter = ids.Minter(now_us)
    created_at = format_time(read.now)
    prepared: list[_Prepared] = []
    limited: dict[bytes, float] = {}
    for position, event in enumerate(events):
        tenant = read.tenants.get(event.tenant_id)
        if tenant is None or tenant[3]:
            results[position] = Refused(Refusal.TENANT_NOT_FOUND)
            continue
        if tenant[2] != "active" and event.only_endpoint is None:
            results[position] = Refused(Refusal.TENANT_SUSPENDED)
            continue
        settings = _publisher.settings.get(connection, event.tenant_id, tenant[0], tenant[1])
        warning = None
        if event.only_endpoint is None:
            verdict = _check(settings, event, read.now)
            if isinstance(verdict, Refused):
                results[position] = verdict
                continue
            warning = verdict
            if settings.events_per_second is not None:
                limited[event.tenant_id] = settings.events_per_second
            targets = fan_out(
                settings,
                event_type=event.type,
                data=event.data,
                channels=event.channels,
                occurred_at=event.occurred_at or read.now,
            )
        else:
            targets = [Target(event.only_endpoint, None, event.is_fifo)]
        event_uuid = minter.next()
        one = _Prepared(
            position=position,
            event=event,
            event_id=event_uuid.bytes,
            settings_version=settings.version,
            targets=targets,
            warning=warning,
            delivery_ids=[minter.next().bytes for _ in targets],
        )
        one.reply = msgspec.json.encode(
            {
                "id": ids.to_text(ids.EVENT, event_uuid),
                "type": event.type,
                "occurred_at": format_time(event.occurred_at) if event.occurred_at else created_at,
                "created_at": created_at,
                "channels": event.channels,
                "deliveries": len(targets),
            }
        )
        prepared.append(one)
    return _within_rate(connection, prepared, limited, results) if limited else prepared


# A bucket as one time (GCRA): the moment at which it is empty again. It holds a second's worth, at least one event.
SPEND = """
INSERT INTO tenants_ratecounter AS c (key, started_at, count)
VALUES (%(key)s, now() + LEAST(%(n)s, %(burst)s) * make_interval(secs => %(pause)s), LEAST(%(n)s, %(burst)s))
ON CONFLICT (key) DO UPDATE SET
    count = GREATEST(0, LEAST(%(n)s, floor(%(burst)s - EXTRACT(EPOCH FROM GREATEST(c.started_at, now()) - now()) / %(pause)s))),
    started_at = GREATEST(c.started_at, now()) + make_interval(secs => %(pause)s)
        * GREATEST(0, LEAST(%(n)s, floor(%(burst)s - EXTRACT(EPOCH FROM GREATEST(c.started_at, now()) - now()) / %(pause)s)))
RETURNING count
"""


def _within_rate(
    connection: psycopg.Connection[Row],
    prepared: list[_Prepared],
    limited: dict[bytes, float],
    results: list[Result | None],
) -> list[_Prepared]:
    """Those that the tenants' `events_per_second` still cover; the others, the last ones, are refused. Atomic."""
    for tenant_id, rate in sorted(limited.items()):
        mine = [
            one for one in prepared if one.event.tenant_id == tenant_id and one.event.only_endpoint is None
        ]
        parameters = {
            "key": f"events:{UUID(bytes=tenant_id)}",
            "n": len(mine),
            "burst": max(1, int(rate)),
            "pause": 1 / rate,
        }
        row = connection.execute(SPEND, parameters).fetchone()
        for one in mine[row[0] if row else 0 :]:
            results[one.position] = Refused(Refusal.TENANT_RATE_LIMITED, limit=rate)
    return [one for one in prepared if results[one.position] is None]


def _check(settings: TenantSettings, event: NewEvent, now: datetime) -> Refused | str | None:
    """None, a warning to keep with the event, or why it is refused."""
    if len(event.data) > settings.payload_bytes:
        return Refused(Refusal.PAYLOAD_TOO_LARGE, limit=settings.payload_bytes)
    if event.deliver_at is not None and event.deliver_at > now + FURTHEST_DELIVER_AT:
        return Refused(Refusal.DELIVER_AT_TOO_FAR, [("deliver_at", "Must be at most 30 days ahead.")])
    if event.type.startswith(OPERATIONAL_PREFIXES):
        return Refused(
            Refusal.UNKNOWN_EVENT_TYPE, [("type", "This name is reserved for the platform's own events.")]
        )
    facts = settings.types.get(event.type)
    if facts is None:
        return Refused(
            Refusal.UNKNOWN_EVENT_TYPE, [("type", "This event type is in no catalogue of the tenant.")]
        )
    if facts.is_archived:
        return Refused(Refusal.EVENT_TYPE_ARCHIVED, [("type", "This event type is archived.")])
    if facts.schema is None or settings.schema_validation == "off":
        return None
    errors = facts.schema.errors(msgspec.json.decode(event.data))
    if not errors:
        return None
    named = [(f"data.{path}" if path else "data", message) for path, message in errors]
    if settings.schema_validation == "warn":
        return msgspec.json.encode([{"field": name, "message": message} for name, message in named]).decode()
    return Refused(Refusal.SCHEMA_VIOLATION, named)


# One statement writes events and deliveries, so without idempotency keys it is the whole transaction. Sequence numbers
# are drawn in the order of publication.
INSERT = """
WITH e AS (
    INSERT INTO deliveries_event (id, tenant_id, type, occurred_at, data, channels, ordering_key, sequence, deliver_at,
                                  settings_version, delivery_count, schema_warning, hops, created_at)
    SELECT id, tenant_id, type, to_timestamp(occurred_at), data, channels::varchar[], ordering_key,
           nextval('deliveries_sequence'), to_timestamp(deliver_at), settings_version, delivery_count,
           schema_warning::jsonb, hops, %s
    FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
         AS u(id, tenant_id, type, occurred_at, data, channels, ordering_key, deliver_at, settings_version,
              delivery_count, schema_warning, hops)
    RETURNING id, tenant_id, type, sequence, ordering_key, deliver_at, created_at, octet_length(data) AS size
)
INSERT INTO deliveries_delivery (id, tenant_id, endpoint_id, event_id, event_type, status, trigger, subscription_id,
                                 ordering_key, sequence, attempt_count, schedule_step, next_attempt_at, body,
                                 preparation_error, size, created_at)
SELECT d.id, e.tenant_id, d.endpoint_id, e.id, e.type, 'pending', d.trigger, d.subscription_id,
       CASE WHEN d.is_fifo THEN COALESCE(e.ordering_key, '') END, e.sequence, 0, 0,
       CASE WHEN NOT d.is_fifo THEN GREATEST(e.deliver_at, e.created_at) END, d.body, d.error, COALESCE(octet_length(d.body), e.size), e.created_at
FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s)
     AS d(id, trigger, event_id, endpoint_id, subscription_id, is_fifo, body, error)
JOIN e ON e.id = d.event_id
"""


def _write(
    connection: psycopg.Connection[Row],
    prepared: list[_Prepared],
    now: datetime,
    results: list[Result | None],
) -> None:
    """Write what is prepared; who loses to an idempotency key gets its result here. A culprit is refused alone."""
    if not prepared:
        return
    try:
        lines = {
            (target.endpoint_id, one.event.ordering_key or "")
            for one in prepared
            for target in one.targets
            if target.is_fifo
        }
        if lines or any(one.event.idempotency for one in prepared):
            with connection.transaction():
                fifo.lock_lines(connection, lines)
                fresh = _claim_keys(connection, prepared, results)
                _insert(connection, fresh, now)
                fifo.pass_on(connection, lines)
                _keep_replies(connection, fresh)
        else:
            _insert(connection, prepared, now)
    except psycopg.errors.OperationalError:
        raise
    except psycopg.Error:
        if len(prepared) == 1:
            logger.exception("an event could not be written")
            results[prepared[0].position] = Refused(Refusal.INTERNAL_ERROR)
            return
        for one in prepared:
            results[one.position] = None
        middle = len(prepared) // 2
        _write(connection, prepared[:middle], now, results)
        _write(connection, prepared[middle:], now, results)


def _insert(connection: psycopg.Connection[Row], prepared: list[_Prepared], now: datetime) -> None:
    if not prepared:
        return
    made = [
        (one, target, key)
        for one in prepared
        for target, key in zip(one.targets, one.delivery_ids, strict=True)
    ]
    parameters: list[Any] = [
        now,
        arrays.uuids([one.event_id for one in prepared]),
        arrays.uuids([one.event.tenant_id for one in prepared]),
        arrays.texts([one.event.type for one in prepared]),
        arrays.nullable_float8s((one.event.occurred_at or now).timestamp() for one in prepared),
        arrays.byteas([one.event.data for one in prepared]),
        arrays.texts([_array_text(one.event.channels) for one in prepared]),
        arrays.texts([one.event.ordering_key for one in prepared]),
        arrays.nullable_float8s(_seconds(one.event.deliver_at) for one in prepared),
        arrays.int8s([one.settings_version for one in prepared]),
        arrays.int4s([len(one.targets) for one in prepared]),
        arrays.texts([one.warning for one in prepared]),
        arrays.int4s([one.event.hops for one in prepared]),
        arrays.uuids([key for _, _, key in made]),
        arrays.texts(["test" if one.event.only_endpoint else "automatic" for one, _, _ in made]),
        arrays.uuids([one.event_id for one, _, _ in made]),
        arrays.uuids([target.endpoint_id for _, target, _ in made]),
        arrays.nullable_uuids([target.subscription_id for _, target, _ in made]),
        arrays.bools([target.is_fifo for _, target, _ in made]),
        arrays.byteas([target.body for _, target, _ in made]),
        arrays.texts([target.error for _, target, _ in made]),
    ]
    connection.execute(INSERT, parameters, binary=True)


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _array_text(channels: list[str] | None) -> str | None:
    """A text[] literal. Channel names have no character that needs quoting."""
    return None if channels is None else "{" + ",".join(channels) + "}"


# --- idempotency ------------------------------------------------------------------------------------------------------

LOOK = """
SELECT r.space, r.key, r.fingerprint, r.body, r.event_id
FROM unnest(%s::uuid[], %s::text[]) AS w(space, key) JOIN tenants_idempotencyrecord r USING (space, key)
WHERE r.created_at > now() - interval '24 hours'
"""

KEEP = """
INSERT INTO tenants_idempotencyrecord (space, key, fingerprint, status_code, body, is_encrypted, location, event_id, created_at)
SELECT space, key, fingerprint, 202, body, false, '', event_id, now()
FROM unnest(%s::uuid[], %s::text[], %s::bytea[], %s::bytea[], %s::uuid[]) AS u(space, key, fingerprint, body, event_id)
ON CONFLICT (space, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status_code = EXCLUDED.status_code,
    body = EXCLUDED.body, is_encrypted = false, location = '', event_id = EXCLUDED.event_id, created_at = EXCLUDED.created_at
"""


def _claim_keys(
    connection: psycopg.Connection[Row], prepared: list[_Prepared], results: list[Result | None]
) -> list[_Prepared]:
    """Lock, then look: the look's snapshot is then newer than whatever the previous holder of the lock wrote.

    Returns what is still to be written. A key that stands twice among them is left to its first event; `_copied` gives
    the others its answer.
    """
    first: dict[tuple[bytes, str], _Prepared] = {}
    fresh = []
    for one in prepared:
        if one.event.idempotency is None:
            fresh.append(one)
        elif (place := (one.event.tenant_id, one.event.idempotency.key)) not in first:
            first[place] = one
        else:
            results[one.position] = _same(first[place], one)
    places = sorted(first)
    locked: dict[int, bool] = dict(
        connection.execute(
            "SELECT n, pg_try_advisory_xact_lock(n) FROM unnest(%s::bigint[]) AS n",
            [arrays.int8s(sorted({lock_key(*place) for place in places}))],
        ).fetchall()
    )
    parameters = [arrays.uuids([space for space, _ in places]), arrays.texts([key for _, key in places])]
    kept = {
        (space, key): (bytes(fingerprint), bytes(body), event_id)
        for space, key, fingerprint, body, event_id in connection.execute(
            LOOK, parameters, binary=True
        ).fetchall()
    }
    for place in places:
        one = first[place]
        assert one.event.idempotency is not None
        if place in kept:
            fingerprint, body, event_id = kept[place]
            results[one.position] = (
                Accepted(event_id, body, is_replayed=True)
                if fingerprint == one.event.idempotency.fingerprint
                else Refused(Refusal.IDEMPOTENCY_KEY_REUSED)
            )
        elif not locked[lock_key(*place)]:
            results[one.position] = Refused(Refusal.IDEMPOTENCY_IN_PROGRESS)
        else:
            fresh.append(one)
    fresh.sort(key=lambda one: one.position)
    return fresh


class _Copy(Refused):
    """Stands in `results` until the first event with the key has its own."""

    position: int


def _same(first: _Prepared, later: _Prepared) -> Refused:
    assert first.event.idempotency is not None
    assert later.event.idempotency is not None
    if first.event.idempotency.fingerprint != later.event.idempotency.fingerprint:
        return Refused(Refusal.IDEMPOTENCY_KEY_REUSED)
    copy = _Copy(Refusal.IDEMPOTENCY_IN_PROGRESS)
    copy.position = first.position
    return copy


def _copied(results: Sequence[Result | None]) -> list[Result]:
    final: list[Result] = []
    for result in results:
        assert result is not None
        if not isinstance(result, _Copy):
            final.append(result)
            continue
        origin = results[result.position]
        assert origin is not None
        if isinstance(origin, Accepted):
            origin = Accepted(origin.event_id, origin.reply, is_replayed=True)
        final.append(origin)
    return final


def _keep_replies(connection: psycopg.Connection[Row], fresh: list[_Prepared]) -> None:
    kept = sorted(
        ((one.event.tenant_id, one.event.idempotency, one) for one in fresh if one.event.idempotency),
        key=lambda entry: (entry[0], entry[1].key),
    )
    if not kept:
        return
    connection.execute(
        KEEP,
        [
            arrays.uuids([space for space, _, _ in kept]),
            arrays.texts([idempotency.key for _, idempotency, _ in kept]),
            arrays.byteas([idempotency.fingerprint for _, idempotency, _ in kept]),
            arrays.byteas([one.reply for _, _, one in kept]),
            arrays.uuids([one.event_id for _, _, one in kept]),
        ],
        binary=True,
    )


def _wake(connection: psycopg.Connection[Row], written: list[_Prepared]) -> None:
    """After the commit: whatever happens here, the events are accepted, and the repair sweep finds them."""
    now = time.time()
    lanes: dict[bytes, float | None] = {}
    for one in written:
        at = one.event.deliver_at.timestamp() if one.event.deliver_at else None
        if at is not None and at <= now:
            at = None
        for target in one.targets:
            if target.endpoint_id not in lanes:
                lanes[target.endpoint_id] = at
            else:
                known = lanes[target.endpoint_id]
                lanes[target.endpoint_id] = None if at is None or known is None else min(at, known)
    if not lanes:
        return
    wanted: list[Wanted] = sorted(lanes.items())
    try:
        wake_lanes(connection, wanted)
    except psycopg.Error:
        logger.exception("waking lanes failed, the repair sweep will")
        _publisher.drop()
