"""The database's clock, and what goes by it."""

import ast
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.db import connection

from tenants import clock

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.usefixtures("database")
def test_it_tells_the_databases_time() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        before = cursor.fetchone()[0]
        now = clock.database_now()
        cursor.execute("SELECT clock_timestamp()")
        after = cursor.fetchone()[0]

    assert before <= now <= after
    assert now.tzinfo is UTC
    assert abs((datetime.now(UTC) - now).total_seconds()) < 5


def test_scheduled_work_does_not_ask_its_own_machine_for_the_time() -> None:
    """A worker two months ahead would end everything that waits, and drop weeks of history."""
    tasks = [*ROOT.glob("tenants/*tasks.py"), *ROOT.glob("deliveries/*tasks.py")]
    asked = [
        f"{path.name}:{node.lineno}"
        for path in tasks
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "time", "today"}
    ]

    assert len(tasks) == 4
    assert asked == []
