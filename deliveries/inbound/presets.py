"""Settings for providers that one meets often. Pure. A source copies them when it is made, and may differ from then on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Preset:
    label: str
    verification: Mapping[str, Any]
    event_type: str
    """CEL; see `mapping`."""
    dedup_header: str = ""
    dedup_path: str = ""
    handshake: str | None = None
    key_name: str = ""
    """What the provider calls it."""


PRESETS: Final[Mapping[str, Preset]] = {
    "standard": Preset(
        label="Standard Webhooks",
        verification={"scheme": "standard"},
        event_type="data.body.type",
        dedup_header="webhook-id",
        key_name="whsec_…",
    ),
    "github": Preset(
        label="GitHub",
        verification={"scheme": "hmac", "header": "x-hub-signature-256", "prefix": "sha256="},
        event_type='"github." + data.headers["x-github-event"]',
        dedup_header="x-github-delivery",
        key_name="Secret",
    ),
    "stripe": Preset(
        label="Stripe",
        verification={
            "scheme": "hmac",
            "header": "stripe-signature",
            "signed": "{timestamp}.{body}",
            "signature_key": "v1",
            "timestamp_key": "t",
        },
        event_type='"stripe." + data.body.type',
        dedup_path="id",
        key_name="Signing secret",
    ),
    "shopify": Preset(
        label="Shopify",
        verification={"scheme": "hmac", "header": "x-shopify-hmac-sha256", "encoding": "base64"},
        event_type='"shopify." + data.headers["x-shopify-topic"]',
        dedup_header="x-shopify-webhook-id",
        key_name="API secret key",
    ),
    "slack": Preset(
        label="Slack",
        verification={
            "scheme": "hmac",
            "header": "x-slack-signature",
            "prefix": "v0=",
            "signed": "v0:{timestamp}:{body}",
            "timestamp_header": "x-slack-request-timestamp",
        },
        event_type='has(data.body.event) ? "slack." + data.body.event.type'
        ' : has(data.body.command) ? "slack.command" : "slack." + data.body.type',
        dedup_path="event_id",
        handshake="slack",
        key_name="Signing secret",
    ),
    "twilio": Preset(
        label="Twilio",
        verification={
            "scheme": "hmac",
            "header": "x-twilio-signature",
            "algorithm": "sha1",
            "encoding": "base64",
            "signed": "{url}{form}",
        },
        event_type='has(data.body.MessageStatus) ? "twilio.message." + data.body.MessageStatus'
        ' : has(data.body.CallStatus) ? "twilio.call." + data.body.CallStatus : "twilio.message.received"',
        dedup_header="i-twilio-idempotency-token",
        key_name="Auth token",
    ),
    "meta": Preset(
        label="Meta (WhatsApp, Messenger, Instagram)",
        verification={"scheme": "hmac", "header": "x-hub-signature-256", "prefix": "sha256="},
        event_type='"meta." + data.body.object',
        handshake="meta",
        key_name="App secret",
    ),
}
