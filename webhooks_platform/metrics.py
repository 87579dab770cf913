"""`/metrics`, in Prometheus' text format: what all processes on all machines counted, and how the lanes stand now.

Counts come from the table that `deliveries/pipeline/counters.py` writes, so any web process gives the same answer. No
label says anything about a tenant, and the values of labels are words of the code. docs/operations.md says what each
metric means and what to do about it.
"""

import hmac
import ipaddress
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from psycopg_pool import PoolTimeout

from deliveries.inbound.requests import Verdict
from deliveries.models import Delivery, RetentionMark
from deliveries.pipeline.counters import BOUNDS
from deliveries.pipeline.dispatch import Ending
from deliveries.pipeline.ingest import Refusal
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.partitions import weeks_ready
from tenants.clock import database_now
from webhooks_platform.health import broker_state

logger = logging.getLogger(__name__)

MOST_LANES = 10_000
"""Lanes of one state are counted so far; the number then means: at least."""

WEEKS_SECONDS = 60.0
"""How long the number of weeks is believed: the look takes a query a week and table."""

FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


@dataclass(frozen=True)
class Counted:
    """One counter: how it is called, and the values of its label that are shown before they ever happened."""

    name: str
    help: str
    label: str = ""
    values: tuple[str, ...] = ()


COUNTERS = {
    "publishes": Counted(
        "webhooks_publishes",
        "Events that publishers sent, by what became of them.",
        "result",
        ("accepted", "replayed", "malformed_json", "invalid", "unavailable", *Refusal),
    ),
    "incoming": Counted(
        "webhooks_incoming",
        "Requests to sources, by what became of them.",
        "result",
        (*Verdict, "unknown", "disabled", "too_many", "error"),
    ),
    "api_problems": Counted("webhooks_api_problems", "Requests to the API that were refused.", "code"),
    "deliveries_made": Counted(
        "webhooks_deliveries_made", "Deliveries owed.", "trigger", ("automatic", "test", "replay")
    ),
    "deliveries_ended": Counted(
        "webhooks_deliveries_ended",
        "Deliveries that ended.",
        "status",
        (Delivery.Status.SUCCEEDED.value, Delivery.Status.FAILED.value, Delivery.Status.CANCELLED.value),
    ),
    "attempts": Counted("webhooks_attempts", "Requests to endpoints.", "outcome", tuple(Outcome)),
    "dispatcher_runs": Counted(
        "webhooks_dispatcher_runs",
        "Runs of dispatchers that ended.",
        "ending",
        (*[ending.name.lower() for ending in Ending], "failed"),
    ),
    "retention_rows": Counted(
        "webhooks_retention_rows",
        "Rows that went, or were emptied, because they were kept long enough.",
        "kind",
        tuple(RetentionMark.Kind.values),
    ),
    "lanes_taken_over": Counted("webhooks_lanes_taken_over", "Lanes freed from dispatchers that died."),
    "lanes_repaired": Counted("webhooks_lanes_repaired", "Lanes that the repair sweep had to wake."),
    "wake_errors": Counted(
        "webhooks_wake_errors",
        "Times that lanes or dispatchers could not be told of work after its commit.",
        "where",
        ("publish", "service", "nudge"),
    ),
    "database_errors": Counted(
        "webhooks_database_errors",
        "Times that the database could not be reached.",
        "where",
        ("api", "publish", "incoming", "heart", "lanes", "records"),
    ),
    "broker_errors": Counted(
        "webhooks_broker_errors", "Messages that the broker did not take.", "where", ("nudge", "task")
    ),
}

HISTOGRAMS = {
    "first_attempt_seconds": Counted(
        "webhooks_first_attempt_seconds",
        "From acceptance, or the time asked for, to the beginning of the first attempt.",
    ),
    "delivery_seconds": Counted(
        "webhooks_delivery_seconds",
        "From acceptance to the attempt that ended a delivery, well or not, retries included.",
    ),
    "attempt_seconds": Counted(
        "webhooks_attempt_seconds", "Duration of an attempt, connecting and reading included."
    ),
    "round_seconds": Counted(
        "webhooks_dispatcher_round_seconds", "One round of a dispatcher: release, take, load."
    ),
    "record_seconds": Counted("webhooks_dispatcher_record_seconds", "Writing down one batch of results."),
}

# Where nothing was ever rolled up, nobody ever ran the task: since the first tenant.
BEHIND = """
SELECT COALESCE(EXTRACT(EPOCH FROM now() - COALESCE(
    (SELECT max(minutes_to) FROM deliveries_rollupstate), (SELECT min(created_at) FROM tenants_tenant)
)), 0)
"""

# Each by its own partial index and no further than a bound. Held ones are those among the scheduled.
LOOK = """
SELECT (SELECT count(*) FROM (SELECT FROM deliveries_lane
            WHERE is_ready AND dispatcher_id IS NULL AND NOT is_paused LIMIT %(most)s) ready),
       (SELECT count(*) FROM (SELECT FROM deliveries_lane WHERE dispatcher_id IS NOT NULL LIMIT %(most)s) served),
       (SELECT count(*) FROM (SELECT FROM deliveries_lane WHERE is_paused LIMIT %(most)s) paused),
       scheduled.number, scheduled.held,
       (SELECT COALESCE(extract(epoch FROM now() - min(ready_at)), 0)::float8 FROM deliveries_lane
            WHERE is_ready AND dispatcher_id IS NULL AND NOT is_paused),
       (SELECT count(*) FROM deliveries_dispatcher WHERE alive_until > now()),
       (SELECT count(*) FROM deliveries_dispatcher WHERE alive_until > now() AND has_room AND NOT is_draining),
       (SELECT is_sending_stopped::int FROM tenants_platformstate),
       (SELECT COALESCE(extract(epoch FROM max(now() - xact_start)), 0)::float8 FROM pg_stat_activity
            WHERE backend_xmin IS NOT NULL AND datname = current_database())
FROM (SELECT count(*) AS number, count(*) FILTER (WHERE hold_until > now()) AS held
      FROM (SELECT hold_until FROM deliveries_lane WHERE NOT is_ready AND dispatcher_id IS NULL AND NOT is_paused
                AND ready_at IS NOT NULL LIMIT %(most)s) waiting) scheduled
"""


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Open to this machine itself, else with the token."""
    if not (is_from_here(request) or has_token(request)):
        return HttpResponse(
            "Send the metrics token: Authorization: Bearer …\n",
            status=401,
            content_type="text/plain; charset=utf-8",
            headers={"WWW-Authenticate": "Bearer"},
        )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Report())
    return HttpResponse(
        generate_latest(registry),
        content_type=CONTENT_TYPE_PLAIN_0_0_4,
        headers={"Cache-Control": "no-store"},
    )


def is_from_here(request: HttpRequest) -> bool:
    """Sent from this machine, and not passed on by a proxy that runs on it."""
    if any(name in request.META for name in FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


def has_token(request: HttpRequest) -> bool:
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    wanted: str = settings.WEBHOOKS_METRICS_TOKEN
    is_right = hmac.compare_digest(token.strip().encode(), wanted.encode())
    return bool(wanted) and scheme.lower() == "bearer" and is_right


class Report(Collector):
    """Everything at one moment. Without a database: that it is away."""

    def collect(self) -> Iterator[Metric]:
        yield gauge("webhooks_broker_up", "Whether the broker answers.", broker_state() == "ok")
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL statement_timeout = '5s'")
                cursor.execute("SELECT key, value FROM deliveries_metrictotal")
                totals = dict(cursor.fetchall())
                cursor.execute(LOOK, {"most": MOST_LANES})
                look = cursor.fetchone()
                cursor.execute(BEHIND)
                (behind,) = cursor.fetchone()
            weeks = _weeks_ready()
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            logger.warning("no metrics from the database", exc_info=error)
            yield gauge("webhooks_database_up", "Whether the database answers.", False)
            return
        yield gauge("webhooks_database_up", "Whether the database answers.", True)
        yield from counted(totals)
        yield gauge(
            "webhooks_backlog_deliveries", "Pending deliveries, estimated from counts.", backlog(totals)
        )
        yield from looked(look)
        yield gauge("webhooks_rollups_behind_seconds", "How long ago what charts read ends.", behind)
        yield gauge("webhooks_partition_weeks_ready", "Whole weeks ahead that have their tables.", weeks)


def counted(totals: dict[str, float]) -> Iterator[Metric]:
    by_name: dict[str, dict[str, float]] = {}
    for key, value in totals.items():
        name, _, label = key.partition(":")
        by_name.setdefault(name, {})[label] = value
    for key, what in COUNTERS.items():
        found = by_name.get(key, {})
        counter = CounterMetricFamily(what.name, what.help, labels=[what.label] if what.label else [])
        for label in dict.fromkeys([*(what.values or ([] if what.label else [""])), *sorted(found)]):
            counter.add_metric([str(label)] if what.label else [], found.get(label, 0))
        yield counter
    for key, what in HISTOGRAMS.items():
        found = by_name.get(key, {})
        yield HistogramMetricFamily(
            what.name, what.help, buckets=list(buckets(found)), sum_value=found.get("sum", 0)
        )


def buckets(found: dict[str, float]) -> Iterable[tuple[str, float]]:
    """The table has what fell into each; Prometheus wants how many were at most so long."""
    total = 0.0
    for bound in (*map(str, BOUNDS), "+Inf"):
        total += found.get(bound, 0)
        yield bound, total


def backlog(totals: dict[str, float]) -> float:
    """What was made less what ended. The few seconds that are still in processes' memories can make it negative."""
    made = sum(value for key, value in totals.items() if key.startswith("deliveries_made:"))
    ended = sum(value for key, value in totals.items() if key.startswith("deliveries_ended:"))
    return max(0.0, made - ended + totals.get("backlog_correction", 0))


def looked(look: tuple[Any, ...]) -> Iterator[Metric]:
    ready, served, paused, scheduled, held, oldest, alive, with_room, is_stopped, snapshot = look
    lanes = GaugeMetricFamily(
        "webhooks_lanes", f"Lanes by state, counted up to {MOST_LANES}.", labels=["state"]
    )
    states = {"ready": ready, "served": served, "paused": paused, "scheduled": scheduled, "held": held}
    for state, number in states.items():
        lanes.add_metric([state], number)
    yield lanes
    yield gauge("webhooks_oldest_ready_lane_seconds", "How long a lane has waited for a dispatcher.", oldest)
    dispatchers = GaugeMetricFamily("webhooks_dispatchers", "Dispatchers at work.", labels=["state"])
    dispatchers.add_metric(["alive"], alive)
    dispatchers.add_metric(["with_room"], with_room)
    yield dispatchers
    yield gauge("webhooks_sending_stopped", "Whether an operator stopped all sending.", is_stopped or 0)
    yield gauge(
        "webhooks_database_oldest_snapshot_seconds",
        "Age of the oldest open transaction's snapshot.",
        snapshot,
    )


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


_weeks: tuple[float, int] | None = None


def _weeks_ready() -> int:
    global _weeks  # noqa: PLW0603 - one fact of the process
    now = time.monotonic()
    if _weeks is None or now - _weeks[0] > WEEKS_SECONDS:
        _weeks = now, weeks_ready(now=database_now())
    return _weeks[1]
