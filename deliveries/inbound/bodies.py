"""The payload of a request as a value: JSON, form, XML, or the query string of a GET. Pure, and bounded in every way."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl
from xml.parsers import expat

from deliveries.inbound.requests import InboundRequest, Reason, Refused
from tenants.json_strict import MalformedJson, strict
from tenants.validation import InvalidContent

MAX_DEPTH: Final = 50
MAX_FIELDS: Final = 1000
MAX_XML_NODES: Final = 20_000
"""Elements and attributes."""

FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Payload:
    value: Any
    raw: bytes | None = None
    """Of a JSON object, as it came: an event keeps these bytes."""


def read(request: InboundRequest) -> Payload:
    """Raises Refused."""
    if request.is_query:
        return Payload(_fields(request.query))
    kind = request.content_type
    if kind == "application/json" or kind.endswith("+json") or (not kind and request.body[:1] in b"{["):
        return _json(request.body)
    if kind == FORM:
        return Payload(_fields(_text(request.body)))
    if kind in {"application/xml", "text/xml"} or kind.endswith("+xml"):
        return Payload(_xml(request.body))
    raise Refused(Reason.UNSUPPORTED_CONTENT_TYPE, "Must be JSON, a form or XML, and say so.")


def query_of(request: InboundRequest) -> dict[str, Any]:
    """Beside the payload, for mappings. Raises Refused."""
    return _fields(request.query)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Refused(Reason.MALFORMED_BODY, "The body is not UTF-8.") from None


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json(body: bytes) -> Payload:
    try:
        value = strict(body, max_depth=MAX_DEPTH, path="body")
    except MalformedJson as error:
        raise Refused(Reason.MALFORMED_BODY, f"The body is no valid JSON: {error}") from None
    except InvalidContent as invalid:
        first = invalid.errors[0]
        raise Refused(Reason.MALFORMED_BODY, f"{first.field}: {first.message}"[:300]) from None
    return Payload(value, body if isinstance(value, dict) else None)


# --- forms ------------------------------------------------------------------------------------------------------------


def _fields(text: str) -> dict[str, Any]:
    """A name given once is a text, one given more often a list of texts."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise Refused(
            Reason.MALFORMED_BODY, f"The form is not UTF-8, or has more than {MAX_FIELDS} fields."
        ) from None
    return _gathered(pairs)


def _gathered(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    many: set[str] = set()
    for name, value in pairs:
        if "\x00" in name or (isinstance(value, str) and "\x00" in value):
            raise Refused(Reason.MALFORMED_BODY, "The body contains NUL.")
        if name in many:
            found[name].append(value)
        elif name in found:
            found[name] = [found[name], value]
            many.add(name)
        else:
            found[name] = value
    return found


# --- XML --------------------------------------------------------------------------------------------------------------


class _Element:
    __slots__ = ("children", "name", "text")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.text: list[str] = []
        self.children: list[tuple[str, Any]] = [(f"@{key}", value) for key, value in attributes.items()]

    def value(self) -> Any:
        """Text alone is a text; else an object of attributes (`@name`), children, and what text there is (`#text`)."""
        text = "".join(self.text).strip()
        if not self.children:
            return text
        return _gathered([*self.children, ("#text", text)] if text else self.children)


def _xml(body: bytes) -> dict[str, Any]:
    """`{"root": …}`. A document type is refused, and with it every entity: there is nothing to expand or to fetch."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_elements: list[_Element] = []
    result: dict[str, Any] = {}
    nodes = 0

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal nodes
        nodes += 1 + len(attributes)
        if nodes > MAX_XML_NODES or len(open_elements) >= MAX_DEPTH:
            raise Refused(Reason.MALFORMED_BODY, "The XML has too many elements, or too deep ones.")
        open_elements.append(_Element(name, attributes))

    def end(name: str) -> None:
        value = open_elements.pop().value()
        if open_elements:
            open_elements[-1].children.append((name, value))
        else:
            result[name] = value

    def characters(text: str) -> None:
        open_elements[-1].text.append(text)

    def doctype(*_: object) -> None:
        raise Refused(Reason.MALFORMED_BODY, "XML with a document type is not read.")

    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = doctype
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise Refused(
            Reason.MALFORMED_BODY,
            f"The body is no well-formed XML: line {error.lineno}, column {error.offset}.",
        ) from None
    except (LookupError, ValueError):
        raise Refused(Reason.MALFORMED_BODY, "The XML's encoding is not known.") from None
    return result
