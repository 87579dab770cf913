"""Filters and transformations: what they mean, what they never do, what they may cost."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from deliveries.expression_costs import InvalidExpression
from deliveries.expressions import (
    MOST_CONTEXTS,
    Budget,
    Scope,
    TransformationFailed,
    compile_filter,
    compile_transformation,
)

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ORDER: dict[str, Any] = {
    "amount": 120,
    "weight": 1.5,
    "customer": {"tier": "gold", "name": "Ann"},
    "items": [{"sku": "a", "price": 10}, {"sku": "b", "price": 99.5}],
    "no-identifier": True,
    "digits": 10**22,
    "nothing": None,
}


def scope(data: Any = ORDER, **changes: Any) -> Scope:
    return Scope(**{"type": "order.created", "data": data, "channels": ["eu"], "occurred_at": AT} | changes)


@pytest.mark.parametrize(
    ("description", "text", "matches"),
    [
        ("the example of the contract", 'data.amount > 100 && data.customer.tier == "gold"', True),
        ("not over the amount", "data.amount > 120", False),
        ("integer against double", "data.amount > 119.5", True),
        ("double against integer", "data.weight > 1", True),
        ("integer equals double", "data.amount == 120.0", True),
        ("an integer beyond 64 bits is a double", "data.digits > 1.0e21", True),
        ("the type", 'type.startsWith("order.")', True),
        ("a channel", '"eu" in channels', True),
        ("the time", 'occurred_at > timestamp("2026-01-01T00:00:00Z")', True),
        ("some item", "data.items.exists(i, i.price > 50)", True),
        ("all items", "data.items.all(i, i.price > 50)", False),
        ("a key that is no identifier", 'data["no-identifier"]', True),
        ("a loop in a loop", "data.items.exists(i, data.items.exists(j, i.price < j.price))", True),
        ("a pattern", 'data.customer.name.matches("^A[a-z]{2}$")', True),
        ("has of what is there", "has(data.amount)", True),
        ("null is no key missing", 'data["nothing"] == null', True),
        ("a missing key", "data.missing == 1", False),
        ("unlike a missing key", "data.missing != 1", False),
        ("not a missing key", "!(data.missing == 1)", False),
        ("below a missing key", 'data.missing.tier == "gold"', False),
        ("has below a missing key", "has(data.missing.tier)", False),
        ("a missing key that does not matter", "data.amount == 120 || data.missing", True),
        ("different kinds", 'data.amount > "100"', False),
        ("no boolean", "data.amount", False),
        ("a list without that entry", "data.items[7].price > 1", False),
        ("division by zero", "data.amount / 0 == 1", False),
        ("overflow", "9223372036854775807 + data.amount > 0", False),
    ],
)
def test_filter(description: str, text: str, matches: bool) -> None:
    assert compile_filter(text).matches(scope()) is matches, description


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("data.amount > 100", "The filter data.amount > 100 is true for this event."),
        ("data.amount > 500", "The filter data.amount > 500 is false for this event."),
        ("data.vip == 1", "The filter data.vip == 1 is false: the data has no key 'vip'."),
        ("data.amount", "The filter data.amount is false: its result is neither true nor false."),
        (
            "data.amount > 'x'",
            "The filter data.amount > 'x' is false: it puts values of different kinds together.",
        ),
    ],
)
def test_filter_says_why(text: str, why: str) -> None:
    assert compile_filter(text).why(scope()) == why


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "An expression cannot be empty."),
        ("  ", "An expression cannot be empty."),
        (
            "amount > 1",
            "The name amount is unknown: an expression sees type, data, channels and occurred_at.",
        ),
        ("data.now() > 1", "The function now() is unknown."),
        ("open('x')", "The function open() is unknown."),
        ("data.amount >", "no valid CEL expression"),
        ("data.a ; 1", "The character ';' at 8 is not understood."),
        ("data.a\x00", "cannot contain NUL"),
        ("data." + "x" * 1020, "at most 1024 bytes"),
        ("!" * 600 + "true", "at most 500 parts"),
        ("(" * 30 + "1" + ")" * 30, "at most 24 deep"),
        ("data.l.map(x, data.l.map(y, data.l.map(z, 1)))", "once, not deeper"),
        ("data.l.map(data, 1)", "loop's variable cannot be called"),
        ("data.s.matches(data.p)", "must be written out"),
        ("data.l.exists(x, x.matches('a'))", "cannot stand inside"),
        ("data.s.matches('(a{50}){50}')", "multiply to at most 100"),
        ("data.s.matches('" + "a" * 200 + "')", "at most 128 characters"),
    ],
)
def test_filter_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidExpression) as refused:
        compile_filter(text)

    assert message in str(refused.value)


def test_transformation_gives_an_object_with_its_keys_in_order() -> None:
    body = compile_transformation(
        '{"total": data.amount, "at": occurred_at, "skus": data.items.map(i, i.sku)}'
    )

    assert body.apply(scope()) == b'{"at":"2026-03-01T12:00:00.000000Z","skus":["a","b"],"total":120}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data.missing", "The transformation failed: the data has no key 'missing'."),
        ("data.items", "The transformation failed: its result is not an object."),
        ("{1: 2}", "The transformation failed: its result has a key that is no text."),
        ('{"a": 1.0 / 0.0}', "The transformation failed: its result contains a number without end."),
        (
            '{"a": b"x"}',
            "The transformation failed: its result contains something that JSON has no form for.",
        ),
        ('{"a": "\\u0000"}', "The transformation failed: its result contains NUL."),
        (
            '{"a": timestamp("0001-01-01T00:00:00+01:00")}',
            "The transformation failed: its result contains a time outside the years 1 to 9999 of UTC.",
        ),
        (
            '{"a": [timestamp("9999-12-31T23:59:59-01:00")]}',
            "The transformation failed: its result contains a time outside the years 1 to 9999 of UTC.",
        ),
    ],
)
def test_transformation_fails_in_words(text: str, message: str) -> None:
    with pytest.raises(TransformationFailed) as failed:
        compile_transformation(text).apply(scope())

    assert str(failed.value) == message


def test_transformation_is_bounded_in_size() -> None:
    doubled = compile_transformation('{"a": data.text + data.text}')

    with pytest.raises(TransformationFailed) as failed:
        doubled.apply(scope({"text": "x" * 200_000}))

    assert str(failed.value) == "The transformation failed: its result has more than 256,000 bytes."


@pytest.mark.parametrize(
    "text",
    [
        "data.l.all(x, data.l.all(y, x == y))",
        "data.l.map(x, data.l).size() > 1",
        "data.l.map(x, x).size() > 1",
        "data.l.exists(x, x in data.l)",
        "data.l.filter(x, data.l == data.l).size() > 1",
        "data.s" + " + data.s" * 90 + ' == "x"',
        "data.l.map(x, data.s + data.s).size() > 1",
        "(data.l + data.l + data.l + data.l).map(x, x).size() > 1",
        "[data,data,data].map(a,[a,a,a]).map(b,[b,b,b]).map(c,[c,c,c]).map(d,[d,d,d]).map(e,[e,e,e]).size() > 1",
        r'data.s.matches("\\pL{90}\\pL")',
    ],
)
def test_what_would_take_long_does_not_run(text: str) -> None:
    large = scope({"l": list(range(50_000)), "s": "x" * 100_000})
    expression = compile_filter(text)
    large.size  # noqa: B018 - measured once an event, not what this is about

    began_at = time.thread_time()
    matches = expression.matches(large)
    took = time.thread_time() - began_at

    assert not matches
    assert "would take too long on data of this size" in expression.why(large)
    assert took < 0.05


def test_expressions_of_one_event_share_a_budget() -> None:
    several = scope(budget=Budget(40))
    expression = compile_filter("data.amount > 100")

    verdicts = [expression.matches(several) for _ in range(8)]

    assert verdicts[0] is True
    assert verdicts[-1] is False
    assert (
        expression.why(several)
        == "The filter data.amount > 100 is false: the expressions for this event take too long together."
    )


@pytest.mark.parametrize(
    "text",
    [
        'timestamp("0001-01-01T00:00:00+01:00") - duration("1h") < occurred_at',
        'timestamp("9999-12-31T23:59:59-01:00") + duration("1h") > occurred_at',
    ],
)
def test_a_filter_that_leaves_the_years_of_times_is_false(text: str) -> None:
    assert compile_filter(text).matches(scope()) is False


def test_a_number_beyond_doubles_lets_nothing_through() -> None:
    assert compile_filter("true || data.n > 1").matches(scope({"n": 10**350})) is False


# --- converting only what is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "variables", "members"),
    [
        ("data.amount > 100", {"data"}, {"amount"}),
        ("data . amount > 100 && type == 'order.created'", {"data", "type"}, {"amount"}),
        ("has(data.amount) && !has(data.other)", {"data"}, {"amount", "other"}),
        ("data.items[0].sku == 'a' && data.items.size() == 2", {"data"}, {"items"}),
        ("[1].exists(x, data.amount > x)", {"data"}, {"amount"}),
        ("channels.exists(each, each == 'eu')", {"channels"}, set()),
        ("data.data.type == 'a'", {"data", "type"}, {"data"}),
        ("data['amount'] > 100", {"data"}, None),
        ("size(data) == 3", {"data"}, None),
        ("data.size() == 3", {"data"}, None),
        ("'amount' in data", {"data"}, None),
        ("data == data && data.amount > 1", {"data"}, None),
    ],
)
def test_only_what_an_expression_reads_is_converted(
    text: str, variables: set[str], members: set[str] | None
) -> None:
    reads = compile_filter(text).program.reads

    assert reads.variables == variables
    assert reads.members == members


def test_many_different_filters_share_one_conversion() -> None:
    wide = {f"m{number}": number for number in range(20)}
    event = scope(wide)

    verdicts = [compile_filter(f"data.m{number} == {number}").matches(event) for number in range(20)]

    assert verdicts == [True] * 20
    assert len(event._contexts) == MOST_CONTEXTS + 1


@pytest.mark.parametrize(
    "text", ["data.a.exists(x, x == 1)", "data.a.map(x, x + 1) == [2]", "size(data.a) == 1"]
)
def test_a_known_length_changes_no_verdict(text: str) -> None:
    for data, is_match in (({"a": [1]}, True), ({"a": [1, 2, "x" * 3000]}, False)):
        length = len(json.dumps(data))
        is_found = compile_filter(text).matches(scope(data))
        assert compile_filter(text).matches(scope(data, length=length)) is is_found
        assert is_found is (is_match or "exists" in text)
