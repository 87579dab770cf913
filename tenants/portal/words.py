"""What rules and services say in English, in the viewer's language."""

from django.utils import translation

from tenants.said import Said, in_language
from tenants.validation import InvalidContent


def in_words(text: str) -> str:
    """A text of ours. What is none, such as a library's, stays as it is."""
    if isinstance(text, Said):
        return in_language(text, translation)
    # The empty text has the catalogue's own head for a translation.
    return translation.gettext(text) if text else text


def refusals(invalid: InvalidContent) -> list[str]:
    """A text for each wrong field, to stand beside it."""
    return [in_words(error.message) for error in invalid.errors]
