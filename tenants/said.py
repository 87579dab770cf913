"""English texts for people that can be said in another language, too. Pure.

The API, the logs and the database have the English text, which is what a `Said` is. It remembers how it was put
together, and so the portal can put it together in its viewer's language: `tenants/portal/words.py`.
"""

from collections.abc import Callable
from gettext import NullTranslations
from typing import Protocol


class Language(Protocol):
    def gettext(self, message: str) -> str: ...

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str: ...


ENGLISH: Language = NullTranslations()
"""The texts are English as they stand."""


class Said(str):
    __slots__ = ("again",)

    again: Callable[[Language], str]
    """The same in a language."""

    def __str__(self) -> str:
        # An exception that is made of one, and asked for its text, gives this very one back.
        return self


def said_by(again: Callable[[Language], str]) -> Said:
    """`again` puts the text together in a language."""
    made = Said(again(ENGLISH))
    made.again = again
    return made


def said(template: str, **values: object) -> Said:
    """`said("Must be at least %(low)s.", low=5)`. Without values the template is the text."""

    def again(language: Language) -> str:
        text = language.gettext(template)
        return text % _filled(values, language) if values else text

    return said_by(again)


def said_of(singular: str, plural: str, number: int, **values: object) -> Said:
    """By a number, which the texts may use as %(number)s."""

    def again(language: Language) -> str:
        filled = _filled(values, language) | {"number": number}
        return language.ngettext(singular, plural, number) % filled

    return said_by(again)


def joined(*texts: str) -> Said:
    """Sentences, one after the other. Empty ones are left out."""
    return said_by(lambda language: " ".join(in_language(text, language) for text in texts if text))


def with_remark(sentence: str, remark: str) -> Said:
    """The remark, a sentence of its own, follows in brackets."""
    return said_by(
        lambda language: f"{in_language(sentence, language)} ({in_language(remark, language).rstrip('.')})"
    )


def plain(value: object) -> str:
    """For an encoder that knows no kinds of text: the English one."""
    if isinstance(value, Said):
        return "".join(value)
    raise NotImplementedError(type(value).__name__)


def in_language(text: str, language: Language) -> str:
    """What is no `Said` stays as it is: names, and what customers wrote."""
    return text.again(language) if isinstance(text, Said) else text


def _filled(values: dict[str, object], language: Language) -> dict[str, object]:
    return {
        name: in_language(value, language) if isinstance(value, str) else value
        for name, value in values.items()
    }
