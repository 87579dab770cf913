"""`/health/live` and `/health/ready`."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone

from deliveries.models import Dispatcher
from webhooks_platform import health

pytestmark = pytest.mark.usefixtures("database")


def ready() -> tuple[int, dict[str, Any]]:
    response = Client().get("/health/ready")
    return response.status_code, json.loads(response.content)


def test_the_process_answers() -> None:
    response = Client().get("/health/live")

    assert (response.status_code, json.loads(response.content)) == (200, {"status": "ok"})
    assert Client().post("/health/live").status_code == 405


def test_all_is_well() -> None:
    Dispatcher.objects.all().delete()
    Dispatcher.objects.create(alive_until=timezone.now() + timedelta(seconds=20))
    Dispatcher.objects.create(alive_until=timezone.now() - timedelta(seconds=1))

    status, report = ready()

    assert status == 200
    assert report.keys() == {
        "status",
        "database",
        "broker",
        "clock",
        "dispatchers",
        "oldest_ready_lane_seconds",
    }
    assert [report[name] for name in ("status", "database", "broker", "clock")] == ["ok"] * 4
    assert report["dispatchers"] == 1
    Dispatcher.objects.all().delete()


@pytest.mark.parametrize(
    ("ahead", "status", "clock"),
    [
        (58.0, 200, "ok"),
        (-58.0, 200, "ok"),
        (69.6, 503, "70 seconds ahead of the database's"),
        (-5_184_000.4, 503, "5184000 seconds behind the database's"),
    ],
)
def test_a_process_whose_clock_is_off_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, ahead: float, status: int, clock: str
) -> None:
    monkeypatch.setattr(
        health, "time", SimpleNamespace(time=lambda: time.time() + ahead, monotonic=time.monotonic)
    )

    code, report = ready()

    assert (code, report["clock"], report["database"]) == (status, clock, "ok")
    assert report["status"] == ("ok" if status == 200 else "unavailable")


def test_one_query_looks_at_dispatchers_and_lanes(django_assert_num_queries: Any) -> None:
    ready()  # from here on it knows that migrations are applied and partitions made

    with django_assert_num_queries(1):
        assert ready()[0] == 200


@contextmanager
def silent_server() -> Iterator[int]:
    """Accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_broker_that_is_away_or_silent_degrades_and_does_not_hold_the_answer(settings: Any) -> None:
    settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
    away = ready()
    with silent_server() as port:
        settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{port}/0"
        silent = ready()

    assert [(status, report["status"], report["broker"]) for status, report in (away, silent)] == [
        (200, "degraded", "unavailable"),
        (200, "degraded", "unavailable"),
    ]


def test_unapplied_migrations_are_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_is_migrated", False)
    recorder = MigrationRecorder(connection)
    ((_, newest),) = MigrationLoader(connection).graph.leaf_nodes("tenants")
    recorder.record_unapplied("tenants", newest)
    try:
        status, report = ready()
    finally:
        recorder.record_applied("tenants", newest)

    assert (status, report["status"], report["database"]) == (
        503,
        "unavailable",
        "migrations are not applied",
    )
    assert (report["dispatchers"], report["clock"]) == (None, "unknown")
