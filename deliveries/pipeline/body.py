"""An event as an endpoint wants to get it: content type and bytes. A pure function of what is stored.

Called by `dispatch`, once per event and format, however many endpoints get it.
"""

from datetime import datetime
from typing import assert_never

from deliveries.models import Endpoint
from deliveries.pipeline.json_bytes import envelope, format_time


def encode(format: str, *, event_type: str, occurred_at: datetime, data: bytes) -> tuple[str, bytes]:
    """(content type, body)"""
    kind = Endpoint.Format(format)
    match kind:
        case Endpoint.Format.STANDARD:
            return "application/json", envelope(event_type, format_time(occurred_at), data)
        case Endpoint.Format.RAW:
            return "application/json", data
        case Endpoint.Format.CLOUDEVENTS | Endpoint.Format.XML | Endpoint.Format.FORM:
            raise UnsupportedFormat(kind)
        case _:
            assert_never(kind)


class UnsupportedFormat(ValueError):
    """The format is known and not yet built."""
