"""What `examples/webhooks.py` answers to what it did not expect, and what becomes of it over a restart."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from standardwebhooks import Webhook

from tenants.ids import new_id
from webhooks_platform.demo.api import post as send
from webhooks_platform.demo.place import Place
from webhooks_platform.demo.stage import Stage

pytestmark = pytest.mark.timeout(300)

PAID = {
    "type": "order.paid",
    "timestamp": "2026-03-01T12:00:00Z",
    "data": {"order": "1", "total": {"amount": 1000, "currency": "EUR"}},
}


@pytest.fixture
def stage(place: Place, tmp_path: Path) -> Iterator[Stage]:
    api = place.make_tenant(f"receiving-{new_id().hex[-8:]}")
    with Stage(api=api, folder=tmp_path, say=lambda _who, _line: None) as stage:
        stage.api.send("POST", "/packs/commerce/install")
        stage.begin("books")
        yield stage


def post(stage: Stage, body: bytes, headers: dict[str, str]) -> int:
    return send(stage.api.send("GET", "/endpoints/books")["url"], body, headers)


def announce(stage: Stage, size: int) -> int:
    """The status of a body that is not even read; one that was sent might be lost with the connection."""
    url = urlsplit(stage.api.send("GET", "/endpoints/books")["url"])
    with contextlib.closing(http.client.HTTPConnection(url.netloc, timeout=10)) as client:
        client.putrequest("POST", url.path)
        client.putheader("content-length", str(size))
        client.endheaders()
        return client.getresponse().status


def signed(stage: Stage, body: bytes, message_id: str) -> dict[str, str]:
    secret = stage.api.send("GET", "/endpoints/books/secret")["secret"]
    now = datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body.decode()),
    }


def written(stage: Stage) -> list[str]:
    return [line for who, line in stage.said if who == "books" and "wrote down" in line]


def test_what_comes_again_is_done_once(stage: Stage) -> None:
    body = json.dumps(PAID).encode()

    answers = [
        post(stage, body, signed(stage, body, message_id)) for message_id in ("evt_1", "evt_1", "evt_2")
    ]

    stage.hear("books", "2 payments")
    assert answers == [204, 200, 204]
    assert len(written(stage)) == 2


def test_what_is_not_signed_changes_nothing(stage: Stage) -> None:
    body = json.dumps(PAID).encode()
    headers = signed(stage, body, "evt_1")

    assert post(stage, body + b" ", headers) == 401
    assert post(stage, body, headers | {"webhook-id": "evt_2"}) == 401
    assert post(stage, body, {}) == 401
    assert announce(stage, 1_000_001) == 413
    assert written(stage) == []


def test_what_fails_is_tried_again_and_what_was_done_stays_done(stage: Stage) -> None:
    """Acting raises; the program is ended while it tries again; the next one finds it in the inbox."""
    incomplete: dict[str, Any] = PAID | {"data": {"order": "1"}}
    first, second = json.dumps(PAID).encode(), json.dumps(incomplete).encode()

    assert post(stage, first, signed(stage, first, "evt_1")) == 204
    stage.hear("books", "1 payments")
    assert post(stage, second, signed(stage, second, "evt_2")) == 204
    stage.hear("books", "KeyError: 'total'")
    stage.end("books")
    stage.begin("books")
    stage.hear("books", "KeyError: 'total'", times=2)

    assert post(stage, first, signed(stage, first, "evt_1")) == 200
    assert len(written(stage)) == 1
