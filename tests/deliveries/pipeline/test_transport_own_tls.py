"""Certificates of an endpoint's own, on both transports, against real TLS servers."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import trustme

from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.transport import (
    Answer,
    Destination,
    OutgoingRequest,
    OwnTls,
    Transport,
    open_transport,
)
from tests.support.certificates import certificate_with_an_unreadable_name
from tests.support.hostile_receiver import HostileReceiver

AUTHORITY = trustme.CA()
CLIENTS = trustme.CA()


@pytest.fixture(params=["curl", "requests"])
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    guard = AddressGuard([ip_network("127.0.0.0/8")])
    transport = open_transport(str(request.param), guard=guard, max_in_flight=16)
    yield transport
    transport.close()


def server(*, asks: bool) -> HostileReceiver:
    """Of a private authority; `asks` for a certificate of its clients' authority."""
    return HostileReceiver(tls=context_of(asks=asks))


def context_of(*, asks: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        CLIENTS.configure_trust(context)
    return context


@contextmanager
def refusing(version: ssl.TLSVersion) -> Iterator[str]:
    """The URL of a server that asks for a certificate, and says why it ends a handshake (asyncio's says nothing)."""
    context = context_of(asks=True)
    context.minimum_version = context.maximum_version = version
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection = listening.accept()[0]
                with connection, suppress(OSError), context.wrap_socket(connection, server_side=True):
                    pytest.fail("a client was let in")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listening.getsockname()[1]}/ok"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


def own(
    name: str = "one", *, certificate: trustme.LeafCert | None = None, ca: trustme.CA | None = AUTHORITY
) -> OwnTls:
    return OwnTls(
        name,
        None if certificate is None else certificate.cert_chain_pems[0].bytes().decode(),
        None if certificate is None else certificate.private_key_pem.bytes().decode(),
        None if ca is None else ca.cert_pem.bytes().decode(),
    )


def send(transport: Transport, receiver: HostileReceiver | str, tls: OwnTls | None) -> Answer:
    url = receiver if isinstance(receiver, str) else receiver.url("/ok")
    where = Destination(url, "https", "127.0.0.1", urlsplit(url).port or 443, uuid4(), 5.0, tls)
    transport.start(OutgoingRequest(where, "POST", None, ["x-a: 1"], b"{}", "tag"))
    answers: list[Answer] = []
    while not answers:
        answers = transport.poll(5.0)
    return answers[0]


def test_its_own_authorities_are_trusted_and_no_others(transport: Transport) -> None:
    with server(asks=False) as receiver:
        trusted = send(transport, receiver, own())
        other = send(transport, receiver, own("two", ca=trustme.CA()))
        usual = send(transport, receiver, None)

    assert (trusted.status_code, trusted.failure) == (200, None)
    assert (other.status_code, other.failure) == (None, Outcome.TLS_FAILED)
    assert (usual.status_code, usual.failure) == (None, Outcome.TLS_FAILED)
    assert len(receiver.requests) == 1


def test_certificates_that_cannot_be_read_are_the_endpoints_fault(transport: Transport) -> None:
    unreadable = certificate_with_an_unreadable_name()
    with server(asks=False) as receiver:
        answer = send(transport, receiver, OwnTls("one", None, None, unreadable))

    assert (answer.failure, answer.is_platform_fault) == (Outcome.TLS_FAILED, False)
    assert answer.detail == "The endpoint's own certificates cannot be used."


def test_the_client_certificate_opens_a_receiver_that_asks_for_one(transport: Transport) -> None:
    with server(asks=True) as receiver:
        let_in = send(transport, receiver, own(certificate=CLIENTS.issue_cert("client.example")))

    assert (let_in.status_code, let_in.failure, let_in.detail) == (200, None, "")


def test_a_certificate_that_is_refused_after_the_handshake_is_told_in_words(transport: Transport) -> None:
    # TLS 1.3: the refusal comes when the request is on its way already, and may be lost behind the connection's end.
    with refusing(ssl.TLSVersion.TLSv1_3) as url:
        refused = send(transport, url, own(certificate=trustme.CA().issue_cert("client.example")))

    assert refused.failure is Outcome.CREDENTIALS_FAILED
    assert "refused the client certificate" in refused.detail


def test_a_certificate_that_is_refused_or_missing_is_told_in_words(transport: Transport) -> None:
    with refusing(ssl.TLSVersion.TLSv1_2) as url:
        refused = send(transport, url, own(certificate=trustme.CA().issue_cert("client.example")))
        missing = send(transport, url, own("two"))

    assert (refused.failure, refused.detail) == (
        Outcome.CREDENTIALS_FAILED,
        "The receiver refused the client certificate.",
    )
    assert missing.failure is Outcome.TLS_FAILED


def test_connections_are_used_again_but_shared_with_no_other_endpoint(transport: Transport) -> None:
    certificate = CLIENTS.issue_cert("client.example")
    with server(asks=True) as receiver:
        is_new = [
            send(transport, receiver, own(name, certificate=certificate)).is_new_connection
            for name in ("one", "one", "two", "one", "two")
        ]

    assert is_new == [True, False, True, False, False]


def test_authorities_alone_keep_connections_apart_too(transport: Transport) -> None:
    with server(asks=False) as receiver:
        is_new = [send(transport, receiver, own(name)).is_new_connection for name in ("one", "two", "two")]

    assert is_new == [True, True, False]


def test_nothing_of_the_key_is_in_its_text() -> None:
    shown = repr(own(certificate=CLIENTS.issue_cert("client.example")))

    assert "KEY" not in shown
