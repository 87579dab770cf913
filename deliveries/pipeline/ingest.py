"""Publishing: events and all their deliveries in one transaction, then lanes, then a nudge.

Called by the publish views, by the test, replay and recover services, and by sources: the one writer of events and
deliveries. The steps, in the order in which they happen (`_publish`):

    read      the database's clock and the current settings version of each tenant
    fan out   validate each event and find its endpoints, by settings of exactly that version
    write     idempotency keys, events, deliveries, the incoming requests they were made of: one transaction
    wake      the lanes, after the commit; nothing from here on changes the answer

Concurrent callers share transactions (group commit): the first one in leads and takes along whoever waits.
"""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import psycopg

from deliveries.pipeline import arrays, counters, fifo
from deliveries.pipeline.claims import (
    TENANT_REFUSALS,
    Place,
    answer_again,
    batches_of,
    claim_batches,
    claim_keys,
    copied,
    keep_batches,
    keep_replies,
)
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.fan_out import OPERATIONAL_PREFIXES, SettingsCache, Target, TenantSettings, fan_out
from deliveries.pipeline.group_commit import GroupCommit
from deliveries.pipeline.json_bytes import format_time
from deliveries.pipeline.origins import keep_origins
from deliveries.pipeline.publication import (
    Accepted,
    Batch,
    Idempotency,
    NewEvent,
    Origin,
    Prepared,
    Refusal,
    Refused,
    Result,
)
from deliveries.pipeline.wake import Wanted, wake_lanes
from tenants import ids

__all__ = [
    "TENANT_REFUSALS",
    "Accepted",
    "Batch",
    "DatabaseUnavailable",
    "Idempotency",
    "NewEvent",
    "Origin",
    "Refusal",
    "Refused",
    "Result",
    "publish",
]

logger = logging.getLogger(__name__)

FURTHEST_DELIVER_AT = timedelta(days=30)

STATEMENT_TIMEOUT_SECONDS = 10

OPTIONS = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
"""Of the connection that publishes: its statements are planned once, where planning them each time was a third of what a
transaction of five events took. Only row by row, by index, and none of these joins two tables by a key: how many rows there
will be nobody knows by then."""


class DatabaseUnavailable(Exception):
    """Nothing is known to be written. The publisher is told to try again (503)."""


def publish(events: Sequence[NewEvent]) -> list[Result]:
    """Accept or refuse each event, in the order given. What is accepted is durable when this returns.

    Raises DatabaseUnavailable; then nothing was accepted as far as anyone knows.
    """
    return _group_commit.submit(events)


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
                application_name="webhooks-publish",
                statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
                options=OPTIONS,
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
    try:
        _count(events, results)
    except Exception:  # they are accepted
        logger.exception("a group of publishes was not counted")
    return results


def _unavailable(events: Sequence[NewEvent]) -> DatabaseUnavailable:
    counters.add_all({"publishes:unavailable": len(events), "database_errors:publish": 1})
    return DatabaseUnavailable()


def _count(events: Sequence[NewEvent], results: Sequence[Result]) -> None:
    """For `/metrics` and the tenants' usage: once for the whole group."""
    counts: dict[str, float] = {}
    usage: dict[tuple[bytes, str], int] = {}
    for event, result in zip(events, results, strict=True):
        if isinstance(result, Accepted):
            key = "publishes:replayed" if result.is_replayed else "publishes:accepted"
            if not result.is_replayed:
                mine = (event.tenant_id, "events")
                usage[mine] = usage.get(mine, 0) + 1
            if made := len(result.delivery_ids):
                trigger = (
                    "deliveries_made:automatic" if event.only_endpoint is None else "deliveries_made:test"
                )
                counts[trigger] = counts.get(trigger, 0) + made
        else:
            key = f"publishes:{result.reason.value}"
        counts[key] = counts.get(key, 0) + 1
    counters.add_all(counts)
    counters.add_usage(usage)


_group_commit = GroupCommit(_run)


# --- the steps --------------------------------------------------------------------------------------------------------


def _publish(connection: psycopg.Connection[Row], events: Sequence[NewEvent], read: "_Read") -> list[Result]:
    results: list[Result | None] = [None] * len(events)
    prepared = _prepare(connection, events, read, results)
    if any(results):
        answer_again(connection, events, results)
    batches = batches_of(events, results)
    if batches:
        written = _write_batches(connection, prepared, batches, read.now, results)
    else:
        written = _write(connection, prepared, read.now, results)
    _wake(connection, written)
    return copied(results)


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
) -> list[Prepared]:
    """Validate and fan out. Refusals go to `results`; the rest comes back with ids in the order of publication."""
    now_us = int(read.now.timestamp() * 1_000_000)
    minter = ids.Minter(now_us)
    created_at = format_time(read.now)
    prepared: list[Prepared] = []
    limited: dict[bytes, float] = {}
    for position, event in enumerate(events):
        tenant = read.tenants.get(event.tenant_id)
        if tenant is None or tenant[3]:
            results[position] = Refused(Refusal.TENANT_NOT_FOUND)
            continue
        if tenant[2] != "active" and event.only_endpoint is None and not event.is_operational:
            results[position] = Refused(Refusal.TENANT_SUSPENDED)
            continue
        warning = None
        try:
            settings = _publisher.settings.get(connection, event.tenant_id, tenant[0], tenant[1])
            if event.only_endpoint is None:
                if not event.is_operational:
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
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except Exception:
            # Schemas and expressions are their tenant's. What nobody foresaw in one of them must not become the answer
            # of everyone in the group.
            logger.exception("an event could not be prepared")
            results[position] = Refused(Refusal.INTERNAL_ERROR)
            continue
        event_uuid = minter.next()
        one = Prepared(
            position=position,
            event=event,
            event_id=event_uuid.bytes,
            settings_version=settings.version,
            targets=targets,
            warning=warning,
            delivery_ids=[minter.next().bytes for _ in targets],
        )
        one.reply = (
            event.origin.answer
            if event.origin is not None
            else msgspec.json.encode(
                {
                    "id": ids.to_text(ids.EVENT, event_uuid),
                    "type": event.type,
                    "occurred_at": format_time(event.occurred_at) if event.occurred_at else created_at,
                    "created_at": created_at,
                    "channels": event.channels,
                    "deliveries": len(targets),
                }
            )
        )
        prepared.append(one)
    return _within_rate(connection, prepared, limited, results) if limited else prepared


# A bucket as one time (GCRA): the moment at which it is empty again. It holds a second's worth, at least one event, and
# what a lower limit made of it holds no longer than a full one does now.
_EMPTY_AT = "LEAST(GREATEST(c.started_at, now()), now() + %(burst)s * make_interval(secs => %(pause)s))"
_COVERED = (
    f"GREATEST(0, LEAST(%(n)s, floor(%(burst)s - EXTRACT(EPOCH FROM {_EMPTY_AT} - now()) / %(pause)s)))"
)
SPEND = f"""
INSERT INTO tenants_ratecounter AS c (key, started_at, count)
VALUES (%(key)s, now() + LEAST(%(n)s, %(burst)s) * make_interval(secs => %(pause)s), LEAST(%(n)s, %(burst)s))
ON CONFLICT (key) DO UPDATE SET
    count = {_COVERED},
    started_at = {_EMPTY_AT} + make_interval(secs => %(pause)s) * {_COVERED}
RETURNING count
"""  # noqa: S608 - expressions of ours


def _within_rate(
    connection: psycopg.Connection[Row],
    prepared: list[Prepared],
    limited: dict[bytes, float],
    results: list[Result | None],
) -> list[Prepared]:
    """Those that the tenants' `events_per_second` still cover; the others, the last ones, are refused. Atomic."""
    for tenant_id, rate in sorted(limited.items()):
        mine = [
            one
            for one in prepared
            if one.event.tenant_id == tenant_id
            and one.event.only_endpoint is None
            and not one.event.is_operational
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
# are drawn in the order of publication. What a delivery takes from its event is found by the event's position, not by a
# join: plans are made once (OPTIONS), when nobody knows how many there will be. Arrays that are asked by position have
# elements of one length and no NULL, or each look would read all before it.
INSERT = """
WITH numbers AS MATERIALIZED (
    SELECT array_agg(nextval('deliveries_sequence')) AS of FROM generate_series(1, %(events)s::int)
), e AS (
    INSERT INTO deliveries_event (id, tenant_id, type, occurred_at, data, channels, ordering_key, sequence, deliver_at,
                                  settings_version, delivery_count, schema_warning, hops, traceparent, created_at)
    SELECT id, tenant_id, type, occurred_at, data, channels::varchar[], ordering_key, numbers.of[position], deliver_at,
           settings_version, delivery_count, schema_warning::jsonb, hops, traceparent, %(now)s
    FROM numbers, unnest(
        %(event_ids)s, %(tenant_ids)s, %(types)s, %(occurred_at)s, %(data)s, %(channels)s, %(ordering_keys)s,
        %(deliver_at)s, %(settings_versions)s, %(delivery_counts)s, %(warnings)s, %(hops)s, %(traceparents)s
    ) WITH ORDINALITY
      AS u(id, tenant_id, type, occurred_at, data, channels, ordering_key, deliver_at, settings_version,
           delivery_count, schema_warning, hops, traceparent, position)
)
INSERT INTO deliveries_delivery (id, tenant_id, endpoint_id, event_id, event_type, status, trigger, subscription_id,
                                 ordering_key, sequence, attempt_count, schedule_step, next_attempt_at, body,
                                 preparation_error, size, created_at)
SELECT d.id, (%(tenant_ids)s::uuid[])[position], d.endpoint_id, (%(event_ids)s::uuid[])[position], d.event_type,
       'pending', d.trigger, d.subscription_id, d.ordering_key, numbers.of[position], 0, 0,
       CASE WHEN d.ordering_key IS NULL THEN (%(due)s::timestamptz[])[position] END, d.body,
       d.error, COALESCE(octet_length(d.body), (%(sizes)s::int[])[position]), %(now)s
FROM numbers, unnest(
    %(positions)s, %(delivery_ids)s, %(delivery_types)s, %(triggers)s, %(endpoint_ids)s, %(subscription_ids)s, %(lines)s,
    %(bodies)s, %(errors)s
) AS d(position, id, event_type, trigger, endpoint_id, subscription_id, ordering_key, body, error)
"""


def _write_batches(
    connection: psycopg.Connection[Row],
    prepared: list[Prepared],
    batches: dict[Batch, list[int]],
    now: datetime,
    results: list[Result | None],
) -> list[Prepared]:
    """As `_write`, in one transaction with the replies of whole batches, which tell of every event in them."""
    with connection.transaction():
        fresh = claim_batches(connection, batches, results)
        waiting = [one for one in prepared if results[one.position] is None]
        taken = {(batch.tenant_id, batch.key) for batch in fresh}
        written = _write(connection, waiting, now, results, taken=taken)
        keep_batches(connection, fresh, batches, copied(results))
    return written


def _write(
    connection: psycopg.Connection[Row],
    prepared: list[Prepared],
    now: datetime,
    results: list[Result | None],
    *,
    taken: set[Place] | None = None,
) -> list[Prepared]:
    """Write what is prepared; who loses to an idempotency key gets its result here. A culprit is refused alone.

    `taken`: in a transaction with batches under these keys. Then a savepoint keeps it from a culprit.
    """
    _try_to_write(connection, prepared, now, results, taken)
    written = [one for one in prepared if results[one.position] is None]
    for one in written:
        results[one.position] = Accepted(one.event_id, one.reply, delivery_ids=one.delivery_ids)
    return written


def _try_to_write(
    connection: psycopg.Connection[Row],
    prepared: list[Prepared],
    now: datetime,
    results: list[Result | None],
    taken: set[Place] | None,
) -> None:
    """All of it, or after a fault its halves, down to the culprit."""
    if not prepared:
        return
    try:
        lines = {
            (target.endpoint_id, one.event.ordering_key or "")
            for one in prepared
            for target in one.targets
            if target.is_fifo
        }
        if taken is not None or lines or any(one.event.idempotency or one.event.origin for one in prepared):
            with connection.transaction():
                if lines:
                    # What passes them on joins history, whose partitions may have been empty when it was first planned.
                    connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
                fifo.lock_lines(connection, lines)
                fresh = claim_keys(connection, prepared, results, taken or ())
                _insert(connection, fresh, now)
                keep_origins(connection, fresh, now)
                fifo.pass_on(connection, lines)
                keep_replies(connection, fresh)
        else:
            _insert(connection, prepared, now)
    except (psycopg.OperationalError, psycopg.InterfaceError):
        raise
    except psycopg.Error:
        if len(prepared) == 1:
            logger.exception("an event could not be written")
            results[prepared[0].position] = Refused(Refusal.INTERNAL_ERROR)
            return
        for one in prepared:
            results[one.position] = None
        middle = len(prepared) // 2
        _try_to_write(connection, prepared[:middle], now, results, taken)
        _try_to_write(connection, prepared[middle:], now, results, taken)


def _insert(connection: psycopg.Connection[Row], prepared: list[Prepared], now: datetime) -> None:
    if not prepared:
        return
    events = [one.event for one in prepared]
    made = [
        (position, one, target, key)
        for position, one in enumerate(prepared, start=1)
        for target, key in zip(one.targets, one.delivery_ids, strict=True)
    ]
    parameters = {
        "now": now,
        "events": len(prepared),
        "event_ids": arrays.uuids([one.event_id for one in prepared]),
        "tenant_ids": arrays.uuids([event.tenant_id for event in events]),
        "types": arrays.texts([event.type for event in events]),
        "occurred_at": arrays.nullable_moments(event.occurred_at or now for event in events),
        "data": arrays.byteas([event.data for event in events]),
        "channels": arrays.texts([_array_text(event.channels) for event in events]),
        "ordering_keys": arrays.texts([event.ordering_key for event in events]),
        "deliver_at": arrays.nullable_moments(event.deliver_at for event in events),
        "settings_versions": arrays.int8s([one.settings_version for one in prepared]),
        "delivery_counts": arrays.int4s([len(one.targets) for one in prepared]),
        "warnings": arrays.texts([one.warning for one in prepared]),
        "hops": arrays.int4s([event.hops for event in events]),
        "traceparents": arrays.texts([event.traceparent for event in events]),
        "due": arrays.nullable_moments(max(event.deliver_at or now, now) for event in events),
        "sizes": arrays.int4s([len(event.data) for event in events]),
        "positions": arrays.int4s([position for position, _, _, _ in made]),
        "delivery_ids": arrays.uuids([key for _, _, _, key in made]),
        "delivery_types": arrays.texts([one.event.type for _, one, _, _ in made]),
        "triggers": arrays.texts(
            ["test" if one.event.only_endpoint else "automatic" for _, one, _, _ in made]
        ),
        "endpoint_ids": arrays.uuids([target.endpoint_id for _, _, target, _ in made]),
        "subscription_ids": arrays.nullable_uuids([target.subscription_id for _, _, target, _ in made]),
        # Of a delivery that stands in no line, none.
        "lines": arrays.texts(
            [(one.event.ordering_key or "") if target.is_fifo else None for _, one, target, _ in made]
        ),
        "bodies": arrays.byteas([target.body for _, _, target, _ in made]),
        "errors": arrays.texts([target.error for _, _, target, _ in made]),
    }
    connection.execute(INSERT, parameters, binary=True)


def _array_text(channels: list[str] | None) -> str | None:
    """A text[] literal. Channel names have no character that needs escaping, but a bare `null` would be no text."""
    return None if channels is None else "{" + ",".join(f'"{name}"' for name in channels) + "}"


def _wake(connection: psycopg.Connection[Row], written: list[Prepared]) -> None:
    """After the commit: whatever happens here, the events are accepted, and the repair sweep finds them."""
    try:
        if wanted := _wanted(written):
            wake_lanes(connection, wanted)
    except Exception:
        logger.exception("waking lanes failed, the repair sweep will")
        counters.add("wake_errors:publish")
        _publisher.drop()


def _wanted(written: list[Prepared]) -> list[Wanted]:
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
    return sorted(lanes.items())
