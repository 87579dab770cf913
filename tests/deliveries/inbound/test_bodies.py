"""What a body is read as, and that nothing in it makes reading dear."""

import time
from typing import Any

import pytest

from deliveries.inbound.bodies import MAX_DEPTH, MAX_FIELDS, MAX_XML_NODES, read
from deliveries.inbound.requests import InboundRequest, Reason, Refused

FORM = "application/x-www-form-urlencoded"


def request(body: bytes, content_type: str, method: str = "POST", query: str = "") -> InboundRequest:
    return InboundRequest(method, "", query, {}, content_type, body, "")


@pytest.mark.parametrize(
    ("content_type", "body", "value"),
    [
        ("application/json", b'{"a": [1, 2.50]}', {"a": [1, 2.5]}),
        ("application/vnd.api+json", b"[1]", [1]),
        ("", b'{"a": 1}', {"a": 1}),
        (FORM, b"a=1&b=x%20y&a=2&c=&a=3", {"a": ["1", "2", "3"], "b": "x y", "c": ""}),
        ("application/xml", b"<a/>", {"a": ""}),
        ("text/xml", b'<?xml version="1.0"?><a b="1">t</a>', {"a": {"@b": "1", "#text": "t"}}),
        (
            "application/soap+xml",
            b"<o><i>1</i><i>2</i><n>&lt;x&#62;</n></o>",
            {"o": {"i": ["1", "2"], "n": "<x>"}},
        ),
        (
            "application/xml",
            '<?xml version="1.0" encoding="ISO-8859-1"?><a>ü</a>'.encode("latin-1"),
            {"a": "ü"},
        ),
        ("", b"", {}),
    ],
)
def test_bodies_are_values(content_type: str, body: bytes, value: Any) -> None:
    assert read(request(body, content_type)).value == value


def test_of_a_get_the_query_is_the_payload() -> None:
    assert read(request(b"", "", "GET", "from=%2B44&text=Yes")).value == {"from": "+44", "text": "Yes"}


def test_the_bytes_of_a_json_object_are_kept() -> None:
    assert read(request(b'{"a":  1.10}', "application/json")).raw == b'{"a":  1.10}'
    assert read(request(b"[1]", "application/json")).raw is None


def refused(body: bytes, content_type: str, **more: Any) -> Reason:
    with pytest.raises(Refused) as error:
        read(request(body, content_type, **more))
    return error.value.reason


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b'{"a": "\\u0000"}'),
        ("application/json", b'{"a": NaN}'),
        ("application/json", b"\xff"),
        ("application/json", b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)),
        ("application/json", b"[" * 100_000),
        (FORM, b"a=%ff"),
        (FORM, b"\xff=1"),
        (FORM, b"a=%00"),
        (FORM, b"&".join(b"a%d=1" % number for number in range(MAX_FIELDS + 1))),
        ("application/xml", b""),
        ("application/xml", b"<a>"),
        ("application/xml", b"<a>&unknown;</a>"),
        ("application/xml", b'<?xml version="1.0" encoding="nonsense"?><a/>'),
        ("application/xml", b"<a>" * (MAX_DEPTH + 1) + b"</a>" * (MAX_DEPTH + 1)),
        ("application/xml", b"<a>" + b"<b/>" * MAX_XML_NODES + b"</a>"),
        ("application/xml", b"<!DOCTYPE a><a/>"),
        ("application/xml", b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><a/>'),
        ("application/xml", b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'),
        ("application/xml", b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:9/">%x;]><a/>'),
    ],
)
def test_what_cannot_be_read_or_costs_too_much_is_malformed(content_type: str, body: bytes) -> None:
    assert refused(body, content_type) is Reason.MALFORMED_BODY


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "multipart/form-data", "application/octet-stream"]
)
def test_other_content_types_are_refused(content_type: str) -> None:
    assert refused(b"hello", content_type) is Reason.UNSUPPORTED_CONTENT_TYPE


BILLION_LAUGHS = b"""<!DOCTYPE lolz [<!ENTITY lol "lol">%b]><lolz>&lol9;</lolz>""" % b"".join(
    b'<!ENTITY lol%d "%b">' % (n, b"&lol%s;" % (b"" if n == 1 else b"%d" % (n - 1)) * 10)
    for n in range(1, 10)
)
QUADRATIC = b'<!DOCTYPE a [<!ENTITY x "%b">]><a>%b</a>' % (b"x" * 100_000, b"&x;" * 10_000)


@pytest.mark.parametrize("body", [BILLION_LAUGHS, QUADRATIC], ids=["billion laughs", "quadratic"])
def test_entities_are_never_expanded(body: bytes) -> None:
    began = time.process_time()

    assert refused(body, "application/xml") is Reason.MALFORMED_BODY

    assert time.process_time() - began < 0.2


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, b"a" * 1_000_000),
        (FORM, b"&" * 1_000_000),
        (FORM, b"%" * 1_000_000),
        ("application/xml", b"<a>" + b"x" * 1_000_000 + b"</a>"),
        ("application/xml", b"<a " + b" ".join(b'b%d="1"' % n for n in range(60_000)) + b"/>"),
        ("application/json", b'{"a":"' + b"\\u00e9" * 160_000 + b'"}'),
    ],
    ids=["long name", "ampersands", "percents", "long text", "attributes", "escapes"],
)
def test_a_mebibyte_of_anything_is_read_or_refused_in_a_moment(content_type: str, body: bytes) -> None:
    began = time.process_time()
    try:
        read(request(body, content_type))
    except Refused as error:
        assert error.reason is Reason.MALFORMED_BODY  # noqa: PT017 - either way is fine

    assert time.process_time() - began < 1
