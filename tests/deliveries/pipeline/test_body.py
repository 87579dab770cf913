import base64
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.etree.ElementTree import Element

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st

from deliveries import validation
from deliveries.models import Endpoint
from deliveries.pipeline.body import (
    MAX_FORM_BYTES,
    MAX_QUERY_BYTES,
    Format,
    RequestTooLarge,
    encode,
    query_of,
    source_of,
    wire_query,
)

AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
AT_TEXT = "2026-03-01T12:00:00.250000Z"
EVENT_ID = "evt_01h455vb4pex5vsknk084sn02q"
SOURCE = "/tenants/tnt_01h455vb4pex5vsknk084sn02r"


def encoded(format: str, data: bytes, *, occurred_at: datetime = AT) -> tuple[str, list[str], bytes]:
    return encode(
        format,
        event_id_text=EVENT_ID,
        event_type="order.created",
        occurred_at=occurred_at,
        data=data,
        source=SOURCE,
    )


def queried(data: bytes) -> str:
    return query_of(event_type="order.created", occurred_at=AT, data=data)


def test_the_formats_are_those_of_the_model_and_of_the_api() -> None:
    offered = [kind.value for kind in Format]

    assert offered == Endpoint.Format.values
    assert offered == list(validation.FORMATS)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a valid Format"):
        encoded("yaml", b"{}")


# --- JSON -------------------------------------------------------------------------------------------------------------

ODD_DATA = (
    b'{ "amount" : 1.10,\n"big":123456789012345678901234567890, "a":1, "a":2, "e":1E400, "s":"\\u00e9" }'
)


def test_standard_is_the_envelope_around_the_bytes_of_the_data() -> None:
    assert encoded("standard", ODD_DATA) == (
        "application/json",
        [],
        b'{"type":"order.created","timestamp":"2026-03-01T12:00:00.250000Z","data":' + ODD_DATA + b"}",
    )


def test_raw_is_the_bytes_of_the_data() -> None:
    assert encoded("raw", ODD_DATA) == ("application/json", [], ODD_DATA)


def test_times_are_in_utc() -> None:
    elsewhere = datetime(2026, 3, 1, 14, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))

    for kind in Format:
        assert encoded(kind, b"{}", occurred_at=elsewhere) == encoded(kind, b"{}", occurred_at=AT)


def test_a_structured_cloud_event_holds_the_bytes_of_the_data() -> None:
    assert encoded("cloudevents", ODD_DATA) == (
        "application/cloudevents+json",
        [],
        b'{"specversion":"1.0","id":"evt_01h455vb4pex5vsknk084sn02q",'
        b'"source":"/tenants/tnt_01h455vb4pex5vsknk084sn02r","type":"order.created",'
        b'"time":"2026-03-01T12:00:00.250000Z","datacontenttype":"application/json","data":'
        + ODD_DATA
        + b"}",
    )


def test_a_binary_cloud_event_is_the_data_with_headers() -> None:
    assert encoded("cloudevents-binary", ODD_DATA) == (
        "application/json",
        [
            "ce-specversion: 1.0",
            "ce-id: evt_01h455vb4pex5vsknk084sn02q",
            "ce-source: /tenants/tnt_01h455vb4pex5vsknk084sn02r",
            "ce-type: order.created",
            "ce-time: 2026-03-01T12:00:00.250000Z",
        ],
        ODD_DATA,
    )


@pytest.mark.parametrize("format", [Format.CLOUDEVENTS, Format.CLOUDEVENTS_BINARY])
def test_the_cloud_events_sdk_reads_both_modes_alike(format: Format) -> None:
    content_type, lines, body = encoded(format, b'{"order":{"id":7,"note":"Zo\xc3\xab"}}')
    headers = dict(line.split(": ", 1) for line in [f"content-type: {content_type}", *lines])

    event = from_http_event(HTTPMessage(headers=headers, body=body))

    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": EVENT_ID,
        "source": SOURCE,
        "type": "order.created",
        "time": AT,
        "datacontenttype": "application/json",
    }
    assert event.get_data() == {"order": {"id": 7, "note": "Zoë"}}


def test_the_source_is_the_tenants_path() -> None:
    assert source_of(bytes(16)) == "/tenants/tnt_00000000000000000000000000"


# --- any JSON ---------------------------------------------------------------------------------------------------------


class Written(str):
    """A number of the test's own JSON, by its spelling."""

    __slots__ = ()


def _json_of(value: Any) -> str:
    """JSON with the numbers as they are spelled."""
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_json_of(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_json_of(entry) for entry in value) + "]"
    return json.dumps(value)


NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,10})?([eE][+-]?[0-9]{1,3})?", fullmatch=True).map(
    Written
)
# Everything but halves of surrogate pairs, which no publish can hold. With a liking for what breaks things.
TEXTS = st.text() | st.text("[]%&=<>\"';+ \r\n\t\x00\x01\x1f\x85\ufffe\uffff\u2028{}a.:", max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=5)


# --- xml --------------------------------------------------------------------------------------------------------------


def xml(data: bytes) -> str:
    content_type, lines, body = encoded("xml", data)

    assert (content_type, lines) == ("application/xml", [])
    return body.decode()


def _value(element: Element) -> Any:
    """What a receiver does to get the JSON back, by the rules of docs/formats.md."""
    match element.get("type"):
        case "string":
            text = element.text or ""
            return base64.b64decode(text).decode() if element.get("encoding") == "base64" else text
        case "number":
            assert element.text is not None
            return Written(element.text)
        case "boolean":
            return {"true": True, "false": False}[element.text or ""]
        case "null":
            return None
        case "array":
            assert {child.tag for child in element} <= {"item"}
            return [_value(child) for child in element]
        case "object":
            return {_name(child): _value(child) for child in element}
        case other:
            raise AssertionError(other)


def _name(element: Element) -> str:
    encoded_name = element.get("name-base64")
    if encoded_name is not None:
        return base64.b64decode(encoded_name).decode()
    return element.get("name", element.tag)


def test_xml_names_elements_after_keys_and_keeps_types_and_spellings() -> None:
    data = (
        '{"order":{"id":12345678901234567890123,"total":1.10,"e":1E400,"paid":true,"gift":false,"note":null},'
        '"lines":[{"sku":"a<b"},2,[]],"none":{}}'
    )

    assert xml(data.encode()) == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        "<event><type>order.created</type><timestamp>2026-03-01T12:00:00.250000Z</timestamp>"
        '<data type="object"><order type="object"><id type="number">12345678901234567890123</id>'
        '<total type="number">1.10</total><e type="number">1E400</e><paid type="boolean">true</paid>'
        '<gift type="boolean">false</gift><note type="null"/></order>'
        '<lines type="array"><item type="object"><sku type="string">a&lt;b</sku></item>'
        '<item type="number">2</item><item type="array"></item></lines><none type="object"></none></data></event>'
    )


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("order_id", '<order_id type="null"/>'),
        ("order.id-2", '<order.id-2 type="null"/>'),
        ("entry", '<entry type="null"/>'),
        ("n" * 128, f'<{"n" * 128} type="null"/>'),
        ("n" * 129, f'<entry name="{"n" * 129}" type="null"/>'),
        ("", '<entry name="" type="null"/>'),
        ("2nd", '<entry name="2nd" type="null"/>'),
        ("-a", '<entry name="-a" type="null"/>'),
        ("a b", '<entry name="a b" type="null"/>'),
        ("a:b", '<entry name="a:b" type="null"/>'),
        ("größe", '<entry name="größe" type="null"/>'),
        ("a\n", '<entry name="a&#10;" type="null"/>'),
        ("xmlns", '<entry name="xmlns" type="null"/>'),
        ("XmlThing", '<entry name="XmlThing" type="null"/>'),
        ('"><evil/>', '<entry name="&quot;&gt;&lt;evil/&gt;" type="null"/>'),
        ("a\x00", '<entry name-base64="YQA=" type="null"/>'),
    ],
)
def test_keys_that_are_no_safe_element_names_become_attributes(key: str, expected: str) -> None:
    body = xml(json.dumps({key: None}).encode())

    assert re.findall('<data type="object">(.*)</data>', body, re.DOTALL) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("&lt;", '<a type="string">&amp;lt;</a>'),
        ("]]>", '<a type="string">]]&gt;</a>'),
        ("&xxe;", '<a type="string">&amp;xxe;</a>'),
        ("<!DOCTYPE a>", '<a type="string">&lt;!DOCTYPE a&gt;</a>'),
        ("\r\n\t ", '<a type="string">&#13;\n\t </a>'),
        ("\x00", '<a type="string" encoding="base64">AA==</a>'),
        ("\x1b[0m\uffff", '<a type="string" encoding="base64">G1swbe+/vw==</a>'),
        ("\U0001f600", '<a type="string">\U0001f600</a>'),
        ("\ud800", '<a type="string" encoding="base64">Pw==</a>'),
    ],
)
def test_texts_can_neither_break_out_nor_expand(text: str, expected: str) -> None:
    body = xml(json.dumps({"a": text}).encode())

    assert re.findall('<data type="object">(.*)</data>', body, re.DOTALL) == [expected]


@given(OBJECTS)
def test_xml_reads_back_as_the_same_json(data: dict[str, Any]) -> None:
    body = xml(_json_of(data).encode())

    event = fromstring(body.encode())

    assert [child.tag for child in event] == ["type", "timestamp", "data"]
    assert [event.findtext("type"), event.findtext("timestamp")] == ["order.created", AT_TEXT]
    data_element = event.find("data")
    assert data_element is not None
    assert _json_of(_value(data_element)) == _json_of(data)


def test_xml_takes_what_a_transformation_may_give() -> None:
    for data, expected in (
        (b"[1]", '<data type="array"><item type="number">1</item></data>'),
        (b"null", '<data type="null"/>'),
        (b'"a"', '<data type="string">a</data>'),
    ):
        assert xml(data).endswith(f"</timestamp>{expected}</event>")


def test_xml_takes_the_deepest_nesting_that_can_be_published() -> None:
    depth = 64

    body = xml(b'{"a":' * depth + b"1" + b"}" * depth)

    element = fromstring(body.encode()).find("data")
    for _ in range(depth):
        assert element is not None
        element = element.find("a")
    assert element is not None
    assert element.text == "1"


def test_of_a_repeated_name_the_last_counts() -> None:
    assert '<data type="object"><a type="number">2</a></data>' in xml(b'{"a":1,"a":2}')
    assert encoded("form", b'{"a":1,"a":2}')[2].endswith(b"&data%5Ba%5D=2")


# --- form and query string --------------------------------------------------------------------------------------------


def form(data: bytes) -> str:
    content_type, lines, body = encoded("form", data)

    assert (content_type, lines) == ("application/x-www-form-urlencoded", [])
    return body.decode("ascii")


def _flat(value: Any) -> Any:
    """What a form keeps: the structure, and scalars as texts. Lists are told by their numbers."""
    if isinstance(value, dict) and value:
        return {key: _flat(entry) for key, entry in value.items()}
    if isinstance(value, list) and value:
        return {str(index): _flat(entry) for index, entry in enumerate(value)}
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if value and isinstance(value, str) else ""


def _unflattened(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """What a receiver does to get the structure back, by the rule of docs/formats.md."""
    root: dict[str, Any] = {}
    for name, value in pairs:
        outer, *rest = name.split("[")
        path = [outer, *(unquote(segment.removesuffix("]")) for segment in rest)]
        inner = root
        for segment in path[:-1]:
            inner = inner.setdefault(segment, {})
        assert path[-1] not in inner
        inner[path[-1]] = value
    return root


def test_a_form_flattens_by_brackets() -> None:
    data = '{"order":{"id":12345678901234567890123,"total":1.10,"paid":true,"note":null},"lines":["a b","ü&="],"x":[],"y":{}}'

    assert form(data.encode()).split("&") == [
        "type=order.created",
        "timestamp=2026-03-01T12%3A00%3A00.250000Z",
        "data%5Border%5D%5Bid%5D=12345678901234567890123",
        "data%5Border%5D%5Btotal%5D=1.10",
        "data%5Border%5D%5Bpaid%5D=true",
        "data%5Border%5D%5Bnote%5D=",
        "data%5Blines%5D%5B0%5D=a%20b",
        "data%5Blines%5D%5B1%5D=%C3%BC%26%3D",
        "data%5Bx%5D=",
        "data%5By%5D=",
    ]


def test_a_key_cannot_reach_into_its_neighbours() -> None:
    pairs = parse_qsl(
        form(b'{"user":{"role":"guest"},"user][role":"admin","50%5D":1}'), keep_blank_values=True
    )

    assert pairs[2:] == [
        ("data[user][role]", "guest"),
        ("data[user%5D%5Brole]", "admin"),
        ("data[50%255D]", "1"),
    ]


@given(OBJECTS)
def test_a_form_reads_back_as_the_same_structure(data: dict[str, Any]) -> None:
    body = form(_json_of(data).encode())

    pairs = parse_qsl(body, keep_blank_values=True, strict_parsing=True)

    assert _unflattened(pairs) == {"type": "order.created", "timestamp": AT_TEXT, "data": _flat(data)}


def test_a_form_takes_what_a_transformation_may_give() -> None:
    assert form(b"5").endswith("&data=5")
    assert form(b'["a"]').endswith("&data%5B0%5D=a")
    assert form(b"{}").endswith("&data=")
    assert form(b'"\\ud800"').endswith("&data=%3F")


def test_a_form_that_would_explode_is_refused_before_it_does() -> None:
    # 100 KB of name, repeated on 75,000 lines: 7 GB.
    data = b'{"%b":[%b0]}' % (b"k" * 100_000, b"0," * 75_000)
    begun = time.thread_time()

    with pytest.raises(
        RequestTooLarge, match=f"the payload makes a form of more than {MAX_FORM_BYTES:,} bytes"
    ):
        encoded("form", data)

    assert time.thread_time() - begun < 2


def test_the_query_string_is_the_form() -> None:
    data = b'{"a":{"b":["c d"]}}'

    assert queried(data) == form(data)
    assert queried(data) == (
        "type=order.created&timestamp=2026-03-01T12%3A00%3A00.250000Z&data%5Ba%5D%5Bb%5D%5B0%5D=c%20d"
    )


def test_a_query_string_has_room_for_exactly_its_limit() -> None:
    empty = len(queried(b'{"a":"x"}')) - 1
    room = MAX_QUERY_BYTES - empty

    assert len(queried(b'{"a":"%b"}' % (b"x" * room))) == MAX_QUERY_BYTES
    with pytest.raises(RequestTooLarge, match="the payload makes a query string of more than 8,000 bytes"):
        queried(b'{"a":"%b"}' % (b"x" * (room + 1)))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com/hook", b"type=a"),
        ("https://example.com/hook?", b"&type=a"),
        ("https://example.com/hook?token=1", b"token=1&type=a"),
        ("https://example.com/hook?a=?", b"a=?&type=a"),
    ],
)
def test_the_signature_of_a_get_covers_the_urls_own_query_too(url: str, expected: bytes) -> None:
    assert wire_query(url, "type=a") == expected


@pytest.mark.parametrize(
    "encoder", [lambda data: encoded("xml", data)[2], lambda data: encoded("form", data)[2]]
)
def test_the_same_event_gives_the_same_bytes(encoder: Callable[[bytes], bytes]) -> None:
    data = b'{"z":1,"a":{"y":[1.0,{"b":null}]},"m":"x"}'

    assert encoder(data) == encoder(bytes(data))
    assert encoder(data) != encoder(b'{"a":{"y":[1.0,{"b":null}]},"z":1,"m":"x"}')
