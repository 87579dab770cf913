"""E-mails to people, in their language. The text is a template: its first line is the subject.

Called by services that run in a worker. No page waits for a mail server, or tells by its time that one was asked.
"""

from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.template.loader import render_to_string
from django.utils import translation


def send(*, to: str, template: str, language: str, **context: Any) -> None:
    """`templates/mail/<template>.txt`. Raises OSError, of which smtplib's errors are, if the server did not take it."""
    with translation.override(language or settings.LANGUAGE_CODE):
        text = render_to_string(f"mail/{template}.txt", context | {"platform_url": _platform_url()})
    subject, _, body = text.strip().partition("\n")
    EmailMessage(subject.strip(), body.strip() + "\n", to=[to]).send()


def can_be_sent() -> bool:
    """Whether the platform was told of a mail server."""
    return not settings.EMAIL_BACKEND.endswith(".dummy.EmailBackend")


def _platform_url() -> str:
    return settings.WEBHOOKS_PUBLIC_URL or f"http://localhost:{settings.WEBHOOKS_WEB_PORT}"
