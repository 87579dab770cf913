"""The request of a delivery as its attempts sent it. Bodies are not kept with attempts: they are made anew from the stored bytes.

Called by the portal. What an endpoint's settings say today may differ from what they said then; the content type, which
every attempt keeps, tells.
"""

from dataclasses import dataclass

from deliveries.models import Delivery, Endpoint, Event
from deliveries.pipeline.body import RequestTooLarge, encode, query_of, source_of
from deliveries.validation import mask_url
from tenants import ids


@dataclass(frozen=True, slots=True)
class SentRequest:
    method: str
    url: str
    """Credentials masked; with its query string, if it was a GET."""
    content_type: str | None
    body: bytes


def request_of(*, delivery: Delivery, event: Event, endpoint: Endpoint) -> SentRequest | None:
    """None: nothing can be made of it, as the attempt says. `delivery` has its body, `event` its payload."""
    data = delivery.body if delivery.body is not None else event.data
    if data is None or delivery.preparation_error is not None:
        return None
    url = mask_url(endpoint.url)
    try:
        if endpoint.method == Endpoint.Method.GET:
            query = query_of(event_type=event.type, occurred_at=event.occurred_at, data=bytes(data))
            return SentRequest("GET", f"{url}{'&' if '?' in url else '?'}{query}", None, b"")
        content_type, _, body = encode(
            endpoint.format,
            event_id_text=ids.to_text(ids.EVENT, event.id),
            event_type=event.type,
            occurred_at=event.occurred_at,
            data=bytes(data),
            source=source_of(event.tenant_id.bytes),
        )
    except RequestTooLarge:
        return None
    return SentRequest(endpoint.method, url, content_type, body)
