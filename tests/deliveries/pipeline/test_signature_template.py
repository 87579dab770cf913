import base64
import hashlib
import hmac
from typing import Any

import pytest

from deliveries.pipeline.signature_template import PRESETS, header_lines, parse
from deliveries.validation import InvalidContent

# Published with Stripe's library for .NET, together with its signature.
STRIPE_BODY = b"""{
  "id": "evt_123",
  "object": "event",
  "account": "acct_123",
  "api_version": "2017-05-25",
  "created": 1533204620,
  "data": {
    "object": {
      "id": "cus_123",
      "object": "customer",
      "created": 123456789,
      "email": "test@stripe.com",
      "livemode": false,
      "metadata": {}
    }
  },
  "livemode": false,
  "pending_webhooks": 1,
  "request": {
    "id": "req_123",
    "idempotency_key": "idempotency-key-123"
  },
  "type": "customer.created"
}
"""


def lines(template: object, *keys: bytes, body: bytes = b"{}") -> list[str]:
    return header_lines(
        parse(template),
        keys,
        message_id="evt_1",
        timestamp=1_533_204_620,
        event_type="order.created",
        body=body,
    )


def test_githubs_published_example_holds() -> None:
    assert lines({"preset": "github"}, b"It's a Secret to Everybody", body=b"Hello, World!") == [
        "X-Hub-Signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    ]


def test_stripes_published_example_holds() -> None:
    assert lines({"preset": "stripe"}, b"webhook_secret", body=STRIPE_BODY) == [
        "Stripe-Signature: t=1533204620,v1=2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7"
    ]


def test_shopifys_scheme_agrees_with_an_independent_implementation() -> None:
    # Shopify publishes code and no values; this is the example in SQLPage's tests of it.
    body = b'{"id":1234567890,"email":"customer@example.com","total_price":"123.45"}'

    assert lines({"preset": "shopify"}, b"test-webhook-secret", body=body) == [
        "X-Shopify-Hmac-Sha256: QNyObTlKbMx2qDlPF/ZOZcBqg5OgPg+2oky3zldc0Gw="
    ]


def test_while_secrets_overlap_stripe_gets_all_and_the_others_the_newest() -> None:
    new, old = b"new", b"old"

    [stripe] = lines({"preset": "stripe"}, new, old)
    by_new = hmac.new(new, b"1533204620.{}", hashlib.sha256).hexdigest()
    by_old = hmac.new(old, b"1533204620.{}", hashlib.sha256).hexdigest()

    assert stripe == f"Stripe-Signature: t=1533204620,v1={by_new},v1={by_old}"
    assert lines({"preset": "github"}, new, old) == lines({"preset": "github"}, new)
    assert lines({"preset": "shopify"}, new, old) == lines({"preset": "shopify"}, new)


def test_a_template_of_ones_own() -> None:
    template = {
        "header": "X-Acme-Signature",
        "encoding": "base64",
        "algorithm": "sha512",
        "prefix": "id={id}; s=",
        "separator": " ",
        "signed_content": "v0:{timestamp}:{id}\n{type}:{body}:end",
        "headers": {"X-Acme-Time": "{timestamp}", "X-Acme-Event": "acme/{type}"},
    }
    signed = b"v0:1533204620:evt_1\norder.created:\x00\xff:end"

    first, second = (
        base64.b64encode(hmac.new(key, signed, hashlib.sha512).digest()).decode() for key in (b"k1", b"k2")
    )

    assert lines(template, b"k1", b"k2", body=b"\x00\xff") == [
        f"X-Acme-Signature: id=evt_1; s={first} {second}",
        "X-Acme-Time: 1533204620",
        "X-Acme-Event: acme/order.created",
    ]


def test_the_smallest_template_signs_the_body_in_hex() -> None:
    expected = hmac.new(b"k", b"{}", hashlib.sha256).hexdigest()

    assert lines({"header": "X-Signature"}, b"k") == [f"X-Signature: {expected}"]


def test_sha1_is_there_for_what_exists() -> None:
    expected = hmac.new(b"k", b"{}", hashlib.sha1).hexdigest()

    assert lines({"header": "X-Hub-Signature", "prefix": "sha1=", "algorithm": "sha1"}, b"k") == [
        f"X-Hub-Signature: sha1={expected}"
    ]


def test_a_body_that_looks_like_a_placeholder_is_signed_as_it_is() -> None:
    expected = hmac.new(b"k", b"1533204620.{id}{body}", hashlib.sha256).hexdigest()

    assert lines({"header": "X-S", "signed_content": "{timestamp}.{body}"}, b"k", body=b"{id}{body}") == [
        f"X-S: {expected}"
    ]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("github", [("", "invalid_type")]),
        ({}, [("header", "required")]),
        ({"preset": "gitlab"}, [("preset", "invalid_choice")]),
        ({"preset": ["github"]}, [("preset", "invalid_type")]),
        ({"preset": "github", "prefix": "x"}, [("prefix", "unknown_field")]),
        ({"header": "X-S", "secret": "x"}, [("secret", "unknown_field")]),
        ({"header": "X S"}, [("header", "invalid_header_name")]),
        ({"header": "Webhook-Signature"}, [("header", "header_not_allowed")]),
        ({"header": "Content-Length"}, [("header", "header_not_allowed")]),
        ({"header": "X-S", "encoding": "base32"}, [("encoding", "invalid_choice")]),
        ({"header": "X-S", "algorithm": "md5"}, [("algorithm", "invalid_choice")]),
        ({"header": "X-S", "prefix": "a\r\nX-Evil: 1"}, [("prefix", "invalid_characters")]),
        ({"header": "X-S", "prefix": "ü"}, [("prefix", "invalid_characters")]),
        ({"header": "X-S", "prefix": " a"}, [("prefix", "invalid_characters")]),
        ({"header": "X-S", "prefix": "{body}"}, [("prefix", "unknown_placeholder")]),
        ({"header": "X-S", "prefix": "{nonce}"}, [("prefix", "unknown_placeholder")]),
        ({"header": "X-S", "prefix": "a" * 256}, [("prefix", "too_long")]),
        ({"header": "X-S", "separator": ""}, [("separator", "blank")]),
        ({"header": "X-S", "separator": "{id}"}, [("separator", "unknown_placeholder")]),
        ({"header": "X-S", "signed_content": "{timestamp}"}, [("signed_content", "body_missing")]),
        ({"header": "X-S", "signed_content": "{body}{body}"}, [("signed_content", "body_missing")]),
        ({"header": "X-S", "signed_content": "{{body}}"}, [("signed_content", "unknown_placeholder")]),
        (
            {"header": "X-S", "signed_content": "{body.__class__}"},
            [("signed_content", "unknown_placeholder")],
        ),
        ({"header": "X-S", "headers": []}, [("headers", "invalid_type")]),
        ({"header": "X-S", "headers": {"x-s": "1"}}, [("headers.x-s", "duplicate")]),
        ({"header": "X-S", "headers": {"X-A": "1", "x-a": "2"}}, [("headers.x-a", "duplicate")]),
        ({"header": "X-S", "headers": {"Host": "1"}}, [("headers.Host", "header_not_allowed")]),
        ({"header": "X-S", "headers": {"X-A": ""}}, [("headers.X-A", "blank")]),
        ({"header": "X-S", "headers": {"X-A": 1}}, [("headers.X-A", "invalid_type")]),
        ({"header": "X-S", "headers": {f"X-{n}": "1" for n in range(9)}}, [("headers", "too_long")]),
        (
            {"header": 1, "encoding": 1, "prefix": 1, "signed_content": 1, "headers": {"": "{"}, "x": 1},
            [
                ("x", "unknown_field"),
                ("header", "invalid_type"),
                ("encoding", "invalid_type"),
                ("prefix", "invalid_type"),
                ("signed_content", "invalid_type"),
                ("headers", "invalid_header_name"),
                ("headers", "unknown_placeholder"),
            ],
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_every_wrong_field(
    template: Any, expected: list[tuple[str, str]]
) -> None:
    with pytest.raises(InvalidContent) as refused:
        parse(template)

    assert [(error.field, error.code) for error in refused.value.errors] == expected


def test_there_are_three_presets() -> None:
    assert sorted(PRESETS) == ["github", "shopify", "stripe"]
