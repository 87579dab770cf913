"""What of endpoints and sources is encrypted at rest, and under which context. Called by services and the dispatcher.

The context binds a ciphertext to tenant and row: copied to another row it does not open.
"""

import json
from enum import StrEnum
from uuid import UUID

from tenants.encryption import decrypt, encrypt


def seal_secret(*, tenant_id: UUID, endpoint_id: UUID, secret: bytes) -> bytes:
    return encrypt(secret, context=b"|".join([tenant_id.bytes, endpoint_id.bytes, b"endpoint-secret"]))


def open_secret(*, tenant_id: UUID, endpoint_id: UUID, sealed: bytes) -> bytes:
    """Raises DecryptionFailed."""
    return decrypt(sealed, context=b"|".join([tenant_id.bytes, endpoint_id.bytes, b"endpoint-secret"]))


class Part(StrEnum):
    """What else of an endpoint is sealed: its place in the context."""

    TEMPLATE_SECRET = "endpoint-template"  # noqa: S105 - a name
    AUTH = "endpoint-auth"
    CLIENT_KEY = "endpoint-client-key"


def seal_part(part: Part, plain: str, *, tenant_id: UUID, endpoint_id: UUID) -> bytes:
    return encrypt(plain.encode(), context=b"|".join([tenant_id.bytes, endpoint_id.bytes, part.encode()]))


def open_part(part: Part, sealed: bytes, *, tenant_id: UUID, endpoint_id: UUID) -> str:
    """Raises DecryptionFailed."""
    return decrypt(sealed, context=b"|".join([tenant_id.bytes, endpoint_id.bytes, part.encode()])).decode()


def seal_slack_url(url: str, *, tenant_id: UUID) -> bytes:
    """Who has it can write to the channel."""
    return encrypt(url.encode(), context=b"|".join([tenant_id.bytes, b"slack-url"]))


def open_slack_url(*, tenant_id: UUID, sealed: bytes) -> str:
    """Raises DecryptionFailed."""
    return decrypt(sealed, context=b"|".join([tenant_id.bytes, b"slack-url"])).decode()


def seal_headers(*, tenant_id: UUID, endpoint_id: UUID, headers: dict[str, str]) -> bytes:
    plain = json.dumps(headers).encode()
    return encrypt(plain, context=b"|".join([tenant_id.bytes, endpoint_id.bytes, b"endpoint-headers"]))


def open_headers(*, tenant_id: UUID, endpoint_id: UUID, sealed: bytes) -> dict[str, str]:
    """Raises DecryptionFailed."""
    plain = decrypt(sealed, context=b"|".join([tenant_id.bytes, endpoint_id.bytes, b"endpoint-headers"]))
    headers: dict[str, str] = json.loads(plain)
    return headers


def seal_source_secrets(*, tenant_id: UUID, source_id: UUID, secrets: list[str], verify_token: str) -> bytes:
    plain = json.dumps({"secrets": secrets, "verify_token": verify_token}).encode()
    return encrypt(plain, context=b"|".join([tenant_id.bytes, source_id.bytes, b"source-secrets"]))


def open_source_secrets(*, tenant_id: UUID, source_id: UUID, sealed: bytes) -> tuple[list[str], str]:
    """The secrets and the verify token. Raises DecryptionFailed."""
    plain = decrypt(sealed, context=b"|".join([tenant_id.bytes, source_id.bytes, b"source-secrets"]))
    found = json.loads(plain)
    return found["secrets"], found["verify_token"]
