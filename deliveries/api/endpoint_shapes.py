"""What endpoints look like in requests and replies. Their views are in `endpoints.py`."""

from datetime import UTC, datetime
from typing import Any

from deliveries import credentials as rules
from deliveries import validation
from deliveries.api import endpoint_credentials
from deliveries.models import Endpoint
from deliveries.pipeline import signature_template
from deliveries.services import (
    credentials,
    endpoint_settings,
    health,
    secrets,
)
from tenants import ids
from tenants.api import fields
from tenants.api.fields import Field, Input, Output, Shown
from tenants.api.rendering import optional_time_text, time_text
from tenants.api.schema import example
from tenants.api.tenants import METADATA_CHANGES
from tenants.validation import Collector

ENDPOINT_ID = fields.id_text(ids.ENDPOINT)
UID = fields.text(255, 1, pattern="^(?!ep_)(?!\\.{1,2}$)[A-Za-z0-9._:@-]+$")
ENDPOINT_REFERENCE: fields.AnySchema = {
    "type": "string",
    "pattern": "^(ep_[0-7][0-9a-hjkmnp-tv-z]{25}|(?!ep_)(?!\\.{1,2}$)[A-Za-z0-9._:@-]{1,255})$",
}
"""An id or a uid."""
# Its host is judged by more than a pattern can say.
URL = fields.text(validation.MAX_URL_LENGTH, 10, pattern=r"^https?://[^\s/?#@\\]+([/?][^\s#\\]*)?$")
PATTERN = fields.text(128, 1, pattern=r"^(\*|[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(\.\*)?)$")
CHANNEL = fields.text(128, 1, pattern="^[A-Za-z0-9._:-]+$")
STATUS: fields.AnySchema = {"type": "string", "enum": Endpoint.Status.values}
# Canonical base64 of 24 to 64 bytes, and nothing else.
_SIXTH, _END_OF_1, _END_OF_2 = "[A-Za-z0-9+/]", "[AQgw]==", "[AEIMQUYcgkosw048]="
SECRET = fields.text(
    94,
    pattern=f"^whsec_({_SIXTH}{{4}}){{8}}"
    f"(({_SIXTH}{{4}}){{0,12}}({_SIXTH}{{4}}|{_SIXTH}{_END_OF_1}|{_SIXTH}{{2}}{_END_OF_2})?"
    f"|({_SIXTH}{{4}}){{13}}{_SIXTH}{_END_OF_1})$",
)
HEADERS: fields.AnySchema = {
    "type": "object",
    "maxProperties": validation.MAX_HEADERS,
    "propertyNames": fields.text(
        validation.MAX_HEADER_NAME_LENGTH, 1, pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
    ),
    "additionalProperties": fields.nullable(
        fields.text(validation.MAX_HEADER_VALUE_LENGTH, 1, pattern="^[ -~]*[!-~][ -~]*$")
    ),
}

_TIME_OR_NULL: fields.AnySchema = fields.nullable(fields.TIME)
HEALTH: fields.AnySchema = {
    "type": "object",
    "required": [
        "circuit",
        "failures",
        "failing_since",
        "failed_at",
        "held_until",
        "hold_reason",
        "disables_at",
        "missed_since",
    ],
    "properties": {
        "circuit": {
            "type": "string",
            "enum": [state.value for state in health.Circuit],
            "description": "open: it did nothing but fail, and requests wait. half_open: the next one decides.",
        },
        "failures": {"type": "integer", "description": "In a row."},
        "failing_since": _TIME_OR_NULL,
        "failed_at": _TIME_OR_NULL | {"description": "The last of them."},
        "held_until": _TIME_OR_NULL | {"description": "Nothing is sent before."},
        "hold_reason": fields.nullable({"type": "string", "enum": ["rate", "circuit", "answer"]}),
        "disables_at": _TIME_OR_NULL | {"description": "When it is disabled if it goes on failing."},
        "missed_since": _TIME_OR_NULL
        | {"description": "It was disabled and got nothing since: what recover and replay would send."},
    },
}
BATCH: fields.AnySchema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["max_events", "max_wait_ms"],
    "properties": {
        "max_events": fields.whole_number(2, validation.MAX_BATCH_EVENTS),
        "max_wait_ms": fields.whole_number(0, validation.MAX_BATCH_WAIT_MS),
    },
}

EXAMPLE: dict[str, Any] = {
    "id": "ep_01h455vb4pex5vsknk084sn02q",
    "uid": "shop-17",
    "kind": "http",
    "url": "https://shop.example.com/webhooks",
    "description": "Orders of shop 17",
    "status": "enabled",
    "disabled_reason": None,
    "event_types": ["order.*", "invoice.*"],
    "channels": None,
    "method": "POST",
    "format": "standard",
    "headers": {"X-Team": "a"},
    "sensitive_headers": ["Authorization"],
    "signature_scheme": "hmac-sha256",
    "signature_template": None,
    "auth": None,
    "client_certificate": None,
    "ca_certificates": None,
    "success_statuses": ["2xx"],
    "timeout_seconds": 15,
    "rate_limit": None,
    "max_in_flight": 10,
    "ordering": "none",
    "batch": None,
    "retry_schedule": None,
    "metadata": {},
    "health": {
        "circuit": "closed",
        "failures": 0,
        "failing_since": None,
        "failed_at": None,
        "held_until": None,
        "hold_reason": None,
        "disables_at": None,
        "missed_since": None,
    },
    "created_at": "2026-03-01T12:00:00.000000Z",
    "updated_at": "2026-03-01T12:00:00.000000Z",
}


def _rule_of_url(value: object) -> str:
    return endpoint_settings.url(value)


@example({"url": "https://shop.example.com/hooks", "event_types": ["order.*"], "headers": {"X-Team": None}})
class EndpointChange(Input):
    uid = Field(validation.uid, UID, help_text="A name of your own, unique in the tenant.")
    url = Field(
        _rule_of_url,
        URL,
        nullable=False,
        help_text="http or https, on port 80, 443 or one above 1023, with a host on the public internet.",
    )
    description = Field(validation.description, fields.text(2000))
    status = Field(
        lambda value: validation.choice(value, Endpoint.Status.values),
        STATUS,
        help_text="As `/enable` and `/disable` set it.",
    )
    event_types = Field(
        validation.patterns,
        fields.list_of(PATTERN, validation.MAX_PATTERNS),
        help_text='Shorthand: one subscription per pattern. `[]`: none; null, or omitted at creation: `["*"]`.',
    )
    channels = Field(
        validation.endpoint_channels,
        fields.list_of(CHANNEL, validation.MAX_CHANNELS, 1),
        help_text="Only events that carry one of them. null: all events.",
    )
    method = Field(
        validation.method,
        {"type": "string", "enum": list(validation.METHODS)},
        help_text="GET carries the payload in the query string.",
    )
    format = Field(validation.format_, {"type": "string", "enum": list(validation.FORMATS)})
    headers = Field(
        validation.header_changes,
        HEADERS,
        help_text="PATCH merges by name; null removes one. Those that look like credentials are kept encrypted.",
    )
    signature_scheme = Field(
        validation.signature_scheme, {"type": "string", "enum": list(validation.SIGNATURE_SCHEMES)}
    )
    signature_template = Field(
        signature_template.read,
        endpoint_credentials.SIGNATURE_TEMPLATE,
        help_text="A further signature, made the way of another scheme. Its `secret` is shown as `***`, which leaves it "
        "as it is; without one it signs with the endpoint's.",
    )
    auth = Field(
        lambda value: rules.auth(value, endpoint_settings.url),
        endpoint_credentials.AUTH,
        help_text="How it signs in at the receiver. Its secret is shown as `***`, which leaves it as it is.",
    )
    client_certificate = Field(
        rules.client_certificate,
        endpoint_credentials.CLIENT_CERTIFICATE,
        help_text="For mutual TLS, in PEM. The key is shown as `***`, which leaves it as it is.",
    )
    ca_certificates = Field(
        rules.certificates,
        endpoint_credentials.PEM,
        help_text="In PEM: the authorities that the receiver's certificate may come from, instead of the public ones.",
    )
    success_statuses = Field(
        validation.success_statuses,
        fields.list_of(fields.text(3, 3, pattern="^[2-5](xx|[0-9]{2})$"), 20, 1),
        help_text="Classes and codes that count as success.",
    )
    timeout_seconds = Field(
        validation.timeout_seconds,
        fields.whole_number(1, 30),
        help_text="From connecting to the last byte read.",
    )
    rate_limit = Field(
        validation.rate_limit,
        {"type": "number", "minimum": 0.01, "maximum": 10_000},
        help_text="Requests per second. null: none.",
    )
    max_in_flight = Field(
        validation.max_in_flight, fields.whole_number(1, 1000), help_text="Requests at once."
    )
    ordering = Field(validation.ordering, {"type": "string", "enum": list(validation.ORDERINGS)})
    batch = Field(
        validation.batch,
        BATCH,
        help_text="Several events in one request, as soon as `max_events` wait or the first of them has waited "
        "`max_wait_ms`. Not with fifo, GET, xml, form or cloudevents-binary.",
    )
    retry_schedule = Field(
        validation.retry_schedule,
        fields.list_of(fields.whole_number(0, validation.MAX_RETRY_WAIT_SECONDS), validation.MAX_RETRIES),
        help_text="Seconds to wait before each retry. `[]`: one attempt. null: the default schedule.",
    )
    metadata = Field(
        validation.metadata_changes, METADATA_CHANGES, help_text="PATCH merges key by key; null removes one."
    )


@example(
    {
        "url": "https://shop.example.com/webhooks",
        "uid": "shop-17",
        "event_types": ["order.*", "invoice.*"],
        "headers": {"X-Team": "a", "Authorization": "Bearer s3cret"},
    }
)
class EndpointIn(EndpointChange):
    kind = Field(
        lambda value: validation.choice(value, Endpoint.Kind.values),
        {"type": "string", "enum": Endpoint.Kind.values},
        nullable=False,
        help_text="`poll`: nothing is sent; the receiver reads at `/poll`. Stays as it is.",
    )
    url = Field(
        _rule_of_url,
        URL,
        help_text="http or https, on port 80, 443 or one above 1023, with a host on the public internet. "
        "Of kind `poll`: null.",
    )
    secret = Field(
        secrets.secret,
        SECRET,
        help_text="`whsec_` and the base64 of 24 to 64 bytes. Made when omitted; read it at `/secret`.",
    )

    @classmethod
    def documented(cls, schema: fields.AnySchema) -> fields.AnySchema:
        polled = {"required": ["kind"], "properties": {"kind": {"const": "poll"}, "url": {"type": "null"}}}
        called = {
            "required": ["url"],
            "properties": {"kind": {"const": "http"}, "url": {"type": "string"}},
        }
        return schema | {"anyOf": [called, polled]}

    @classmethod
    def read_value(cls, data: Any, wrong: Collector, *, is_partial: bool = False) -> dict[str, Any]:
        """All of what is wrong at once: also that there is no URL."""
        cleaned = super().read_value(data, wrong, is_partial=is_partial)
        if isinstance(data, dict) and data.get("kind") != Endpoint.Kind.POLL and data.get("url") is None:
            if "url" in data:
                wrong.add("url", "null", "Must not be null.")
            else:
                wrong.add("url", "required", "Must be given.")
        cleaned.setdefault("url", None)
        return cleaned


@example(EXAMPLE)
class EndpointOut(Output):
    id = Shown(ENDPOINT_ID)
    uid = Shown(fields.nullable({"type": "string"}))
    kind = Shown({"type": "string", "enum": Endpoint.Kind.values})
    url = Shown(fields.nullable({"type": "string"}), "null for kind `poll`.")
    description = Shown({"type": "string"})
    status = Shown(STATUS)
    disabled_reason = Shown(fields.nullable({"type": "string", "enum": Endpoint.DisabledReason.values}))
    event_types = Shown(fields.list_of({"type": "string"}), "The patterns of its subscriptions.")
    channels = Shown(fields.nullable(fields.list_of({"type": "string"})))
    method = Shown({"type": "string", "enum": list(validation.METHODS)})
    format = Shown({"type": "string", "enum": list(validation.FORMATS)})
    headers = Shown(fields.TEXTS, "The readable ones.")
    sensitive_headers = Shown(fields.list_of({"type": "string"}), "Names only.")
    signature_scheme = Shown({"type": "string", "enum": list(validation.SIGNATURE_SCHEMES)})
    signature_template = Shown(fields.nullable(fields.ANY_OBJECT))
    auth = Shown(fields.nullable(fields.TEXTS | {"additionalProperties": {"type": ["string", "null"]}}))
    client_certificate = Shown(fields.nullable(fields.TEXTS))
    ca_certificates = Shown(fields.nullable({"type": "string"}))
    success_statuses = Shown(fields.list_of({"type": "string"}))
    timeout_seconds = Shown({"type": "integer"})
    rate_limit = Shown(fields.nullable({"type": "number"}))
    max_in_flight = Shown({"type": "integer"})
    ordering = Shown({"type": "string", "enum": list(validation.ORDERINGS)})
    batch = Shown(fields.nullable(BATCH))
    retry_schedule = Shown(fields.nullable(fields.list_of({"type": "integer"})))
    metadata = Shown(fields.TEXTS)
    health = Shown(HEALTH, "How it does; read-only.")
    created_at = Shown(fields.TIME)
    updated_at = Shown(fields.TIME)


def endpoint_json(endpoint: Endpoint) -> dict[str, Any]:
    """Needs the subscriptions prefetched, as the services give it."""
    return {
        "id": ids.to_text(ids.ENDPOINT, endpoint.id),
        "uid": endpoint.uid,
        "kind": endpoint.kind,
        "url": endpoint.url or None,
        "description": endpoint.description,
        "status": endpoint.status,
        "disabled_reason": endpoint.disabled_reason,
        "event_types": endpoint_settings.patterns_of(endpoint),
        "channels": endpoint.channels,
        "method": endpoint.method,
        "format": endpoint.format,
        "headers": endpoint.headers,
        "sensitive_headers": endpoint.sensitive_headers,
        "signature_scheme": endpoint.signature_scheme,
        "signature_template": credentials.shown_template(endpoint),
        "auth": credentials.shown_auth(endpoint),
        "client_certificate": credentials.shown_client_certificate(endpoint),
        "ca_certificates": endpoint.ca_certificates,
        "success_statuses": endpoint.success_statuses,
        "timeout_seconds": endpoint.timeout_seconds,
        "rate_limit": endpoint.rate_limit,
        "max_in_flight": endpoint.max_in_flight,
        "ordering": endpoint.ordering,
        "batch": endpoint.batch,
        "retry_schedule": endpoint.retry_schedule,
        "metadata": endpoint.metadata,
        "health": health_json(endpoint),
        "created_at": time_text(endpoint.created_at),
        "updated_at": time_text(endpoint.updated_at),
    }


def health_json(endpoint: Endpoint) -> dict[str, Any]:
    found = health.of(endpoint, now=datetime.now(UTC))
    return {
        "circuit": found.circuit.value,
        "failures": found.failures,
        "failing_since": optional_time_text(found.failing_since),
        "failed_at": optional_time_text(found.failed_at),
        "held_until": optional_time_text(found.held_until),
        "hold_reason": found.hold_reason,
        "disables_at": optional_time_text(found.disables_at),
        "missed_since": optional_time_text(endpoint.missed_since),
    }
