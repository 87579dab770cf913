"""Endpoints of kind poll: what waits for their receivers, made and signed as it would be sent. Called by the API."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now

from deliveries.models import Endpoint, EndpointSecret
from deliveries.pipeline import polling
from deliveries.pipeline.body import RequestTooLarge, encode, source_of
from deliveries.pipeline.signing import HmacKey, SigningKey, ed25519_key, sign
from deliveries.sealed import open_secret
from tenants import ids
from tenants.models import Tenant

MOST_BYTES: Final = 4 * 1024 * 1024
"""Of bodies in one reply; one is given however large it is."""

KEPT_DAYS: Final = 30
"""How long an item stays in line, read or not: as long as a delivery may be pending."""


class NotPolled(Exception):
    """The endpoint is one that is called."""


class EndpointDisabled(Exception):
    """Nothing is handed out."""


@dataclass(frozen=True, slots=True)
class Item:
    position: int
    delivery_id: UUID
    event_id: UUID
    event_type: str
    headers: dict[str, str]
    body: bytes


def poll(
    *, endpoint: Endpoint, consumer: str, after: int | None, most: int, now: datetime
) -> tuple[list[Item], int]:
    """What comes behind `after`, or behind what the consumer acknowledged last; and where to read on.

    `after` acknowledges: what is up to there is succeeded. Raises NotPolled, EndpointDisabled, UnknownPosition.
    """
    if endpoint.kind != Endpoint.Kind.POLL:
        raise NotPolled
    if endpoint.status != Endpoint.Status.ENABLED:
        raise EndpointDisabled
    tenant_id: UUID = endpoint.tenant_id
    position = polling.advance(tenant_id=tenant_id, endpoint_id=endpoint.id, consumer=consumer, after=after)
    if endpoint.is_paused or endpoint.tenant.status == Tenant.Status.SUSPENDED:
        # Held: it waits.
        return [], position
    keys = _keys(endpoint)
    items: list[Item] = []
    size = 0
    for row in polling.read(tenant_id=tenant_id, endpoint_id=endpoint.id, position=position, most=most):
        item = _item(endpoint, keys, row, now)
        position = row[0]
        if item is None:
            continue
        size += len(item.body)
        if items and size > MOST_BYTES:
            return items, items[-1].position
        items.append(item)
    return items, position


def _keys(endpoint: Endpoint) -> list[SigningKey]:
    """Raises DecryptionFailed."""
    rows = EndpointSecret.objects.for_tenant(endpoint.tenant_id).filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=Now()), endpoint=endpoint
    )
    keys: list[SigningKey] = []
    for row in rows.order_by("-id"):
        secret = open_secret(
            tenant_id=row.tenant_id, endpoint_id=row.endpoint_id, sealed=bytes(row.encrypted)
        )
        is_hmac = row.scheme == Endpoint.SignatureScheme.HMAC_SHA256
        keys.append(HmacKey(secret) if is_hmac else ed25519_key(secret))
    return keys


def _item(endpoint: Endpoint, keys: list[SigningKey], row: tuple[Any, ...], now: datetime) -> Item | None:
    """None: its payload has no form in the endpoint's format."""
    position, delivery_id, event_id, event_type, transformed, data, occurred_at, hops, attempts = row
    id_text = ids.to_text(ids.EVENT, event_id)
    try:
        content_type, lines, body = encode(
            endpoint.format,
            event_id_text=id_text,
            event_type=event_type,
            occurred_at=occurred_at,
            data=bytes(data if transformed is None else transformed),
            source=source_of(endpoint.tenant_id.bytes),
        )
    except RequestTooLarge:
        return None
    timestamp = int(now.timestamp())
    further = dict(line.split(": ", 1) for line in lines)
    headers = {
        "content-type": content_type,
        **further,
        **endpoint.headers,
        "webhook-id": id_text,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(keys, id_text, timestamp, body),
        "webhook-attempt": str(attempts + 1),
        "webhook-hops": str(hops + 1),
    }
    return Item(position, delivery_id, event_id, event_type, headers, body)


def forget() -> int:
    return polling.forget(days=KEPT_DAYS)
