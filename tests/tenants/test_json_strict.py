"""The rest of what `json_strict` promises is tested with `json_bytes`, which builds on it."""

import pytest

from tenants.json_strict import MalformedJson, loads_strict
from tenants.validation import InvalidContent


def test_other_bodies_are_any_value_with_all_digits_kept() -> None:
    assert loads_strict(b'[1.5, 12345678901234567890123, "\\u00e9", null, {"a": true}]') == [
        1.5,
        12345678901234567890123,
        "é",
        None,
        {"a": True},
    ]
    assert isinstance(loads_strict(b"12345678901234567890123"), int)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Expecting value in line 1, column 1."),
        (b'{"a":1\n "b":2}', "Expecting ',' delimiter in line 2, column 2."),
        (b"[NaN]", "NaN is no JSON value."),
        (b"[-Infinity]", "-Infinity is no JSON value."),
        (b'["\xff"]', "The body is not UTF-8: byte 2 is wrong."),
        (b"\xef\xbb\xbf{}", "The body must not begin with a byte order mark."),
        (b"[1e999, 1e999", "Expecting ',' delimiter in line 1, column 14."),
    ],
)
def test_a_malformed_body_is_explained(body: bytes, message: str) -> None:
    with pytest.raises(MalformedJson) as caught:
        loads_strict(body)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[" * 101 + b"]" * 101, ("", "too_deep")),
        (b"[" * 100_000, ("", "too_deep")),
        (b'{"a":[0,"\\u0000"]}', ("a.1", "invalid_characters")),
        (b'{"a":{"b":"\\ud800"}}', ("a.b", "invalid_characters")),
        (b"[1e999]", ("", "number_out_of_range")),
        (b"[" + b"9" * 401 + b"]", ("", "number_too_long")),
    ],
)
def test_well_formed_bodies_that_are_refused(body: bytes, expected: tuple[str, str]) -> None:
    with pytest.raises(InvalidContent) as caught:
        loads_strict(body)

    assert [(error.field, error.code) for error in caught.value.errors] == [expected]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b',"a":1}', ("", "too_deep")),
        (b'{"a":' + b'{"b":' * 100 + b"1" + b"}" * 100 + b',"a":1}', ("", "too_deep")),
        (b'{"a":"\\u0000","a":1}', ("", "invalid_characters")),
        (b'{"a":{"b":"\\ud800"},"a":1}', ("", "invalid_characters")),
        (b'{"a":"\\u0000","a":"\\u0000"}', ("a", "invalid_characters")),
    ],
)
def test_what_stands_under_a_name_that_comes_again_is_judged_too(
    body: bytes, expected: tuple[str, str]
) -> None:
    with pytest.raises(InvalidContent) as caught:
        loads_strict(body)

    assert [(error.field, error.code) for error in caught.value.errors] == [expected]


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' + b"[" * 99 + b"]" * 99 + b',"a":' + b"[" * 99 + b"]" * 99 + b"}",
        b'{"a":"' + b"[" * 200 + b'"}',
        b'{"a":"' + b'\\"[' * 200 + b'\\\\","b":' + b"[{}," * 98 + b"{}" + b"]" * 98 + b"}",
        b'{"a":"\\\\u0000","a":"\\\\\\\\u0000"}',
    ],
)
def test_what_only_looks_like_it_is_taken(body: bytes) -> None:
    loads_strict(body)


def test_a_hundred_levels_are_taken() -> None:
    loads_strict(b"[" * 100 + b"]" * 100)
