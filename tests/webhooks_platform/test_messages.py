"""Every text for people is there in every language, and the compiled files say the same."""

import re
from string import Formatter

import polib
import pytest
from django.test import Client
from django.utils import translation

from tests.support import messages
from tests.support.messages import LANGUAGES, Message, message_of
from tests.support.portal import text_of

PLACEHOLDER = re.compile(r"%(?:\((\w+)\))?[sd%]")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_file_has_the_texts_of_the_code_and_no_other(language: str) -> None:
    """If not: `make messages`, and translate what it names."""
    there = {message_of(entry) for entry in messages.read(language)}

    found = set(messages.found())

    assert (sorted_texts(found - there), sorted_texts(there - found)) == ([], [])


def sorted_texts(found: set[Message]) -> list[str]:
    return sorted(message.text for message in found)


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_left_to_translate(language: str) -> None:
    left = [entry.msgid for entry in messages.read(language) if not messages.is_translated(entry)]

    assert left == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_filled_in_is_filled_in_everywhere(language: str) -> None:
    for entry in messages.read(language):
        wanted = [set(PLACEHOLDER.findall(text)) for text in (entry.msgid, entry.msgid_plural) if text]
        for text in [entry.msgstr, *entry.msgstr_plural.values()]:
            assert not text or set(PLACEHOLDER.findall(text)) in wanted, entry.msgid
        # Some texts have words of the API in braces.
        assert braces(entry.msgid) == braces(entry.msgstr or entry.msgid), entry.msgid


def braces(text: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(text) if name} if "{body}" in text else set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_compiled_file_is_of_this_one(language: str) -> None:
    path = messages.path_of(language)

    compiled = polib.mofile(str(path.with_suffix(".mo")))

    assert {message_of(entry): (entry.msgstr, entry.msgstr_plural) for entry in compiled} == {
        message_of(entry): (entry.msgstr, entry.msgstr_plural) for entry in messages.read(language)
    }


@pytest.mark.usefixtures("database")
def test_a_browser_that_asks_for_it_gets_it() -> None:
    page = Client(headers={"Accept-Language": "de-CH,de;q=0.9,en;q=0.5"}).get("/portal/sign-in")

    assert '<html lang="de">' in page.content.decode()
    assert "Passwort vergessen?" in text_of(page)


def test_plurals_follow_the_language() -> None:
    with translation.override("de"):
        text = translation.ngettext(
            "Sent again to %(count)d endpoint.", "Sent again to %(count)d endpoints.", 2
        )

    assert text == "Erneut an %(count)d Endpunkte gesendet."
