"""The demo's receiver: it must be an example that one can copy."""

import base64
import http.client
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook

from webhooks_platform.demo.api import Api
from webhooks_platform.demo.clinic import STUMBLE_EVERY, Clinic, make_server, verify

SECRET = "whsec_" + base64.b64encode(b"a secret of the clinic, 32 bytes").decode()

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

REPLY = {
    "type": "message.reply.received",
    "timestamp": "2026-03-01T12:00:00Z",
    "data": {
        "message": "sms-1",
        "from": "+447700900101",
        "text": "Yes",
        "received_at": "2026-03-01T12:00:00Z",
    },
}


def signed(body: bytes, *, message_id: str = "evt_1", at: datetime = NOW) -> dict[str, str]:
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(message_id, at, body.decode()),
        "webhook-attempt": "1",
    }


def test_what_the_official_library_signs_is_verified() -> None:
    assert verify(secret=SECRET, headers=signed(b"{}"), body=b"{}", now=NOW.timestamp())


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("another body", {"body": b"{ }"}),
        ("too old", {"now": NOW.timestamp() + 301}),
        ("from the future", {"now": NOW.timestamp() - 301}),
        ("another secret", {"secret": "whsec_" + base64.b64encode(b"b" * 32).decode()}),
        ("another id", {"headers": signed(b"{}") | {"webhook-id": "evt_2"}}),
        ("no signature", {"headers": signed(b"{}") | {"webhook-signature": ""}}),
        ("timestamp is no number", {"headers": signed(b"{}") | {"webhook-timestamp": "soon"}}),
    ],
)
def test_what_is_not_signed_right_is_refused(why: str, change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {
        "secret": SECRET,
        "headers": signed(b"{}"),
        "body": b"{}",
        "now": NOW.timestamp(),
    }

    assert not verify(**(arguments | change)), why


class Published(BaseHTTPRequestHandler):
    """Stands for the platform's API and remembers what was published."""

    received: list[tuple[str, str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.received.append((self.path, self.headers["idempotency-key"], body))
        answer = b'{"id": "evt_2"}'
        self.send_response(202)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def published() -> Iterator[tuple[str, list[tuple[str, str, Any]]]]:
    handler = type("Handler", (Published,), {"received": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler.received  # type: ignore[attr-defined] # made above
        server.shutdown()
        thread.join()


@pytest.fixture
def clinic_port(published: tuple[str, Any]) -> Iterator[int]:
    clinic = Clinic(Api(published[0], "whk_demo"))
    clinic.secret = SECRET
    server: ThreadingHTTPServer
    with make_server(clinic, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def post(port: int, body: bytes, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", "/webhooks", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_reply_is_answered_once_however_often_it_comes(
    clinic_port: int, published: tuple[str, list[tuple[str, str, Any]]]
) -> None:
    body = json.dumps(REPLY).encode()
    headers = signed(body, at=datetime.now(UTC))

    assert [post(clinic_port, body, headers) for _ in range(3)] == [204, 200, 200]
    answer = {"message": "sms-1-answer", "to": "+447700900101", "text": "Thank you, see you tomorrow."}
    assert published[1] == [
        ("/events", "answer-evt_1", {"type": "message.accepted", "data": answer}),
    ]


def test_it_sometimes_acts_and_does_not_say_so(
    clinic_port: int, published: tuple[str, list[tuple[str, str, Any]]]
) -> None:
    body = json.dumps(REPLY).encode()
    each = [signed(body, message_id=f"evt_{n}", at=datetime.now(UTC)) for n in range(STUMBLE_EVERY)]

    statuses = [post(clinic_port, body, headers) for headers in [*each, each[-1]]]

    assert statuses == [204, 204, 503, 200]
    assert [key for _, key, _ in published[1]] == ["answer-evt_0", "answer-evt_1", "answer-evt_2"]


def test_an_unsigned_request_changes_nothing(
    clinic_port: int, published: tuple[str, list[tuple[str, str, Any]]]
) -> None:
    body = json.dumps(REPLY).encode()

    assert post(clinic_port, body, {"webhook-id": "evt_1"}) == 401
    assert published[1] == []
