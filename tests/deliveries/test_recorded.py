"""What was recorded in English is said in German: of every kind of text, and in all its parts."""

import ast
import re
from typing import Any

import pytest
from django.utils import translation

from deliveries import recorded
from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.outcome import Outcome, explain
from deliveries.recorded import said_again
from tenants.said import Said, in_language
from tenants.schemas import compile_schema
from tests.support import messages

PLACE = re.compile(r"%\(\w+\)s")


def german(text: str) -> str:
    with translation.override("de"):
        return in_language(said_again(text), translation)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The name does not exist.", "Den Namen gibt es nicht."),
        (
            "10.0.0.7 is a private address; only addresses on the public internet are delivered to.",
            "10.0.0.7 ist eine private Adresse; zugestellt wird nur an Adressen im öffentlichen Internet.",
        ),
        (
            "There is no access token, its URL did not answer. The connection was refused.",
            "Es gibt kein Zugangs-Token, seine URL antwortete nicht. Die Verbindung wurde abgewiesen.",
        ),
        (
            "The transformation failed: the data has no key 'form'.",
            "Die Umformung scheiterte: die Daten haben keinen Schlüssel 'form'.",
        ),
        (
            "the payload makes a query string of more than 8,192 bytes",
            "der Inhalt ergibt als Query-String mehr als 8,192 Bytes",
        ),
        (
            "The body is no valid JSON: Expecting value in line 1, column 9.",
            "Der Inhalt ist kein gültiges JSON: Es fehlt ein Wert in Zeile 1, Spalte 9.",
        ),
        (
            "body.a.0: Must not contain the NUL character or half of a surrogate pair.",
            "body.a.0: Darf weder das Zeichen NUL noch ein halbes Surrogatpaar enthalten.",
        ),
        (
            "The event a.b was refused (unknown_event_type). type: This event type is archived.; type: Must be a text.",
            "Das Ereignis a.b wurde abgelehnt (unknown_event_type). type: Dieser Ereignistyp ist archiviert.; type: Muss ein Text sein.",
        ),
        ("The event a.b was refused (x).", "Das Ereignis a.b wurde abgelehnt (x)."),
        ("What nobody of us wrote stays.", "What nobody of us wrote stays."),
        ("", ""),
    ],
)
def test_what_was_recorded_is_said_again(text: str, wanted: str) -> None:
    assert (str(said_again(text)), german(text)) == (text, wanted)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, "x"),
        ({"type": ["string", "null"]}, 1),
        ({"required": ["a"]}, {}),
        *(({word: 3}, value) for word, value in (("minimum", 1), ("maximum", 5), ("multipleOf", 4))),
        *(({word: 3}, 3) for word in ("exclusiveMinimum", "exclusiveMaximum")),
        ({"enum": ["x", "y"]}, 1),
        *(({"maxLength": limit}, "aaa") for limit in (1, 2)),
        *(({"minLength": limit}, "") for limit in (1, 2)),
        *(({"maxItems": limit}, [1, 2, 3]) for limit in (1, 2)),
        *(({"minItems": limit}, []) for limit in (1, 2)),
        *(({"maxProperties": limit}, {"a": 1, "b": 2, "c": 3}) for limit in (1, 2)),
        *(({"minProperties": limit}, {}) for limit in (1, 2)),
        ({"pattern": "^a"}, "b"),
        ({"const": 4}, 1),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, 1),
        ({"oneOf": [{}, {}]}, 1),
        ({"uniqueItems": True}, [1, 1]),
        ({"contains": {"const": 9}}, [1]),
        ({"not": {}}, 1),
        ({"additionalProperties": False}, {"z": 1}),
        ({"properties": {"a": True}, "additionalProperties": False}, {"z": 1, "y": 1}),
        ({"unevaluatedProperties": False}, {"z": 1, "y": 2}),
        ({"unevaluatedItems": False}, [1]),
        *(({"propertyNames": {"maxLength": limit}}, {"aaa": 1}) for limit in (1, 2)),
    ],
    ids=str,
)
def test_what_breaks_a_schema_is_said_again(schema: dict[str, Any], value: Any) -> None:
    """The library speaks English alone."""
    messages_ = [message for _, message in compile_schema(schema).errors(value)]

    assert messages_
    assert [message for message in messages_ if german(message) == message] == []


def test_names_that_are_words_of_ours_stay_as_they_are() -> None:
    text = "The event form was refused (event)."

    assert german(text) == "Das Ereignis form wurde abgelehnt (event)."


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "168.63.129.16", "169.254.0.1", "192.0.0.1"),
        *("192.0.2.1", "192.88.99.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "::1", "2001::1", "2002::1"),
        *("2001:db8::1", "3fff::1", "nonsense"),
    ],
)
def test_why_an_address_is_refused(address: str) -> None:
    reason = AddressGuard([], []).refusal(address, 443)

    assert reason is not None
    assert " is " not in german(reason)
    assert " means " not in german(reason)
    assert german(reason).startswith(address)


@pytest.mark.parametrize("status", [None, 200, 302, 401, 404, 410, 413, 418, 429, 500, 600])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_explanation_has_a_german_one(outcome: Outcome, status: int | None) -> None:
    sentence = explain(outcome, status, "The connection was reset.")

    with translation.override("de"):
        said = in_language(sentence, translation)

    assert isinstance(sentence, Said)
    assert sentence.endswith(" (The connection was reset)")
    assert said.endswith(" (Die Verbindung wurde abgebrochen)")
    assert not {"The", "the", "not", "status"} & set(said.replace(",", " ").split())


def test_texts_that_are_put_together_where_they_are_recorded_are_known_here() -> None:
    """Those that refuse with something filled in: `said` remembers how, and a record is known by its template."""
    known = {tuple(part for part in PLACE.split(template) if part) for template in recorded.TEMPLATES}
    known.add((".",))  # a library's own words

    unknown = [
        (name, ast.unparse(text))
        for name, text in messages.filled_in_where_it_is_refused()
        if tuple(each.value for each in text.values if isinstance(each, ast.Constant)) not in known
    ]

    assert unknown == []
