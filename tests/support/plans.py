"""What statements read, by their plans: those of a request about history, for tests with more rows than could be read in
time, and those of the pipeline's own connections.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
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


class Statements:
    """In place of a connection: keeps what is executed, and executes nothing."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []
        self.rowcount = 0

    @contextmanager
    def cursor(self, **_: Any) -> "Iterator[Statements]":
        yield self

    def execute(self, statement: str, parameters: Any, **_: Any) -> "Statements":
        self.made.append((statement, parameters))
        return self

    def fetchone(self) -> None:
        return None

    def fetchall(self) -> list[Any]:
        # As of a take that found nothing.
        return [(False, False, [], None, 0, None)]


def rows_of(
    own: psycopg.Connection[Any],
    function: Callable[..., Any],
    *,
    once_planned: Callable[[], None] | None = None,
    **arguments: Any,
) -> float:
    """How many rows the statements of a function of the pipeline look at, in the plans that this connection makes of them.

    They are done, and undone. `once_planned`: of a function with one statement, what happens then.
    """
    statements = Statements()
    function(statements, **arguments)
    assert statements.made
    with own.transaction(force_rollback=True):
        return sum(_rows_looked_at(own, *made, once_planned=once_planned) for made in statements.made)


def _rows_looked_at(
    own: psycopg.Connection[Any], statement: str, parameters: Any, *, once_planned: Callable[[], None] | None
) -> float:
    """Prepared, as the driver does it: EXPLAIN alone knows the parameters, and makes a plan for them."""
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"${numbers.setdefault(found[1] or str(len(numbers)), len(numbers) + 1)}"

    prepared = re.sub(r"%(?:\((\w+)\))?s", number, statement)
    values = [parameters[name] if isinstance(parameters, dict) else parameters[int(name)] for name in numbers]
    texts = own.execute(f"SELECT {', '.join(['quote_nullable(%s::text)'] * len(values))}", values).fetchone()
    assert texts is not None
    own.execute(f"PREPARE looked_at AS {prepared}")
    again = f"EXECUTE looked_at({', '.join(texts)})"
    if once_planned is not None:
        own.execute(f"EXPLAIN {again}")
        once_planned()
    ((plan,),) = own.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {again}").fetchall()
    own.execute("DEALLOCATE looked_at")
    looked_at = 0.0
    for node in nodes(plan[0]["Plan"]):
        found = node["Actual Rows"] if "Scan" in node["Node Type"] else 0
        looked_at += (found + _removed(node)) * node["Actual Loops"]
    return looked_at


def _removed(node: dict[str, Any]) -> float:
    return float(sum(count for name, count in node.items() if name.startswith("Rows Removed by")))
