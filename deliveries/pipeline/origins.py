"""The incoming requests that events were made of, written in the events' own transaction. Called by `ingest`.

So a request that was answered has its event and its row, or neither, whenever the process is killed. Requests that made
no event are written by `services/receiving.py`, alone.
"""

from collections.abc import Sequence
from datetime import datetime

import psycopg

from deliveries.pipeline import arrays
from deliveries.pipeline.database import Row
from deliveries.pipeline.publication import Prepared

KEEP = """
INSERT INTO deliveries_incomingrequest (id, tenant_id, source_id, verdict, reason, detail, method, query, headers,
    content_type, body, size, remote_ip, dedup_id, hops, event_id, status_code, created_at)
SELECT id, tenant_id, source_id, 'accepted', '', '', method, query, headers, content_type, body, octet_length(body),
    remote_ip::inet, dedup_id, hops, event_id, status_code, %s
FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    AS u(id, tenant_id, source_id, method, query, headers, content_type, body, remote_ip, dedup_id, hops, event_id,
         status_code)
"""


def keep_origins(connection: psycopg.Connection[Row], fresh: Sequence[Prepared], now: datetime) -> None:
    made = [(one, one.event.origin) for one in fresh if one.event.origin is not None]
    if not made:
        return
    connection.execute(
        KEEP,
        [
            now,
            arrays.uuids([origin.id for _, origin in made]),
            arrays.uuids([one.event.tenant_id for one, _ in made]),
            arrays.uuids([origin.source_id for _, origin in made]),
            arrays.texts([origin.method for _, origin in made]),
            arrays.byteas([origin.query for _, origin in made]),
            arrays.byteas([origin.headers for _, origin in made]),
            arrays.texts([origin.content_type for _, origin in made]),
            arrays.byteas([origin.body for _, origin in made]),
            arrays.texts([origin.remote_ip for _, origin in made]),
            arrays.texts([origin.dedup_id for _, origin in made]),
            arrays.int4s([one.event.hops for one, _ in made]),
            arrays.uuids([one.event_id for one, _ in made]),
            arrays.int4s([origin.status_code for _, origin in made]),
        ],
        binary=True,
    )
