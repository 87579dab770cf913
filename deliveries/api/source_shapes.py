"""What sources look like in requests and replies. Their views are in `sources.py`."""

from typing import Any

from deliveries import validation
from deliveries.inbound import verification as verifying
from deliveries.inbound.handshakes import Handshake
from deliveries.inbound.presets import PRESETS
from deliveries.models import Source
from deliveries.services import sources
from deliveries.services.sources import MAX_OVERLAP
from tenants import ids
from tenants.api import fields
from tenants.api.fields import Field, Input, Output, Shown
from tenants.api.rendering import optional_time_text, time_text
from tenants.api.schema import example

SOURCE_ID = fields.id_text(ids.SOURCE)

EXPRESSION = fields.text(1024, 1, pattern="[^\\u0000]")
HEADER = fields.text(128, pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]*$")
MAX_OVERLAP_SECONDS = int(MAX_OVERLAP.total_seconds())

VERIFICATION: fields.AnySchema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "scheme": {"type": "string", "enum": [each.value for each in verifying.Scheme]},
        "header": HEADER,
        "algorithm": {"type": "string", "enum": list(verifying.ALGORITHMS)},
        "encoding": {"type": "string", "enum": list(verifying.ENCODINGS)},
        "prefix": fields.text(64),
        "signed": fields.text(200, 1),
        "timestamp_header": HEADER,
        "id_header": HEADER,
        "signature_key": fields.text(32),
        "timestamp_key": fields.text(32),
        "tolerance_seconds": fields.whole_number(1, 86_400),
        "key_encoding": {"type": "string", "enum": list(verifying.KEY_ENCODINGS)},
    },
}

EXAMPLE: dict[str, Any] = {
    "id": "src_01h455vb4pex5vsknk084sn02q",
    "kind": "source",
    "name": "Our repositories",
    "status": "enabled",
    "url": "https://webhooks.example.com/in/Xq3e***",
    "preset": "github",
    "verification": verifying.settings_of(dict(PRESETS["github"].verification)),
    "secret_count": 1,
    "has_verify_token": False,
    "allowed_networks": [],
    "event_type": '"github." + data.headers["x-github-event"]',
    "data": None,
    "dedup_header": "x-github-delivery",
    "dedup_path": "",
    "dedup_seconds": 86400,
    "handshake": None,
    "response_status": 200,
    "response_body": "",
    "rate_limit": None,
    "expires_at": None,
    "created_at": "2026-03-01T12:00:00.000000Z",
    "updated_at": "2026-03-01T12:00:00.000000Z",
}


@example({"name": "Repositories", "secrets": ["a new secret", "the old one"]})
class SourceChange(Input):
    name = Field(lambda value: validation.text(value, low=1, high=200), fields.text(200, 1), nullable=False)
    status = Field(
        lambda value: validation.choice(value, Source.Status.values),
        {"type": "string", "enum": Source.Status.values},
        help_text="Of a disabled source: `410`, and nothing is kept.",
    )
    verification = Field(
        verifying.settings_of, VERIFICATION, help_text="How requests prove themselves. null: not at all."
    )
    secrets = Field(
        verifying.secrets,
        fields.list_of(fields.text(verifying.MAX_SECRET_LENGTH, 1), verifying.MAX_SECRETS, 1),
        nullable=False,
        help_text="Any of them may have signed, so that they can be changed one after the other. Never shown.",
    )
    verify_token = Field(
        sources.verify_token,
        fields.text(256, 8),
        nullable=False,
        help_text="Of Meta's handshake. Never shown.",
    )
    allowed_networks = Field(
        verifying.networks,
        fields.list_of(fields.text(64, 1), verifying.MAX_NETWORKS),
        help_text="Addresses and networks that requests may come from. null or `[]`: any.",
    )
    event_type = Field(
        sources.event_type_text,
        EXPRESSION,
        nullable=False,
        help_text="CEL that makes the event type, of `data.body`, `data.headers`, `data.query`, `data.method`. "
        "null or an empty text as its result: no event.",
    )
    data = Field(  # type: ignore[assignment] # a field of ours, which DRF takes out of the class
        sources.data_text, EXPRESSION, help_text="CEL that makes the event's data. null: the body as it came."
    )
    dedup_header = Field(verifying.header, HEADER, help_text="Where the provider's id of a request stands.")
    dedup_path = Field(sources.dedup_path, fields.text(255), help_text="The same in the body: `data.0.id`.")
    dedup_seconds = Field(
        sources.dedup_seconds, fields.whole_number(60, 86_400), help_text="How long an id counts."
    )
    handshake = Field(sources.handshake, {"type": "string", "enum": [each.value for each in Handshake]})
    response_status = Field(sources.response_status, fields.whole_number(200, 299))
    response_body = Field(
        sources.response_body, fields.text(1024, pattern=fields.SEVERAL_LINES), help_text="Text or JSON."
    )
    rate_limit = Field(
        sources.rate_limit,
        fields.whole_number(1, 1_000_000),
        help_text="Requests per minute. null: the platform's.",
    )


@example(
    {"name": "Our repositories", "preset": "github", "secrets": ["the secret of the repository's webhook"]}
)
class SourceIn(SourceChange):
    name = Field(lambda value: validation.text(value, low=1, high=200), fields.text(200, 1), required=True)
    kind = Field(
        lambda value: validation.choice(value, Source.Kind.values),
        {"type": "string", "enum": Source.Kind.values},
        nullable=False,
        help_text="`inspector`: a throw-away URL that shows what reaches it for a day, and makes no events.",
    )
    preset = Field(
        sources.preset,
        {"type": "string", "enum": list(PRESETS)},
        nullable=False,
        help_text="Settings to begin with; what is given beside it goes over it.",
    )


@example({"overlap_seconds": 86400})
class UrlRotationIn(Input):
    overlap_seconds = Field(
        lambda value: validation.whole_number(value, low=0, high=MAX_OVERLAP_SECONDS),
        fields.whole_number(0, MAX_OVERLAP_SECONDS, default=86_400),
        help_text="Earlier URLs go on until it ends. 0 ends every earlier one at once.",
    )


@example(EXAMPLE)
class SourceOut(Output):
    id = Shown(SOURCE_ID)
    kind = Shown({"type": "string", "enum": Source.Kind.values})
    name = Shown({"type": "string"})
    status = Shown({"type": "string", "enum": Source.Status.values})
    url = Shown({"type": "string"}, "Whole when it is made or rotated; else all but its beginning is hidden.")
    preset = Shown(fields.nullable({"type": "string", "enum": list(PRESETS)}))
    verification = Shown(VERIFICATION)
    secret_count = Shown({"type": "integer", "minimum": 0})
    has_verify_token = Shown(fields.BOOLEAN)
    allowed_networks = Shown(fields.list_of({"type": "string"}))
    event_type = Shown({"type": "string"})
    data = Shown(fields.nullable({"type": "string"}))  # type: ignore[assignment] # as above
    dedup_header = Shown({"type": "string"})
    dedup_path = Shown({"type": "string"})
    dedup_seconds = Shown({"type": "integer"})
    handshake = Shown(fields.nullable({"type": "string", "enum": [each.value for each in Handshake]}))
    response_status = Shown({"type": "integer"})
    response_body = Shown({"type": "string"})
    rate_limit = Shown(fields.nullable({"type": "integer"}))
    expires_at = Shown(fields.nullable(fields.TIME), "Of an inspector.")
    created_at = Shown(fields.TIME)
    updated_at = Shown(fields.TIME)


def source_json(source: Source, url: str) -> dict[str, Any]:
    return {
        "id": ids.to_text(ids.SOURCE, source.id),
        "kind": source.kind,
        "name": source.name,
        "status": source.status,
        "url": url,
        "preset": source.preset or None,
        "verification": source.verification,
        "secret_count": source.secret_count,
        "has_verify_token": source.has_verify_token,
        "allowed_networks": source.allowed_networks,
        "event_type": source.event_type,
        "data": source.data,
        "dedup_header": source.dedup_header,
        "dedup_path": source.dedup_path,
        "dedup_seconds": source.dedup_seconds,
        "handshake": source.handshake,
        "response_status": source.response_status,
        "response_body": source.response_body,
        "rate_limit": source.rate_limit,
        "expires_at": optional_time_text(source.expires_at),
        "created_at": time_text(source.created_at),
        "updated_at": time_text(source.updated_at),
    }
