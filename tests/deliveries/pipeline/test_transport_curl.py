"""What the transport of the hot path is chosen for: thousands in the air do not slow down the others."""

import resource
import socket
import time
import uuid
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.transport import Destination, OutgoingRequest, Transport, open_transport
from tests.support.hostile_receiver import HostileReceiver


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cost_of(transport: Transport, where: list[Destination]) -> float:
    """Seconds of this thread's CPU for a request, with fifty in the air; the least of five rounds.

    One thread does all the sending, so its CPU is what bounds the requests a second; unlike those, it does not depend
    on what else the machine is doing.
    """
    return min(_cost_of(transport, where) for _ in range(5))


def _cost_of(transport: Transport, where: list[Destination]) -> float:
    started = answered = 0
    began = time.thread_time()
    while answered < 3000:
        while started < 3000 and started - answered < 50:
            destination = where[started % len(where)]
            transport.start(OutgoingRequest(destination, "POST", None, ["x-a: b"], b"x" * 1024, "healthy"))
            started += 1
        answers = transport.poll(1.0)
        assert {(answer.tag, answer.status_code) for answer in answers} <= {("healthy", 200)}
        answered += len(answers)
    return (time.thread_time() - began) / answered


def test_two_thousand_hanging_requests_leave_the_others_their_speed(many_descriptors: None) -> None:
    guard = AddressGuard([ip_network("127.0.0.0/8")])
    transport = open_transport("curl", guard=guard, max_in_flight=2100, max_connections=2500)
    # Never accepts: the kernel takes connections and bytes, and nobody answers. A receiver of ours with two thousand
    # tasks would slow itself down, in this very process.
    with socket.socket() as silent, HostileReceiver() as receiver:
        silent.bind(("127.0.0.1", 0))
        silent.listen(4096)
        healthy = [
            Destination(
                receiver.url("/ok", host=host),
                "http",
                host,
                receiver.port,
                uuid.uuid4(),
                timeout_seconds=30.0,
            )
            for host in (f"127.0.0.{index}" for index in range(1, 6))
        ]
        alone = cost_of(transport, healthy)
        hanging = Destination(
            f"http://127.0.0.1:{silent.getsockname()[1]}/",
            "http",
            "127.0.0.1",
            silent.getsockname()[1],
            uuid.uuid4(),
            timeout_seconds=60.0,
        )
        for _ in range(2000):
            transport.start(OutgoingRequest(hanging, "POST", None, [], b"x", "hanging"))
        assert transport.poll(0.5) == []

        beside = cost_of(transport, healthy)

        assert transport.in_flight == 2000
        # At most twice the cost is at least half of the speed.
        assert beside <= 2 * alone, (
            f"{alone * 1e6:.0f} µs alone, {beside * 1e6:.0f} µs beside 2,000 that hang"
        )
        assert transport.abort_all() == ["hanging"] * 2000
    transport.close()


def test_what_became_possible_while_it_slept_too_long_is_left_undone() -> None:
    """The process may have been stopped meanwhile, and its lanes be someone else's."""
    guard = AddressGuard([ip_network("127.0.0.0/8")])
    transport = open_transport("curl", guard=guard, max_in_flight=4, max_connections=4)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        there = Destination(
            f"http://127.0.0.1:{port}/", "http", "127.0.0.1", port, uuid.uuid4(), timeout_seconds=5.0
        )
        transport.start(OutgoingRequest(there, "POST", None, [], b"x", "late"))

        assert transport.poll(1.0, may_go_on=lambda: False) == []
        assert transport.abort_all() == ["late"]

        listener.settimeout(5)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b""
    transport.close()
