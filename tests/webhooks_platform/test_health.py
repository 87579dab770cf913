"""`/health/live` and `/health/ready`."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
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
    assert report.keys() == {"status", "database", "broker", "dispatchers", "oldest_ready_lane_seconds"}
    assert (report["status"], report["database"], report["broker"]) == ("ok", "ok", "ok")
    assert report["dispatchers"] == 1
    Dispatcher.objects.all().delete()


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
    assert report["dispatchers"] is None
