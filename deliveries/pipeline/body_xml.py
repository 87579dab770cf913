"""The format `xml`: the standard body as elements, from which the same JSON can be read back. Pure. Called by `body`.

Well-formed XML 1.0 in UTF-8, and the least of it: elements, three attributes, and the escapes that every parser knows.
No DTD, no entities of our own, no namespaces, no processing instructions: nothing that a parser could be led to fetch
or to expand. The same value always gives the same bytes. `docs/formats.md` has the rules in words.
"""

import base64
import re
from collections.abc import Callable
from typing import Any

from deliveries.pipeline.json_as_written import Number

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

_ELEMENT_NAME = re.compile(r"(?![xX][mM][lL])[A-Za-z_][A-Za-z0-9_.-]{0,127}", re.ASCII)
"""Names that become elements. XML allows more, and parsers differ on what; those beginning with `xml` are reserved."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot carry, not even escaped."""

_TEXT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_ATTRIBUTE_ESCAPES = _TEXT_ESCAPES | str.maketrans({'"': "&quot;", "\t": "&#9;", "\n": "&#10;"})
# Unescaped, parsers turn carriage returns into line feeds, and line feeds and tabs of attributes into blanks.


def xml_of(event_type: str, timestamp: str, data: Any) -> bytes:
    """`event_type` and `timestamp` hold nothing that XML would escape."""
    parts = [_DECLARATION, f"<event><type>{event_type}</type><timestamp>{timestamp}</timestamp>"]
    _write(parts.append, "data", "data", data)
    parts.append("</event>")
    return "".join(parts).encode()


def _write(put: Callable[[str], None], start: str, name: str, value: Any) -> None:
    """One element. `start`: its name, and the attributes before its type."""
    kind = type(value)
    if kind is str:
        if _NOT_XML.search(value):
            put(f'<{start} type="string" encoding="base64">{_base64(value)}</{name}>')
        else:
            put(f'<{start} type="string">{value.translate(_TEXT_ESCAPES)}</{name}>')
    elif kind is Number:
        put(f'<{start} type="number">{value}</{name}>')
    elif kind is bool:
        put(f'<{start} type="boolean">{"true" if value else "false"}</{name}>')
    elif value is None:
        put(f'<{start} type="null"/>')
    elif kind is dict:
        put(f'<{start} type="object">')
        for key, entry in value.items():
            if _ELEMENT_NAME.fullmatch(key):
                _write(put, key, key, entry)
            else:
                _write(put, f"entry {_name_attribute(key)}", "entry", entry)
        put(f"</{name}>")
    elif kind is list:
        put(f'<{start} type="array">')
        for entry in value:
            _write(put, "item", "item", entry)
        put(f"</{name}>")
    else:
        raise TypeError(f"{kind.__name__} is no value of JSON")


def _name_attribute(key: str) -> str:
    if _NOT_XML.search(key):
        return f'name-base64="{_base64(key)}"'
    return f'name="{key.translate(_ATTRIBUTE_ESCAPES)}"'


def _base64(text: str) -> str:
    """Of the UTF-8. Half of a surrogate pair, which UTF-8 cannot carry, becomes a question mark."""
    return base64.b64encode(text.encode(errors="replace")).decode()
