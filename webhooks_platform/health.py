"""`/health/live` and `/health/ready`: for load balancers and people, without a key, without names of tenants."""

import logging
import time
from typing import Any

import msgspec
import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import InterfaceError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from psycopg_pool import PoolTimeout

from deliveries.pipeline.partitions import weeks_ready
from tenants.clock import MOST_OFF_SECONDS, database_now

logger = logging.getLogger(__name__)

BROKER_SECONDS = 1.0
"""How long the broker may take to answer. It may be away without anybody waiting longer than this."""

MIN_WEEKS_READY = 1
"""Weeks ahead that must have their tables: below that, publishing is about to stop."""

WEEKS_SECONDS = 60.0
"""How long it is believed that they have: the look takes a query a week and table, and load balancers ask often."""

# One row, by two small indexes: dispatchers are few, and only lanes that wait for one are in the other.
LOOK = """
SELECT extract(epoch FROM clock_timestamp())::float8,
       (SELECT count(*) FROM deliveries_dispatcher WHERE alive_until > now()),
       (SELECT extract(epoch FROM now() - min(ready_at))::float8 FROM deliveries_lane
         WHERE is_ready AND dispatcher_id IS NULL AND NOT is_paused)
"""

_is_migrated = False
"""Once true it stays true for this process: migrations are not taken back while it runs."""


@require_safe
def live(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """The process answers."""
    return _reply(200, {"status": "ok"})


@require_safe
def ready(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
    """200, or 503 without a usable database, or with a clock that is far from the database's.

    A broker that is away degrades: the sweeps do its work, more slowly.
    """
    report: dict[str, Any] = {
        "status": "ok",
        "database": "ok",
        "broker": broker_state(),
        "clock": "unknown",
        "dispatchers": None,
        "oldest_ready_lane_seconds": None,
    }
    try:
        with connection.cursor() as cursor:
            if not _migrated():
                report["database"] = "migrations are not applied"
            elif not _has_partitions():
                report["database"] = "partitions are not made ahead"
            else:
                cursor.execute(LOOK)
                theirs, report["dispatchers"], seconds = cursor.fetchone()
                report["clock"] = clock_state(time.time() - theirs)
                report["oldest_ready_lane_seconds"] = None if seconds is None else round(max(seconds, 0.0), 3)
    except (DatabaseError, InterfaceError, PoolTimeout) as error:
        logger.warning("not ready", extra={"error": type(error).__name__})
        report["database"] = "unavailable"
    if report["database"] != "ok" or report["clock"] != "ok":
        report["status"] = "unavailable"
    elif report["broker"] != "ok":
        report["status"] = "degraded"
    return _reply(503 if report["status"] == "unavailable" else 200, report)


def clock_state(seconds_ahead: float) -> str:
    """A process whose clock is off signs, judges and grants by the wrong time: it is to serve nobody."""
    if abs(seconds_ahead) <= MOST_OFF_SECONDS:
        return "ok"
    logger.warning("this machine's clock is off", extra={"seconds": round(seconds_ahead)})
    return f"{abs(seconds_ahead):.0f} seconds {'ahead of' if seconds_ahead > 0 else 'behind'} the database's"


def _migrated() -> bool:
    global _is_migrated  # noqa: PLW0603 - one fact of the process
    if not _is_migrated:
        executor = MigrationExecutor(connection)
        _is_migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _is_migrated


_partitions_seen_at: float | None = None


def _has_partitions() -> bool:
    global _partitions_seen_at  # noqa: PLW0603 - one fact of the process
    now = time.monotonic()
    if _partitions_seen_at is None or now - _partitions_seen_at > WEEKS_SECONDS:
        if weeks_ready(now=database_now()) < MIN_WEEKS_READY:
            return False
        _partitions_seen_at = now
    return True


def broker_state() -> str:
    """Also for `/metrics`."""
    try:
        with redis.Redis.from_url(
            settings.CELERY_BROKER_URL, socket_timeout=BROKER_SECONDS, socket_connect_timeout=BROKER_SECONDS
        ) as broker:
            broker.ping()
    except (redis.RedisError, OSError, ValueError):
        return "unavailable"
    return "ok"


def _reply(status: int, report: dict[str, Any]) -> HttpResponse:
    response = HttpResponse(msgspec.json.encode(report), status=status, content_type="application/json")
    response["Cache-Control"] = "no-store"
    return response
