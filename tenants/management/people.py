"""For commands that name a person."""

from django.core.exceptions import ValidationError
from django.core.management import CommandError
from django.core.validators import validate_email

MOST_CHARACTERS = 254
"""Of an account's address; Django's own rule lets 320 pass."""


def email_of(text: str) -> str:
    """As accounts have it."""
    email = text.strip().lower()
    try:
        validate_email(email)
    except ValidationError:
        raise CommandError(f"{email} is no e-mail address.") from None
    if len(email) > MOST_CHARACTERS:
        raise CommandError(f"An e-mail address has at most {MOST_CHARACTERS} characters.")
    return email
