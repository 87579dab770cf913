import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import NoReturn

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from deliveries.pipeline.json_bytes import (
    Publish,
    check_data,
    decode_batch,
    decode_publish,
    envelope,
    format_time,
)
from deliveries.pipeline.signing import HmacKey, generate_secret, parse_secret, sign
from deliveries.validation import InvalidContent
from tenants.json_strict import MalformedJson, loads_strict

EXACT = b'{"z": 1.10, "a":12345678901234567890123, "b" : [1E+2,-0.0, "\\u00e9\xc3\xa9\\/"],  "z": null}'


def verdict(rule: Callable[[bytes], object], body: bytes) -> object:
    """[(field, code), …], "malformed", or None if the body is taken."""
    try:
        rule(body)
    except MalformedJson:
        return "malformed"
    except InvalidContent as invalid:
        return [(error.field, error.code) for error in invalid.errors]
    return None


def nested(depth: int) -> bytes:
    """An object with that many levels, itself included."""
    return b'{"a":' * depth + b"1" + b"}" * depth


# --- publishes --------------------------------------------------------------------------------------------------------


def test_the_bytes_of_data_are_kept_as_they_came() -> None:
    publish = decode_publish(b' {"type": "order.created", "data": ' + EXACT + b" } ")

    assert publish == Publish(
        type="order.created",
        data=EXACT,
        occurred_at=None,
        channels=(),
        ordering_key=None,
        deliver_at=None,
        idempotency_key=None,
    )


def test_every_field_of_a_publish_is_read() -> None:
    publish = decode_publish(
        b'{"data":{},"ordering_key":"customer 7","channels":["eu","us","eu"],"type":"order.created",'
        b'"occurred_at":"2026-03-01T13:00:00.5+01:00","deliver_at":"2026-03-02T12:00:00Z"}'
    )

    assert publish == Publish(
        type="order.created",
        data=b"{}",
        occurred_at=datetime(2026, 3, 1, 12, 0, 0, 500_000, tzinfo=UTC),
        channels=("eu", "us"),
        ordering_key="customer 7",
        deliver_at=datetime(2026, 3, 2, 12, tzinfo=UTC),
        idempotency_key=None,
    )


def test_null_means_absent_where_a_field_may_be_absent() -> None:
    publish = decode_publish(
        b'{"type":"a","data":{},"occurred_at":null,"channels":null,"ordering_key":null,"deliver_at":null}'
    )

    assert (publish.occurred_at, publish.channels, publish.ordering_key, publish.deliver_at) == (
        None,
        (),
        None,
        None,
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"type":"a","data":{}',
        b'{"type":"a","data":{}}x',
        b'{"type":"a","data":{}}{}',
        b'{"type":"a","data":{},}',
        b'{"type":"a" "data":{}}',
        b"{'type':'a'}",
        b'{"type":"a","data":{"x":NaN}}',
        b'{"type":"a","data":{"x":-Infinity}}',
        b'{"type":"a","data":{"x":01}}',
        b'{"type":"a","data":{"x":"\n"}}',
        b'{"type":"a","data":{"x":"\x00"}}',
        b'{"type":"a","data":{"x":"\xff"}}',
        b'{"type":"a","data":{"\xc0\x80":1}}',
        b'{"type":"a","data":{"x":"\xed\xa0\x80"}}',
        b'\xef\xbb\xbf{"type":"a","data":{}}',
        '{"type":"a","data":{}}'.encode("utf-16"),
        b'{"nonsense":1,"type":5,"data":{"x":tru}}',
        b'{"type":5,"data":{"x":"\xff"}}',
        b'{"type":"a","data":{"x":' + b"[" * 3000 + b"}}",
    ],
)
def test_malformed_bodies_are_told_from_wrong_ones(body: bytes) -> None:
    found = verdict(decode_publish, body)

    # So deep a body is given up before its end is seen.
    assert found == ([("data", "too_deep")] if b"[[[" in body else "malformed")


def test_a_malformed_body_is_explained() -> None:
    with pytest.raises(MalformedJson, match=r"^Expecting ',' delimiter in line 2, column 2\.$"):
        decode_publish(b'{"type":"a"\n "data":{}}')


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[]", [("", "invalid_type")]),
        (b"null", [("", "invalid_type")]),
        (b'"text"', [("", "invalid_type")]),
        (b"{}", [("type", "required"), ("data", "required")]),
        (b'{"type":"a"}', [("data", "required")]),
        (b'{"type":null,"data":null}', [("type", "invalid_type"), ("data", "invalid_type")]),
        (b'{"type":"a b","data":[]}', [("type", "invalid"), ("data", "invalid_type")]),
        (b'{"type":"","data":"{}"}', [("type", "blank"), ("data", "invalid_type")]),
        (b'{"type":"a","data":{},"idempotency_key":"x"}', [("idempotency_key", "unknown_field")]),
        (
            (
                b'{"type":5,"data":1,"occurred_at":"yesterday","channels":["ok","not ok",7],"ordering_key":"",'
                b'"deliver_at":5,"Data":{},"x\\u0000y":1}'
            ),
            [
                ("Data", "unknown_field"),
                ("x\ufffdy", "unknown_field"),
                ("type", "invalid_type"),
                ("data", "invalid_type"),
                ("occurred_at", "invalid_time"),
                ("channels.1", "invalid"),
                ("channels.2", "invalid_type"),
                ("ordering_key", "blank"),
                ("deliver_at", "invalid_type"),
            ],
        ),
        (
            b'{"type":"a","data":{},"channels":' + json.dumps(["c"] * 11).encode() + b"}",
            [("channels", "too_long")],
        ),
        (b'{"type":"a","data":{},"channels":"c"}', [("channels", "invalid_type")]),
        (b'{"type":"a","data":{},"ordering_key":"' + b"k" * 129 + b'"}', [("ordering_key", "too_long")]),
        (b'{"type":"a","data":{},"ordering_key":"a\\u0000"}', [("ordering_key", "invalid_characters")]),
        (b'{"type":"a","data":{},"ordering_key":"a\\n"}', [("ordering_key", "invalid_characters")]),
        (b'{"type":"a\\ud800","data":{}}', [("type", "invalid_characters")]),
        (
            b'{"type":"a b","data":{"x":[1,{"y":"\\u0000"},"\\udc00"]}}',
            [("type", "invalid"), ("data.x.1.y", "invalid_characters"), ("data.x.2", "invalid_characters")],
        ),
        (b'{"type":5,"data":{"a":1e999}}', [("type", "invalid_type"), ("data", "number_out_of_range")]),
        (
            b'{"type":5,"data":{"a":' + b"9" * 401 + b"}}",
            [("type", "invalid_type"), ("data", "number_too_long")],
        ),
        (
            b'{"type":5,"data":{"a":' + b"9" * 5000 + b"}}",
            [("type", "invalid_type"), ("data", "number_too_long")],
        ),
        (b'{"type":5,"data":' + nested(65) + b"}", [("type", "invalid_type"), ("data", "too_deep")]),
        (b'{"type":"a","data":' + nested(100_000) + b"}", [("data", "too_deep")]),
        (b'{"type":' + b"[" * 2000 + b"]" * 2000 + b',"data":{}}', [("data", "too_deep")]),
    ],
)
def test_every_wrong_field_of_a_publish_is_named(body: bytes, expected: object) -> None:
    assert verdict(decode_publish, body) == expected


@given(
    st.dictionaries(
        st.sampled_from(
            ["type", "data", "occurred_at", "channels", "ordering_key", "deliver_at", "idempotency_key", "x"]
        ),
        st.none()
        | st.sampled_from(
            ["a", "order.created", "2026-03-01T12:00:00Z", "", "\x00", "\ud800", {}, [], ["c"], 10**500]
        )
        | st.dictionaries(st.text(), st.text())
        | st.lists(st.text() | st.integers())
        | st.floats(),
    )
)
def test_a_publish_is_taken_or_its_wrong_fields_are_named(fields: dict[str, object]) -> None:
    body = json.dumps(fields).encode()

    found = verdict(decode_publish, body)

    if isinstance(found, list):
        assert found
        assert {field.split(".")[0] for field, _ in found} <= set(fields) | {"type", "data"}
    elif found == "malformed":
        assert b"NaN" in body or b"Infinity" in body


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_wrong_item_does_not_spoil_the_others() -> None:
    results = decode_batch(
        b'{"events":[{"type":"a","data":{"n":1.10},"idempotency_key":"k 1"},5,{"type":"b"},'
        b'{"type":"c","data":{"x":"\\ud800"}},{"type":"d","data":{"x":"\xff"}},{"type":"e","data":{"x":"\\\\ud800"}},'
        b'{"type":"f","data":' + nested(65) + b'},{"type":"g","data":{},"idempotency_key":"\xc3\xbc"},'
        b'{"type":"h","data":{"x":1e999}}, {"type":"i","data":' + EXACT + b"}]}"
    )

    assert [
        (result.type, result.data, result.idempotency_key)
        if isinstance(result, Publish)
        else "malformed"
        if isinstance(result, MalformedJson)
        else [(error.field, error.code) for error in result.errors]
        for result in results
    ] == [
        ("a", b'{"n":1.10}', "k 1"),
        [("", "invalid_type")],
        [("data", "required")],
        [("data.x", "invalid_characters")],
        "malformed",
        ("e", b'{"x":"\\\\ud800"}', None),
        [("data", "too_deep")],
        [("idempotency_key", "invalid")],
        [("data", "number_out_of_range")],
        ("i", EXACT, None),
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "malformed"),
        (b'{"events":[{"type":"a","data":{}}', "malformed"),
        (b'{"events":[{"type":"a","data":{]}', "malformed"),
        (b"[]", [("", "invalid_type")]),
        (b"{}", [("events", "required")]),
        (b'{"events":{}}', [("events", "invalid_type")]),
        (b'{"events":null,"x":1}', [("x", "unknown_field"), ("events", "invalid_type")]),
        (b'{"events":[]}', [("events", "too_short")]),
        (b'{"events":[' + b",".join([b"{}"] * 1001) + b"]}", [("events", "too_long")]),
        (b'{"events":[' + b",".join([b"{}"] * 1000) + b"]}", None),
        (b'{"events": [{}], "x": "\\ud800"}', [("x", "unknown_field")]),
        (b'{"events":[' + nested(100_000) + b"]}", [("events", "too_deep")]),
    ],
)
def test_batches_as_a_whole(body: bytes, expected: object) -> None:
    assert verdict(decode_batch, body) == expected


# --- any JSON ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"{}", None),
        (EXACT, None),
        (b'{"a":"\\ud83d\\ude00 \xf0\x9f\x98\x80"}', None),
        (b'{"a":"\\\\ud800 \\\\\\\\u0000 \\u0001 \\n"}', None),
        (nested(64), None),
        (nested(65), [("data", "too_deep")]),
        (b'{"a":' + b"[" * 63 + b"]" * 63 + b"}", None),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", [("data", "too_deep")]),
        (b'{"a":[' + b",".join([b"[{}]"] * 100) + b"]}", None),
        (b'{"a":"' + b"[{" * 100 + b'"}', None),
        (b'{"a":' + b"9" * 400 + b"}", None),
        (b'{"a":' + b"9" * 401 + b"}", [("data", "number_too_long")]),
        (b'{"a":0.' + b"1" * 398 + b"}", None),
        (b'{"a":0.' + b"1" * 399 + b"}", [("data", "number_too_long")]),
        (b'{"a":"' + b"9" * 5000 + b'"}', None),
        (b'{"' + b"9" * 5000 + b'":"\\"' + b"9" * 5000 + b'"}', None),
        (b'{"a":1e308}', None),
        (b'{"a":1e-999}', None),
        (b'{"a":1e309}', [("data", "number_out_of_range")]),
        (b'{"a":-1E400}', [("data", "number_out_of_range")]),
        (b'{"a":"\\u0000"}', [("data.a", "invalid_characters")]),
        (b'{"a\\u0000":[{"b":1}]}', [("data.a\ufffd", "invalid_characters")]),
        (b'{"a":"\\ud800"}', [("data.a", "invalid_characters")]),
        (b'{"a":"\\udfff\\ud800"}', [("data.a", "invalid_characters")]),
        (b'{"a":"\\uDBFFx\\uDC00"}', [("data.a", "invalid_characters")]),
        (b'{"a":"\\ud83d\\ude00\\ude00"}', [("data.a", "invalid_characters")]),
        (b'{"\\udc00":"\\\\\\ud800"}', [("data.\ufffd", "invalid_characters")] * 2),
        (b"[]", [("data", "invalid_type")]),
        (b"null", [("data", "invalid_type")]),
        (b'"{}"', [("data", "invalid_type")]),
        (b"", "malformed"),
        (b"{}{}", "malformed"),
        (b'{"a":"\x00"}', "malformed"),
        (b'{"a":"\x1f"}', "malformed"),
        (b'{"a":"\xed\xa0\x80"}', "malformed"),
        (b'{"a":NaN}', "malformed"),
    ],
)
def test_what_data_may_be(raw: bytes, expected: object) -> None:
    assert verdict(check_data, raw) == expected


def test_a_body_of_nothing_but_wrong_texts_earns_a_bounded_reply() -> None:
    with pytest.raises(InvalidContent) as caught:
        check_data(b'{"a":[' + b",".join([b'"\\u0000"'] * 5000) + b"]}")

    assert len(caught.value.errors) == 100


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def refused_by_the_standard_library(raw: bytes) -> bool:
    try:
        json.loads(raw.decode(), parse_constant=_no_constant, parse_int=str, parse_float=str)
    except ValueError:
        return True
    return False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
FRAGMENTS = st.sampled_from(
    [
        *(
            b'"',
            b"\\",
            b"\\u",
            b"\\ud800",
            b"\\udc00",
            b"\\u0000",
            b"\\x",
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"-",
            b"+",
        ),
        *(
            b".",
            b"0",
            b"1",
            b"e",
            b"E5",
            b"1e999",
            b"NaN",
            b"Infinity",
            b"true",
            b"nul",
            b" ",
            b"\n",
            b"\x0b",
            b"\x00",
        ),
        *(
            b"\x1f",
            b"\x7f",
            b"\xff",
            b"\xc3",
            b"\xa9",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xef\xbb\xbf",
            b"/*",
            b"'",
        ),
    ]
)


@st.composite
def mutated_json(draw: st.DrawFn) -> bytes:
    """JSON with a few fragments put in, taken out or exchanged."""
    raw = json.dumps({"a": draw(JSON)}, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(FRAGMENTS | st.just(b"")) + raw[at + draw(st.integers(0, 2)) :]
    return raw


@settings(max_examples=600)
@given(mutated_json())
@example(b'{"a":1e999}')
@example(b'{"a":"\\ud800"}')
@example(b'{"a":"\xff"}')
@example(b'\xef\xbb\xbf{"a":1}')
def test_syntax_is_judged_as_the_standard_library_judges_it(raw: bytes) -> None:
    """Malformed there is malformed here and the reverse; also when it stands inside a publish and a batch."""
    malformed = refused_by_the_standard_library(raw)

    assert (verdict(loads_strict, raw) == "malformed") == malformed
    assert (verdict(check_data, raw) == "malformed") == malformed
    body = b'{"type":"a","data":' + raw + b"}"
    if not malformed:
        assert verdict(decode_publish, body) == verdict(check_data, raw)
        [result] = decode_batch(b'{"events":[' + body + b"]}")
        if isinstance(result, Publish):
            assert result.data == raw.strip(b" \n\r\t")
            assert loads_strict(raw) == json.loads(raw)
        else:
            assert isinstance(result, InvalidContent)
            assert [(error.field, error.code) for error in result.errors] == verdict(check_data, raw)
    elif refused_by_the_standard_library(body):
        assert verdict(decode_publish, body) == "malformed"


@given(JSON)
def test_well_formed_data_is_refused_for_a_stated_reason_only(value: object) -> None:
    raw = json.dumps({"a": value}).encode()

    found = verdict(check_data, raw)

    has_forbidden_text = "\x00" in json.loads(raw) or b"\\u0000" in raw
    assert found is None or (has_forbidden_text and isinstance(found, list))


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    for body in (raw, b'{"type":"a","data":' + raw + b"}", b'{"events":[' + raw + b"]}"):
        verdict(loads_strict, body)
        verdict(check_data, body)
        verdict(decode_publish, body)
        verdict(decode_batch, body)


def test_nesting_near_the_interpreters_own_limit_is_refused_like_any_other() -> None:
    for depth in range(850, 1050):
        for core in (b"1", b'"\\ud800"', b"1e999", b'"\\u0000"'):
            raw = b'{"a":' * depth + core + b"}" * depth
            body = b'{"type":"a","data":' + raw + b"}"
            for rule, given_body in (
                (loads_strict, raw),
                (check_data, raw),
                (decode_publish, body),
                (decode_batch, b'{"events":[' + body + b"]}"),
            ):
                assert verdict(rule, given_body) not in ([], "malformed")


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_the_envelope_holds_data_byte_for_byte() -> None:
    body = envelope("order.created", "2026-03-01T12:00:00.000000Z", EXACT)

    assert body == b'{"type":"order.created","timestamp":"2026-03-01T12:00:00.000000Z","data":' + EXACT + b"}"


def test_the_official_library_reads_the_envelope() -> None:
    secret, now = generate_secret(), datetime.now(UTC)
    body = envelope("order.created", format_time(now), b'{"a":1}')
    signature = sign([HmacKey(parse_secret(secret))], "evt_1", int(now.timestamp()), body)

    received = Webhook(secret).verify(
        body,
        {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        },
    )

    assert received == {"type": "order.created", "timestamp": format_time(now), "data": {"a": 1}}


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2026, 3, 1, 12, tzinfo=UTC), "2026-03-01T12:00:00.000000Z"),
        (datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC), "2026-03-01T12:00:00.000001Z"),
        (datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=1))), "2026-03-01T11:00:00.000000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_times_have_microseconds_and_a_z(at: datetime, expected: str) -> None:
    assert format_time(at) == expected
