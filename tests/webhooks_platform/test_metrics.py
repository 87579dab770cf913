"""`/metrics`: who may read it, and that its figures are those of what really happened."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from deliveries.models import Dispatcher, Lane
from deliveries.pipeline import counters, sweeps
from tenants.models import Tenant
from tests.support.api import error_codes, tenant_api
from tests.support.builders import make_endpoint, make_endpoints, make_tenant, publish
from tests.support.running import Reply, Webhooks
from webhooks_platform.embedded.servers import free_port

pytestmark = pytest.mark.usefixtures("database")

Figures = dict[tuple[str, str], float]
"""By sample name and the value of its label."""


def parse(text: str) -> Figures:
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def figures() -> Figures:
    """As they are now, with what this process has counted."""
    counters.write()
    response = Client().get("/metrics")
    assert response.status_code == 200
    return parse(response.content.decode())


def risen(before: Figures, after: Figures) -> Figures:
    """Counters and histograms that did, without the sums of seconds."""
    return {
        key: after[key] - before.get(key, 0)
        for key in after
        if key[0].endswith(("_total", "_count")) and after[key] != before.get(key, 0)
    }


def test_what_was_never_rolled_up_is_behind_since_the_first_tenant(nothing_rolled_up: None) -> None:
    """Where neither beat nor a worker ever ran, the alert is raised, too."""
    first = make_tenant()
    Tenant.objects.filter(id=first.id).update(created_at=timezone.now() - timedelta(days=900))

    assert figures()["webhooks_rollups_behind_seconds", ""] >= 900 * 86_400


# --- who may read it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "status"),
    [
        pytest.param({"REMOTE_ADDR": "127.0.0.1"}, 200, id="this machine"),
        pytest.param({"REMOTE_ADDR": "127.9.9.9"}, 200, id="this machine by another of its addresses"),
        pytest.param({"REMOTE_ADDR": "::1"}, 200, id="this machine over IPv6"),
        pytest.param({"REMOTE_ADDR": "10.0.0.7"}, 401, id="another machine"),
        pytest.param({"REMOTE_ADDR": ""}, 401, id="no address to be read"),
        pytest.param(
            {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.9"}, 401, id="a proxy's client"
        ),
        pytest.param(
            {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "127.0.0.1"}, 401, id="who claims to be here"
        ),
        pytest.param(
            {"REMOTE_ADDR": "10.0.0.7", "HTTP_AUTHORIZATION": "Bearer the-token"}, 200, id="the token"
        ),
        pytest.param(
            {"REMOTE_ADDR": "10.0.0.7", "HTTP_AUTHORIZATION": "bearer the-token"}, 200, id="in small letters"
        ),
        pytest.param(
            {"REMOTE_ADDR": "10.0.0.7", "HTTP_AUTHORIZATION": "Bearer other"}, 401, id="another token"
        ),
        pytest.param(
            {"REMOTE_ADDR": "10.0.0.7", "HTTP_AUTHORIZATION": "Bearer tökén"}, 401, id="odd letters"
        ),
        pytest.param(
            {"REMOTE_ADDR": "10.0.0.7", "HTTP_AUTHORIZATION": "Basic the-token"}, 401, id="no bearer"
        ),
    ],
)
def test_open_to_this_machine_else_with_the_token(settings: Any, meta: dict[str, str], status: int) -> None:
    settings.WEBHOOKS_METRICS_TOKEN = "the-token"

    response = Client().get("/metrics", **meta)  # type: ignore[arg-type] # entries of the request's environment

    assert response.status_code == status
    assert (b"webhooks_" in response.content) is (status == 200)
    assert response.get("WWW-Authenticate") == (None if status == 200 else "Bearer")


@pytest.mark.parametrize("authorization", ["Bearer ", "Bearer", "", "Bearer x"])
def test_without_a_token_in_the_settings_nobody_else_may(settings: Any, authorization: str) -> None:
    settings.WEBHOOKS_METRICS_TOKEN = ""

    response = Client().get("/metrics", REMOTE_ADDR="10.0.0.7", HTTP_AUTHORIZATION=authorization)

    assert response.status_code == 401


# --- what it says -----------------------------------------------------------------------------------------------------

PROCESS = """
import sys
import django
django.setup()
from uuid import UUID
from deliveries.pipeline import ingest
from tests.support.running import run_until_dry
tenant, events, does_deliver = UUID(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "deliver"
new = ingest.NewEvent(tenant.bytes, "order.created", b"{}")
for _ in range(0, events, 10):
    ingest.publish([new] * 10)
ingest.publish([ingest.NewEvent(tenant.bytes, "unheard.of", b"{}")])
if does_deliver:
    run_until_dry()
"""


@pytest.fixture
def web() -> Iterator[str]:
    """A web server as in production; the address of its metrics."""
    port = free_port()
    command = [sys.executable, "-m", "granian", "webhooks_platform.wsgi:application", "--interface", "wsgi"]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--no-ws",
        "--log-level",
        "error",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{url}/health/live", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"{url}/metrics"
    finally:
        process.terminate()
        process.wait(20)


def scrape(url: str) -> Figures:
    with urllib.request.urlopen(url, timeout=20) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return parse(response.read().decode())


@pytest.mark.usefixtures("quiet_lanes")
def test_counts_of_several_processes_are_what_happened(web: str) -> None:
    """Two publish, the second of them delivers while it lasts; a third, the web server, is asked."""
    tenant = make_tenant()
    with Webhooks(bad=Reply(status=500)) as endpoint:
        make_endpoint(tenant, endpoint.url("/good"))
        make_endpoint(tenant, endpoint.url("/also"))
        make_endpoint(tenant, endpoint.url("/bad"), retry_schedule=[])
        counters.write()
        before = scrape(web)
        first = [sys.executable, "-c", PROCESS, str(tenant.id), "40", "no"]
        second = [sys.executable, "-c", PROCESS, str(tenant.id), "60", "deliver"]
        subprocess.run(first, check=True, timeout=60)
        subprocess.run(second, check=True, timeout=60)
        after = scrape(web)
        assert len(endpoint.requests) == 300

    found = risen(before, after)
    for varying in ("webhooks_dispatcher_round_seconds_count", "webhooks_dispatcher_record_seconds_count"):
        assert found.pop((varying, "")) >= 1
    assert found.pop(("webhooks_dispatcher_runs_total", "dry")) >= 1
    assert found == {
        ("webhooks_publishes_total", "accepted"): 100,
        ("webhooks_publishes_total", "unknown_event_type"): 2,
        ("webhooks_deliveries_made_total", "automatic"): 300,
        ("webhooks_deliveries_ended_total", "succeeded"): 200,
        ("webhooks_deliveries_ended_total", "failed"): 100,
        ("webhooks_attempts_total", "succeeded"): 200,
        ("webhooks_attempts_total", "http_error"): 100,
        ("webhooks_first_attempt_seconds_count", ""): 300,
        ("webhooks_delivery_seconds_count", ""): 300,
        ("webhooks_attempt_seconds_count", ""): 300,
    }


def test_histograms_are_whole_and_rise() -> None:
    counters.observe("first_attempt_seconds", [0.002, 0.03, 1_000_000.0])

    after = figures()

    buckets = [value for (name, _), value in after.items() if name == "webhooks_first_attempt_seconds_bucket"]
    assert len(buckets) == len(counters.BOUNDS) + 1
    assert buckets == sorted(buckets)
    assert buckets[-1] == after["webhooks_first_attempt_seconds_count", ""]
    assert buckets[-1] - buckets[-2] >= 1
    assert after["webhooks_first_attempt_seconds_sum", ""] >= 1_000_000


def test_refused_requests_and_events_are_counted_by_their_code() -> None:
    api = tenant_api(tenant := make_tenant())
    before = figures()

    assert api.post(f"/tenants/{tenant.slug}/events", b"{").status_code == 400
    refused = api.post(f"/tenants/{tenant.slug}/events", {"type": "order.created"})
    batch = {"events": [{"type": "order.created", "data": {}}, {"type": "order.created"}]}
    assert api.post(f"/tenants/{tenant.slug}/events/batch", batch).status_code == 202
    assert api.get(f"/tenants/{tenant.slug}/endpoints", limit=0).status_code == 422

    assert error_codes(refused) == [("data", "required")]
    assert risen(before, figures()) == {
        ("webhooks_publishes_total", "malformed_json"): 1,
        ("webhooks_publishes_total", "invalid"): 2,
        ("webhooks_publishes_total", "accepted"): 1,
        ("webhooks_api_problems_total", "malformed_json"): 1,
        ("webhooks_api_problems_total", "invalid"): 2,
    }


@pytest.mark.usefixtures("quiet_lanes")
def test_lanes_and_dispatchers_by_state() -> None:
    tenant = make_tenant()
    ready, served, paused, held, scheduled, _ = make_endpoints(tenant, ["http://127.0.0.1:9999/"] * 6)
    now = timezone.now()
    soon = now + timedelta(minutes=5)
    dispatcher = Dispatcher.objects.create(alive_until=now + timedelta(seconds=20), has_room=False)
    lanes = Lane.objects.for_tenant(tenant)
    lanes.filter(endpoint=ready).update(is_ready=True, ready_at=now - timedelta(seconds=90))
    lanes.filter(endpoint=served).update(is_ready=True, ready_at=now, dispatcher_id=dispatcher.id)
    lanes.filter(endpoint=paused).update(is_ready=True, ready_at=now, is_paused=True)
    lanes.filter(endpoint=held).update(ready_at=now, hold_until=soon)
    lanes.filter(endpoint=scheduled).update(ready_at=soon)

    found = figures()

    states = {label: value for (name, label), value in found.items() if name == "webhooks_lanes"}
    assert states == {"ready": 1, "served": 1, "paused": 1, "scheduled": 2, "held": 1}
    assert 90 <= found["webhooks_oldest_ready_lane_seconds", ""] < 150
    assert found["webhooks_dispatchers", "alive"] == 1
    assert found["webhooks_dispatchers", "with_room"] == 0
    assert found["webhooks_partition_weeks_ready", ""] >= 4
    assert (found["webhooks_database_up", ""], found["webhooks_broker_up", ""]) == (1, 1)
    assert found["webhooks_sending_stopped", ""] == 0


@pytest.mark.usefixtures("quiet_lanes")
def test_the_backlog_is_what_was_made_and_did_not_end_and_is_put_right() -> None:
    tenant = make_tenant()
    make_endpoint(tenant, "http://127.0.0.1:9999/")
    counters.write()
    sweeps.correct_backlog()  # other tests left deliveries that were thrown away
    assert figures()["webhooks_backlog_deliveries", ""] == 0

    for _ in range(3):
        publish(tenant)
    assert figures()["webhooks_backlog_deliveries", ""] == 3

    counters.add("deliveries_ended:succeeded", -500)  # as if a process had been killed before it wrote
    assert figures()["webhooks_backlog_deliveries", ""] == 503
    assert sweeps.correct_backlog() == 3
    assert figures()["webhooks_backlog_deliveries", ""] == 3


def test_no_label_says_anything_about_a_tenant() -> None:
    tenant = make_tenant(slug="a-telling-name")
    make_endpoint(tenant, "http://127.0.0.1:9999/telling")
    publish(tenant)

    found = figures()

    labels = {label for _, label in found if label and not label[0].isdigit() and label != "+Inf"}
    assert all(label.replace("_", "").isalpha() and len(label) < 32 for label in labels), labels
    # Every code of a refusal that this process ever answered is one more.
    assert len(found) < 300


def test_the_operators_page_explains_every_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    explained = set(re.findall(r"webhooks_[a-z_]+", page.replace(r"{result=~", " ")))
    response = Client().get("/metrics")

    shown = {
        family.name if family.type != "counter" else f"{family.name}_total"
        for family in text_string_to_metric_families(response.content.decode())
    }
    assert explained == shown


def test_each_lane_count_has_an_index() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        try:
            plans = []
            for condition in (
                "is_ready AND dispatcher_id IS NULL AND NOT is_paused",
                "dispatcher_id IS NOT NULL",
                "is_paused",
                "NOT is_ready AND dispatcher_id IS NULL AND NOT is_paused AND ready_at IS NOT NULL",
            ):
                cursor.execute(
                    f"EXPLAIN (FORMAT JSON) SELECT FROM deliveries_lane WHERE {condition} LIMIT 10"
                )
                plans.append(json.dumps(cursor.fetchone()[0]))
        finally:
            cursor.execute("SET enable_seqscan = on")

    assert [
        name in plan
        for name, plan in zip(
            ("lane_ready", "lane_by_dispatcher", "lane_paused", "lane_scheduled"), plans, strict=True
        )
    ] == [True] * 4
