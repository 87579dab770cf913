"""The dispatcher's own row: register, renew, sign off, and the lanes of those that no longer renew.

Called by the `heart` of a dispatcher and by the sweeps alone. All times are the database's.
"""

from typing import Any
from uuid import UUID

import psycopg

from deliveries.pipeline.database import Row

ALIVE_SECONDS = 20
"""How long a renewal keeps a dispatcher alive. Takeover comes at most this and a sweep later."""

RENEW_SECONDS = 5
"""Between renewals: three may fail before the lease does."""

DEADLINE_SECONDS = 17
"""After the moment before a renewal was sent, nothing new starts and what is in the air is aborted."""

Connection = psycopg.Connection[Row]

REGISTERING = 0x5748_4449
"""Advisory lock of those that begin: two nudges at once must not both find a place free."""

ARE_ALIVE = f"""
SELECT count(*) FROM deliveries_dispatcher
WHERE alive_until > now() + interval '{ALIVE_SECONDS - 2 * RENEW_SECONDS} seconds' AND NOT is_draining
"""  # noqa: S608 - numbers of ours
"""How many there are that are not about to end. One killed lately counts until its renewal is overdue."""


def register(connection: Connection, *, me: UUID, process: str, at_most: int = 1_000) -> bool:
    """Whether there was a place: no more than `at_most` are alive at a time."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [REGISTERING])
        return bool(
            connection.execute(
                "INSERT INTO deliveries_dispatcher"
                " (id, alive_until, started_at, process, has_room, is_draining, deliveries_done)"
                " SELECT %s, now() + make_interval(secs => %s), now(), %s, true, false, 0"
                f" WHERE ({ARE_ALIVE}) < %s",
                [me, ALIVE_SECONDS, process, at_most],
            ).rowcount
        )


def renew(
    connection: Connection, *, me: UUID, has_room: bool, is_draining: bool, done: int
) -> tuple[bool, float, bool]:
    """(whether I am still alive, the database's Unix time, whether all sending is stopped)"""
    row = connection.execute(
        "UPDATE deliveries_dispatcher SET alive_until = now() + make_interval(secs => %s), has_room = %s,"
        " is_draining = %s, deliveries_done = %s WHERE id = %s AND alive_until > now()"
        " RETURNING EXTRACT(EPOCH FROM clock_timestamp())::float8,"
        " (SELECT is_sending_stopped FROM tenants_platformstate)",
        [ALIVE_SECONDS, has_room, is_draining, done, me],
    ).fetchone()
    return (False, 0.0, False) if row is None else (True, row[0], row[1])


def sign_off(connection: Connection, *, me: UUID) -> int:
    """Give everything back and go. Returns the number of lanes that were still held.

    The row goes first, here and in `take_over`: whoever has it decides about its lanes.
    """
    with connection.transaction():
        connection.execute("DELETE FROM deliveries_dispatcher WHERE id = %s", [me])
        return connection.execute(
            """
            WITH l AS MATERIALIZED (
                SELECT endpoint_id FROM deliveries_lane WHERE dispatcher_id = %s ORDER BY endpoint_id FOR NO KEY UPDATE
            )
            UPDATE deliveries_lane lane SET dispatcher_id = NULL, ready_at = now(), tokens = 0, tokens_at = now(),
                   is_ready = hold_until IS NULL OR hold_until <= now()
            FROM l WHERE lane.endpoint_id = l.endpoint_id
            """,
            [me],
        ).rowcount


# Lanes of dispatchers that are gone. The skip scan steps from one holder to the next, so the cost is that of the number of
# dispatchers.
TAKE_OVER = """
WITH RECURSIVE holder AS (
    (SELECT dispatcher_id AS id FROM deliveries_lane WHERE dispatcher_id IS NOT NULL ORDER BY dispatcher_id LIMIT 1)
    UNION ALL
    SELECT (SELECT dispatcher_id FROM deliveries_lane WHERE dispatcher_id > holder.id ORDER BY dispatcher_id LIMIT 1)
    FROM holder WHERE holder.id IS NOT NULL
), dead AS MATERIALIZED (
    SELECT holder.id FROM holder LEFT JOIN deliveries_dispatcher d ON d.id = holder.id
    WHERE holder.id IS NOT NULL AND d.id IS NULL
), l AS MATERIALIZED (
    SELECT endpoint_id FROM deliveries_lane WHERE dispatcher_id IN (SELECT id FROM dead)
    ORDER BY endpoint_id FOR NO KEY UPDATE
)
UPDATE deliveries_lane lane SET dispatcher_id = NULL, ready_at = now(), tokens = 0, tokens_at = now(),
       is_ready = hold_until IS NULL OR hold_until <= now()
FROM l WHERE lane.endpoint_id = l.endpoint_id
"""


def take_over(connection: Any) -> int:
    """Free the lanes of the dead. Any cursor or connection with `execute`; run it in a transaction. Returns how many.

    First their rows, in a statement of its own: it waits for a renewal that is under way, and leaves that one alone; and a
    renewal that waited for this finds itself dead.
    """
    connection.execute(
        "DELETE FROM deliveries_dispatcher WHERE id IN ("
        "SELECT id FROM deliveries_dispatcher WHERE alive_until <= now() ORDER BY id FOR UPDATE)"
    )
    freed: int = connection.execute(TAKE_OVER).rowcount
    return freed
