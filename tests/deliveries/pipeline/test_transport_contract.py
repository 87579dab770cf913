"""What every transport promises, shown against real receivers. Each test runs on both transports."""

import contextlib
import errno
import os
import resource
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from deliveries.pipeline import failures
from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.resolver import has_family_of
from deliveries.pipeline.transport import (
    Answer,
    Destination,
    OutgoingRequest,
    Transport,
    open_transport,
)
from tests.support.dns_server import DnsServer
from tests.support.hostile_receiver import HostileReceiver
from tests.support.running import until

ROOT = Path(__file__).resolve().parents[3]

HEADERS = ["content-type: application/json", "user-agent: Webhooks-Platform/test", "webhook-id: evt_1"]


@pytest.fixture(params=["curl", "requests"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def receiver() -> Iterator[HostileReceiver]:
    with HostileReceiver() as receiver:
        yield receiver


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def opened(name: str) -> Iterator[Callable[..., Transport]]:
    """Opens transports that may deliver to loopback, and closes them after the test."""
    transports = []

    def open_one(**options: Any) -> Transport:
        guard = options.pop("guard", AddressGuard([ip_network("127.0.0.0/8")]))
        transport = open_transport(name, guard=guard, max_in_flight=64, **options)
        transports.append(transport)
        return transport

    yield open_one
    for transport in transports:
        transport.close()


@pytest.fixture
def transport(opened: Callable[..., Transport]) -> Transport:
    return opened()


def destination(url: str, *, timeout: float = 5.0, tenant_id: uuid.UUID | None = None) -> Destination:
    parts = urlsplit(url)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Destination(url, parts.scheme, parts.hostname, port, tenant_id or uuid.uuid4(), timeout)


def outgoing(where: Destination, **fields: Any) -> OutgoingRequest:
    defaults: dict[str, Any] = {
        "destination": where,
        "method": "POST",
        "query": None,
        "headers": HEADERS,
        "body": b'{"a":1}',
        "tag": "tag",
    }
    return OutgoingRequest(**{**defaults, **fields})


def collect(transport: Transport, count: int, *, seconds: float = 20.0) -> list[Answer]:
    answers: list[Answer] = []
    deadline = time.monotonic() + seconds
    while len(answers) < count:
        assert time.monotonic() < deadline, f"only {len(answers)} of {count} answers came"
        answers += transport.poll(0.5)
    return answers


def send(transport: Transport, url: str, *, timeout: float = 5.0, **fields: Any) -> Answer:
    transport.start(outgoing(destination(url, timeout=timeout), **fields))
    (answer,) = collect(transport, 1)
    return answer


# --- What is sent --------------------------------------------------------------------------------------------------


def test_an_answer_comes_back_whole(transport: Transport, receiver: HostileReceiver) -> None:
    before = time.time()

    answer = send(transport, receiver.url("/ok"), tag=("any", "thing"))

    assert (answer.tag, answer.failure, answer.detail, answer.is_platform_fault) == (
        ("any", "thing"),
        None,
        "",
        False,
    )
    assert (answer.status_code, answer.response_body, answer.is_truncated) == (200, b"ok", False)
    assert answer.response_headers == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert (answer.remote_ip, answer.is_new_connection) == ("127.0.0.1", True)
    assert before <= answer.started_at <= time.time()
    assert answer.dns_ms is None
    assert answer.tls_ms is None
    assert answer.connect_ms is not None
    assert answer.first_byte_ms is not None
    assert 0 < answer.connect_ms + answer.first_byte_ms <= answer.duration_ms < 5000


def test_a_post_goes_out_as_given_and_nothing_is_added(
    transport: Transport, receiver: HostileReceiver
) -> None:
    answer = send(
        transport, receiver.url("/echo/a%2Fb?x=%c3%a9"), headers=[*HEADERS, "X-Empty: ", "x-list: 1,2"]
    )

    assert answer.status_code == 200
    (request,) = receiver.requests
    assert (request.method, request.target, request.body) == ("POST", "/echo/a%2Fb?x=%c3%a9", b'{"a":1}')
    names = [line.partition(b":")[0].lower() for line in request.head.split(b"\r\n")[1:-2]]
    assert sorted(names) == [
        b"content-length",
        b"content-type",
        b"host",
        b"user-agent",
        b"webhook-id",
        b"x-empty",
        b"x-list",
    ]
    assert request.header("host") == f"127.0.0.1:{receiver.port}"
    assert request.header("content-length") == "7"
    assert (request.header("x-empty"), request.header("x-list")) == ("", "1,2")


def test_a_request_without_headers_carries_host_and_length_alone(
    transport: Transport, receiver: HostileReceiver
) -> None:
    send(transport, receiver.url("/ok"), headers=[])

    (request,) = receiver.requests
    assert sorted(line.partition(b":")[0].lower() for line in request.head.split(b"\r\n")[1:-2]) == [
        b"content-length",
        b"host",
    ]


def test_put_carries_a_body_and_get_a_query(transport: Transport, receiver: HostileReceiver) -> None:
    send(transport, receiver.url("/ok"), method="PUT", body=b"new")
    send(transport, receiver.url("/ok"), method="GET", query="data=%7B%7D&n=1", body=b"")
    send(transport, receiver.url("/ok?key=1"), method="GET", query="n=2", body=b"")
    send(transport, receiver.url("/ok"), method="POST", body=b"")

    assert [(request.method, request.target, request.body) for request in receiver.requests] == [
        ("PUT", "/ok", b"new"),
        ("GET", "/ok?data=%7B%7D&n=1", b""),
        ("GET", "/ok?key=1&n=2", b""),
        ("POST", "/ok", b""),
    ]
    assert receiver.requests[1].header("content-length") is None
    assert receiver.requests[3].header("content-length") == "0"


@pytest.mark.parametrize("size", [0, 256 * 1024, 3 * 1024 * 1024])
def test_bodies_of_any_size_arrive_unchanged(
    transport: Transport, receiver: HostileReceiver, size: int
) -> None:
    body = os.urandom(size)

    answer = send(transport, receiver.url("/ok"), body=body)

    assert answer.status_code == 200
    assert receiver.requests[0].body == body
    assert receiver.requests[0].header("expect") is None


def test_header_values_outside_ascii_go_out_as_utf8(transport: Transport, receiver: HostileReceiver) -> None:
    send(transport, receiver.url("/ok"), headers=["x-name: Zoë ☃", "x-tab: a\tb"])

    assert receiver.requests[0].header("x-name") == "Zoë ☃"
    assert receiver.requests[0].header("x-tab") == "a\tb"


def test_a_header_cannot_smuggle_in_another(transport: Transport, receiver: HostileReceiver) -> None:
    send(transport, receiver.url("/ok"), headers=["x-a: 1\r\nx-b: 2", "x-c: 3"])

    assert all(request.header("x-b") is None for request in receiver.requests)


# --- What comes back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [201, 204, 304, 400, 404, 410, 429, 500, 503, 599])
def test_every_status_is_an_answer(transport: Transport, receiver: HostileReceiver, code: int) -> None:
    answer = send(transport, receiver.url(f"/status/{code}"))

    assert (answer.failure, answer.status_code) == (None, code)
    assert answer.response_body == (b"" if code in (204, 304) else b"body")


def test_a_redirect_is_an_answer_and_is_not_followed(transport: Transport, receiver: HostileReceiver) -> None:
    answer = send(transport, receiver.url(f"/redirect/302/127.0.0.1:{receiver.port}/ok"))

    assert (answer.failure, answer.status_code) == (None, 302)
    assert b"Location: http://127.0.0.1:" in answer.response_headers
    assert [request.target for request in receiver.requests] == [
        f"/redirect/302/127.0.0.1:{receiver.port}/ok"
    ]


def test_cookies_are_not_kept(transport: Transport, receiver: HostileReceiver) -> None:
    send(transport, receiver.url("/redirect/200/example.test/"))
    send(transport, receiver.url("/ok"))

    assert receiver.requests[1].header("cookie") is None


def test_bytes_of_any_kind_come_back_as_they_are(transport: Transport, receiver: HostileReceiver) -> None:
    answer = send(transport, receiver.url("/odd-bytes"))

    assert (answer.failure, answer.status_code) == (None, 200)
    assert answer.response_body == b"\x00\xff\xfe nul and no UTF-8 \xc3"
    assert b"X-Odd: caf\xe9\r\n" in answer.response_headers


def test_a_compressed_body_is_not_unpacked(transport: Transport, receiver: HostileReceiver) -> None:
    answer = send(transport, receiver.url("/gzip"))

    assert (answer.failure, answer.response_body) == (None, b"not really gzip")


def test_a_chunked_body_is_put_together(transport: Transport, receiver: HostileReceiver) -> None:
    answer = send(transport, receiver.url("/chunks"))

    assert (answer.failure, answer.response_body) == (None, b"ok")


@pytest.mark.parametrize(
    ("size", "is_truncated"), [(16 * 1024, False), (16 * 1024 + 1, True), (10_000_000, True)]
)
def test_a_body_is_cut_at_16_kib_and_the_answer_counts(
    transport: Transport, receiver: HostileReceiver, size: int, is_truncated: bool
) -> None:
    answer = send(transport, receiver.url(f"/body/{size}"))

    assert (answer.failure, answer.status_code, answer.is_truncated) == (None, 200, is_truncated)
    assert answer.response_body == b"x" * (16 * 1024)


def test_an_endless_body_is_not_read_on(transport: Transport, receiver: HostileReceiver) -> None:
    answer = send(transport, receiver.url("/endless"))

    assert (answer.failure, answer.status_code, answer.is_truncated) == (None, 200, True)
    assert len(answer.response_body) == 16 * 1024
    assert answer.duration_ms < 5000
    # What lay in socket buffers when the connection was closed, no more.
    assert receiver.bytes_sent < 20_000_000


def test_what_is_neither_header_nor_body_is_not_read_on_either(
    transport: Transport, receiver: HostileReceiver
) -> None:
    answer = send(transport, receiver.url("/endless-chunk-extension"))

    assert answer.failure in (Outcome.PROTOCOL_ERROR, Outcome.CONNECTION_FAILED)
    assert (answer.status_code, answer.is_platform_fault) == (200, False)
    assert answer.duration_ms < 4000
    assert receiver.bytes_sent < 30_000_000


@pytest.mark.parametrize(
    "path",
    [
        "/headers/2000000",
        "/headers/70000",
        "/header-count/300",
        "/long-header/70000",
        "/endless-interim",
        "/endless-trailers",
    ],
)
def test_headers_past_the_cap_are_a_protocol_error(
    transport: Transport, receiver: HostileReceiver, path: str
) -> None:
    answer = send(transport, receiver.url(path))

    assert (answer.failure, answer.detail) == (
        Outcome.PROTOCOL_ERROR,
        "The headers of the answer are too large.",
    )
    assert len(answer.response_headers) <= 64 * 1024
    assert answer.duration_ms < 5000


@pytest.mark.parametrize("path", ["/headers/60000", "/header-count/90", "/long-header/60000"])
def test_large_headers_within_the_cap_are_fine(
    transport: Transport, receiver: HostileReceiver, path: str
) -> None:
    answer = send(transport, receiver.url(path))

    assert (answer.failure, answer.status_code) == (None, 200)


@pytest.mark.parametrize("path", ["/not-http", "/http09", "/bad-length", "/bad-chunks", "/status/42"])
def test_what_is_not_http_is_a_protocol_error(
    transport: Transport, receiver: HostileReceiver, path: str
) -> None:
    answer = send(transport, receiver.url(path))

    assert (answer.failure, answer.is_platform_fault) == (Outcome.PROTOCOL_ERROR, False)
    assert answer.detail in ("What came back is not HTTP.", "The answer could not be understood.")


def test_a_switch_of_protocols_that_nobody_asked_for_is_no_answer(
    transport: Transport, receiver: HostileReceiver
) -> None:
    answer = send(transport, receiver.url("/status/101"), timeout=1.0)

    assert answer.failure in (Outcome.PROTOCOL_ERROR, Outcome.TIMEOUT)
    assert answer.status_code is None

    closed = send(transport, receiver.url("/switch-protocols"))
    assert (closed.failure, closed.status_code) == (Outcome.PROTOCOL_ERROR, None)


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/close", None, "The connection was closed without an answer."),
        ("/reset", None, "The connection was reset."),
        ("/close-midway", 200, "The connection was closed in the middle of the answer."),
        ("/close-in-headers", 200, "The connection was closed in the middle of the answer."),
        ("/interim-then-close-in-headers", 200, "The connection was closed in the middle of the answer."),
    ],
)
def test_a_broken_connection_is_a_failed_one(
    transport: Transport, receiver: HostileReceiver, path: str, status: int | None, detail: str
) -> None:
    answer = send(transport, receiver.url(path))

    assert (answer.failure, answer.status_code) == (Outcome.CONNECTION_FAILED, status)
    assert (answer.detail, answer.is_platform_fault) == (detail, False)


def test_a_closed_port_refuses_the_connection(transport: Transport) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        answer = send(transport, f"http://127.0.0.1:{port}/")

    assert (answer.failure, answer.detail) == (Outcome.CONNECTION_FAILED, "The connection was refused.")
    assert (answer.status_code, answer.remote_ip) == (None, "127.0.0.1")


# --- Time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/hang", None, "No answer came in time."),
        ("/drip", 200, "The answer was not complete in time."),
        ("/drip-headers", 200, "The answer was not complete in time."),
        ("/status-then-hang/503", 503, "The answer was not complete in time."),
    ],
)
def test_the_time_out_covers_everything_and_keeps_the_status(
    transport: Transport, receiver: HostileReceiver, path: str, status: int | None, detail: str
) -> None:
    answer = send(transport, receiver.url(path), timeout=1.0)

    assert (answer.failure, answer.status_code, answer.detail) == (Outcome.TIMEOUT, status, detail)
    assert 900 < answer.duration_ms < 5000
    assert answer.is_platform_fault is False


def test_a_host_that_does_not_take_the_connection_times_out(transport: Transport) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.socket() as first, socket.socket() as second:
            first.connect(full.getsockname())
            second.setblocking(False)
            second.connect_ex(full.getsockname())

            answer = send(transport, f"http://127.0.0.1:{full.getsockname()[1]}/", timeout=1.0)

    assert (answer.failure, answer.detail) == (Outcome.TIMEOUT, "No connection was made in time.")
    assert answer.connect_ms is None


def test_an_answer_just_in_time_counts(transport: Transport, receiver: HostileReceiver) -> None:
    answer = send(transport, receiver.url("/slow/0.6"), timeout=2.0)

    assert (answer.failure, answer.status_code) == (None, 200)
    assert answer.first_byte_ms is not None
    assert 550 < answer.first_byte_ms < 2000


# --- The platform's own faults ---------------------------------------------------------------------------------------


def test_running_out_of_descriptors_is_the_platforms_fault(
    transport: Transport, receiver: HostileReceiver
) -> None:
    assert send(transport, receiver.url("/ok")).status_code == 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = [socket.socket()]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[0].fileno() + 20, hard))
        with contextlib.suppress(OSError):
            while True:
                fillers.append(socket.socket())
        answer = send(transport, receiver.url("/ok", host="127.0.0.2"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            filler.close()
    later = send(transport, receiver.url("/ok", host="127.0.0.2"))

    assert (answer.failure, answer.is_platform_fault) == (Outcome.INTERNAL_ERROR, True)
    assert answer.detail == "The platform ran out of descriptors, ports or memory."
    assert (later.failure, later.status_code) == (None, 200)


WITHOUT_ADDRESSES = """
import ctypes, os, sys, uuid
from ipaddress import ip_network
from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.transport import Destination, OutgoingRequest, open_transport

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET
assert ctypes.CDLL(None).unshare(flags) == 0, "this system gives processes no network of their own"
transport = open_transport(sys.argv[1], guard=AddressGuard([ip_network("::1/128")]), max_in_flight=4)
there = Destination("http://[::1]:8099/", "http", "::1", 8099, uuid.uuid4(), 5.0)
transport.start(OutgoingRequest(there, "POST", None, [], b"{}", None))
while not (answers := transport.poll(1.0)):
    pass
(answer,) = answers
print(answer.failure, answer.is_platform_fault, answer.detail, sep="|")
"""


def test_that_there_is_no_ipv6_here_is_no_fault_of_the_platform(name: str) -> None:
    """As in most containers. To the system it looks as if all ports were taken."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_ADDRESSES, name], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert run.stdout == "connection_failed|False|The host could not be reached.\n", run.stderr


def test_that_all_ports_are_taken_is_the_platforms_fault() -> None:
    assert failures.connect_failure(errno.EADDRNOTAVAIL, has_family=lambda: True).is_platform_fault
    assert has_family_of("127.0.0.1")


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": ["no colon at all"]},
        {"headers": ["x-nul: a\0b"]},
        {"headers": [""]},
        {"headers": [": no name"]},
        {"headers": ["x-odd: \udcff"]},
        {"method": "GET", "query": "a=\r\nX-Evil: 1", "body": b""},
        {"method": "GET", "query": "a=b c", "body": b""},
        {"method": "GET", "query": "caf\xe9", "body": b""},
    ],
)
def test_what_should_never_have_got_here_is_answered_all_the_same(
    transport: Transport, receiver: HostileReceiver, fields: dict[str, Any]
) -> None:
    answer = send(transport, receiver.url("/ok"), **fields)
    later = send(transport, receiver.url("/ok"))

    assert answer.failure in (None, Outcome.INTERNAL_ERROR, Outcome.CONNECTION_FAILED)
    assert all(request.header("x-evil") is None for request in receiver.requests)
    assert (later.failure, later.status_code) == (None, 200)


# --- Connections ---------------------------------------------------------------------------------------------------


def test_a_connection_is_used_again(transport: Transport, receiver: HostileReceiver) -> None:
    where = destination(receiver.url("/ok"))
    answers = []
    for _ in range(5):
        transport.start(outgoing(where))
        answers += collect(transport, 1)

    assert [answer.is_new_connection for answer in answers] == [True, False, False, False, False]
    assert [answer.connect_ms is None for answer in answers] == [False, True, True, True, True]
    assert [request.connection for request in receiver.requests] == [1] * 5


def test_a_connection_that_the_receiver_closed_meanwhile_is_replaced(
    transport: Transport, receiver: HostileReceiver
) -> None:
    for _ in range(4):
        answer = send(transport, receiver.url("/close-after"))
        assert (answer.failure, answer.status_code) == (None, 200)

    assert len(receiver.requests) == 4


def test_a_receiver_that_closed_all_its_connections_at_once_gets_a_new_one(
    transport: Transport, receiver: HostileReceiver
) -> None:
    for index in range(20):
        transport.start(outgoing(destination(receiver.url("/close-after")), tag=index))
    assert {answer.failure for answer in collect(transport, 20)} == {None}
    transport.poll(0.2)

    answer = send(transport, receiver.url("/ok"))

    assert (answer.failure, answer.status_code, answer.is_new_connection) == (None, 200, True)
    assert len(receiver.requests) == 21


@pytest.mark.parametrize("is_secure", [False, True], ids=["http", "https"])
def test_what_came_unasked_is_not_the_answer_to_the_next_request(
    opened: Callable[..., Transport], ca: trustme.CA, ca_file: str, is_secure: bool
) -> None:
    transport = opened(verify_ca=ca_file)
    with HostileReceiver(tls=server_context(ca.issue_cert("127.0.0.1")) if is_secure else None) as receiver:
        first = send(transport, receiver.url("/answers-too-much"))
        assert transport.poll(0.4) == []
        second = send(transport, receiver.url("/echo"))
        third = send(transport, receiver.url("/ok"))

    assert (first.status_code, first.response_body) == (200, b"ok")
    assert (second.status_code, second.is_new_connection) == (200, True)
    assert second.response_body.startswith(b"POST /echo ")
    assert (third.response_body, third.is_new_connection) == (b"ok", False)
    assert [request.target for request in receiver.requests] == ["/answers-too-much", "/echo", "/ok"]


def test_it_is_not_either_when_the_answer_before_was_there_at_once(transport: Transport) -> None:
    with HostileReceiver(greeting=b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly") as receiver:
        # Whether it is there at once is a matter of luck.
        for index in range(1, 13):
            host = f"127.0.0.{index}"
            transport.start(outgoing(destination(receiver.url("/status/201", host=host))))
            answers = transport.poll(0.0)
            time.sleep(0.05)
            (first,) = answers or collect(transport, 1)
            until(lambda: receiver.requests and receiver.requests[-1].target == "/status/201")
            assert transport.poll(0.2) == []
            second = send(transport, receiver.url("/ok", host=host))

            assert (first.status_code, first.response_body) == (200, b"early")
            # Of a new connection, or its own.
            assert second.response_body == (b"early" if second.is_new_connection else b"ok")


def test_a_connection_is_not_shared_between_host_names(
    opened: Callable[..., Transport], receiver: HostileReceiver, dns: DnsServer
) -> None:
    dns.records = {"a.example.test": ["127.0.0.1"], "b.example.test": ["127.0.0.1"]}
    transport = opened(dns_servers=[dns.address])

    for host in ("a.example.test", "b.example.test", "a.example.test", "127.0.0.1"):
        assert send(transport, receiver.url("/ok", host=host)).status_code == 200

    assert [request.connection for request in receiver.requests] == [1, 2, 1, 3]
    assert receiver.requests[0].header("host") == f"a.example.test:{receiver.port}"


def test_the_pool_is_bounded(opened: Callable[..., Transport], receiver: HostileReceiver) -> None:
    transport = opened(max_connections=8)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    for index in range(60):
        assert send(transport, receiver.url("/ok", host=f"127.0.0.{index + 1}")).status_code == 200

    # The receiver runs in this process: two descriptors a connection, and it closes its own a little later.
    until(lambda: len(os.listdir("/proc/self/fd")) - before <= 2 * 8 + 8)  # noqa: PTH208


# --- Addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "10.0.0.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_a_literal_address_that_the_guard_refuses_is_not_connected_to(
    opened: Callable[..., Transport], receiver: HostileReceiver, host: str
) -> None:
    transport = opened(guard=AddressGuard())

    answer = send(transport, f"http://{host}:{receiver.port}/ok")

    assert (answer.failure, answer.remote_ip) == (Outcome.ADDRESS_BLOCKED, None)
    assert answer.detail.endswith("only addresses on the public internet are delivered to.")
    assert receiver.connections == 0


def test_the_platforms_own_port_stays_refused(
    opened: Callable[..., Transport], receiver: HostileReceiver
) -> None:
    transport = opened(guard=AddressGuard([ip_network("127.0.0.0/8")], {receiver.port}))

    answer = send(transport, receiver.url("/ok"))

    assert (answer.failure, answer.detail) == (
        Outcome.ADDRESS_BLOCKED,
        f"Port {receiver.port} is one of the platform's own.",
    )
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00:ec2::254"]
)
def test_a_name_for_a_refused_address_is_not_connected_to(
    opened: Callable[..., Transport], receiver: HostileReceiver, dns: DnsServer, address: str
) -> None:
    dns.records = {"evil.example.test": [address]}
    transport = opened(guard=AddressGuard(), dns_servers=[dns.address])

    answer = send(transport, receiver.url("/ok", host="evil.example.test"))

    assert (answer.failure, answer.remote_ip) == (Outcome.ADDRESS_BLOCKED, None)
    assert receiver.connections == 0


def test_of_several_addresses_the_allowed_ones_serve(
    opened: Callable[..., Transport], receiver: HostileReceiver, dns: DnsServer
) -> None:
    dns.records = {"mixed.example.test": ["10.0.0.1", "127.0.0.3", "::1"]}
    transport = opened(dns_servers=[dns.address])

    answer = send(transport, receiver.url("/ok", host="mixed.example.test"))

    assert (answer.failure, answer.status_code, answer.remote_ip) == (None, 200, "127.0.0.3")


def test_when_one_address_is_down_the_next_is_tried(opened: Callable[..., Transport], dns: DnsServer) -> None:
    dns.records = {"two.example.test": ["127.0.0.2", "127.0.0.3"]}
    transport = opened(dns_servers=[dns.address])

    with HostileReceiver(address="127.0.0.3") as receiver:
        first = send(transport, receiver.url("/ok", host="two.example.test"))
        second = send(transport, receiver.url("/ok", host="two.example.test"))

    assert [(each.failure, each.status_code, each.remote_ip) for each in (first, second)] == [
        (None, 200, "127.0.0.3"),
        (None, 200, "127.0.0.3"),
    ]
    assert second.is_new_connection is False


def test_the_time_that_an_address_took_in_vain_counts(
    opened: Callable[..., Transport], dns: DnsServer
) -> None:
    dns.records = {"two.example.test": ["127.0.0.2", "127.0.0.3"]}
    transport = opened(dns_servers=[dns.address])

    with HostileReceiver(address="127.0.0.3") as receiver, socket.socket() as full:
        full.bind(("127.0.0.2", receiver.port))
        full.listen(0)
        with socket.create_connection(full.getsockname()), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(full.getsockname())

            answer = send(transport, receiver.url("/ok", host="two.example.test"), timeout=2.0)

    assert (answer.failure, answer.remote_ip) == (None, "127.0.0.3")
    assert 900 < answer.duration_ms < 2000
    assert answer.connect_ms is not None
    assert answer.connect_ms < 500


def test_a_name_that_moves_to_a_refused_address_is_refused_and_its_old_connection_not_used(
    opened: Callable[..., Transport],
    receiver: HostileReceiver,
    dns: DnsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deliveries.pipeline.resolver.KEEP_SECONDS", 0.0)
    dns.records = {"moving.example.test": ["127.0.0.1"]}
    transport = opened(dns_servers=[dns.address])
    url = receiver.url("/ok", host="moving.example.test")

    first = send(transport, url)
    dns.records = {"moving.example.test": ["169.254.169.254"]}
    second = send(transport, url)
    dns.records = {"moving.example.test": ["127.0.0.9"]}
    third = send(transport, url)
    dns.records = {"moving.example.test": ["127.0.0.1"]}
    fourth = send(transport, url)

    assert [(each.failure, each.remote_ip) for each in (first, second, third, fourth)] == [
        (None, "127.0.0.1"),
        (Outcome.ADDRESS_BLOCKED, None),
        (None, "127.0.0.9"),
        (None, "127.0.0.1"),
    ]
    assert [request.connection for request in receiver.requests] == [1, 2, 1]


def test_an_address_is_judged_again_when_the_socket_is_opened(
    opened: Callable[..., Transport], receiver: HostileReceiver
) -> None:
    # A guard that changes its mind between the look-up and the connection stands for whatever slips through the first.
    class Forgetful(AddressGuard):
        __slots__ = ("asked",)

        def refusal(self, address: str, port: int) -> str | None:
            self.asked = [*getattr(self, "asked", []), (address, port)]
            return None if len(self.asked) == 1 else "Refused at the door."

    guard = Forgetful()
    transport = opened(guard=guard)

    answer = send(transport, receiver.url("/ok"))

    assert (answer.failure, answer.detail, answer.remote_ip) == (
        Outcome.ADDRESS_BLOCKED,
        "Refused at the door.",
        None,
    )
    assert guard.asked == [("127.0.0.1", receiver.port)] * 2
    assert receiver.connections == 0


def test_proxies_and_passwords_of_the_environment_are_ignored(
    opened: Callable[..., Transport],
    receiver: HostileReceiver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with HostileReceiver() as proxy:
        for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login someone password secret\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HOME", str(tmp_path))
        transport = opened()

        answer = send(transport, receiver.url("/ok"))
        refused = send(transport, "http://169.254.169.254/latest/meta-data/")

        assert (answer.failure, answer.status_code) == (None, 200)
        assert receiver.requests[0].header("authorization") is None
        assert refused.failure == Outcome.ADDRESS_BLOCKED
        assert proxy.connections == 0


# --- Names ---------------------------------------------------------------------------------------------------------


def test_a_name_is_looked_up_once_and_the_time_it_took_is_told(
    opened: Callable[..., Transport], receiver: HostileReceiver, dns: DnsServer
) -> None:
    dns.records = {"good.example.test": ["127.0.0.1"]}
    transport = opened(dns_servers=[dns.address])
    url = receiver.url("/ok", host="good.example.test")

    first = send(transport, url)
    second = send(transport, url)

    assert first.dns_ms is not None
    assert 0 < first.dns_ms <= first.duration_ms
    assert second.dns_ms is None
    assert dns.queries == ["good.example.test"] * 2  # A and AAAA


@pytest.mark.parametrize("kind", ["missing", "failing", "empty", "invalid"])
def test_a_name_without_address_is_a_dns_failure(
    opened: Callable[..., Transport], dns: DnsServer, kind: str
) -> None:
    dns.records = {"empty.example.test": []}
    dns.failing = {"failing.example.test"}
    transport = opened(dns_servers=[dns.address])
    host = {"invalid": "a" * 64 + ".example.test"}.get(kind, f"{kind}.example.test")

    answer = send(transport, f"http://{host}/")

    assert (answer.failure, answer.remote_ip, answer.is_platform_fault) == (Outcome.DNS_FAILED, None, False)
    assert (
        answer.detail
        == {
            "missing": "The name does not exist.",
            "failing": "The name servers could not give an answer.",
            "empty": "The name has no address.",
            "invalid": "The name is not a valid host name.",
        }[kind]
    )


def test_a_silent_name_server_costs_no_more_than_the_time_out(
    opened: Callable[..., Transport], dns: DnsServer
) -> None:
    dns.silent = {"silent.example.test"}
    transport = opened(dns_servers=[dns.address])

    answer = send(transport, "http://silent.example.test/", timeout=1.0)

    assert (answer.failure, answer.detail) == (Outcome.DNS_FAILED, "No name server answered in time.")
    assert 900 < answer.duration_ms < 5000


def test_a_name_that_is_answered_too_late_leaves_nothing_behind(
    opened: Callable[..., Transport], dns: DnsServer
) -> None:
    dns.records = {"late.example.test": ["127.0.0.1"]}
    dns.late = {"late.example.test": 1.2}
    transport = opened(dns_servers=[dns.address])
    assert send(transport, "http://late.example.test/", timeout=1.0).failure == Outcome.DNS_FAILED

    used_before = time.process_time()
    answers = transport.poll(1.0)

    assert answers == []
    assert time.process_time() - used_before < 0.3


def test_two_hundred_dead_names_of_one_tenant_do_not_delay_another(
    opened: Callable[..., Transport], receiver: HostileReceiver, dns: DnsServer
) -> None:
    dns.records = {"healthy.example.test": ["127.0.0.1"]}
    dns.silent = {"dead.test"}
    transport = opened(dns_servers=[dns.address])
    tenant_id = uuid.uuid4()
    for index in range(200):
        transport.start(outgoing(destination(f"http://n{index}.dead.test/", tenant_id=tenant_id)))

    transport.start(outgoing(destination(receiver.url("/ok", host="healthy.example.test")), tag="healthy"))
    (answer,) = collect(transport, 1)

    assert (answer.tag, answer.failure, answer.status_code) == ("healthy", None, 200)
    # Before any of the others was given up.
    assert answer.duration_ms < 2500
    assert transport.in_flight == 200
    assert len({query for query in dns.queries if query.endswith(".dead.test")}) == 4


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def tls_transport(opened: Callable[..., Transport], ca_file: str, dns: DnsServer) -> Transport:
    dns.records = {"good.example.test": ["127.0.0.1"], "other.example.test": ["127.0.0.1"]}
    return opened(dns_servers=[dns.address], verify_ca=ca_file)


def test_a_valid_certificate_is_accepted_for_the_name(ca: trustme.CA, tls_transport: Transport) -> None:
    with HostileReceiver(tls=server_context(ca.issue_cert("good.example.test"))) as receiver:
        url = receiver.url("/ok", host="good.example.test")
        first, second = send(tls_transport, url), send(tls_transport, url)

        assert [(each.failure, each.status_code) for each in (first, second)] == [(None, 200)] * 2
        assert first.tls_ms is not None
        assert first.tls_ms > 0
        assert (second.tls_ms, second.is_new_connection) == (None, False)
        assert [request.server_name for request in receiver.requests] == ["good.example.test"] * 2
        assert receiver.requests[0].header("host") == f"good.example.test:{receiver.port}"


def test_a_certificate_for_an_address_is_accepted_for_the_address(
    ca: trustme.CA, tls_transport: Transport
) -> None:
    with HostileReceiver(tls=server_context(ca.issue_cert("127.0.0.1"))) as receiver:
        answer = send(tls_transport, receiver.url("/ok"))

    assert (answer.failure, answer.status_code) == (None, 200)


def test_a_certificate_for_another_name_is_refused_also_beside_a_connection_that_is_fine(
    ca: trustme.CA, tls_transport: Transport
) -> None:
    with HostileReceiver(tls=server_context(ca.issue_cert("good.example.test"))) as receiver:
        good = send(tls_transport, receiver.url("/ok", host="good.example.test"))
        other = send(tls_transport, receiver.url("/ok", host="other.example.test"))

        assert (good.failure, good.status_code) == (None, 200)
        assert (other.failure, other.status_code) == (Outcome.TLS_FAILED, None)
        assert other.detail == "The certificate is not valid for this host name."
        assert len(receiver.requests) == 1


def test_a_certificate_for_the_address_does_not_do_for_the_name(
    ca: trustme.CA, tls_transport: Transport
) -> None:
    with HostileReceiver(tls=server_context(ca.issue_cert("127.0.0.1"))) as receiver:
        answer = send(tls_transport, receiver.url("/ok", host="good.example.test"))

    assert (answer.failure, answer.detail) == (
        Outcome.TLS_FAILED,
        "The certificate is not valid for this host name.",
    )


def test_an_expired_certificate_is_refused(ca: trustme.CA, tls_transport: Transport) -> None:
    now = datetime.now(UTC)
    certificate = ca.issue_cert(
        "good.example.test", not_before=now - timedelta(days=2), not_after=now - timedelta(days=1)
    )
    with HostileReceiver(tls=server_context(certificate)) as receiver:
        answer = send(tls_transport, receiver.url("/ok", host="good.example.test"))

        assert (answer.failure, answer.detail) == (Outcome.TLS_FAILED, "The certificate has expired.")
        assert receiver.requests == []


def test_a_certificate_of_an_unknown_authority_is_refused(tls_transport: Transport) -> None:
    with HostileReceiver(tls=server_context(trustme.CA().issue_cert("good.example.test"))) as receiver:
        answer = send(tls_transport, receiver.url("/ok", host="good.example.test"))

        assert answer.failure == Outcome.TLS_FAILED
        assert answer.detail in (
            "The certificate chain ends in an authority that is not trusted.",
            "The certificate's issuer is not trusted, or an intermediate certificate is missing.",
        )
        assert receiver.requests == []


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/break-off", None, "The connection was closed without an answer."),
        ("/break-off-in-headers", 200, "The connection was closed in the middle of the answer."),
        ("/break-off-midway", 200, "The connection was closed in the middle of the answer."),
    ],
)
def test_a_connection_that_breaks_is_a_failed_one_with_tls_too(
    ca: trustme.CA, tls_transport: Transport, path: str, status: int | None, detail: str
) -> None:
    with HostileReceiver(tls=server_context(ca.issue_cert("127.0.0.1"))) as receiver:
        answer = send(tls_transport, receiver.url(path))

    assert (answer.failure, answer.status_code) == (Outcome.CONNECTION_FAILED, status)
    assert (answer.detail, answer.is_platform_fault) == (detail, False)


def test_a_receiver_that_speaks_no_tls_is_a_tls_failure(transport: Transport) -> None:
    with HostileReceiver(greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as receiver:
        answer = send(transport, receiver.url("/ok").replace("http:", "https:"))

    assert (answer.failure, answer.detail) == (Outcome.TLS_FAILED, "The TLS handshake failed.")


# --- The loop ------------------------------------------------------------------------------------------------------


def test_poll_returns_early_when_a_watched_descriptor_is_readable(transport: Transport) -> None:
    wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    transport.watch(wake)
    assert transport.poll(0.05) == []

    os.eventfd_write(wake, 1)
    began = time.monotonic()
    answers = transport.poll(10.0)

    assert answers == []
    assert time.monotonic() - began < 5.0
    os.eventfd_read(wake)
    began = time.monotonic()
    assert transport.poll(0.2) == []
    assert 0.15 < time.monotonic() - began < 5.0
    transport.close()
    os.close(wake)


def test_in_flight_and_the_oldest_are_known(transport: Transport, receiver: HostileReceiver) -> None:
    assert (transport.in_flight, transport.oldest_started()) == (0, None)
    before = time.time()

    transport.start(outgoing(destination(receiver.url("/slow/1.5")), tag=1))
    after = time.time()
    transport.poll(0.1)
    transport.start(outgoing(destination(receiver.url("/hang")), tag=2))

    oldest = transport.oldest_started()
    assert transport.in_flight == 2
    assert oldest is not None
    assert before <= oldest <= after
    assert [answer.tag for answer in collect(transport, 1)] == [1]
    later = transport.oldest_started()
    assert transport.in_flight == 1
    assert later is not None
    assert later > oldest


def test_what_is_aborted_is_reported_no_more(
    opened: Callable[..., Transport], receiver: HostileReceiver, dns: DnsServer
) -> None:
    dns.silent = {"silent.example.test"}
    transport = opened(dns_servers=[dns.address])
    transport.start(outgoing(destination(receiver.url("/slow/1.2")), tag="sending"))
    transport.start(outgoing(destination("http://silent.example.test/", timeout=2.0), tag="resolving"))
    transport.start(outgoing(destination("http://10.0.0.1/"), tag="refused"))
    deadline = time.monotonic() + 5.0
    while not receiver.requests:
        assert time.monotonic() < deadline
        # Returns at once with the refused one if it is answered first; then there is nothing left to abort of it.
        answered = {answer.tag for answer in transport.poll(0.02)}
        assert answered <= {"refused"}

    tags = transport.abort_all()

    assert {"sending", "resolving"} <= set(tags) <= {"sending", "resolving", "refused"}
    assert transport.in_flight == 0
    assert transport.poll(2.5) == []
    assert send(transport, receiver.url("/ok"), tag="next").tag == "next"


def test_many_requests_at_once_each_get_their_own_answer(
    transport: Transport, receiver: HostileReceiver
) -> None:
    for index in range(300):
        where = destination(receiver.url("/echo", host=f"127.0.0.{index % 7 + 1}"))
        transport.start(outgoing(where, body=b"number %d." % index, tag=index))

    answers = collect(transport, 300)

    assert sorted(answer.tag for answer in answers) == list(range(300))
    assert all(answer.response_body.endswith(b"\r\n\r\nnumber %d." % answer.tag) for answer in answers)


def test_no_other_transport_exists() -> None:
    with pytest.raises(ValueError, match="No transport is called 'pigeon'"):
        open_transport("pigeon", guard=AddressGuard(), max_in_flight=1)
