"""The egress proxy, on both transports: what it is asked, and who is blamed when it fails."""

import socket
import ssl
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any
from uuid import uuid4

import pytest
import trustme

from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.transport import Answer, Destination, OutgoingRequest, Transport, open_transport
from tests.support.builders import attempts_of, delivery_of, make_endpoint, make_tenant, publish
from tests.support.connect_proxy import ConnectProxy
from tests.support.dns_server import DnsServer
from tests.support.hostile_receiver import HostileReceiver
from tests.support.running import Webhooks, make_dispatcher

LOOPBACK = AddressGuard([ip_network("127.0.0.0/8")])


@pytest.fixture(params=["curl", "requests"])
def transport_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def through(transport_name: str) -> Iterator[Callable[..., Transport]]:
    opened = []

    def open_one(proxy: str, **options: Any) -> Transport:
        given: dict[str, Any] = {"guard": LOOPBACK, "max_in_flight": 16} | options
        opened.append(open_transport(transport_name, proxy=proxy, **given))
        return opened[-1]

    yield open_one
    for transport in opened:
        transport.close()


def send(transport: Transport, url: str, *, host: str = "127.0.0.1", timeout: float = 5.0) -> Answer:
    scheme, _, rest = url.partition("://")
    port = int(rest.partition("/")[0].rpartition(":")[2])
    where = Destination(url, scheme, host, port, uuid4(), timeout)
    transport.start(OutgoingRequest(where, "POST", None, ["x-a: 1"], b"{}", "tag"))
    answers: list[Answer] = []
    while not answers:
        answers = transport.poll(5.0)
    return answers[0]


def test_the_proxy_is_asked_for_the_address_and_sees_nothing_of_the_request(
    through: Callable[..., Transport],
) -> None:
    with (
        ConnectProxy() as proxy,
        HostileReceiver() as receiver,
        DnsServer({"shop.example": ["127.0.0.7"]}) as dns,
    ):
        transport = through(proxy.url, dns_servers=[dns.address])

        answers = [
            send(transport, receiver.url("/ok", host="shop.example"), host="shop.example") for _ in range(2)
        ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].remote_ip == "127.0.0.7"
    assert b"x-proxy" not in answers[0].response_headers
    assert [answer.is_new_connection for answer in answers] == [True, False]
    assert proxy.targets == [f"127.0.0.7:{receiver.port}"]
    assert "/ok" not in proxy.heads[0]
    assert receiver.requests[0].header("host") == f"shop.example:{receiver.port}"


def test_tls_is_with_the_receiver_on_its_name(through: Callable[..., Transport], tmp_path: Any) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("shop.example").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        ConnectProxy() as proxy,
        HostileReceiver(tls=context) as receiver,
        DnsServer({"shop.example": ["127.0.0.7"], "other.example": ["127.0.0.7"]}) as dns,
    ):
        transport = through(proxy.url, dns_servers=[dns.address], verify_ca=str(tmp_path / "ca.pem"))

        right = send(transport, receiver.url("/ok", host="shop.example"), host="shop.example")
        wrong = send(transport, receiver.url("/ok", host="other.example"), host="other.example")

    assert (right.status_code, right.failure) == (200, None)
    assert (wrong.failure, wrong.is_platform_fault) == (Outcome.TLS_FAILED, False)


def test_the_guard_judges_the_address_before_the_proxy_is_asked(through: Callable[..., Transport]) -> None:
    with ConnectProxy() as proxy:
        answer = send(through(proxy.url, guard=AddressGuard()), "http://127.0.0.1:9000/")

    assert answer.failure is Outcome.ADDRESS_BLOCKED
    assert proxy.heads == []


def test_name_and_password_go_to_the_proxy_alone(through: Callable[..., Transport]) -> None:
    with ConnectProxy() as proxy, HostileReceiver() as receiver:
        transport = through(proxy.url.replace("://", "://us%40er:pa%3Ass@"))

        send(transport, receiver.url("/ok"))

    assert "Proxy-Authorization: Basic dXNAZXI6cGE6c3M=" in proxy.heads[0]
    assert b"authorization" not in receiver.requests[0].head.lower()


def test_the_environments_exceptions_do_not_go_round_the_proxy(
    through: Callable[..., Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with ConnectProxy() as proxy, HostileReceiver() as receiver:
        send(through(proxy.url), receiver.url("/ok"))

    assert len(proxy.heads) == 1


@pytest.mark.parametrize("status", [0, 403, 407, 500])
def test_a_proxy_that_refuses_is_the_platforms_fault(through: Callable[..., Transport], status: int) -> None:
    with ConnectProxy(status) as proxy:
        answer = send(through(proxy.url), "http://127.0.0.1:9000/")

    assert (answer.failure, answer.is_platform_fault) == (Outcome.PROXY_FAILED, True)
    assert "egress proxy" in answer.detail
    assert answer.status_code is None


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_receiver_that_the_proxy_cannot_reach_is_the_endpoints_fault(
    through: Callable[..., Transport], status: int
) -> None:
    with ConnectProxy(status) as proxy:
        answer = send(through(proxy.url), "http://127.0.0.1:9000/")

    assert (answer.failure, answer.is_platform_fault) == (Outcome.CONNECTION_FAILED, False)


def test_a_proxy_that_is_away_is_the_platforms_fault(through: Callable[..., Transport]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        answers = [
            send(through(url), "http://127.0.0.1:9000/")
            for url in (f"http://127.0.0.1:{port}", "http://no-such-proxy.invalid:3128")
        ]

    assert [(answer.failure, answer.is_platform_fault) for answer in answers] == [
        (Outcome.PROXY_FAILED, True)
    ] * 2


@pytest.mark.usefixtures("quiet_lanes")
def test_an_attempt_that_the_proxy_failed_is_no_step_of_the_schedule(transport_name: str) -> None:
    tenant = make_tenant()
    with ConnectProxy(403) as proxy, Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[])
        event = publish(tenant)
        make_dispatcher(name=transport_name, proxy=proxy.url, dry_seconds=1.0).run()

    delivery = delivery_of(event)
    (attempt,) = attempts_of(delivery)
    assert (attempt.outcome, attempt.detail) == ("proxy_failed", "The platform's egress proxy answered 403.")
    assert (delivery.status, delivery.attempt_count, delivery.schedule_step) == ("pending", 1, 0)
    assert webhooks.requests == []
