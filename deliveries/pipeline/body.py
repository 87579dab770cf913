"""An event as an endpoint wants to get it: content type, headers and bytes. A pure function of what is stored.

Called by `dispatch`, once per event and format, however many endpoints get it. The same event and format give the same
bytes on every attempt. `docs/formats.md` shows receivers what comes, and how to verify it.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final, assert_never

from deliveries.pipeline.body_form import RequestTooLarge, form_of
from deliveries.pipeline.body_xml import xml_of
from deliveries.pipeline.json_as_written import read_as_written
from deliveries.pipeline.json_bytes import envelope, format_time
from tenants import ids

__all__ = [
    "MAX_FORM_BYTES",
    "MAX_QUERY_BYTES",
    "Format",
    "RequestTooLarge",
    "encode",
    "encode_batch",
    "query_of",
    "source_of",
    "wire_query",
]


class Format(StrEnum):
    """What `format` of an endpoint can be."""

    STANDARD = "standard"
    RAW = "raw"
    CLOUDEVENTS = "cloudevents"
    """Structured mode: everything is in the body."""
    CLOUDEVENTS_BINARY = "cloudevents-binary"
    """Binary mode: the body is the data, the rest is in headers."""
    XML = "xml"
    FORM = "form"


MAX_FORM_BYTES: Final = 8 * 1024 * 1024
"""A form repeats the outer names on every line. Payloads of the usual shapes stay below ten times their size."""

MAX_QUERY_BYTES: Final = 8_000
"""Servers as usually set up take a request line of 8 KiB. A longer one earns a 414 or a dropped connection."""


def encode(
    format: str,
    *,
    event_id_text: str,
    event_type: str,
    occurred_at: datetime,
    data: bytes,
    source: str,
) -> tuple[str, list[str], bytes]:
    """(content type, further header lines, body). Raises RequestTooLarge.

    `data` is JSON; it goes out byte for byte wherever the format is JSON. `source` is what `source_of` gives: used by
    CloudEvents alone, printable ASCII that neither JSON nor a header would escape.
    """
    kind = Format(format)
    match kind:
        case Format.STANDARD:
            return "application/json", [], envelope(event_type, format_time(occurred_at), data)
        case Format.RAW:
            return "application/json", [], data
        case Format.CLOUDEVENTS:
            body = _cloud_event(event_id_text, source, event_type, format_time(occurred_at), data)
            return "application/cloudevents+json", [], body
        case Format.CLOUDEVENTS_BINARY:
            lines = [
                "ce-specversion: 1.0",
                f"ce-id: {event_id_text}",
                f"ce-source: {source}",
                f"ce-type: {event_type}",
                f"ce-time: {format_time(occurred_at)}",
            ]
            return "application/json", lines, data
        case Format.XML:
            return "application/xml", [], xml_of(event_type, format_time(occurred_at), read_as_written(data))
        case Format.FORM:
            form = form_of(
                event_type, format_time(occurred_at), read_as_written(data), limit=MAX_FORM_BYTES, what="form"
            )
            return "application/x-www-form-urlencoded", [], form.encode()
        case _:
            assert_never(kind)


def encode_batch(
    format: str, events: Sequence[tuple[str, str, datetime, bytes]], *, source: str
) -> tuple[str, bytes]:
    """(content type, body) of several: id, type, time and data of each. In the formats that are JSON."""
    kind = Format(format)
    match kind:
        case Format.STANDARD:
            single = [
                b'{"id":"%b",%b' % (id_text.encode(), envelope(event_type, format_time(at), data)[1:])
                for id_text, event_type, at, data in events
            ]
            content_type = "application/json"
        case Format.RAW:
            single = [data for _, _, _, data in events]
            content_type = "application/json"
        case Format.CLOUDEVENTS:
            single = [
                _cloud_event(id_text, source, event_type, format_time(at), data)
                for id_text, event_type, at, data in events
            ]
            content_type = "application/cloudevents-batch+json"
        case Format.CLOUDEVENTS_BINARY | Format.XML | Format.FORM:
            raise ValueError(f"{format} holds one event alone")
        case _:
            assert_never(kind)
    return content_type, b"[%b]" % b",".join(single)


def _cloud_event(id: str, source: str, type: str, time: str, data: bytes) -> bytes:
    """CloudEvents 1.0.2 in the JSON event format."""
    return (
        b'{"specversion":"1.0","id":"%b","source":"%b","type":"%b","time":"%b","datacontenttype":"application/json",'
        b'"data":%b}' % (id.encode(), source.encode(), type.encode(), time.encode(), data)
    )


@lru_cache(maxsize=10_000)
def source_of(tenant_id: bytes) -> str:
    """Who an event comes from, in CloudEvents: the tenant's path in the API. Source and id together are unique.

    Not an absolute URL: the platform's public one is a setting, and a body must be the same on every attempt.
    """
    return f"/tenants/{ids.bytes_to_text('tnt', tenant_id)}"


def query_of(*, event_type: str, occurred_at: datetime, data: bytes) -> str:
    """The payload of a GET, whatever the format: the form, as a query string. Raises RequestTooLarge."""
    return form_of(
        event_type,
        format_time(occurred_at),
        read_as_written(data),
        limit=MAX_QUERY_BYTES,
        what="query string",
    )


def wire_query(url: str, query: str) -> bytes:
    """What a GET's signature covers: the whole query string as on the wire, without `?`. A URL's own query comes first."""
    return f"{url}{'&' if '?' in url else '?'}{query}".partition("?")[2].encode()
