"""From a request to an event: its type and its data, by CEL. Pure.

Expressions see the request as `data`: `data.body` (the payload, whatever its form), `data.headers` (names in lower case,
credentials left out), `data.query` and `data.method`. The result for the type has blanks, slashes and colons made dots,
so that a provider's `orders/create` is a type; null or an empty text means: no event.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from deliveries.expressions import (
    NamingFailed,
    Scope,
    TransformationFailed,
    compile_naming,
    compile_transformation,
)
from deliveries.inbound.bodies import Payload, query_of
from deliveries.inbound.requests import InboundRequest
from deliveries.pipeline.json_bytes import check_data
from deliveries.validation import Invalid, event_type_name, is_sensitive_header
from tenants.json_strict import MalformedJson
from tenants.validation import InvalidContent

_SEPARATORS = re.compile(r"[\s/:]+")


class MappingFailed(Exception):
    """The words are for the tenant."""


@dataclass(frozen=True, slots=True)
class Mapped:
    event_type: str
    data: bytes


def visible_headers(request: InboundRequest, credential_header: str) -> dict[str, str]:
    return {
        name: value
        for name, value in request.headers.items()
        if name != credential_header and not is_sensitive_header(name)
    }


def map_request(
    *,
    event_type: str,
    data: str | None,
    request: InboundRequest,
    credential_header: str,
    payload: Payload,
    now: datetime,
) -> Mapped | None:
    """None: the mapping wants no event of it. Raises MappingFailed, requests.Refused."""
    scope = Scope(
        type="",
        data={
            "body": payload.value,
            "headers": visible_headers(request, credential_header),
            "query": query_of(request),
            "method": request.method,
        },
        channels=[],
        occurred_at=now,
    )
    try:
        named = compile_naming(event_type).apply(scope)
    except NamingFailed as error:
        raise MappingFailed(str(error)) from None
    if not named:
        return None
    name = _SEPARATORS.sub(".", named.strip()).strip(".")
    try:
        event_type_name(name)
    except Invalid as invalid:
        raise MappingFailed(
            f"The event type that came of the mapping cannot be one: {invalid.errors[0].message}"
        ) from None
    return Mapped(name, _data(data, scope, payload))


def _data(expression: str | None, scope: Scope, payload: Payload) -> bytes:
    if expression is not None:
        try:
            return compile_transformation(expression).apply(scope)
        except TransformationFailed as error:
            raise MappingFailed(str(error).replace("transformation", "mapping of data")) from None
    if payload.raw is not None:
        return payload.raw
    value: Any = payload.value if isinstance(payload.value, dict) else {"body": payload.value}
    encoded = msgspec.json.encode(value)
    try:
        check_data(encoded)
    except (MalformedJson, InvalidContent) as error:
        raise MappingFailed(f"The body cannot be the data of an event: {error}"[:300]) from None
    return encoded


def found_at(payload: Any, path: str) -> str | None:
    """The text or whole number at a dotted path, such as `data.0.id`: a provider's id."""
    value = payload
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and len(step) < 6 and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    if isinstance(value, str) and value:
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
