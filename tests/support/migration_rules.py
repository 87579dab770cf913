"""What a migration may do to a table that is there already: nothing that stops publishing, or the version before.

Judges SQL, statement by statement. The rules, and how to do each thing instead, are in CONTRIBUTING.md, "Migrations".
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PARTITIONED = {"deliveries_event", "deliveries_delivery", "deliveries_attempt"}

TABLE = r'(?:ONLY )?(?:IF EXISTS )?(?:ONLY )?"?(?P<table>\w+)"?'

VOLATILE = r"random|gen_random_uuid|uuidv7|uuid_generate\w+|nextval|clock_timestamp|timeofday"


@dataclass(frozen=True)
class Rule:
    name: str
    pattern: re.Pattern[str]
    """Matches what is refused. With a group `table`: if that table is there already."""


def _rule(name: str, pattern: str) -> Rule:
    return Rule(name, re.compile(pattern, re.IGNORECASE))


def _alter(name: str, action: str) -> Rule:
    return _rule(name, rf"^ALTER TABLE {TABLE} (?:.*, )?{action}")


RULES = [
    _rule(
        "index without CONCURRENTLY",
        r'^CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).*? ON (?!ONLY )"?(?P<table>\w+)"?',
    ),
    _rule("REINDEX without CONCURRENTLY", r"^REINDEX (?!.*CONCURRENTLY)"),
    _alter("column of another type", r"ALTER (?:COLUMN )?\S+ (?:SET DATA )?TYPE\b"),
    _alter("SET NOT NULL", r"ALTER (?:COLUMN )?\S+ SET NOT NULL"),
    _alter("NOT NULL without a default of the database", r"ADD COLUMN (?!.*\bDEFAULT\b).*\bNOT NULL"),
    _alter("volatile default", rf"ADD COLUMN .*\bDEFAULT \(*(?:{VOLATILE})\("),
    _alter("computed or numbered column", r"ADD COLUMN .*(?:\bGENERATED\b|serial\b)"),
    _alter("unique column", r"ADD COLUMN .*\b(?:UNIQUE|PRIMARY KEY)\b"),
    _alter("foreign key that is validated at once", r"ADD COLUMN .*\bREFERENCES\b"),
    _alter("constraint that is validated at once", r"ADD CONSTRAINT (?!.*\b(?:NOT VALID|USING INDEX)\b)"),
    _alter("column leaves", r"DROP COLUMN"),
    _alter("another name", r"RENAME\b"),
    _alter("table written anew", r"SET (?:LOGGED|UNLOGGED|TABLESPACE|ACCESS METHOD)\b"),
    _rule("table leaves", rf"^DROP TABLE {TABLE}"),
    _rule("all rows in one statement", rf"^(?:UPDATE|DELETE FROM|TRUNCATE(?: TABLE)?) {TABLE}"),
    _rule("lock of a table", rf"^LOCK (?:TABLE )?{TABLE}"),
    _rule("table written anew", rf"^(?:CLUSTER(?: VERBOSE)?|VACUUM.* FULL) {TABLE}"),
]

CONCURRENTLY = re.compile(
    r'^CREATE (?:UNIQUE )?INDEX CONCURRENTLY (?:IF NOT EXISTS )?"?(?P<index>\w+)"? ON "?(?P<table>\w+)"?',
    re.IGNORECASE,
)
DROP_INDEX = re.compile(r'^DROP INDEX CONCURRENTLY IF EXISTS "?(?P<index>\w+)"?', re.IGNORECASE)
CREATE_TABLE = re.compile(r'^CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?"?(?P<table>\w+)"?', re.IGNORECASE)
ADD_DEFAULT = re.compile(
    rf'^ALTER TABLE {TABLE} ADD COLUMN "?(?P<column>\w+)"? .*\bDEFAULT\b.*\bNOT NULL', re.IGNORECASE
)
DROP_DEFAULT = re.compile(
    rf'^ALTER TABLE {TABLE} ALTER (?:COLUMN )?"?(?P<column>\w+)"? DROP DEFAULT', re.IGNORECASE
)
ADD_CONSTRAINT = re.compile(rf'^ALTER TABLE {TABLE} ADD CONSTRAINT "?(?P<name>\w+)"?', re.IGNORECASE)
VALIDATE = re.compile(rf'^ALTER TABLE {TABLE} VALIDATE CONSTRAINT "?(?P<name>\w+)"?', re.IGNORECASE)


def statements_of(lines: Sequence[str]) -> list[str]:
    """Single statements without comments and line breaks. (Bodies of functions stay in one piece.)"""
    text = "\n".join(re.sub(r"^\s*--.*$", "", line, flags=re.MULTILINE) for line in lines)
    bodies: list[str] = []

    def put_away(body: re.Match[str]) -> str:
        bodies.append(body[0])
        return f"$body{len(bodies) - 1}$"

    text = re.sub(r"(\$\w*\$).*?\1", put_away, text, flags=re.DOTALL)
    parts = (" ".join(part.split()) for part in text.split(";"))
    return [re.sub(r"\$body(\d+)\$", lambda at: bodies[int(at[1])], part) for part in parts if part]


def offences(statements: Sequence[str], *, existing: set[str]) -> Iterator[tuple[str, str]]:
    """(rule, what it was about). `existing`: tables that are there before; those made here are added."""
    new: set[str] = set()
    dropped: set[str] = set()
    with_default: set[tuple[str, str]] = set()
    added: set[str] = set()
    for statement in statements:
        if made := CREATE_TABLE.match(statement):
            new.add(made["table"])
        for rule in RULES:
            if found := rule.pattern.match(statement):
                table = found.groupdict().get("table")
                if table is None or (table in existing and table not in new):
                    yield rule.name, table or statement
        if found := DROP_INDEX.match(statement):
            dropped.add(found["index"])
        if found := CONCURRENTLY.match(statement):
            if found["table"] in PARTITIONED:
                yield "CONCURRENTLY on all partitions at once", found["table"]
            elif found["table"] in existing and found["index"] not in dropped:
                yield "index that an interrupted run leaves invalid", found["index"]
        if (found := ADD_DEFAULT.match(statement)) and found["table"] in existing:
            with_default.add((found["table"], found["column"]))
        if (found := DROP_DEFAULT.match(statement)) and (found["table"], found["column"]) in with_default:
            # The version before names no such column when it inserts.
            yield "NOT NULL without a default of the database", found["table"]
        if found := ADD_CONSTRAINT.match(statement):
            added.add(found["name"])
        if (found := VALIDATE.match(statement)) and found["name"] in added:
            yield "validated in the transaction that adds it", found["table"]
    existing |= new
