"""What an endpoint keeps beside its signing secrets: the other scheme's secret, and what it shows to its receiver.

Called by the endpoint services, inside their transaction. What is secret is stored encrypted and shown as `***`; `***`
sent back leaves it as it is.
"""

from typing import Any, Final

from deliveries.credentials import SECRET_OF, belong_together
from deliveries.models import Endpoint
from deliveries.sealed import Part, open_part, seal_part
from deliveries.validation import MASK, Collector

SEALED_COLUMNS: Final = ("template_secret_encrypted", "auth_encrypted", "client_key_encrypted")


def apply_template(endpoint: Endpoint, value: dict[str, Any] | None, wrong: Collector) -> None:
    """`value` as `signature_template.read` gives it, or None."""
    secret = None if value is None else value.get("secret")
    if secret == MASK and endpoint.template_secret_encrypted is None:
        wrong.add("signature_template.secret", "required", "There is no secret to leave as it is.")
        return
    if secret != MASK:
        endpoint.template_secret_encrypted = (
            None if secret is None else _sealed(endpoint, Part.TEMPLATE_SECRET, secret)
        )
    endpoint.signature_template = (
        None if value is None else {name: entry for name, entry in value.items() if name != "secret"}
    )


def shown_template(endpoint: Endpoint) -> dict[str, Any] | None:
    template: dict[str, Any] | None = endpoint.signature_template
    if template is None or endpoint.template_secret_encrypted is None:
        return template
    return template | {"secret": MASK}


def apply_auth(endpoint: Endpoint, value: dict[str, Any] | None, wrong: Collector) -> None:
    """`value` as `deliveries.credentials.auth` gives it, or None."""
    if value is None:
        endpoint.auth = endpoint.auth_encrypted = None
        return
    name = SECRET_OF[value["type"]]
    readable = {field: entry for field, entry in value.items() if field != name}
    if value[name] != MASK:
        endpoint.auth_encrypted = _sealed(endpoint, Part.AUTH, value[name])
    elif not _may_keep(endpoint.auth, readable):
        # Whoever may change an endpoint, but never saw its secret, shall not have it sent to a place of his own.
        wrong.add(f"auth.{name}", "required", "Must be given again when the type or the token's URL changes.")
        return
    endpoint.auth = readable


def _may_keep(old: dict[str, Any] | None, new: dict[str, Any]) -> bool:
    return old is not None and (old["type"], old.get("token_url")) == (new["type"], new.get("token_url"))


def shown_auth(endpoint: Endpoint) -> dict[str, Any] | None:
    auth: dict[str, Any] | None = endpoint.auth
    return None if auth is None else auth | {SECRET_OF[auth["type"]]: MASK}


def apply_client_certificate(endpoint: Endpoint, value: dict[str, str] | None, wrong: Collector) -> None:
    """`value` as `deliveries.credentials.client_certificate` gives it, or None."""
    if value is None:
        endpoint.client_certificate = endpoint.client_key_encrypted = None
        return
    if value["private_key"] != MASK:
        endpoint.client_key_encrypted = _sealed(endpoint, Part.CLIENT_KEY, value["private_key"])
    elif not _is_its_key(endpoint, value["certificate"]):
        wrong.add(
            "client_certificate.private_key",
            "required",
            "Must be given: none is there that belongs to the certificate.",
        )
        return
    endpoint.client_certificate = value["certificate"]


def _is_its_key(endpoint: Endpoint, certificate: str) -> bool:
    if endpoint.client_key_encrypted is None:
        return False
    key = open_part(
        Part.CLIENT_KEY,
        bytes(endpoint.client_key_encrypted),
        tenant_id=endpoint.tenant_id,
        endpoint_id=endpoint.id,
    )
    return belong_together(certificate, key)


def shown_client_certificate(endpoint: Endpoint) -> dict[str, str] | None:
    if endpoint.client_certificate is None:
        return None
    return {"certificate": endpoint.client_certificate, "private_key": MASK}


def forget(endpoint: Endpoint) -> None:
    """It is deleted: its secrets go."""
    for column in SEALED_COLUMNS:
        setattr(endpoint, column, None)


def _sealed(endpoint: Endpoint, part: Part, plain: str) -> bytes:
    return seal_part(part, plain, tenant_id=endpoint.tenant_id, endpoint_id=endpoint.id)
