"""The format `form`, and the query string of a GET: the standard body flattened to names and values. Pure. Called by `body`.

The rule: `{"a": {"b": ["c"]}}` becomes `a[b][0]=c`, percent-encoded. `docs/formats.md` has it in full.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from deliveries.pipeline.json_as_written import Number


class RequestTooLarge(ValueError):
    """The payload does not fit into the request. The message is for the customer."""


_SEGMENT_ESCAPES = str.maketrans({"%": "%25", "[": "%5B", "]": "%5D"})
# Inside a name, before the whole is percent-encoded: a key like `a][role` must not reach into its neighbours.


def form_of(event_type: str, timestamp: str, data: Any, *, limit: int, what: str) -> str:
    """ASCII, blanks as `%20`: a form and a query string alike. Raises RequestTooLarge beyond `limit` bytes.

    Names repeat on every line, so that 256 KB of JSON could make gigabytes: it stops as soon as the limit is passed.
    """
    pairs: list[str] = []
    room = limit + 1  # the first pair has no "&" before it

    def put(pair: str) -> None:
        nonlocal room
        room -= len(pair) + 1
        if room < 0:
            raise RequestTooLarge(f"the payload makes a {what} of more than {limit:,} bytes")
        pairs.append(pair)

    put(f"type={_quote(event_type)}")
    put(f"timestamp={_quote(timestamp)}")
    _flatten(put, "data", data)
    return "&".join(pairs)


def _flatten(put: Callable[[str], None], name: str, value: Any) -> None:
    """Depth first, in the order of the JSON. `name` is encoded already."""
    kind = type(value)
    if kind is str:
        put(f"{name}={_quote(value)}")
    elif kind is Number:
        put(f"{name}={value.replace('+', '%2B')}")
    elif kind is bool:
        put(f"{name}={'true' if value else 'false'}")
    elif value is None or value in ({}, []):
        put(f"{name}=")
    elif kind is dict:
        for key, entry in value.items():
            _flatten(put, f"{name}%5B{_quote(key.translate(_SEGMENT_ESCAPES))}%5D", entry)
    elif kind is list:
        for index, entry in enumerate(value):
            _flatten(put, f"{name}%5B{index}%5D", entry)
    else:
        raise TypeError(f"{kind.__name__} is no value of JSON")


def _quote(text: str) -> str:
    """Half of a surrogate pair, which UTF-8 cannot carry, becomes a question mark."""
    return quote(text, safe="", errors="replace")
