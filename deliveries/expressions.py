"""Filters and transformations of subscriptions, mappings of sources: CEL, compiled once, bounded before it runs. Pure.

Compiled by the subscription and source services when saved, and by `fan_out`; evaluated at publish, when a source
receives, at `subscriptions/test` and by explain. An expression comes from a customer and cannot be interrupted while it runs, so what it would cost on the data
at hand is reckoned from its tokens first. Whatever goes over the bounds does not run: a filter is then false, a
transformation fails.
"""

import math
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from deliveries import cel_core as cel
from tenants.json_strict import REFUSALS
from tenants.said import said

MAX_EXPRESSION_BYTES: Final = 1024
MAX_RESULT_BYTES: Final = 256_000
MAX_TOKENS: Final = 500
MAX_BRACKETS: Final = 24
"""Brackets inside each other. The parser itself gives up at about a hundred."""
MAX_LOOPS_NESTED: Final = 2
"""`map`, `filter`, `all`, `exists` and `exists_one` may stand once inside another."""
MAX_PATTERN_LENGTH: Final = 128
MAX_PATTERN_REPETITIONS: Final = 100
"""The counts of a regular expression multiplied: `(a{50}){50}` would compile to megabytes."""

EVALUATION_UNITS: Final = 1_000_000
"""What one evaluation may cost at worst, reckoned before it runs. A unit is one value looked at or copied."""
EVENT_UNITS: Final = 2_000_000
"""What all evaluations of one event may cost together, measured: an eighth of a second."""
NS_PER_UNIT: Final = 60
EVALUATION_OVERHEAD: Final = 10
PATTERN_UNITS: Final = 3_000
"""Regular expressions are compiled at each use: this much for each class of characters and each repetition."""
CHARACTERS_PER_UNIT: Final = 64
CHARACTERS_PER_PATTERN: Final = 8192
"""A pattern that was compiled for this price looks at so many characters for the same price again."""


class InvalidExpression(ValueError):
    """It does not compile, or is beyond the bounds whatever the data. The message is for the customer."""


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
        self._contexts: dict[_Reads, Any] = {}
        self._measured: _Size | None = None

    @property
    def size(self) -> "_Size":
        if self._measured is None:
            self._measured = _measure(self.data)
        return self._measured

    @property
    def most(self) -> "_Size":
        """No less than the size, and quickly known."""
        if self.length is None:
            return self.size
        # A value and what parts it from the next are two bytes at least.
        values = self.length // 2 + 1
        return _Size(values + self.length // CHARACTERS_PER_UNIT, max(values, 10), self.length)

    def context(self, reads: "_Reads") -> Any:
        """What is read, converted once; evaluating against it takes a fraction of a microsecond."""
        context = self._contexts.get(reads)
        if context is None and len(self._contexts) >= MOST_CONTEXTS:
            # Many expressions that each read something else: from here on, all share everything.
            reads = EVERYTHING
            context = self._contexts.get(reads)
        if context is None:
            context = self._contexts[reads] = self._converted(reads)
        return context

    def _converted(self, reads: "_Reads") -> Any:
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


class _Reads(NamedTuple):
    """What an expression can see of an event: converting the rest would be most of the work."""

    variables: frozenset[str]
    members: frozenset[str] | None
    """Of `data`, by name; None: any."""


class _Size(NamedTuple):
    values: int
    """All values and keys, long texts counted as several."""
    longest: int
    """Entries of the largest list or object."""
    characters: int


def _measure(data: Any) -> _Size:
    values = longest = characters = 0
    waiting = [data]
    while waiting:
        value = waiting.pop()
        values += 1
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict):
            longest = max(longest, len(value))
            values += len(value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            longest = max(longest, len(value))
            waiting.extend(value)
    return _Size(values + characters // CHARACTERS_PER_UNIT, max(longest, 10), characters)


# --- what an expression costs -----------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<text>[rRbB]{0,2}(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
  | (?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[uU]?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign>&&|\|\||[<>=!]=|[-+*/%<>!?:.,()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL,
)

VARIABLES: Final = frozenset({"type", "data", "channels", "occurred_at"})
EVERYTHING: Final = _Reads(VARIABLES, None)
MOST_CONTEXTS: Final = 4
"""Converted from one event for expressions that read different members of its data."""

_WORDS: Final = frozenset({"true", "false", "null", "in"})
_LOOPS: Final = frozenset({"map", "filter", "all", "exists", "exists_one"})
_COLLECTING: Final = frozenset({"map", "filter"})
_FUNCTIONS: Final = _LOOPS | frozenset(
    {
        *(
            "bool",
            "bytes",
            "contains",
            "double",
            "duration",
            "dyn",
            "endsWith",
            "has",
            "int",
            "matches",
            "size",
        ),
        *("startsWith", "string", "timestamp", "type", "uint"),
        *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours"),
        *("getMilliseconds", "getMinutes", "getMonth", "getSeconds"),
    }
)


class _Token(NamedTuple):
    kind: str
    text: str


def _tokens(text: str) -> list[_Token]:
    found = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise InvalidExpression(
                said(
                    "The character %(character)s at %(place)s is not understood.",
                    character=repr(text[position]),
                    place=position + 1,
                )
            )
        position = match.end()
        if match.lastgroup != "space":
            found.append(_Token(str(match.lastgroup), match.group()))
    return found


@dataclass(frozen=True, slots=True)
class _Cost:
    """How often each kind of work stands at each depth of loops (0: outside all)."""

    steps: tuple[int, ...]
    """Plain tokens."""
    data_reads: tuple[int, ...]
    """Mentions of `data`: each copies what it reads."""
    element_reads: tuple[int, ...]
    """Mentions of a loop's variable: over the whole loop they read the list once."""
    additions: tuple[int, ...]
    collecting: tuple[int, ...]
    """Loops that build a list."""
    growth: int
    """How many times bigger than its elements such a list can be: `map(i, [i, i])` one after another multiply."""
    pattern_units: int
    literal_entries: int

    def units(self, size: _Size) -> int:
        additions = sum(self.additions)
        # Adding lists makes longer ones; each result of an addition may be added again.
        longest = max(size.longest * (1 + additions), self.literal_entries)
        # All elements of a list that is looped over: together no more than the data, unless a loop made them bigger.
        elements = size.values * (1 + additions) * max(self.data_reads[0], 1) * self.growth
        if sum(self.collecting) and sum(self.data_reads[1:]):
            elements *= longest
        total = EVALUATION_OVERHEAD + self.pattern_units * (1 + size.characters // CHARACTERS_PER_PATTERN)
        for depth in range(MAX_LOOPS_NESTED + 1):
            rounds = longest**depth
            total += rounds * self.steps[depth]
            total += rounds * self.data_reads[depth] * size.values
            total += rounds * self.additions[depth] * (1 + additions) * (size.values + longest)
            # A loop that builds a list copies what it has so far at every step.
            total += rounds * self.collecting[depth] * longest * (longest + elements) // 2
            if depth:
                total += longest ** (depth - 1) * self.element_reads[depth] * (elements + longest)
        return total


def _reckon(tokens: list[_Token]) -> _Cost:
    """Raises InvalidExpression for what is beyond the bounds whatever the data, and for unknown names."""
    if len(tokens) > MAX_TOKENS:
        raise InvalidExpression(said("An expression may have at most %(most)s parts.", most=MAX_TOKENS))
    counts = {
        name: [0] * (MAX_LOOPS_NESTED + 1)
        for name in ("steps", "data", "elements", "additions", "collecting")
    }
    pattern_units = 0
    growth = 1
    brackets: list[str | None] = []
    """Open ones; a loop's carries the name of its variable."""
    mentions: list[int] = []
    """For each open bracket, how often it mentions the variable of the loop it belongs to."""
    for index, token in enumerate(tokens):
        before = tokens[index - 1].text if index else ""
        after = tokens[index + 1].text if index + 1 < len(tokens) else ""
        depth = sum(variable is not None for variable in brackets)
        counts["steps"][depth] += 1
        if token.kind == "name" and after == "(" and before != ".":
            _check_function(token.text)
        elif token.kind == "name" and after == "(":
            _check_function(token.text)
            if token.text in _LOOPS:
                counts["collecting"][depth] += token.text in _COLLECTING
            elif token.text == "matches":
                if depth:
                    raise InvalidExpression("matches() cannot stand inside map, filter, all or exists.")
                pattern_units += _pattern_units(tokens[index + 2 : index + 4])
        elif token.kind == "name" and before != ".":
            if token.text == "data":
                counts["data"][depth] += 1
            elif token.text in brackets:
                counts["elements"][depth] += 1
                mentions[brackets.index(token.text)] += 1
            elif token.text not in VARIABLES | _WORDS:
                raise InvalidExpression(
                    said(
                        "The name %(text)s is unknown: an expression sees type, data, channels and occurred_at.",
                        text=token.text,
                    )
                )
        elif token.text == "+":
            counts["additions"][depth] += 1
        if token.text in {"(", "[", "{"}:
            is_loop = token.text == "(" and before in _LOOPS and index > 1 and tokens[index - 2].text == "."
            brackets.append(after if is_loop else None)
            mentions.append(0)
            _check_nesting(brackets)
        elif token.text in {")", "]", "}"} and brackets:
            brackets.pop()
            # Its own name in front of the comma counts too, so that the least is one.
            growth *= max(mentions.pop() - 1, 1)
    return _Cost(
        steps=tuple(counts["steps"]),
        data_reads=tuple(counts["data"]),
        element_reads=tuple(counts["elements"]),
        additions=tuple(counts["additions"]),
        collecting=tuple(counts["collecting"]),
        growth=growth,
        pattern_units=pattern_units,
        literal_entries=sum(token.text == "," for token in tokens) + 1,
    )


def _reads_of(tokens: list[_Token]) -> _Reads:
    """`data.amount` reads one member; `data` in any other place may read all."""
    variables = {token.text for token in tokens if token.kind == "name" and token.text in VARIABLES}
    members: set[str] = set()
    for index, token in enumerate(tokens):
        before = tokens[index - 1].text if index else ""
        if token.kind != "name" or token.text != "data" or before == ".":
            continue
        after = tokens[index + 1 : index + 4]
        is_member = len(after) > 1 and after[0].text == "." and after[1].kind == "name"
        if not is_member or (len(after) > 2 and after[2].text == "("):
            return _Reads(frozenset(variables), None)
        members.add(after[1].text)
    return _Reads(frozenset(variables), frozenset(members))


def _check_nesting(brackets: list[str | None]) -> None:
    if len(brackets) > MAX_BRACKETS:
        raise InvalidExpression(
            said("Brackets may stand at most %(most)s deep inside each other.", most=MAX_BRACKETS)
        )
    loops = [variable for variable in brackets if variable is not None]
    if len(loops) > MAX_LOOPS_NESTED:
        raise InvalidExpression("map, filter, all and exists may stand inside each other once, not deeper.")
    if not VARIABLES.isdisjoint(loops):
        raise InvalidExpression("A loop's variable cannot be called type, data, channels or occurred_at.")


def _check_function(name: str) -> None:
    if name not in _FUNCTIONS:
        raise InvalidExpression(said("The function %(name)s() is unknown.", name=name))


def _pattern_units(argument: list[_Token]) -> int:
    """Raises InvalidExpression."""
    if len(argument) != 2 or argument[0].kind != "text" or argument[1].text != ")":
        raise InvalidExpression("The pattern of matches() must be written out as a text.")
    pattern = argument[0].text
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise InvalidExpression(
            said("The pattern of matches() may have at most %(most)s characters.", most=MAX_PATTERN_LENGTH)
        )
    counts = [int(digits) for digits in re.findall(r"[0-9]{1,6}(?=\s*[,}])", pattern)]
    repetitions = math.prod(max(count, 1) for count in counts)
    if repetitions > MAX_PATTERN_REPETITIONS:
        raise InvalidExpression(
            said(
                "The repetitions of a pattern may multiply to at most %(most)s.", most=MAX_PATTERN_REPETITIONS
            )
        )
    return PATTERN_UNITS * repetitions * (1 + pattern.count("\\") // 2 + pattern.count("("))


@dataclass(frozen=True, slots=True)
class _Program:
    program: Any
    cost: _Cost
    reads: _Reads

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
    tokens = _tokens(text)
    cost = _reckon(tokens)
    try:
        program = cel.compile(text)
    except ValueError as error:
        raise InvalidExpression(_parser_says(str(error))) from None
    return _Program(program, cost, _reads_of(tokens))


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
        return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
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
