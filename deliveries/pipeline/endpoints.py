"""What the dispatcher must know of an endpoint to send to it: built once per settings version, kept by the holder."""

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from math import ceil
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg

from deliveries.credentials import expires_at as certificate_expires_at
from deliveries.models import Endpoint
from deliveries.pipeline import arrays
from deliveries.pipeline.address_guard import literal_host
from deliveries.pipeline.database import Row
from deliveries.pipeline.outcome import SuccessStatuses
from deliveries.pipeline.signature_template import SignatureTemplate, header_lines, parse
from deliveries.pipeline.signing import HmacKey, SigningKey, ed25519_key, secret_text
from deliveries.pipeline.tokens import TOKEN_SECONDS, TokenClient, token_client
from deliveries.pipeline.transport import Destination, OwnTls
from deliveries.sealed import Part, open_headers, open_part, open_secret
from tenants.encryption import DecryptionFailed

logger = logging.getLogger(__name__)

Sealed = bytes | memoryview | None
"""As psycopg or the model gives it."""

MASK = "***"
"""What is shown in place of a sensitive header's value."""


@dataclass(frozen=True, slots=True)
class BatchRule:
    """Several events in one request: as soon as there are so many, or the first has waited so long."""

    max_events: int
    max_wait_seconds: float


@dataclass(slots=True, eq=False)
class EndpointConfig:
    endpoint_id: bytes
    tenant_id: bytes
    version: int
    cancel_reason: str | None
    """Set when the endpoint is stopped: what is pending ends as cancelled with it."""
    destination: Destination
    is_literal_address: bool
    method: str
    format: str
    header_lines: list[str]
    masked_lines: list[str]
    """As `header_lines`, with sensitive values masked: what attempts keep."""
    keys: list[tuple[SigningKey, float]]
    """With the Unix time at which each ends; the current one never does."""
    success: frozenset[int]
    retry_schedule: tuple[int, ...] | None
    max_in_flight: int
    rate_limit: float | None
    """Requests per second."""
    broken: str | None
    """Why nothing can be sent as it is: a secret that does not decrypt. Ends up as `internal_error` on this endpoint alone."""
    template: SignatureTemplate | None = None
    """The signature of another scheme, beside ours."""
    template_secret: bytes | None = None
    """Its own. None: the texts of the endpoint's live secrets."""
    batch: BatchRule | None = None
    has_auth: bool = False
    token_client: TokenClient | None = None
    """Where its access tokens come from, if it wants any."""
    certificate_until: float = float("inf")
    """Unix time at which its client certificate expires."""
    live_keys: list[SigningKey] = field(default_factory=list)
    live_until: float = 0.0

    @property
    def most_a_second(self) -> float:
        """Deliveries that its pace allows."""
        if self.rate_limit is None:
            return float("inf")
        return ceil(self.rate_limit) * (1 if self.batch is None else self.batch.max_events)

    def signing_keys(self, now: float) -> list[SigningKey]:
        """Those whose overlap has not ended."""
        if now >= self.live_until:
            live = [(key, until) for key, until in self.keys if until > now]
            self.live_keys = [key for key, _ in live]
            self.live_until = min((until for _, until in live), default=float("inf"))
        return self.live_keys

    def template_lines(self, now: float, *, message_id: str, event_type: str, signed: bytes) -> list[str]:
        """The headers of the other scheme. The endpoint has a template."""
        assert self.template is not None
        if self.template_secret is not None:
            keys = [self.template_secret]
        else:
            # None are left when the endpoint's scheme was changed and the overlap is over; such a change is refused.
            keys = [
                secret_text(key.secret).encode() for key in self.signing_keys(now) if isinstance(key, HmacKey)
            ]
        return header_lines(
            self.template, keys, message_id=message_id, timestamp=int(now), event_type=event_type, body=signed
        )


LOAD = """
SELECT e.id, e.tenant_id, e.version, e.url, e.status, e.deleted_at IS NOT NULL, t.deleted_at IS NOT NULL,
       e.method, e.format, e.headers, e.sensitive_headers_encrypted, e.success_statuses, e.timeout_seconds,
       e.retry_schedule, e.max_in_flight, e.rate_limit, e.signature_template, e.template_secret_encrypted,
       e.auth, e.auth_encrypted, e.client_certificate, e.client_key_encrypted, e.ca_certificates, e.batch,
       ARRAY(SELECT s.encrypted FROM deliveries_endpointsecret s
             WHERE s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > now()) ORDER BY s.id DESC),
       ARRAY(SELECT s.scheme FROM deliveries_endpointsecret s
             WHERE s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > now()) ORDER BY s.id DESC),
       ARRAY(SELECT s.expires_at FROM deliveries_endpointsecret s
             WHERE s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > now()) ORDER BY s.id DESC)
FROM deliveries_endpoint e JOIN tenants_tenant t ON t.id = e.tenant_id
WHERE e.id = ANY(%s)
"""


def load_configs(connection: psycopg.Connection[Row], endpoint_ids: Sequence[bytes]) -> list[EndpointConfig]:
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(LOAD, [arrays.uuids(endpoint_ids)]).fetchall()
    return [_readable(row) for row in rows]


def _readable(row: Row) -> EndpointConfig:
    try:
        return _config(*row)
    except Exception as error:  # noqa: BLE001 - one endpoint's trouble is not that of all who are loaded with it
        # Not the error's own text: it may hold what was to stay secret.
        named = {"endpoint_id": str(UUID(bytes=row[0])), "error": type(error).__name__}
        logger.error("settings of an endpoint cannot be read", extra=named)  # noqa: TRY400 - see above
        return _unreadable(*row[:7])


def _unreadable(
    endpoint_id: bytes,
    tenant_id: bytes,
    version: int,
    url: str,
    status: str,
    is_deleted: bool,
    is_tenant_deleted: bool,
) -> EndpointConfig:
    """Enough to cancel what is pending, or to say in each attempt what is wrong."""
    return EndpointConfig(
        endpoint_id=endpoint_id,
        tenant_id=tenant_id,
        version=version,
        cancel_reason=_cancel_reason(status, is_deleted, is_tenant_deleted),
        destination=Destination(url, "https", "", 443, UUID(bytes=tenant_id), 30.0),
        is_literal_address=False,
        method="POST",
        format="standard",
        header_lines=[],
        masked_lines=[],
        keys=[],
        success=frozenset(),
        retry_schedule=None,
        max_in_flight=1,
        rate_limit=None,
        broken="the stored settings of this endpoint cannot be read; save them again",
    )


def _config(
    endpoint_id: bytes,
    tenant_id: bytes,
    version: int,
    url: str,
    status: str,
    is_deleted: bool,
    is_tenant_deleted: bool,
    method: str,
    format: str,
    headers: dict[str, str],
    sealed_headers: Sealed,
    success_statuses: list[str],
    timeout_seconds: int,
    retry_schedule: list[int] | None,
    max_in_flight: int,
    rate_limit: float | None,
    template: dict[str, Any] | None,
    sealed_template_secret: Sealed,
    auth: dict[str, Any] | None,
    sealed_auth: Sealed,
    client_certificate: str | None,
    sealed_client_key: Sealed,
    ca_certificates: str | None,
    batch: dict[str, int] | None,
    sealed_secrets: list[bytes],
    schemes: list[str],
    expiries: list[datetime | None],
) -> EndpointConfig:
    tenant_uuid, endpoint_uuid = UUID(bytes=tenant_id), UUID(bytes=endpoint_id)
    broken = None
    keys: list[tuple[SigningKey, float]] = []
    sensitive: dict[str, str] = {}
    template_secret, auth_secret, client_key = None, None, None

    def opened(part: Part, sealed: Sealed) -> str | None:
        if sealed is None:
            return None
        return open_part(part, bytes(sealed), tenant_id=tenant_uuid, endpoint_id=endpoint_uuid)

    try:
        for sealed, scheme, expires_at in zip(sealed_secrets, schemes, expiries, strict=True):
            secret = open_secret(tenant_id=tenant_uuid, endpoint_id=endpoint_uuid, sealed=bytes(sealed))
            key = HmacKey(secret) if scheme == "hmac-sha256" else ed25519_key(secret)
            keys.append((key, float("inf") if expires_at is None else expires_at.timestamp()))
        if sealed_headers is not None:
            sensitive = open_headers(
                tenant_id=tenant_uuid, endpoint_id=endpoint_uuid, sealed=bytes(sealed_headers)
            )
        template_secret = opened(Part.TEMPLATE_SECRET, sealed_template_secret)
        auth_secret = opened(Part.AUTH, sealed_auth)
        client_key = opened(Part.CLIENT_KEY, sealed_client_key)
    except (DecryptionFailed, ValueError):
        broken = (
            "a stored secret of this endpoint cannot be decrypted; rotate its secret, and set its headers and"
            " credentials again"
        )
    lines = [f"{name}: {value}" for name, value in headers.items()]
    own_lines = lines + [f"{name}: {value}" for name, value in sensitive.items()]
    masked_lines = lines + [f"{name}: {MASK}" for name in sensitive]
    client = None
    if auth is not None and auth_secret is not None:
        masked_lines.append(f"authorization: {MASK}")
        if auth["type"] == "oauth2":
            there = _destination(auth["token_url"], tenant_uuid, TOKEN_SECONDS, None)
            client = token_client(auth=auth, secret=auth_secret, destination=there)
        else:
            own_lines.append(_authorization(auth, auth_secret))
    tls = None
    if client_certificate is not None or ca_certificates is not None:
        tls = OwnTls(f"{endpoint_uuid} {version}", client_certificate, client_key, ca_certificates)
    destination = _destination(url, tenant_uuid, float(timeout_seconds), tls)
    return EndpointConfig(
        endpoint_id=endpoint_id,
        tenant_id=tenant_id,
        version=version,
        cancel_reason=_cancel_reason(status, is_deleted, is_tenant_deleted),
        destination=destination,
        is_literal_address=literal_host(destination.host) is not None,
        method=method,
        format=format,
        header_lines=own_lines,
        masked_lines=masked_lines,
        keys=keys,
        template=None if template is None else parse(template),
        template_secret=None if template_secret is None else template_secret.encode(),
        batch=None if batch is None else BatchRule(batch["max_events"], batch["max_wait_ms"] / 1000),
        has_auth=auth is not None,
        token_client=client,
        certificate_until=float("inf")
        if client_certificate is None
        else certificate_expires_at(client_certificate).timestamp(),
        success=_success(tuple(success_statuses)),
        retry_schedule=None if retry_schedule is None else tuple(retry_schedule),
        max_in_flight=max_in_flight,
        rate_limit=rate_limit,
        broken=broken,
    )


def _destination(url: str, tenant_id: UUID, seconds: float, tls: OwnTls | None) -> Destination:
    parts = urlsplit(url)
    return Destination(
        url=url,
        scheme=parts.scheme,
        host=parts.hostname or "",
        port=parts.port or (443 if parts.scheme == "https" else 80),
        tenant_id=tenant_id,
        timeout_seconds=seconds,
        tls=tls,
    )


def _authorization(auth: dict[str, Any], secret: str) -> str:
    if auth["type"] == "basic":
        pair = f"{auth['username']}:{secret}".encode()
        return f"authorization: Basic {base64.b64encode(pair).decode()}"
    return f"authorization: Bearer {secret}"


def config_of(endpoint: Endpoint) -> EndpointConfig:
    """Of one that may not be saved yet, without its signing keys: for a request that is no delivery."""
    return _config(
        endpoint.id.bytes,
        endpoint.tenant_id.bytes,
        endpoint.version,
        endpoint.url,
        endpoint.status,
        False,
        False,
        endpoint.method,
        endpoint.format,
        endpoint.headers,
        endpoint.sensitive_headers_encrypted,
        endpoint.success_statuses,
        endpoint.timeout_seconds,
        endpoint.retry_schedule,
        endpoint.max_in_flight,
        endpoint.rate_limit,
        endpoint.signature_template,
        endpoint.template_secret_encrypted,
        endpoint.auth,
        endpoint.auth_encrypted,
        endpoint.client_certificate,
        endpoint.client_key_encrypted,
        endpoint.ca_certificates,
        endpoint.batch,
        [],
        [],
        [],
    )


@lru_cache(maxsize=1000)
def _success(entries: tuple[str, ...]) -> frozenset[int]:
    """Shared by all endpoints that want the same: a set of a hundred numbers each would be most of what they weigh."""
    return SuccessStatuses.parse(entries).codes


def _cancel_reason(status: str, is_deleted: bool, is_tenant_deleted: bool) -> str | None:
    if is_tenant_deleted:
        return "tenant_deleted"
    if is_deleted:
        return "endpoint_deleted"
    return "endpoint_disabled" if status != "enabled" else None


class ConfigCache:
    """Configs by endpoint, those loaded last. Written by the lanes clerk alone."""

    def __init__(self, size: int = 25_000) -> None:
        self._size = size
        self._kept: dict[bytes, EndpointConfig] = {}

    def get(
        self, connection: psycopg.Connection[Row], wanted: Sequence[tuple[bytes, int]]
    ) -> dict[bytes, EndpointConfig]:
        """(endpoint, version) → config; loads those that are missing or of another version."""
        # Taken out before others are loaded: to keep those, these may be forgotten.
        found = {
            endpoint_id: kept
            for endpoint_id, version in wanted
            if (kept := self._kept.get(endpoint_id)) is not None and kept.version == version
        }
        missing = [endpoint_id for endpoint_id, _ in wanted if endpoint_id not in found]
        if missing:
            found |= self.load(connection, missing)
        return found

    def load(
        self, connection: psycopg.Connection[Row], endpoint_ids: Sequence[bytes]
    ) -> dict[bytes, EndpointConfig]:
        """As they are now, and kept."""
        found = {config.endpoint_id: config for config in load_configs(connection, endpoint_ids)}
        for endpoint_id, config in found.items():
            self._kept.pop(endpoint_id, None)
            self._kept[endpoint_id] = config
        while len(self._kept) > self._size:
            self._kept.pop(next(iter(self._kept)))
        return found
