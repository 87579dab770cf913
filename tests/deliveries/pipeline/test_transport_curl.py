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


def rate_of(transport: Transport, where: list[Destination], *, seconds: float) -> float:
    """Requests a second with fifty in the air, by the fastest of three rounds: the machine has other work too."""
    return max(_rate_of(transport, where, seconds=seconds / 3) for _ in range(3))


def _rate_of(transport: Transport, where: list[Destination], *, seconds: float) -> float:
    started = answered = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        while started - answered < 50:
            destination = where[started % len(where)]
            transport.start(OutgoingRequest(destination, "POST", None, ["x-a: b"], b"x" * 1024, "healthy"))
            started += 1
        answers = transport.poll(1.0)
        assert {(answer.tag, answer.status_code) for answer in answers} <= {("healthy", 200)}
        answered += len(answers)
    rate = answered / (time.monotonic() - began)
    while answered < started:
        answered += len(transport.poll(1.0))
    return rate


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
        rate_of(transport, healthy, seconds=0.3)
        alone = rate_of(transport, healthy, seconds=1.5)
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

        beside = rate_of(transport, healthy, seconds=1.5)

        assert transport.in_flight == 2000
        assert beside >= alone / 2, f"{alone:.0f} a second alone, {beside:.0f} beside 2,000 that hang"
        assert transport.abort_all() == ["hanging"] * 2000
    transport.close()
