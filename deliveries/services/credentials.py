"""What an endpoint keeps beside its signing secrets: the other scheme's secret, and what it shows to its receiver.

Called by the endpoint services, inside their transaction. What is secret is stored encrypted and shown as `***`; `***`
sent back leaves it as it is.
"""

from typing import Any, Final

from deliveries.models import Endpoint
from deliveries.sealed import Part, seal_part
from deliveries.validation import MASK, Collector

SEALED_COLUMNS: Final = ("template_secret_encrypted",)


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


def forget(endpoint: Endpoint) -> None:
    """It is deleted: its secrets go."""
    for column in SEALED_COLUMNS:
        setattr(endpoint, column, None)


def _sealed(endpoint: Endpoint, part: Part, plain: str) -> bytes:
    return seal_part(part, plain, tenant_id=endpoint.tenant_id, endpoint_id=endpoint.id)
