"""The verification that examples/ shows is one that may be copied: the official library is the oracle."""

import base64
import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

verify = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "signature.py"))["verify"]

SECRET = "whsec_" + base64.b64encode(b"a secret of the clinic, 32 bytes").decode()

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def signed(body: bytes, *, message_id: str = "evt_1", at: datetime = NOW) -> dict[str, str]:
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(message_id, at, body.decode()),
    }


def test_what_the_official_library_signs_is_verified() -> None:
    assert verify(SECRET, signed(b"{}"), b"{}", NOW.timestamp())


def test_one_good_signature_among_several_is_enough() -> None:
    headers = signed(b"{}")
    headers["webhook-signature"] = f"v1,bm90aGluZw== {headers['webhook-signature']} v1a,bm90aGluZw=="

    assert verify(SECRET, headers, b"{}", NOW.timestamp())


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("another body", {"body": b"{ }"}),
        ("too old", {"now": NOW.timestamp() + 301}),
        ("from the future", {"now": NOW.timestamp() - 301}),
        ("another secret", {"secret": "whsec_" + base64.b64encode(b"b" * 32).decode()}),
        ("another id", {"headers": signed(b"{}") | {"webhook-id": "evt_2"}}),
        ("another time", {"headers": signed(b"{}") | {"webhook-timestamp": str(int(NOW.timestamp()) + 1)}}),
        ("an empty signature", {"headers": signed(b"{}") | {"webhook-signature": ""}}),
        ("no headers at all", {"headers": {}}),
        ("a signature that is not ASCII", {"headers": signed(b"{}") | {"webhook-signature": "v1,\xe9"}}),
        ("timestamp is far too long", {"headers": signed(b"{}") | {"webhook-timestamp": "1" * 5000}}),
        ("timestamp is no number", {"headers": signed(b"{}") | {"webhook-timestamp": "soon"}}),
    ],
)
def test_what_is_not_signed_right_is_refused(why: str, change: dict[str, Any]) -> None:
    arguments = {"secret": SECRET, "headers": signed(b"{}"), "body": b"{}", "now": NOW.timestamp()} | change

    assert not verify(**arguments), why
