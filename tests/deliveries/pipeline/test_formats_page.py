"""The examples of docs/formats.md are what is sent, and its code reads them."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import time_machine
from defusedxml.ElementTree import fromstring
from standardwebhooks import Webhook

from deliveries.pipeline.body import encode, query_of, wire_query
from deliveries.pipeline.signature_template import PRESETS, header_lines
from deliveries.pipeline.signing import HmacKey, parse_secret, sign

PAGE = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
[DATA] = re.findall("```json\n(.*?)\n```", PAGE, re.DOTALL)
REQUESTS: dict[str, str] = dict(re.findall("\n## `(.*?)`\n[^#]*?```http\n(.*?)\n```", PAGE, re.DOTALL))


def parsed(request: str) -> tuple[str, dict[str, str], bytes]:
    """First line, headers, body."""
    head, _, body = request.partition("\n\n")
    first, *lines = head.splitlines()
    return first, dict(line.split(": ", 1) for line in lines), body.encode()


@pytest.fixture
def code() -> dict[str, Any]:
    """What the page tells receivers to write."""
    names: dict[str, Any] = {}
    for block in re.findall("```python\n(.*?)\n```", PAGE, re.DOTALL):
        exec(block, names)
    return names


def test_every_format_has_an_example() -> None:
    assert list(REQUESTS) == [
        "standard",
        "raw",
        "cloudevents",
        "cloudevents-binary",
        "xml",
        "form",
        'method: "GET"',
    ]


@pytest.mark.parametrize("format", ["standard", "raw", "cloudevents", "cloudevents-binary", "xml", "form"])
def test_the_example_is_what_is_sent(format: str, code: dict[str, Any]) -> None:
    first, headers, body = parsed(REQUESTS[format])

    content_type, lines, sent = encode(
        format,
        event_id_text=headers["webhook-id"],
        event_type="order.created",
        occurred_at=AT,
        data=DATA.encode(),
        source="/tenants/tnt_01kjmyxq00f5g9z2v6a0m4n8cd",
    )
    timestamp = int(headers["webhook-timestamp"])
    assert (first, headers["content-type"], body) == ("POST /hook HTTP/1.1", content_type, sent)
    assert lines == [f"{name}: {value}" for name, value in headers.items() if name.startswith("ce-")]
    assert headers["webhook-signature"] == sign(
        [HmacKey(parse_secret(SECRET))], headers["webhook-id"], timestamp, sent
    )
    assert code["verify"](SECRET, headers, body, now=timestamp) is True
    assert code["verify"](SECRET, headers, body + b" ", now=timestamp) is False
    assert code["verify"](SECRET, headers, body, now=timestamp + 301) is False


@pytest.mark.parametrize(
    ("why", "changed"),
    [
        ("nothing of ours", None),
        ("a time that is none", {"webhook-timestamp": "soon"}),
        ("a time without end", {"webhook-timestamp": "1" * 5000}),
        ("a time in other digits", {"webhook-timestamp": "²"}),
        ("a signature that is not ASCII", {"webhook-signature": "v1,\xe9"}),
    ],
)
def test_the_code_refuses_what_others_send_without_falling_over(
    why: str, changed: dict[str, str] | None, code: dict[str, Any]
) -> None:
    _, headers, body = parsed(REQUESTS["standard"])
    now = int(headers["webhook-timestamp"])

    forged = {} if changed is None else headers | changed

    assert code["verify"](SECRET, forged, body, now=now) is False, why


def test_the_example_of_get_is_what_is_sent(code: dict[str, Any]) -> None:
    first, headers, body = parsed(REQUESTS['method: "GET"'])

    query = query_of(event_type="order.created", occurred_at=AT, data=DATA.encode())
    on_the_wire = wire_query("https://example.com/hook?token=7", query)
    timestamp = int(headers["webhook-timestamp"])
    assert (first, body) == (f"GET /hook?{on_the_wire.decode()} HTTP/1.1", b"")
    assert code["verify"](SECRET, headers, on_the_wire, now=timestamp) is True
    assert code["verify"](SECRET, headers, query.encode(), now=timestamp) is False


def test_the_code_reads_xml_and_forms_back(code: dict[str, Any]) -> None:
    as_written = json.loads(DATA, parse_int=str, parse_float=str)

    element = fromstring(parsed(REQUESTS["xml"])[2]).find("data")
    form = code["nested"](parsed(REQUESTS["form"])[2].decode())

    assert code["json_of"](element) == as_written
    assert form == {
        "type": "order.created",
        "timestamp": "2026-03-01T12:00:00.250000Z",
        "data": {
            "order": {"id": "ord_7", "total": "1.10", "paid": "true", "coupon": ""},
            "lines": {"0": {"sku": "A&B", "count": "2"}},
        },
    }


@pytest.mark.parametrize("format", ["standard", "raw", "cloudevents", "xml", "form"])
def test_the_official_library_signs_the_body_of_every_format_alike(format: str) -> None:
    _, headers, body = parsed(REQUESTS[format])
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)

    assert Webhook(SECRET).sign(headers["webhook-id"], at, body.decode()) == headers["webhook-signature"]


@pytest.mark.parametrize("format", ["standard", "raw", "cloudevents", "cloudevents-binary"])
def test_the_official_library_verifies_what_is_json(format: str) -> None:
    _, headers, body = parsed(REQUESTS[format])

    with time_machine.travel(int(headers["webhook-timestamp"]) + 10):
        assert Webhook(SECRET).verify(body, headers) == json.loads(body)


@pytest.mark.parametrize("preset", ["github", "stripe", "shopify"])
def test_the_examples_of_other_schemes_are_what_is_sent(preset: str) -> None:
    [shown] = re.findall(f'"preset": "{preset}"}}` \\| `(.*?)`', PAGE)

    [line] = header_lines(
        PRESETS[preset],
        [b"a-secret"],
        message_id="evt_1",
        timestamp=1_772_366_402,
        event_type="order.created",
        body=b'{"a":1}',
    )

    assert shown == line
