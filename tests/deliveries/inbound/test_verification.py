"""Who may send, judged without a database: the providers' own published examples, and every way to break them."""

import base64
import hashlib
import hmac
from typing import Any

import pytest
from standardwebhooks import Webhook

from deliveries.inbound.bodies import read
from deliveries.inbound.presets import PRESETS
from deliveries.inbound.requests import InboundRequest, Reason, Refused
from deliveries.inbound.verification import Verification, check_address, check_secrets, settings_of, verify
from deliveries.pipeline.signing import ed25519_key, public_key_text, sign
from tenants.validation import InvalidContent

NOW = 1_531_420_618.0

SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
TWILIO_URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
TWILIO_BODY = (
    b"Digits=1234&To=%2B18005551212&From=%2B12349013030&Caller=%2B12349013030&CallSid=CA1234567890ABCDE"
)
STRIPE_BODY = b'{\n  "id": "evt_test_webhook",\n  "object": "event"\n}'


def of(preset: str) -> Verification:
    return Verification(**settings_of(dict(PRESETS[preset].verification)))


def request(headers: dict[str, str], body: bytes = b"", **fields: Any) -> InboundRequest:
    return InboundRequest(
        **(
            {
                "method": "POST",
                "url": "https://hooks.example.com/in/token",
                "query": "",
                "headers": headers,
                "content_type": "application/json",
                "body": body,
                "remote_ip": "192.0.2.7",
            }
            | fields
        )
    )


def stripe_header(body: bytes, *, at: int = int(NOW), secret: str = "whsec_test_secret") -> str:
    """As Stripe's page on signatures tells it, step by step."""
    signed = str(at).encode() + b"." + body
    return f"t={at},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()},v0=6ffbb59b2300aae6"


EXAMPLES: dict[str, tuple[str, InboundRequest]] = {
    # docs.github.com, "Validating webhook deliveries": its secret, payload and result.
    "github": (
        "It's a Secret to Everybody",
        request(
            {
                "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
            },
            b"Hello, World!",
        ),
    ),
    # docs.slack.dev, "Verifying requests from Slack": its signing secret, slash command and result.
    "slack": (
        "8f742231b10e8888abcd99yyyzzz85a5",
        request(
            {
                "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
                "x-slack-request-timestamp": "1531420618",
            },
            SLACK_BODY,
            content_type="application/x-www-form-urlencoded",
        ),
    ),
    # twilio.com/docs, "Security": its auth token, URL, parameters and result.
    "twilio": (
        "12345",
        request(
            {"x-twilio-signature": "0/KCTR6DLpKmkAf8muzZqo1nDgQ="},
            TWILIO_BODY,
            url=TWILIO_URL,
            query="foo=1&bar=2",
            content_type="application/x-www-form-urlencoded",
        ),
    ),
    # docs.stripe.com, "Verify manually": the steps of the page; it publishes no secret with a result.
    "stripe": (
        "whsec_test_secret",
        request({"stripe-signature": stripe_header(STRIPE_BODY)}, STRIPE_BODY),
    ),
    # shopify.dev, "Verify deliveries": base64 of the HMAC of the body; it publishes no secret with a result either.
    "shopify": (
        "test-webhook-secret",
        request(
            {"x-shopify-hmac-sha256": "QNyObTlKbMx2qDlPF/ZOZcBqg5OgPg+2oky3zldc0Gw="},
            b'{"id":1234567890,"email":"customer@example.com","total_price":"123.45"}',
        ),
    ),
}


@pytest.mark.parametrize("preset", EXAMPLES)
def test_a_presets_published_example_is_taken(preset: str) -> None:
    secret, example = EXAMPLES[preset]

    verify(of(preset), [secret], example, now=NOW)


@pytest.mark.parametrize("preset", EXAMPLES)
def test_one_of_several_secrets_is_enough(preset: str) -> None:
    secret, example = EXAMPLES[preset]

    verify(of(preset), ["not this one", secret], example, now=NOW)


@pytest.mark.parametrize("preset", EXAMPLES)
def test_a_body_changed_by_a_byte_is_refused(preset: str) -> None:
    secret, example = EXAMPLES[preset]
    changed = request(
        dict(example.headers),
        example.body.replace(b"1", b"2", 1) if b"1" in example.body else example.body[:-1] + b"?",
        url=example.url,
        content_type=example.content_type,
    )
    assert changed.body != example.body

    assert refusal(of(preset), [secret], changed) is Reason.SIGNATURE_WRONG


@pytest.mark.parametrize("preset", EXAMPLES)
def test_another_secret_or_no_signature_is_refused(preset: str) -> None:
    secret, example = EXAMPLES[preset]

    assert refusal(of(preset), [secret + "x"], example) is Reason.SIGNATURE_WRONG
    assert refusal(of(preset), [], example) is Reason.SIGNATURE_WRONG
    assert refusal(of(preset), [secret], request({}, example.body)) is Reason.SIGNATURE_MISSING


@pytest.mark.parametrize("preset", ["slack", "stripe"])
@pytest.mark.parametrize("seconds", [-301.0, 301.0])
def test_an_old_or_early_timestamp_is_refused(preset: str, seconds: float) -> None:
    secret, example = EXAMPLES[preset]

    assert refusal(of(preset), [secret], example, now=NOW + seconds) is Reason.TIMESTAMP_OLD
    verify(of(preset), [secret], example, now=NOW + seconds * 299 / 301)


def refusal(settings: Verification, secrets: list[str], asked: InboundRequest, *, now: float = NOW) -> Reason:
    with pytest.raises(Refused) as refused:
        verify(settings, secrets, asked, now=now)
    return refused.value.reason


# --- Twilio's bodies that are no forms --------------------------------------------------------------------------------


def test_twilio_covers_a_json_body_by_its_hash_in_the_url() -> None:
    """The hash is of Twilio's published example."""
    body = b'{"CallSid":"CA1234567890ABCDE","Caller":"+12349013030"}'
    query = "bodySHA256=5ccde7145dfb8f56479710896586cb9d5911809d83afbe34627818790db0aec9"
    url = f"https://example.com/myapp?{query}"
    signature = base64.b64encode(hmac.digest(b"12345", url.encode(), "sha1")).decode()
    good = request({"x-twilio-signature": signature}, body, url=url, query=query)

    verify(of("twilio"), ["12345"], good, now=NOW)

    other = request({"x-twilio-signature": signature}, body + b" ", url=url, query=query)
    assert refusal(of("twilio"), ["12345"], other) is Reason.SIGNATURE_WRONG
    bare_url = "https://example.com/myapp"
    bare = base64.b64encode(hmac.digest(b"12345", bare_url.encode(), "sha1")).decode()
    uncovered = request({"x-twilio-signature": bare}, body, url=bare_url)
    assert refusal(of("twilio"), ["12345"], uncovered) is Reason.SIGNATURE_WRONG


# --- Standard Webhooks ------------------------------------------------------------------------------------------------

STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_BODY = b'{"test": 2432232314}'


def standard_headers(at: int = 1_614_265_330) -> dict[str, str]:
    return {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": str(at),
        # The specification's own example.
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_standard_webhooks_example_is_taken_and_broken_ones_are_not() -> None:
    at = 1_614_265_330.0
    good = request(standard_headers(), STANDARD_BODY)

    verify(of("standard"), [STANDARD], good, now=at + 10)

    assert refusal(of("standard"), [STANDARD], good, now=at + 301) is Reason.TIMESTAMP_OLD
    assert (
        refusal(of("standard"), [STANDARD], request(standard_headers(), STANDARD_BODY + b" "), now=at)
        is Reason.SIGNATURE_WRONG
    )
    for name, reason in (
        ("webhook-id", Reason.SIGNATURE_MISSING),
        ("webhook-signature", Reason.SIGNATURE_MISSING),
        ("webhook-timestamp", Reason.TIMESTAMP_MISSING),
    ):
        headers = standard_headers()
        del headers[name]
        assert refusal(of("standard"), [STANDARD], request(headers, STANDARD_BODY), now=at) is reason


def test_what_the_official_library_signs_is_taken() -> None:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(NOW, UTC)
    signature = Webhook(STANDARD).sign("msg_1", at, STANDARD_BODY.decode())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(NOW)),
        "webhook-signature": f"v1,AAAA {signature}",
    }

    verify(of("standard"), [STANDARD], request(headers, STANDARD_BODY), now=NOW)


def test_what_this_platform_signs_by_ed25519_is_taken_by_the_public_key() -> None:
    key = ed25519_key(bytes(range(32)))
    signature = sign([key], "evt_1", int(NOW), STANDARD_BODY)
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(NOW)),
        "webhook-signature": signature,
    }

    verify(of("standard"), [public_key_text(key)], request(headers, STANDARD_BODY), now=NOW)
    changed = request(headers, b"{}")
    assert refusal(of("standard"), [public_key_text(key)], changed) is Reason.SIGNATURE_WRONG


def test_of_a_get_the_query_string_is_signed() -> None:
    from deliveries.pipeline.signing import HmacKey, parse_secret

    query = "type=a&data.x=1"
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(NOW)),
        "webhook-signature": sign([HmacKey(parse_secret(STANDARD))], "evt_1", int(NOW), query.encode()),
    }

    verify(of("standard"), [STANDARD], request(headers, method="GET", query=query), now=NOW)
    other = request(headers, method="GET", query=query + "2")
    assert refusal(of("standard"), [STANDARD], other) is Reason.SIGNATURE_WRONG


@pytest.mark.parametrize("signed", ["{body}", "{form}"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_payload_is_read_that_is_not_signed(signed: str, method: str) -> None:
    """What has no body is read from its query string. A signature of nothing, once seen, would do for any of them."""
    settings = Verification(
        **settings_of({"scheme": "hmac", "header": "x-signature", "signed": signed, "key_encoding": "text"})
    )

    def asking(query: str, of: bytes) -> InboundRequest:
        signature = hmac.new(b"secret", of, hashlib.sha256).hexdigest()
        return request({"x-signature": signature}, b"", method=method, query=query, content_type="")

    assert read(asking("paid=yes", b"")).value == {"paid": "yes"}
    assert refusal(settings, ["secret"], asking("paid=yes", b"")) is Reason.SIGNATURE_WRONG
    verify(settings, ["secret"], asking("paid=yes", b"paid=yes"), now=NOW)
    verify(settings, ["secret"], asking("", b""), now=NOW)


# --- a scheme of one's own --------------------------------------------------------------------------------------------


def test_a_generic_hmac_signs_what_its_settings_say() -> None:
    settings = Verification(
        **settings_of(
            {
                "scheme": "hmac",
                "header": "X-Sig",
                "algorithm": "sha512",
                "encoding": "base64",
                "prefix": "k1:",
                "signed": "{id}|{timestamp}|{body}",
                "id_header": "X-Id",
                "timestamp_header": "X-Time",
                "tolerance_seconds": 60,
                "key_encoding": "hex",
            }
        )
    )
    at = str(int(NOW * 1000))
    digest = hmac.digest(bytes.fromhex("00ff"), f"7|{at}|body".encode(), "sha512")
    headers = {"x-sig": "k1:" + base64.b64encode(digest).decode(), "x-id": "7", "x-time": at}

    verify(settings, ["00ff"], request(headers, b"body"), now=NOW)

    assert refusal(settings, ["00ff"], request(headers | {"x-id": "8"}, b"body")) is Reason.SIGNATURE_WRONG
    without_prefix = headers | {"x-sig": headers["x-sig"][3:]}
    assert refusal(settings, ["00ff"], request(without_prefix, b"body")) is Reason.SIGNATURE_WRONG
    assert refusal(settings, ["00ff"], request(headers, b"body"), now=NOW + 61) is Reason.TIMESTAMP_OLD
    for wrong in ("", "soon", "-1", "1" * 30, "١٢٣"):
        asked = request(headers | {"x-time": wrong}, b"body")
        assert refusal(settings, ["00ff"], asked) is Reason.TIMESTAMP_MISSING, wrong


@pytest.mark.parametrize(
    ("settings", "headers", "secret", "is_taken"),
    [
        ({"scheme": "bearer"}, {"authorization": "Bearer s3cret"}, "s3cret", True),
        ({"scheme": "bearer"}, {"authorization": "bearer s3cret"}, "s3cret", True),
        ({"scheme": "bearer"}, {"authorization": "Bearer s3cre"}, "s3cret", False),
        ({"scheme": "bearer"}, {}, "s3cret", False),
        ({"scheme": "bearer", "header": "X-Token"}, {"x-token": "s3cret"}, "s3cret", True),
        ({"scheme": "bearer", "header": "X-Token"}, {"x-token": "S3CRET"}, "s3cret", False),
        ({"scheme": "bearer", "header": "X-Token"}, {"x-token": "my s3cret"}, "my s3cret", True),
        ({"scheme": "bearer", "header": "X-Token"}, {"x-token": "My s3cret"}, "my s3cret", False),
        ({"scheme": "bearer", "prefix": "GenieKey "}, {"authorization": "GenieKey s3cret"}, "s3cret", True),
        ({"scheme": "bearer", "prefix": "GenieKey "}, {"authorization": "geniekey s3cret"}, "s3cret", True),
        ({"scheme": "bearer", "prefix": "GenieKey "}, {"authorization": "GenieKey S3cret"}, "s3cret", False),
        ({"scheme": "bearer", "prefix": "GenieKey "}, {"authorization": "ApiKey s3cret"}, "s3cret", False),
        ({"scheme": "bearer", "prefix": "GenieKey "}, {"authorization": "s3cret"}, "s3cret", False),
        ({"scheme": "basic"}, {"authorization": "Basic dTpw"}, "u:p", True),
        ({"scheme": "basic"}, {"authorization": "Basic dTpx"}, "u:p", False),
        ({"scheme": "none"}, {}, "", True),
    ],
)
def test_credentials(settings: dict[str, Any], headers: dict[str, str], secret: str, is_taken: bool) -> None:
    made = Verification(**settings_of(settings))
    if is_taken:
        verify(made, [secret], request(headers), now=NOW)
    else:
        assert refusal(made, [secret], request(headers)) is Reason.CREDENTIALS_WRONG


@pytest.mark.parametrize(
    ("allowed", "address", "is_taken"),
    [
        ([], "198.51.100.1", True),
        (["192.0.2.0/24"], "192.0.2.7", True),
        (["192.0.2.0/24", "2001:db8::/32"], "2001:db8::1", True),
        (["192.0.2.0/24"], "192.0.3.7", False),
        (["192.0.2.0/24"], "", False),
    ],
)
def test_addresses(allowed: list[str], address: str, is_taken: bool) -> None:
    asked = request({}, remote_ip=address)
    if is_taken:
        check_address(asked, allowed)
        return
    with pytest.raises(Refused) as refused:
        check_address(asked, allowed)
    assert refused.value.reason is Reason.ADDRESS_NOT_ALLOWED


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ([], [("", "invalid_type")]),
        ({"scheme": "magic"}, [("scheme", "invalid_choice")]),
        ({"other": 1}, [("other", "unknown_field")]),
        ({"scheme": "hmac"}, [("header", "incomplete")]),
        ({"scheme": "hmac", "header": "a b"}, [("header", "invalid_header_name")]),
        ({"scheme": "hmac", "header": "X", "signed": "{url}"}, [("signed", "invalid")]),
        ({"scheme": "hmac", "header": "X", "signed": "{nothing}{body}"}, [("signed", "invalid")]),
        (
            {"scheme": "hmac", "header": "X", "signed": "{timestamp}{body}"},
            [("timestamp_header", "incomplete")],
        ),
        ({"scheme": "hmac", "header": "X", "timestamp_header": "T"}, [("signed", "invalid")]),
        ({"scheme": "hmac", "header": "X", "signed": "{id}{body}"}, [("id_header", "incomplete")]),
        ({"scheme": "hmac", "header": "X", "algorithm": "md5"}, [("algorithm", "invalid_choice")]),
        ({"tolerance_seconds": 0}, [("tolerance_seconds", "too_small")]),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Any, wrong: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidContent) as invalid:
        settings_of(settings)

    assert [(error.field, error.code) for error in invalid.value.errors] == wrong


@pytest.mark.parametrize(
    ("settings", "secrets", "code"),
    [
        ({"scheme": "standard"}, ["no"], "invalid_secret"),
        ({"scheme": "standard"}, ["whpk_AAAA"], "invalid_secret"),
        ({"scheme": "standard"}, [], "incomplete"),
        ({"scheme": "basic"}, ["no colon"], "invalid_secret"),
        ({"scheme": "hmac", "header": "X", "key_encoding": "hex"}, ["zz"], "invalid_secret"),
        ({"scheme": "hmac", "header": "X", "key_encoding": "base64"}, ["*"], "invalid_secret"),
    ],
)
def test_secrets_that_the_scheme_cannot_use_are_refused(
    settings: dict[str, Any], secrets: list[str], code: str
) -> None:
    with pytest.raises(InvalidContent) as invalid:
        check_secrets(Verification(**settings_of(settings)), secrets)

    assert [(error.field, error.code) for error in invalid.value.errors] == [("secrets", code)]
