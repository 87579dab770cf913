"""Filters and transformations of subscriptions, mappings of sources: CEL, compiled once, bounded before it runs. Pure.

Compiled by the subscription and source services when saved, and by `fan_out`; evaluated at publish, when a source
receives, at `subscriptions/test` and by explain. An expression comes from a customer and cannot be interrupted while it
runs, so what it would cost on the data at hand is reckoned first (`expression_costs`). Whatever goes over the bounds does
not run: a filter is then false, a transformation fails.
"""

import math
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from deliveries import cel_core as cel
from deliveries.expression_costs import (
    CHARACTERS_PER_UNIT,
    EVALUATION_OVERHEAD,
    EVERYTHING,
    Cost,
    InvalidExpression,
    Reads,
    Size,
    measure,
    reads_of,
    reckon,
    tokens_of,
)
from tenants.json_strict import REFUSALS
from tenants.said import said

MAX_EXPRESSION_BYTES: Final = 1024
MAX_RESULT_BYTES: Final = 256_000
"""Of what a transformation makes, as JSON."""

EVALUATION_UNITS: Final = 1_000_000
"""What one evaluation may cost at worst, reckoned before it runs. A unit is one value looked at or copied."""
EVENT_UNITS: Final = 2_000_000
"""What all evaluations of one event may cost together, measured: an eighth of a second."""
NS_PER_UNIT: Final = 60
"""What a unit takes, by which the time of an evaluation is charged to its event."""


class TransformationFailed(Exception):
    """On this event. The message is for the customer, and does not repeat the data."""


class NamingFailed(Exception):
    """No name came of it. The message is for the customer, and does not repeat the data."""


class _Refused(Exception):
    """An evaluation without result, and why. Most often nobody asks for the words, so they are not made before."""

    def __init__(self, template: str, **values: object) -> None:
        self.template = template
        self.values = values
        super().__init__(template)

    @property
    def reason(self) -> str:
        return said(self.template, **self.values)


class Budget:
    """What evaluations may still cost together. One for each event, or one for many events of a tenant."""

    __slots__ = ("left",)

    def __init__(self, units: int = EVENT_UNITS) -> None:
        self.left = units


class Scope:
    """What expressions see of one event."""

    __slots__ = ("_contexts", "_measured", "budget", "channels", "data", "length", "occurred_at", "type")

    def __init__(
        self,
        type: str,
        data: Any,
        channels: Iterable[str],
        occurred_at: datetime,
        budget: Budget | None = None,
        length: int | None = None,
    ) -> None:
        """`length`: bytes that the data had as JSON, if known. Small data need not be measured then."""
        self.type = type
        self.data = data
        self.channels = list(channels)
        self.occurred_at = occurred_at
        self.budget = budget or Budget()
        self.length = length
        self._contexts: dict[Reads, Any] = {}
        self._measured: Size | None = None

    @property
    def size(self) -> Size:
        if self._measured is None:
            self._measured = measure(self.data)
        return self._measured

    @property
    def most(self) -> Size:
        """No less than the size, and quickly known."""
        if self.length is None:
            return self.size
        # A value and what parts it from the next are two bytes at least.
        values = self.length // 2 + 1
        return Size(values + self.length // CHARACTERS_PER_UNIT, max(values, 10), self.length)

    def context(self, reads: Reads) -> Any:
        """What is read, converted once; evaluating against it takes a fraction of a microsecond."""
        context = self._contexts.get(reads)
        if context is None and len(self._contexts) >= MOST_CONTEXTS:
            # Many expressions that each read something else: from here on, all share everything.
            reads = EVERYTHING
            context = self._contexts.get(reads)
        if context is None:
            context = self._contexts[reads] = self._converted(reads)
        return context

    def _converted(self, reads: Reads) -> Any:
        variables: dict[str, Any] = {
            "type": self.type,
            "channels": self.channels,
            "occurred_at": self.occurred_at,
        }
        variables = {name: value for name, value in variables.items() if name in reads.variables}
        if "data" in reads.variables:
            is_whole = reads.members is None or not isinstance(self.data, dict)
            variables["data"] = (
                self.data
                if is_whole
                else {name: self.data[name] for name in reads.members or () if name in self.data}
            )
        return cel.Context(variables=variables)


MOST_CONTEXTS: Final = 4
"""Converted from one event for expressions that read different members of its data."""


@dataclass(frozen=True, slots=True)
class _Program:
    program: Any
    cost: Cost
    reads: Reads

    def run(self, scope: Scope) -> Any:
        """Raises _Refused."""
        try:
            units = self.cost.units(scope.most)
            if units > EVALUATION_UNITS:
                units = self.cost.units(scope.size)
            if units > EVALUATION_UNITS:
                raise _Refused("it would take too long on data of this size")
            if scope.budget.left <= 0:
                raise _Refused("the expressions for this event take too long together")
            context = scope.context(self.reads)
            began_ns = time.perf_counter_ns()
            try:
                return self.program.execute(context)
            finally:
                # What it did cost: reading one number of a large payload is nearly nothing. Never more than reckoned,
                # or a process that had to wait in between would pay for it.
                taken = EVALUATION_OVERHEAD + (time.perf_counter_ns() - began_ns) // NS_PER_UNIT
                scope.budget.left -= min(taken, units)
        except KeyError as error:
            raise _Refused(
                "the data has no key %(key)s", key=_shown(error.args[0] if error.args else "")
            ) from None
        except IndexError:
            raise _Refused("a list has no entry at that place") from None
        except TypeError:
            raise _Refused("it puts values of different kinds together") from None
        except (RuntimeError, ValueError, ArithmeticError) as error:
            if line := _first_line(error):
                raise _Refused("it cannot be evaluated (%(why)s)", why=line) from None
            raise _Refused("it cannot be evaluated") from None


def _shown(key: object) -> str:
    text = str(key).strip("'\"")
    return repr(text[:64])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". ")[0][:120]


def _compile(text: str) -> _Program:
    if not text.strip():
        raise InvalidExpression("An expression cannot be empty.")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_EXPRESSION_BYTES:
        raise InvalidExpression(
            said("An expression may have at most %(most)s bytes.", most=MAX_EXPRESSION_BYTES)
        )
    if "\x00" in text:
        raise InvalidExpression("An expression cannot contain NUL.")
    tokens = tokens_of(text)
    cost = reckon(tokens)
    try:
        program = cel.compile(text)
    except ValueError as error:
        raise InvalidExpression(_parser_says(str(error))) from None
    return _Program(program, cost, reads_of(tokens))


def _parser_says(message: str) -> str:
    found = re.search(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?([^\n]{1,200})", message)
    if found is None:
        return said("This is no valid CEL expression.")
    return said(
        "This is no valid CEL expression: %(why)s (line %(line)s, column %(column)s).",
        why=found[3].strip()[:160],
        line=found[1],
        column=found[2],
    )


# --- filters ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filter:
    text: str
    program: _Program

    def matches(self, scope: Scope) -> bool:
        """False for whatever is not true: a missing key, an error, an overrun, a result that is no boolean."""
        try:
            return self.program.run(scope) is True
        except _Refused:
            return False

    def why(self, scope: Scope) -> str:
        """The verdict in one sentence, for explain."""
        return self.judge(scope)[1]

    def judge(self, scope: Scope) -> tuple[bool, str]:
        """The verdict, and the sentence that says why."""
        try:
            result = self.program.run(scope)
        except _Refused as refused:
            return False, said(
                "The filter %(filter)s is false: %(reason)s.", filter=self.text, reason=refused.reason
            )
        if result is True:
            return True, said("The filter %(filter)s is true for this event.", filter=self.text)
        if result is False:
            return False, said("The filter %(filter)s is false for this event.", filter=self.text)
        return False, said(
            "The filter %(filter)s is false: its result is neither true nor false.", filter=self.text
        )


@lru_cache(maxsize=4096)
def compile_filter(text: str) -> Filter:
    """Raises InvalidExpression."""
    return Filter(text, _compile(text))


# --- transformations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transformation:
    text: str
    program: _Program

    def apply(self, scope: Scope) -> bytes:
        """The JSON object that replaces `data`, keys sorted. Raises TransformationFailed."""
        try:
            result = self.program.run(scope)
        except _Refused as refused:
            raise TransformationFailed(
                said("The transformation failed: %(reason)s.", reason=refused.reason)
            ) from None
        if not isinstance(result, dict):
            raise TransformationFailed("The transformation failed: its result is not an object.")
        return _encode(result)


def _encode(result: dict[Any, Any]) -> bytes:
    try:
        plain = _plain(result)
        # The engine's objects come in no particular order; sorted, the same event gives the same bytes anywhere.
        encoded = msgspec.json.encode(plain, order="deterministic")
    except REFUSALS as error:
        reason = (
            str(error)
            if isinstance(error, _NotJson)
            else said("its result is nested too deeply or no valid text")
        )
        raise TransformationFailed(said("The transformation failed: %(reason)s.", reason=reason)) from None
    if len(encoded) > MAX_RESULT_BYTES:
        raise TransformationFailed(
            said(
                "The transformation failed: its result has more than %(most)s bytes.",
                most=f"{MAX_RESULT_BYTES:,}",
            )
        )
    return encoded


class _NotJson(ValueError):
    pass


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        if "\x00" in value:
            raise _NotJson(said("its result contains NUL"))
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _NotJson(said("its result contains a number without end"))
        return value
    if isinstance(value, dict):
        return dict(_plain_entries(value))
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        try:
            return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
        except OverflowError:
            # In its own zone it is within them.
            raise _NotJson(said("its result contains a time outside the years 1 to 9999 of UTC")) from None
    raise _NotJson(said("its result contains something that JSON has no form for"))


def _plain_entries(value: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, entry in value.items():
        if not isinstance(key, str) or "\x00" in key:
            raise _NotJson(said("its result has a key that is no text"))
        yield key, _plain(entry)


@lru_cache(maxsize=4096)
def compile_transformation(text: str) -> Transformation:
    """Raises InvalidExpression."""
    return Transformation(text, _compile(text))


# --- names ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Naming:
    """What an incoming request is called, by its source."""

    text: str
    program: _Program

    def apply(self, scope: Scope) -> str | None:
        """The text, or None for null. Raises NamingFailed."""
        try:
            result = self.program.run(scope)
        except _Refused as refused:
            raise NamingFailed(
                said("The mapping of the event type failed: %(reason)s.", reason=refused.reason)
            ) from None
        if result is None or isinstance(result, str):
            return result
        raise NamingFailed("The mapping of the event type failed: its result is no text.")


@lru_cache(maxsize=4096)
def compile_naming(text: str) -> Naming:
    """Raises InvalidExpression."""
    return Naming(text, _compile(text))
