"""Everything that somebody looks at or that a schedule does, on a database that `seed_deliveries` filled.

What is measured and what CI compares is the same list: `tests/deliveries/test_seeded.py`.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.contrib import admin
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from deliveries.bench.history import PREFIX
from deliveries.bench.past import EVENT_TYPES
from deliveries.models import Delivery, Endpoint
from deliveries.pipeline import partitions, retention, rollups, sweeps
from deliveries.services import announcements, failing, job_work, polling
from tenants import ids
from tenants.models import EventType, Tenant
from tenants.services import erasure
from tests.support import crowd
from tests.support.api import tenant_api
from tests.support.operators import operator
from tests.support.plans import SMALL, nodes
from tests.support.portal import browser

BIG = ("deliveries_delivery", "deliveries_event", "deliveries_attempt", "deliveries_rollup")

BOUNDS = {"portal": 100, "api": 200, "admin": 200, "sweep": 200}
"""Milliseconds."""

MOST_ROWS = 11_000
"""That a statement may look at. A page that counts does so up to 10,000."""

MOST_BUCKETS = 120_000
"""Instead, of one that adds up roll-ups: the buckets of their durations, a hundred in a microsecond or so."""

MOST_QUERIES = 15

READS = ("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")


@dataclass(frozen=True)
class Place:
    """Something to look at, or to do."""

    kind: str
    name: str
    go: Callable[[], Any]


@dataclass(frozen=True)
class Seeded:
    """The tenant with most history, and samples of it."""

    tenant: Tenant
    endpoint: Endpoint
    delivery: Delivery

    @classmethod
    def find(cls) -> "Seeded":
        tenant = Tenant.objects.get(slug=f"{PREFIX}0000")
        rows = Delivery.objects.for_tenant(tenant)
        endpoint = Endpoint.objects.for_tenant(tenant).order_by("id").first()
        assert endpoint is not None
        return cls(tenant, endpoint, rows.filter(status="failed").latest("id"))

    @property
    def samples(self) -> dict[str, str]:
        return {
            "slug": self.tenant.slug,
            "endpoint": ids.to_text("ep", self.endpoint.id),
            "delivery": ids.to_text("dlv", self.delivery.id),
            "event": ids.to_text("evt", self.delivery.event_id),
            "after": ids.floor_of(self.delivery.created_at - timedelta(minutes=5)).hex,
            "hex": self.delivery.id.hex,
            "middle": (datetime.now(UTC) - timedelta(days=20)).isoformat().replace("+00:00", "Z"),
        }


PORTAL = (
    "",
    "?window=7d",
    "?window=30d",
    "endpoints",
    "endpoints/{endpoint}",
    "endpoints/{endpoint}/again?only=failed&within=24h",
    "deliveries",
    "deliveries?status=failed&within=7d",
    "deliveries?status=pending",
    "deliveries?status=succeeded&event_type=order.paid",
    "deliveries?outcome=tls_failed",
    "deliveries?endpoint={endpoint}&status=failed",
    "deliveries?q=nowhere",
    "deliveries/everything?status=failed",
    "deliveries/{delivery}",
    "events",
    "events?type=order.paid&within=24h",
    "events?q=nowhere",
    "events/{event}",
    "live",
    "live/rows?after={after}&oldest={after}",
    "jobs",
    "catalogue",
    "sources",
    "settings/notifications",
    "settings/members",
    "settings/audit",
)

API = (
    "endpoints/{endpoint}/stats",
    "endpoints/{endpoint}/stats?bucket=day&since={middle}",
    "deliveries",
    "deliveries?status=failed",
    "deliveries?event_type=order.paid&until={middle}",
    "deliveries?endpoint={endpoint}",
    "events",
    "events?channel=eu",
    "events/{event}/explain",
)

ADMIN_FILTERS = {
    "deliveries_event": ("tenant={slug}", "tenant={slug}&type=order.paid", "tenant={slug}&channel=eu"),
    "deliveries_delivery": (
        "tenant={slug}",
        *(f"tenant={{slug}}&status={status}" for status in ("pending", "succeeded", "failed", "cancelled")),
        "tenant={slug}&outcome=tls_failed",
        "tenant={slug}&event_type=order.paid",
        "tenant={slug}&endpoint={endpoint}",
        "tenant={slug}&endpoint={endpoint}&status=failed",
        "cursor=a{hex}",
    ),
    "deliveries_attempt": ("delivery={delivery}", "cursor=a{hex}"),
    "deliveries_endpoint": ("tenant={slug}", f"host={crowd.HOST}", "by_platform=on"),
    "tenants_tenant": ("q=crowd", "status=active"),
}


def places(seeded: Seeded) -> Iterator[Place]:
    member, staff, api = browser(seeded.tenant, "admin"), operator(), tenant_api(seeded.tenant)
    for page in PORTAL:
        yield Place(
            "portal", page or "overview", partial(get, member, f"/portal/{seeded.tenant.slug}/{page}", seeded)
        )
    for page in API:
        path = f"/tenants/{seeded.tenant.slug}/{page}".format(**seeded.samples)
        yield Place("api", page, partial(_ok, partial(api.get, path)))
    for page in ("admin:index", "admin:usage"):
        yield Place("admin", page, partial(get, staff, reverse(page), seeded))
    for text in ("seeded", "crowd", crowd.HOST, "crowd.invalid"):
        path = f"{reverse('admin:find')}?q={text}"
        yield Place("admin", f"find {text}", partial(get, staff, path, seeded))
    path = f"{reverse('admin:host')}?host={crowd.HOST}"
    yield Place("admin", "host", partial(get, staff, path, seeded))
    for model in admin.site._registry:
        name = f"{model._meta.app_label}_{model._meta.model_name}"
        path = reverse(f"admin:{name}_changelist")
        for query in ("", *ADMIN_FILTERS.get(name, ())):
            yield Place("admin", f"{name}?{query}", partial(get, staff, f"{path}?{query}", seeded))
    yield from _work()


def _work() -> Iterator[Place]:
    """What the schedule does. Each can be done at any time, which makes it easy to measure."""
    now = datetime.now(UTC)
    for name, go in {
        "sweep": lambda: sweeps.sweep(wanted=10_000),
        "repair": lambda: sweeps.repair(now=now),
        "expire_idempotency": sweeps.expire_idempotency,
        "expire_pending": lambda: sweeps.expire_pending(now=now),
        "correct_backlog": sweeps.correct_backlog,
        "retention": lambda: retention.let_go(now=now),
        "drop_partitions": lambda: retention.drop_partitions(now=now),
        "make_partitions": lambda: partitions.ensure_partitions(now=now),
        "roll_up": lambda: rollups.roll_up(now=datetime.now(UTC)),
        "judge_failing": lambda: failing.judge_failing(now=now),
        "announce": announcements.publish_waiting,
        "stale_jobs": job_work.stale_jobs,
        "forget_polled": polling.forget,
    }.items():
        yield Place("sweep", name, go)


def get(client: Client, path: str, seeded: Seeded) -> None:
    _ok(partial(client.get, path.format(**seeded.samples)))


def _ok(go: Callable[[], Any]) -> None:
    response = go()
    assert response.status_code == 200, response
    if response.streaming:
        b"".join(response)


def milliseconds(place: Place, *, times: int = 5) -> float:
    """The quickest, so that whatever else the machine does counts little."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        place.go()
        found.append(time.perf_counter() - begun)
    return 1000 * min(found)


def faults_of(place: Place, looked: "Looked", took: float, *, slack: float) -> list[str]:
    """In words. `slack`: how many times as long as on a machine that does nothing else."""
    most = (
        MOST_BUCKETS
        if "window" in place.name or place.name == "overview" or "stats" in place.name
        else MOST_ROWS
    )
    found = [f"reads all of {table}" for table in looked.scanned]
    if looked.rows > most:
        found.append(f"looks at {looked.rows:.0f} rows")
    if place.kind == "portal" and looked.queries > MOST_QUERIES:
        found.append(f"asks {looked.queries} queries")
    if took > slack * BOUNDS[place.kind]:
        found.append(f"takes {took:.0f} ms")
    return [f"{place.kind} {place.name}: {fault}" for fault in found]


@dataclass(frozen=True)
class Looked:
    queries: int
    """Statements, apart from those that begin and end transactions."""
    rows: float
    """That its hungriest statement looked at."""
    scanned: list[str]
    """Partitions and tables with rows that were read from end to end."""


def look(place: Place) -> Looked:
    """By the plans of its statements. Those that write are planned and not done again, so their rows are estimates."""
    with CaptureQueriesContext(connection) as captured:
        place.go()
    statements = [each["sql"] for each in captured.captured_queries]
    statements = [sql for sql in statements if sql.lstrip().startswith(READS)]
    rows, scanned = 0.0, []
    for sql in statements:
        if any(table in sql for table in BIG):
            read, whole = _explain(sql)
            rows = max(rows, read)
            scanned += whole
    return Looked(len(statements), rows, scanned)


def _explain(sql: str) -> tuple[float, list[str]]:
    is_read = sql.lstrip().startswith(("SELECT", "WITH")) and not any(
        word in sql for word in ("UPDATE ", "INSERT ", "DELETE ")
    )
    with transaction.atomic(), connection.cursor() as cursor:
        # As the sweeps do, which ask for the index of what is owed.
        if "manual_requested_at IS NOT NULL" in sql:
            cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN ({'ANALYZE, ' if is_read else ''}FORMAT JSON) {sql}")
        ((plan,),) = cursor.fetchall()
        plan = json.loads(plan) if isinstance(plan, str) else plan
        read, whole = 0.0, []
        for node in nodes(plan[0]["Plan"]):
            if "Scan" not in node["Node Type"]:
                continue
            if is_read:
                read += (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            table = node.get("Relation Name", "")
            if node["Node Type"] == "Seq Scan" and table.startswith(BIG) and _has_rows(cursor, table):
                whole.append(f"{table}: {sql[:300]}")
    return read, whole


def _has_rows(cursor: Any, table: str) -> bool:
    """A week that is empty, or has just begun, is read as it is: nothing is cheaper."""
    cursor.execute("SELECT reltuples > %s FROM pg_class WHERE relname = %s", [SMALL, table])
    row = cursor.fetchone()
    return bool(row and row[0])


# --- afterwards -------------------------------------------------------------------------------------------------------


def weeks() -> set[str]:
    """Partitions that there are."""
    return {week.table(parent) for parent in partitions.TABLES for week in partitions.weeks_of(parent)}


def forget(before: set[str]) -> None:
    """What was seeded, and the partitions made for it."""
    tenants = list(Tenant.objects.filter(slug__startswith=PREFIX).values_list("id", flat=True))
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(partitions.TABLES)}, deliveries_rollup, deliveries_rollupgone")
        for table in sorted(weeks() - before):
            cursor.execute(f"DROP TABLE {table}")
    for tenant_id in tenants:
        erasure.erase_rows(tenant_id)
    Tenant.objects.filter(id__in=tenants).delete()
    # Other tests count on nobody knowing them.
    EventType.objects.filter(tenant__isnull=True, name__in=EVENT_TYPES).delete()
