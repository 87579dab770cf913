"""What a request's statements about history read, by their plans: for tests with more rows than could be read in time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext

HISTORY = ("deliveries_delivery", "deliveries_event", "deliveries_attempt")

SMALL = 2_000
"""Rows of a partition that may be read whole, which is as cheap as its index: that of a week that has just begun."""


@contextmanager
def reads_at_most(rows: int) -> Iterator[None]:
    """Every statement of what is within, explained as it was sent: none looks at more rows, or at a whole table."""
    with CaptureQueriesContext(connection) as queries:
        yield
    statements = [each["sql"] for each in queries.captured_queries if is_select(each["sql"])]
    for sql in statements:
        if any(table in sql for table in HISTORY):
            looked_at = rows_read(sql)
            assert looked_at <= rows, (sql, looked_at)


def is_select(sql: str) -> bool:
    return sql.lstrip().startswith(("SELECT", "WITH"))


def rows_read(sql: str) -> float:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        ((plan,),) = cursor.fetchall()
    plan = json.loads(plan) if isinstance(plan, str) else plan
    looked_at = 0.0
    for node in nodes(plan[0]["Plan"]):
        rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        if "Scan" in node["Node Type"]:
            looked_at += rows
        # A partition without a row is read whole, which costs nothing.
        is_whole = node["Node Type"] == "Seq Scan" and node.get("Relation Name", "").startswith(HISTORY)
        assert not is_whole or rows == 0 or is_small(node["Relation Name"]), (sql, plan)
    return looked_at


def is_small(partition: str) -> bool:
    """As far as the planner knows."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reltuples BETWEEN 0 AND %s FROM pg_class WHERE relname = %s", [SMALL, partition]
        )
        ((found,),) = cursor.fetchall()
    return bool(found)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)
