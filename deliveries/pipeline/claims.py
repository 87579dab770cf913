"""Idempotency of publishes: who comes second gets the first one's answer, in the events' own transaction.

Called by `ingest`. The API's other POSTs share the table and the space of keys (`tenants/api/idempotency.py`).
"""

from collections.abc import Sequence

import psycopg

from deliveries.pipeline import arrays
from deliveries.pipeline.database import Row
from deliveries.pipeline.publication import Accepted, Idempotency, Prepared, Refusal, Refused, Result
from tenants.idempotency import lock_key

LOOK = """
SELECT r.space, r.key, r.fingerprint, r.body, r.event_id
FROM unnest(%s::uuid[], %s::text[], %s::int[]) AS w(space, key, seconds)
JOIN tenants_idempotencyrecord r USING (space, key)
WHERE r.created_at > now() - make_interval(secs => w.seconds)
"""

KEEP = """
INSERT INTO tenants_idempotencyrecord (space, key, fingerprint, status_code, body, is_encrypted, location, event_id, created_at)
SELECT space, key, fingerprint, 202, body, false, '', event_id, now()
FROM unnest(%s::uuid[], %s::text[], %s::bytea[], %s::bytea[], %s::uuid[]) AS u(space, key, fingerprint, body, event_id)
ON CONFLICT (space, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status_code = EXCLUDED.status_code,
    body = EXCLUDED.body, is_encrypted = false, location = '', event_id = EXCLUDED.event_id, created_at = EXCLUDED.created_at
"""


DAY_SECONDS = 86_400

Place = tuple[bytes, str]
"""Tenant and key."""

Kept = tuple[bytes, bytes, bytes | None]
"""Fingerprint, reply and event of an earlier request. A batch's own key has no event."""


def claim_keys(
    connection: psycopg.Connection[Row], prepared: list[Prepared], results: list[Result | None]
) -> list[Prepared]:
    """Lock, then look: the look's snapshot is then newer than whatever the previous holder of the lock wrote.

    Returns what is still to be written. A key that stands twice among them is left to its first event; `copied` gives
    the others its answer.
    """
    first: dict[Place, Prepared] = {}
    batches: dict[Place, bytes] = {}
    fresh = []
    for one in prepared:
        idempotency = one.event.idempotency
        if idempotency is None:
            fresh.append(one)
            continue
        if idempotency.batch_key is not None:
            batches.setdefault((one.event.tenant_id, idempotency.batch_key), idempotency.fingerprint)
        place = (one.event.tenant_id, idempotency.key)
        if place in first:
            results[one.position] = _same(first[place], one)
        else:
            first[place] = one
    places = sorted({*first, *batches})
    is_locked = _lock(connection, places)
    kept = _look(connection, places, [_seconds(first.get(place)) for place in places])
    for place, one in sorted(first.items()):
        idempotency = one.event.idempotency
        assert idempotency is not None
        verdict: Result | None = None
        if idempotency.batch_key is not None:
            whole = (one.event.tenant_id, idempotency.batch_key)
            verdict = _batch_refusal(whole, idempotency, batches, kept, is_locked)
        if verdict is None and place in kept:
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


def _lock(connection: psycopg.Connection[Row], places: list[Place]) -> dict[int, bool]:
    numbers = sorted({lock_key(*place) for place in places})
    return dict(
        connection.execute(
            "SELECT n, pg_try_advisory_xact_lock(n) FROM unnest(%s::bigint[]) AS n", [arrays.int8s(numbers)]
        ).fetchall()
    )


def _seconds(one: Prepared | None) -> int:
    return DAY_SECONDS if one is None or one.event.idempotency is None else one.event.idempotency.seconds


def _look(connection: psycopg.Connection[Row], places: list[Place], seconds: list[int]) -> dict[Place, Kept]:
    parameters = [
        arrays.uuids([space for space, _ in places]),
        arrays.texts([key for _, key in places]),
        arrays.int4s(seconds),
    ]
    rows = connection.execute(LOOK, parameters, binary=True).fetchall()
    return {(row[0], row[1]): (bytes(row[2]), bytes(row[3]), row[4]) for row in rows}


def _batch_refusal(
    whole: Place,
    idempotency: Idempotency,
    batches: dict[Place, bytes],
    kept: dict[Place, Kept],
    is_locked: dict[int, bool],
) -> Refused | None:
    """Why no item of a batch may be written: its key belongs to another request, or to one that is under way."""
    is_other = batches[whole] != idempotency.fingerprint
    if is_other or (whole in kept and kept[whole][0] != idempotency.fingerprint):
        return Refused(Refusal.IDEMPOTENCY_KEY_REUSED)
    return None if is_locked[lock_key(*whole)] else Refused(Refusal.IDEMPOTENCY_IN_PROGRESS)


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
    """In the events' own transaction: the keys of those that are written, and of the batches they came in."""
    kept: dict[Place, tuple[bytes, bytes, bytes | None]] = {}
    for one in fresh:
        idempotency = one.event.idempotency
        if idempotency is None:
            continue
        kept[one.event.tenant_id, idempotency.key] = (idempotency.fingerprint, one.reply, one.event_id)
        if idempotency.batch_key is not None:
            kept[one.event.tenant_id, idempotency.batch_key] = (idempotency.fingerprint, b"", None)
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
            arrays.nullable_uuids([kept[place][2] for place in places]),
        ],
        binary=True,
    )
