"""JSON in and out: a strict parser, a fast renderer, and no other format whatever a client asks for."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any

import msgspec
from django.http import UnreadablePostError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from tenants.api import problems
from tenants.json_strict import MalformedJson, loads_strict
from tenants.said import plain

MAX_BODY_BYTES = 1024 * 1024
"""Of everything but batches, which are read elsewhere. The largest are catalogue imports."""


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=plain)


def time_text(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds: `2026-03-01T12:00:00.000000Z`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def optional_time_text(at: datetime | None) -> str | None:
    return None if at is None else time_text(at)


class JSONRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None
    render_style = "text"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,  # noqa: ARG002
        renderer_context: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> bytes:
        return b"" if data is None else encode(data)


def body_of(request: Request) -> bytes:
    """The raw body, within its bound. Raises UnreadablePostError."""
    length = int(request.META.get("CONTENT_LENGTH") or 0)
    if length > MAX_BODY_BYTES:
        raise problems.too_large(MAX_BODY_BYTES)
    body: bytes = request._request.body  # noqa: SLF001 - DRF gives it by attribute magic, which hides its type
    if len(body) < length:
        # The client is gone. What came may look complete: half of a YAML document is one, too.
        raise UnreadablePostError("the body ended early")
    return body


class StrictJSONParser(BaseParser):
    """UTF-8 JSON without what trips receivers over: NUL, lone surrogates, endless numbers, bottomless nesting."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],  # noqa: ARG002
        media_type: str | None = None,  # noqa: ARG002
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        assert parser_context is not None
        body = body_of(parser_context["request"])
        try:
            return loads_strict(body)
        except MalformedJson as error:
            raise problems.malformed_json(str(error)) from None


class AlwaysJSON(BaseContentNegotiation):
    """Accept is not looked at: there is one format, and an error about it would have no better one."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        content_type = (request.content_type or "").partition(";")[0].strip().lower()
        for parser in parsers:
            if parser.media_type == content_type:
                return parser
        return None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:  # noqa: ARG002
        return renderers[0], renderers[0].media_type
