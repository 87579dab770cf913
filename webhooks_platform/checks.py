"""What `check --deploy` advises for production. What makes no sense is refused by the settings themselves (env.py)."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register  # noqa: A004 - Django's names
from django.http.request import validate_host


@register(Tags.security, deploy=True)
def check_production(**kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    found: list[CheckMessage] = []
    if not settings.WEBHOOKS_PUBLIC_URL.startswith("https://"):
        found.append(
            Warning(
                "WEBHOOKS_PUBLIC_URL is not set to an https address: portal links take the request's host.",
                hint="Set it to what people type, such as https://webhooks.example.com.",
                id="webhooks.W001",
            )
        )
    host = urlsplit(settings.WEBHOOKS_PUBLIC_URL).hostname or ""
    if host and not validate_host(f"[{host}]" if ":" in host else host, settings.ALLOWED_HOSTS):
        found.append(
            Warning(
                f"ALLOWED_HOSTS refuses {host}, the host of WEBHOOKS_PUBLIC_URL: its pages answer 400.",
                hint="List it there, too, unless the proxy in front asks for another.",
                id="webhooks.W005",
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
    if not settings.WEBHOOKS_TRUSTED_PROXIES:
        found.append(
            Warning(
                "WEBHOOKS_TRUSTED_PROXIES is empty: behind a proxy everybody seems to come from its address.",
                hint="List the proxy that ends TLS, such as 10.0.0.5/32. Leave it empty if there is none.",
                id="webhooks.W004",
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
