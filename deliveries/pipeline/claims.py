"""Idempotency of publishes: who comes second gets the first one's answer, in the events' own transaction.

Single events, and items of batches, by the key of each; a batch under a key of its own as a whole. Called by `ingest`.
The API's other POSTs share the table and the space of keys (`tenants/api/idempotency.py`).
"""

from collections.abc import Collection, Sequence
from uuid import UUID

import psycopg

from deliveries.pipeline import arrays
from deliveries.pipeline.database import Row
from deliveries.pipeline.publication import (
    Accepted,
    Batch,
    NewEvent,
    Prepared,
    Refusal,
    Refused,
    Result,
)
from tenants.idempotency import lock_key

# Each by its key, however few records there were when this was planned.
LOOK = """
SELECT r.space, r.key, r.fingerprint, r.body, r.event_id
FROM unnest(%s::uuid[], %s::text[], %s::int[]) AS w(space, key, seconds)
CROSS JOIN LATERAL (
    SELECT * FROM tenants_idempotencyrecord k WHERE k.space = w.space AND k.key = w.key LIMIT 1
) r
WHERE r.created_at > now() - make_interval(secs => w.seconds)
"""

KEEP = """
INSERT INTO tenants_idempotencyrecord (space, key, fingerprint, status_code, body, is_encrypted, location, event_id, created_at)
SELECT space, key, fingerprint, 202, body, false, '', event_id, now()
FROM unnest(%s::uuid[], %s::text[], %s::bytea[], %s::bytea[], %s::uuid[]) AS u(space, key, fingerprint, body, event_id)
ON CONFLICT (space, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status_code = EXCLUDED.status_code,
    body = EXCLUDED.body, is_encrypted = false, location = '', event_id = EXCLUDED.event_id, event_ids = NULL, created_at = EXCLUDED.created_at
"""

KEEP_BATCH = """
INSERT INTO tenants_idempotencyrecord (space, key, fingerprint, status_code, body, is_encrypted, location, event_ids, created_at)
VALUES (%s, %s, %s, 202, %s, false, '', %s, now())
ON CONFLICT (space, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status_code = EXCLUDED.status_code,
    body = EXCLUDED.body, is_encrypted = false, location = '', event_id = NULL, event_ids = EXCLUDED.event_ids, created_at = EXCLUDED.created_at
"""

DAY_SECONDS = 86_400

TENANT_REFUSALS = (Refusal.TENANT_NOT_FOUND, Refusal.TENANT_SUSPENDED)
"""These say nothing of an event: what refuses one refuses the whole request."""

Place = tuple[bytes, str]
"""Tenant and key."""

Kept = tuple[bytes, bytes, bytes | None]
"""Fingerprint, reply and event of an earlier request. A batch's own key has no single event."""

# --- batches under a key of their own ---------------------------------------------------------------------------------


def batches_of(events: Sequence[NewEvent], results: Sequence[Result | None]) -> dict[Batch, list[int]]:
    """Each with the positions of its events. One that its tenant may not publish is refused, and not kept."""
    batches: dict[Batch, list[int]] = {}
    for position, event in enumerate(events):
        if event.batch is not None:
            result = results[position]
            if not isinstance(result, Refused) or result.reason not in TENANT_REFUSALS:
                batches.setdefault(event.batch, []).append(position)
    return batches


def claim_batches(
    connection: psycopg.Connection[Row], batches: dict[Batch, list[int]], results: list[Result | None]
) -> list[Batch]:
    """Lock, then look, as for keys of single events. Returns those whose events are to be written."""
    first: dict[Place, Batch] = {}
    for batch in batches:
        first.setdefault((batch.tenant_id, batch.key), batch)
    places = sorted(first)
    is_locked = _lock(connection, places)
    kept = _look(connection, places, [DAY_SECONDS] * len(places))
    fresh = []
    for batch, positions in batches.items():
        place = (batch.tenant_id, batch.key)
        known = kept[place][0] if place in kept else first[place].fingerprint
        result: Result
        if known != batch.fingerprint:
            result = batch.refused = Refused(Refusal.IDEMPOTENCY_KEY_REUSED)
        elif place in kept:
            batch.reply, batch.is_replayed = kept[place][1], True
            result = Accepted(b"", batch.reply, is_replayed=True)
        elif first[place] is not batch or not is_locked[lock_key(*place)]:
            result = batch.refused = Refused(Refusal.IDEMPOTENCY_IN_PROGRESS)
        else:
            fresh.append(batch)
            continue
        for position in positions:
            results[position] = result
    return fresh


def keep_batches(
    connection: psycopg.Connection[Row],
    fresh: Sequence[Batch],
    batches: dict[Batch, list[int]],
    results: Sequence[Result],
) -> None:
    """The whole reply, what was refused in it too: who asks again gets the same, whatever has changed meanwhile."""
    for batch in sorted(fresh, key=lambda batch: (batch.tenant_id, batch.key)):
        own = [results[position] for position in batches[batch]]
        batch.reply = batch.answer(own)
        event_ids = [result.event_id for result in own if isinstance(result, Accepted)]
        connection.execute(
            KEEP_BATCH,
            [
                UUID(bytes=batch.tenant_id),
                batch.key,
                batch.fingerprint,
                batch.reply,
                arrays.uuids(sorted(set(event_ids))),
            ],
            binary=True,
        )


# --- keys of single events --------------------------------------------------------------------------------------------


def claim_keys(
    connection: psycopg.Connection[Row],
    prepared: list[Prepared],
    results: list[Result | None],
    taken: Collection[Place] = (),
) -> list[Prepared]:
    """Lock, then look: the look's snapshot is then newer than whatever the previous holder of the lock wrote.

    Returns what is still to be written. A key that stands twice among them is left to its first event; `copied` gives
    the others its answer. Keys that are `taken` are those of batches in the same transaction.
    """
    first: dict[Place, Prepared] = {}
    fresh = []
    for one in prepared:
        idempotency = one.event.idempotency
        if idempotency is None:
            fresh.append(one)
            continue
        place = (one.event.tenant_id, idempotency.key)
        if place in taken:
            results[one.position] = Refused(Refusal.IDEMPOTENCY_KEY_REUSED)
        elif place in first:
            results[one.position] = _same(first[place], one)
        else:
            first[place] = one
    if not first:
        return fresh
    places = sorted(first)
    is_locked = _lock(connection, places)
    kept = _look(connection, places, [_seconds(first[place].event) for place in places])
    for place, one in sorted(first.items()):
        idempotency = one.event.idempotency
        assert idempotency is not None
        verdict: Result | None = None
        if place in kept:
            fingerprint, body, event_id = kept[place]
            is_same = fingerprint == idempotency.fingerprint
            verdict = (
                Accepted(event_id, body, is_replayed=True)
                if is_same and event_id is not None
                else Refused(Refusal.IDEMPOTENCY_KEY_REUSED)
            )
        if verdict is None and not is_locked[lock_key(*place)]:
            verdict = Refused(Refusal.IDEMPOTENCY_IN_PROGRESS)
        if verdict is None:
            fresh.append(one)
        else:
            results[one.position] = verdict
    fresh.sort(key=lambda one: one.position)
    return fresh


def answer_again(
    connection: psycopg.Connection[Row], events: Sequence[NewEvent], results: list[Result | None]
) -> None:
    """What today's settings refuse, and was accepted before: the same request gets its first reply.

    Only refused events with a key cost a look. It needs no lock: who is still writing has not been answered either. Of a
    suspended tenant all are refused, replays too.
    """
    refused: dict[Place, list[int]] = {}
    for position, (event, result) in enumerate(zip(events, results, strict=True)):
        if (
            event.idempotency is not None
            and isinstance(result, Refused)
            and result.reason not in TENANT_REFUSALS
        ):
            refused.setdefault((event.tenant_id, event.idempotency.key), []).append(position)
    if not refused:
        return
    places = sorted(refused)
    kept = _look(connection, places, [_seconds(events[refused[place][0]]) for place in places])
    for place, (fingerprint, body, event_id) in kept.items():
        for position in refused[place]:
            idempotency = events[position].idempotency
            assert idempotency is not None
            if idempotency.fingerprint == fingerprint and event_id is not None:
                results[position] = Accepted(event_id, body, is_replayed=True)


def _lock(connection: psycopg.Connection[Row], places: list[Place]) -> dict[int, bool]:
    numbers = sorted({lock_key(*place) for place in places})
    return dict(
        connection.execute(
            "SELECT n, pg_try_advisory_xact_lock(n) FROM unnest(%s::bigint[]) AS n", [arrays.int8s(numbers)]
        ).fetchall()
    )


def _seconds(event: NewEvent) -> int:
    assert event.idempotency is not None
    return event.idempotency.seconds


def _look(connection: psycopg.Connection[Row], places: list[Place], seconds: list[int]) -> dict[Place, Kept]:
    parameters = [
        arrays.uuids([space for space, _ in places]),
        arrays.texts([key for _, key in places]),
        arrays.int4s(seconds),
    ]
    rows = connection.execute(LOOK, parameters, binary=True).fetchall()
    return {(row[0], row[1]): (bytes(row[2]), bytes(row[3]), row[4]) for row in rows}


class _Copy(Refused):
    """Stands in `results` until the first event with the key has its own."""

    position: int


def _same(first: Prepared, later: Prepared) -> Refused:
    assert first.event.idempotency is not None
    assert later.event.idempotency is not None
    if first.event.idempotency.fingerprint != later.event.idempotency.fingerprint:
        return Refused(Refusal.IDEMPOTENCY_KEY_REUSED)
    copy = _Copy(Refusal.IDEMPOTENCY_IN_PROGRESS)
    copy.position = first.position
    return copy


def copied(results: Sequence[Result | None]) -> list[Result]:
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


def keep_replies(connection: psycopg.Connection[Row], fresh: list[Prepared]) -> None:
    """In the events' own transaction: the keys of those that are written."""
    kept: dict[Place, tuple[bytes, bytes, bytes]] = {}
    for one in fresh:
        idempotency = one.event.idempotency
        if idempotency is None:
            continue
        kept[one.event.tenant_id, idempotency.key] = (idempotency.fingerprint, one.reply, one.event_id)
    if not kept:
        return
    places = sorted(kept)
    connection.execute(
        KEEP,
        [
            arrays.uuids([space for space, _ in places]),
            arrays.texts([key for _, key in places]),
            arrays.byteas([kept[place][0] for place in places]),
            arrays.byteas([kept[place][1] for place in places]),
            arrays.uuids([kept[place][2] for place in places]),
        ],
        binary=True,
    )
