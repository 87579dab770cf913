"""The bench's own programs, and one small run of the command on the tests' servers."""

import base64
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import struct
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from deliveries.bench import dns
from deliveries.bench.certificates import make_certificates
from deliveries.bench.children import Receiver, run_publisher
from deliveries.bench.endpoint_scenarios import OUT_OF_ORDER
from deliveries.bench.publisher import Plan, Publisher
from deliveries.bench.report import Line, bench_table, scenario_table
from deliveries.bench.stage import PREFIX, drop_left_overs, own_stage
from deliveries.management.commands.bench import run, steps
from deliveries.models import Attempt
from tests.support.builders import attempts_of, deliveries_of, make_endpoint, make_tenant, publish
from tests.support.receiver import CountingReceiver
from tests.support.running import Webhooks, run_until_dry, until

ROOT = Path(__file__).resolve().parents[2]
SECRET = "whsec_" + base64.b64encode(b"twenty-four secret bytes").decode()


def post(
    receiver: Receiver,
    path: str,
    *,
    webhook_id: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"{}",
) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=10)
    connection.request("POST", path, body, {"webhook-id": webhook_id} | (headers or {}))
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def signature(webhook_id: str, timestamp: int, body: bytes) -> str:
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(b"twenty-four secret bytes", signed, hashlib.sha256)).decode()


# --- the receiver -----------------------------------------------------------------------------------------------------


def test_it_counts_different_ids_and_what_came_again() -> None:
    with CountingReceiver() as receiver:
        statuses = [post(receiver, "/a/1", webhook_id=each) for each in ("evt_1", "evt_2", "evt_1")]
        statuses.append(post(receiver, "/a/2", webhook_id="evt_1"))
        report = receiver.report()

        assert statuses == [200, 200, 200, 200]
        assert (report["requests"], report["distinct"], report["repeats"]) == (4, 3, 1)
        assert receiver.ids("/a/1") == ["evt_1", "evt_2"]
        assert receiver.count("b") == {"requests": 0, "distinct": 0, "in_air": 0}


def test_a_failed_request_is_no_delivery_and_its_retry_no_repeat() -> None:
    with CountingReceiver() as receiver:
        receiver.set_rule("/a/1", fail_first=1, fail_status=503)

        statuses = [post(receiver, "/a/1", webhook_id="evt_1") for _ in range(2)]

        report = receiver.report()
        assert statuses == [503, 200]
        assert (report["distinct"], report["repeats"], report["failures"]) == (1, 0, 1)


def test_it_tells_right_signatures_from_wrong_ones() -> None:
    now = int(time.time())
    with CountingReceiver() as receiver:
        receiver.keep_secrets({"/a/1": SECRET})
        good = {
            "webhook-timestamp": str(now),
            "webhook-signature": "v1,AAAA " + signature("evt_1", now, b"{}"),
        }
        stale = {"webhook-timestamp": "1000", "webhook-signature": signature("evt_1", 1000, b"{}")}

        post(receiver, "/a/1", webhook_id="evt_1", headers=good)
        post(receiver, "/a/1", webhook_id="evt_1", headers=good, body=b"{ }")
        post(receiver, "/a/1", webhook_id="evt_1", headers=stale)
        post(receiver, "/a/1", webhook_id="evt_1")

        report = receiver.report()
        assert (report["verified"], report["bad_signatures"]) == (1, 3)


def test_it_measures_from_the_time_in_the_data_to_the_receipt() -> None:
    with CountingReceiver() as receiver:
        sent = time.time_ns() - 250_000_000

        post(receiver, "/a/1", webhook_id="evt_1", body=b'{"type":"x","data":{"sent_ns":%d,"n":1}}' % sent)

        latency = receiver.report("a")["latency_ms"]
        assert latency["count"] == 1
        assert 250 <= latency["p50"] < 5000


def test_it_holds_requests_as_long_as_it_is_told() -> None:
    with CountingReceiver() as receiver, socket.create_connection(("127.0.0.1", receiver.port)) as client:
        receiver.set_rule("/a", seconds=2.0)

        client.sendall(b"POST /a/1 HTTP/1.1\r\nwebhook-id: evt_1\r\nContent-Length: 0\r\n\r\n")
        held = receiver.wait_for_in_air(1)
        answer = client.recv(100)

        assert held["distinct"] == 0
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert receiver.count() == {"requests": 1, "distinct": 1, "in_air": 0}


def test_whose_client_went_away_is_in_the_air_no_more() -> None:
    request = b"POST /a/1 HTTP/1.1\r\nwebhook-id: evt_%d\r\nContent-Length: 0\r\n\r\n"
    with CountingReceiver() as receiver, socket.create_connection(("127.0.0.1", receiver.port)) as stays:
        receiver.set_rule("/a/1", seconds=3600)
        stays.sendall(request % 1)
        with socket.create_connection(("127.0.0.1", receiver.port)) as leaves:
            leaves.sendall(request % 2 + request % 3)
            receiver.wait_for_in_air(3)

        until(lambda: receiver.count()["in_air"] == 1)

        assert receiver.count() == {"requests": 3, "distinct": 0, "in_air": 1}
        assert receiver.report()["most_in_air"] == 3


def test_requests_in_pieces_and_several_at_once_are_told_apart() -> None:
    request = b"POST /a/1 HTTP/1.1\r\nwebhook-id: evt_%d\r\ncontent-length: 5\r\n\r\nhello"
    with CountingReceiver() as receiver, socket.create_connection(("127.0.0.1", receiver.port)) as client:
        stream = b"".join(request % number for number in range(20))
        for start in range(0, len(stream), 37):
            client.sendall(stream[start : start + 37])
            time.sleep(0.001)

        report = receiver.wait_for(20)

        assert (report["requests"], report["distinct"]) == (20, 20)
        assert receiver.ids("/a/1") == sorted(f"evt_{number}" for number in range(20))


def test_large_bodies_and_large_answers_pass() -> None:
    with CountingReceiver() as receiver:
        receiver.set_rule("/a/1", body_bytes=16_384)
        connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=10)

        connection.request("POST", "/a/1", b"x" * 300_000, {"webhook-id": "evt_1"})
        body = connection.getresponse().read()

        connection.close()
        assert len(body) == 16_384
        assert receiver.report()["distinct"] == 1


def test_over_tls_it_shows_a_certificate_that_the_authority_signed(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=str(certificates.authority))
    with Receiver(address="127.0.0.0/8", certificate=certificates.server) as receiver:
        address = (str(dns.address_of(7)), receiver.port)
        with (
            socket.create_connection(address) as plain,
            context.wrap_socket(plain, server_hostname="host-7.bench.test") as client,
        ):
            client.sendall(b"POST /a/1 HTTP/1.1\r\nwebhook-id: evt_1\r\nContent-Length: 0\r\n\r\n")
            answer = client.recv(100)

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert receiver.report()["distinct"] == 1


# --- the publisher ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "requests"), [(1, 40), (10, 4)])
def test_the_publisher_sends_every_event_once_and_counts_refusals(batch: int, requests: int) -> None:
    targets = [("/t/1", "whk_1", "bench.e0"), ("/t/1", "whk_1", "bench.e1"), ("/t/2", "whk_2", "bench.e0")]
    with CountingReceiver() as receiver:
        receiver.set_rule("/t", status=422)

        result = run_publisher(
            Plan(port=receiver.port, targets=targets, events=40, batch=batch, connections=4)
        )

        assert result["statuses"] == {"422": requests}
        assert (result["accepted"], result["refused"], result["unanswered"]) == (0, 40, 0)
        assert receiver.count()["requests"] == requests


def test_at_a_rate_the_publisher_takes_its_time() -> None:
    with CountingReceiver() as receiver:
        plan = Plan(port=receiver.port, targets=[("/t/1", "k", "x")], events=20, rate=50.0, connections=2)

        result = run_publisher(plan)

        assert 0.38 <= result["seconds"] < 5


def test_events_get_ordering_keys_in_turn_and_a_time() -> None:
    plan = Plan(
        port=1,
        targets=[("/t/1", "k", "x")],
        events=3,
        payload=64,
        ordering_keys=2,
        first_key=5,
        deliver_after_seconds=60,
    )
    publisher = Publisher(plan)
    opening = publisher.heads[0][1]

    events = [json.loads(publisher._event(opening, number)) for number in range(3)]

    assert [event["ordering_key"] for event in events] == ["k5", "k6", "k5"]
    assert {event["type"] for event in events} == {"x"}
    assert [event["data"]["n"] for event in events] == [0, 1, 2]
    later = datetime.fromisoformat(events[0]["deliver_at"]) - datetime.now(UTC)
    assert timedelta(seconds=50) < later <= timedelta(seconds=60)


def test_requests_to_sources_are_the_data_alone() -> None:
    with CountingReceiver() as receiver:
        plan = Plan(port=receiver.port, targets=[("/in/x", "", "")], events=10, is_incoming=True)

        result = run_publisher(plan)

        assert (result["accepted"], result["deliveries"], receiver.count("in")["requests"]) == (10, 10, 10)


def test_what_went_out_before_its_turn_is_found(quiet_lanes: None) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), ordering="fifo")
        for _ in range(3):
            publish(tenant, ordering_key="k", is_fifo=True)
        run_until_dry()

    def out_of_order() -> Any:
        with connection.cursor() as cursor:
            cursor.execute(OUT_OF_ORDER, [[endpoint.id]])
            return cursor.fetchone()

    ids = [attempts_of(each)[0].id for each in deliveries_of(tenant)]
    attempts = Attempt.objects.for_tenant(tenant)
    began = datetime.now(UTC)
    for number, attempt_id in enumerate(ids):
        at = began + timedelta(seconds=number)
        attempts.filter(id=attempt_id).update(started_at=at, duration_ms=900.0)

    assert out_of_order() == (0,)
    attempts.filter(id=ids[2]).update(started_at=began + timedelta(seconds=1.8))
    assert out_of_order() == (1,)
    attempts.filter(id=ids[0]).update(duration_ms=60_000.0)
    assert out_of_order() == (2,)


# --- the name server --------------------------------------------------------------------------------------------------


def question(name: str, record_type: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", 9, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", record_type, 1)


@pytest.mark.parametrize(
    ("name", "record_type", "code", "address"),
    [
        ("host-0.bench.test", 1, 0, "127.1.0.1"),
        ("HOST-2000.bench.test", 1, 0, "127.1.7.209"),
        ("host-0.bench.test", 28, 0, None),
        ("other.bench.test", 1, 3, None),
    ],
)
def test_names_lead_to_addresses_of_their_own(
    name: str, record_type: int, code: int, address: str | None
) -> None:
    reply = dns.answer(question(name, record_type))

    assert reply is not None
    assert reply[:2] == b"\0\x09"
    assert reply[3] & 0x0F == code
    assert (socket.inet_ntoa(reply[-4:]) if reply[7] else None) == address


def test_names_that_hang_get_no_answer() -> None:
    assert dns.answer(question("hang-3.bench.test", 1)) is None


# --- the tables -------------------------------------------------------------------------------------------------------


def test_the_table_says_which_promise_was_not_met() -> None:
    lines = [
        Line("deliveries/s", 7000.4, at_least=6000),
        Line("p99 ms", 61.25, at_most=60, more="p50 3"),
        Line("plain", 3.0),
    ]

    table = [row.split() for row in scenario_table(lines).splitlines()]

    assert table == [
        ["deliveries/s", "7,000", "≥", "6,000", "ok"],
        ["p99", "ms", "61.2", "≤", "60", "NOT", "MET", "p50", "3"],
        ["plain", "3"],
    ]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_a_small_run_counts_alike_everywhere_and_leaves_nothing_behind(database: None) -> None:
    result = subprocess.run(
        [sys.executable, "manage.py", "bench", "--events", "600", "--endpoints", "60", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    figures = json.loads(line)
    assert list(figures) == [
        "events_per_second",
        "batched_events_per_second",
        "deliveries_per_second",
        "latency_ms",
        "cpu_us_per_delivery",
        "memory_mb",
        "accepted",
        "received",
        "recorded",
    ]
    assert list(figures["latency_ms"]) == ["p50", "p99"]
    assert (figures["accepted"], figures["received"], figures["recorded"]) == (600, 600, 600)
    assert all(value > 0 for name, value in figures.items() if name != "latency_ms")
    assert len(bench_table(figures).splitlines()) == 10
    assert left_over_databases() == []


def left_over_databases() -> list[str]:
    with psycopg.connect(settings.DATABASE_URL) as connection:
        rows = connection.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s", [f"{PREFIX}%"]
        ).fetchall()
    return [row[0] for row in rows]


@pytest.mark.timeout(120)
def test_full_tables_delay_nothing_and_nothing_of_them_is_counted(database: None) -> None:
    with own_stage() as stage:
        stage.migrate()
        small = {"events": 400, "finished": 3000, "pending": 2000, "idle": 500}
        figures = run(stage, stage.name, {"scenario": "tables"} | small)

        url = urlsplit(settings.DATABASE_URL)._replace(path=f"/{stage.name}").geturl()
        with psycopg.connect(url) as connection:
            rows = connection.execute(
                "SELECT status, count(*) FROM deliveries_delivery GROUP BY 1 ORDER BY 1"
            ).fetchall()

    empty, full = figures["lines"]
    assert empty["figure"] > 0
    assert full["figure"] > 0
    assert full["at_least"] == pytest.approx(0.9 * empty["figure"], abs=0.01)
    assert dict(rows) == {"pending": 2000, "succeeded": 5000 + 6 * 400 + 3000}


def test_how_full_the_tables_are_can_be_said() -> None:
    assert steps(["full-tables", "latency"], finished=10_000_000) == [
        {"scenario": "tables", "finished": 10_000_000},
        {"scenario": "latency"},
    ]


@pytest.mark.parametrize(
    ("option", "most"), [("--events", 10_000_000), ("--endpoints", 100_000), ("--finished", 100_000_000)]
)
def test_odd_numbers_are_refused_at_once(option: str, most: int) -> None:
    result = subprocess.run(
        [sys.executable, "manage.py", "bench", option, "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 1
    assert result.stdout == ""
    assert f"{option} must be between 1 and {most}." in result.stderr


def test_a_run_on_another_database_of_the_server_keeps_what_is_its_own(database: None) -> None:
    with own_stage() as stage, stage.copy() as copied:
        url = urlsplit(settings.DATABASE_URL)._replace(path=f"/{copied}").geturl()
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("CREATE DATABASE webhooks_bench_gone")
            other.execute("CREATE DATABASE webhooks_bench_gone_1")

            drop_left_overs(other)

            rows = other.execute(
                "SELECT datname FROM pg_database WHERE datname LIKE 'webhooks_bench_%' ORDER BY 1"
            ).fetchall()
    assert {stage.name, copied} <= {name for (name,) in rows}
    assert not {"webhooks_bench_gone", "webhooks_bench_gone_1"} & {name for (name,) in rows}
