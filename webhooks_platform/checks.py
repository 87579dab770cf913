"""What is wrong with the settings, said at start, each with what to do. `check --deploy` adds advice for production."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's names

from webhooks_platform.env import origin_of


@register(Tags.security)
def check_public_url(**kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    if not settings.WEBHOOKS_PUBLIC_URL:
        return []
    # An odd port or host has no origin, either.
    if origin_of(settings.WEBHOOKS_PUBLIC_URL) and not set("?#") & set(settings.WEBHOOKS_PUBLIC_URL):
        return []
    return [
        Error(
            f"WEBHOOKS_PUBLIC_URL={settings.WEBHOOKS_PUBLIC_URL!r} is no address of this platform.",
            hint="Set it to what people type, such as https://webhooks.example.com.",
            id="webhooks.E001",
        )
    ]


@register(Tags.security)
def check_cors_origins(**kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 - as above
    return [
        Error(
            f"WEBHOOKS_CORS_ORIGINS: {origin!r} is no origin.",
            hint="List origins as browsers send them, such as https://app.example.com, without a path.",
            id="webhooks.E002",
        )
        for origin in settings.WEBHOOKS_CORS_ORIGINS
        if urlsplit(origin).scheme not in {"http", "https"}
        or urlsplit(origin).path
        or not urlsplit(origin).netloc
    ]


@register(Tags.security, deploy=True)
def check_production(**kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 - as above
    found: list[CheckMessage] = []
    if not settings.WEBHOOKS_PUBLIC_URL.startswith("https://"):
        found.append(
            Warning(
                "WEBHOOKS_PUBLIC_URL is not set to an https address: portal links take the request's host.",
                hint="Set it to what people type, such as https://webhooks.example.com.",
                id="webhooks.W001",
            )
        )
    if settings.EMAIL_BACKEND.endswith((".dummy.EmailBackend", ".console.EmailBackend")):
        found.append(
            Warning(
                "WEBHOOKS_EMAIL_URL is not set: invitations, password resets and warnings reach nobody.",
                hint="Set it to smtp://user:password@host:587, and WEBHOOKS_EMAIL_FROM to the sender.",
                id="webhooks.W003",
            )
        )
    if settings.WEBHOOKS_ALLOWED_NETWORKS:
        found.append(
            Warning(
                "WEBHOOKS_ALLOWED_NETWORKS lets deliveries reach networks that are not public.",
                hint="Leave it empty, unless receivers really live there.",
                id="webhooks.W002",
            )
        )
    return found
