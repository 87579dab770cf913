"""What an endpoint is told to be: the fields that a client gives, put onto its row. Writes nothing.

Called by the services that make, change and prove endpoints; `facts` is what the audit log keeps of them.
"""

import re
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

from deliveries import validation
from deliveries.combinations import check_together
from deliveries.models import Endpoint, default_success_statuses
from deliveries.pipeline.address_guard import AddressGuard
from deliveries.sealed import open_headers, seal_headers
from deliveries.services import credentials
from deliveries.validation import Collector, Invalid
from tenants.said import said

DEFAULTS: Final[dict[str, Any]] = {
    "uid": None,
    "description": "",
    "status": Endpoint.Status.ENABLED,
    "channels": None,
    "method": Endpoint.Method.POST,
    "format": Endpoint.Format.STANDARD,
    "headers": {},
    "signature_scheme": Endpoint.SignatureScheme.HMAC_SHA256,
    "signature_template": None,
    "auth": None,
    "client_certificate": None,
    "ca_certificates": None,
    "timeout_seconds": 15,
    "rate_limit": None,
    "max_in_flight": 10,
    "ordering": Endpoint.Ordering.NONE,
    "batch": None,
    "retry_schedule": None,
    "metadata": {},
}
"""What null resets to. Beside them: `event_types` to all of the catalogue, `success_statuses` to 2xx."""

EVERYTHING: Final = ["*"]


def url(value: object) -> str:
    """What `validation.url` takes, by the guard of the settings, and of the platform's own public host only sources."""
    guard = AddressGuard(settings.WEBHOOKS_ALLOWED_NETWORKS, settings.WEBHOOKS_OWN_PORTS)
    cleaned = validation.url(value, guard)
    parts = urlsplit(cleaned)
    if _is_own(parts) and not _SOURCE.fullmatch(parts.path):
        raise Invalid("own_host", "Must not be the platform itself: events would go in circles.")
    return cleaned


_SOURCE = re.compile(r"/in/[A-Za-z0-9_-]{43}", re.ASCII)
"""The path of a source or an inspector. Circles are ended by counting their hops."""


def _is_own(parts: SplitResult) -> bool:
    """Whether the platform answers there: its public host, at the ports that lead to it. Others may be receivers'."""
    public = urlsplit(settings.WEBHOOKS_PUBLIC_URL)
    ports = {None, 80, 443, public.port, settings.WEBHOOKS_WEB_PORT}
    return parts.hostname is not None and parts.hostname == public.hostname and parts.port in ports


def is_uid(text: str) -> bool:
    try:
        validation.uid(text)
    except Invalid:
        return False
    return True


COLUMNS: Final = (
    "kind",
    "url",
    "uid",
    "description",
    "status",
    "disabled_reason",
    "channels",
    "method",
    "format",
    "headers",
    "sensitive_headers",
    "sensitive_headers_encrypted",
    "signature_scheme",
    "signature_template",
    "template_secret_encrypted",
    "auth",
    "auth_encrypted",
    "client_certificate",
    "client_key_encrypted",
    "ca_certificates",
    "success_statuses",
    "timeout_seconds",
    "rate_limit",
    "max_in_flight",
    "ordering",
    "batch",
    "retry_schedule",
    "metadata",
)


def apply(endpoint: Endpoint, fields: dict[str, Any], *, is_merging: bool) -> None:
    """Raises InvalidContent for what merging made too large."""
    wrong = Collector()
    for name, value in fields.items():
        match name:
            case "headers":
                _apply_headers(endpoint, value, is_merging=is_merging, wrong=wrong)
            case "metadata":
                old = endpoint.metadata if is_merging and value is not None else {}
                merged = {key: entry for key, entry in (old | (value or {})).items() if entry is not None}
                wrong.check("metadata", validation.metadata, merged)
                endpoint.metadata = merged
            case "signature_template":
                credentials.apply_template(endpoint, value, wrong)
            case "auth":
                credentials.apply_auth(endpoint, value, wrong)
            case "client_certificate":
                credentials.apply_client_certificate(endpoint, value, wrong)
            case "status":
                _apply_status(endpoint, DEFAULTS["status"] if value is None else value)
            case "success_statuses":
                endpoint.success_statuses = default_success_statuses() if value is None else value
            case _:
                assert name in DEFAULTS, name
                setattr(endpoint, name, DEFAULTS[name] if value is None else value)
    check_together(endpoint, wrong, header_lines=[*endpoint.headers, *endpoint.sensitive_headers])
    wrong.done()


def _apply_status(endpoint: Endpoint, status: str) -> None:
    if endpoint.status != status:
        endpoint.status = status
        is_enabled = status == Endpoint.Status.ENABLED
        endpoint.disabled_reason = None if is_enabled else Endpoint.DisabledReason.MANUAL


def _apply_headers(
    endpoint: Endpoint, changes: dict[str, str | None] | None, *, is_merging: bool, wrong: Collector
) -> None:
    """Names that differ in case alone are the same header. Sensitive ones are kept encrypted."""
    old = all_headers(endpoint) if is_merging and changes is not None else {}
    changes = changes or {}
    replaced = {name.lower() for name in changes}
    merged = {name: value for name, value in old.items() if name.lower() not in replaced}
    merged |= {name: value for name, value in changes.items() if value is not None}
    if len(merged) > validation.MAX_HEADERS:
        wrong.add(
            "headers", "too_long", said("Must have at most %(most)s headers.", most=validation.MAX_HEADERS)
        )
        return
    sensitive = {name: value for name, value in merged.items() if validation.is_sensitive_header(name)}
    endpoint.headers = {name: value for name, value in merged.items() if name not in sensitive}
    endpoint.sensitive_headers = sorted(sensitive)
    endpoint.sensitive_headers_encrypted = (
        seal_headers(tenant_id=endpoint.tenant_id, endpoint_id=endpoint.id, headers=sensitive)
        if sensitive
        else None
    )


def all_headers(endpoint: Endpoint) -> dict[str, str]:
    """Sensitive ones decrypted."""
    headers: dict[str, str] = dict(endpoint.headers)
    if endpoint.sensitive_headers_encrypted is not None:
        headers |= open_headers(
            tenant_id=endpoint.tenant_id,
            endpoint_id=endpoint.id,
            sealed=bytes(endpoint.sensitive_headers_encrypted),
        )
    return headers


def facts(endpoint: Endpoint) -> dict[str, Any]:
    """For the audit log: settings, without the values of sensitive headers and without credentials in URLs."""
    found = {name: getattr(endpoint, name) for name in COLUMNS if not name.endswith("_encrypted")}
    found["url"] = validation.mask_url(endpoint.url)
    if endpoint.auth is not None and "token_url" in endpoint.auth:
        found["auth"] = endpoint.auth | {"token_url": validation.mask_url(endpoint.auth["token_url"])}
    found["event_types"] = patterns_of(endpoint)
    return found


def patterns_of(endpoint: Endpoint) -> list[str]:
    """The shorthand `event_types`: each pattern once, in the order of the subscriptions."""
    return list(dict.fromkeys(each.event_type for each in endpoint.subscriptions.all()))
