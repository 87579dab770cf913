"""What an expression would cost on data of a size, reckoned from its tokens; and what it reads of an event. Pure.

Used by `expressions` when one is compiled: CEL cannot be interrupted while it runs, so what may cost too much is refused
here, whatever the data, or not run on data of that size. Costs are in units: one is a value looked at or copied.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tenants.said import said

MAX_TOKENS: Final = 500
"""In one expression. Names, texts, numbers and signs are one each."""
MAX_BRACKETS: Final = 24
"""Brackets inside each other. The parser itself gives up at about a hundred."""
MAX_LOOPS_NESTED: Final = 2
"""`map`, `filter`, `all`, `exists` and `exists_one` may stand once inside another."""
MAX_PATTERN_LENGTH: Final = 128
MAX_PATTERN_REPETITIONS: Final = 100
"""The counts of a regular expression multiplied: `(a{50}){50}` would compile to megabytes."""

EVALUATION_OVERHEAD: Final = 10
"""Of any evaluation, in units."""
PATTERN_UNITS: Final = 3_000
"""Regular expressions are compiled at each use: this much for each class of characters and each repetition."""
CHARACTERS_PER_UNIT: Final = 64
CHARACTERS_PER_PATTERN: Final = 8192
"""A pattern that was compiled for this price looks at so many characters for the same price again."""


class InvalidExpression(ValueError):
    """It does not compile, or is beyond the bounds whatever the data. The message is for the customer."""


class Reads(NamedTuple):
    """What an expression can see of an event: converting the rest would be most of the work."""

    variables: frozenset[str]
    members: frozenset[str] | None
    """Of `data`, by name; None: any."""


class Size(NamedTuple):
    values: int
    """All values and keys, long texts counted as several."""
    longest: int
    """Entries of the largest list or object."""
    characters: int


def measure(data: Any) -> Size:
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
    return Size(values + characters // CHARACTERS_PER_UNIT, max(longest, 10), characters)


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
EVERYTHING: Final = Reads(VARIABLES, None)

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


class Token(NamedTuple):
    kind: str
    text: str


def tokens_of(text: str) -> list[Token]:
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
            found.append(Token(str(match.lastgroup), match.group()))
    return found


@dataclass(frozen=True, slots=True)
class Cost:
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

    def units(self, size: Size) -> int:
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


def reckon(tokens: list[Token]) -> Cost:
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
    return Cost(
        steps=tuple(counts["steps"]),
        data_reads=tuple(counts["data"]),
        element_reads=tuple(counts["elements"]),
        additions=tuple(counts["additions"]),
        collecting=tuple(counts["collecting"]),
        growth=growth,
        pattern_units=pattern_units,
        literal_entries=sum(token.text == "," for token in tokens) + 1,
    )


def reads_of(tokens: list[Token]) -> Reads:
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
            return Reads(frozenset(variables), None)
        members.add(after[1].text)
    return Reads(frozenset(variables), frozenset(members))


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


def _pattern_units(argument: list[Token]) -> int:
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
