import base64
import hashlib
import hmac
import time
from datetime import UTC, datetime

import pytest
from cryptography.exceptions import InvalidSignature
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from deliveries.pipeline.signing import (
    HmacKey,
    InvalidSecret,
    ed25519_key,
    generate_private_key,
    generate_secret,
    parse_secret,
    public_key_text,
    secret_text,
    sign,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_published_vector_holds() -> None:
    signature = sign(
        [HmacKey(parse_secret(SECRET))],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        b'{"test": 2432232314}',
    )

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(min_size=24, max_size=64), st.binary(), st.integers(0, 2**40))
def test_the_signature_is_the_hmac_of_id_time_and_body(secret: bytes, body: bytes, timestamp: int) -> None:
    expected = hmac.new(secret, b"evt_1.%d." % timestamp + body, hashlib.sha256).digest()

    assert sign([HmacKey(secret)], "evt_1", timestamp, body) == "v1," + base64.b64encode(expected).decode()


def test_the_official_library_signs_alike() -> None:
    secret = generate_secret()
    at = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
    body = '{"name":"Zoë"}'

    assert sign([HmacKey(parse_secret(secret))], "evt_1", int(at.timestamp()), body.encode()) == Webhook(
        secret
    ).sign("evt_1", at, body)


def test_the_official_library_verifies_with_either_secret_while_both_sign() -> None:
    old, new = generate_secret(), generate_secret()
    now = int(time.time())
    body = b'{"type":"order.created","timestamp":"2026-03-01T12:00:00.000000Z","data":{}}'

    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": sign(
            [HmacKey(parse_secret(new)), HmacKey(parse_secret(old))], "evt_1", now, body
        ),
    }

    assert Webhook(old).verify(body, headers)["type"] == "order.created"
    assert Webhook(new).verify(body, headers)["type"] == "order.created"
    with pytest.raises(WebhookVerificationError):
        Webhook(generate_secret()).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body.replace(b"{}", b"{} "), headers)


def test_ed25519_signatures_verify_with_the_public_key_that_is_shown() -> None:
    key = ed25519_key(generate_private_key())

    value = sign([HmacKey(parse_secret(SECRET)), key], "evt_1", 1_614_265_330, b"{}")

    first, second = value.split(" ")
    assert first.startswith("v1,")
    assert second.startswith("v1a,")
    public = key.private.public_key()
    public.verify(base64.b64decode(second[4:]), b"evt_1.1614265330.{}")
    with pytest.raises(InvalidSignature):
        public.verify(base64.b64decode(second[4:]), b"evt_1.1614265331.{}")
    assert base64.b64decode(public_key_text(key).removeprefix("whpk_")) == public.public_bytes_raw()


def test_the_ed25519_vector_of_rfc_8032_holds() -> None:
    key = ed25519_key(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))

    assert public_key_text(key) == "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


@pytest.mark.parametrize("size", [24, 32, 64])
def test_secrets_of_24_to_64_bytes_are_taken(size: int) -> None:
    assert parse_secret(secret_text(bytes(size))) == bytes(size)


def test_generated_secrets_differ_and_are_taken() -> None:
    one, other = generate_secret(), generate_secret()

    assert one != other
    assert len(parse_secret(one)) == 32


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("empty", ""),
        ("no prefix", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("other prefix", "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("23 bytes", secret_text(bytes(23))),
        ("65 bytes", secret_text(bytes(65))),
        ("nothing after the prefix", "whsec_"),
        ("padding missing", secret_text(bytes(25)).rstrip("=")),
        ("padding too long", secret_text(bytes(24)) + "===="),
        ("bits that mean nothing", secret_text(bytes(25))[:-3] + "B=="),
        ("url-safe alphabet", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_"),
        ("space", "whsec_MfKQ9r8GKYqr TwjUPD8ILPZIo2LaLaSw"),
        ("newline at the end", SECRET + "\n"),
        ("not ASCII", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaé"),
    ],
)
def test_other_secrets_are_refused_and_not_repeated(case: str, text: str) -> None:
    with pytest.raises(InvalidSecret) as caught:
        parse_secret(text)

    assert "MfKQ9r8GKYqr" not in str(caught.value), case


def test_keys_do_not_show_themselves() -> None:
    assert "secret" not in repr(HmacKey(b"secret")).replace("HmacKey", "")
