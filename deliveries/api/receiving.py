"""`/in/<token>`: where providers send. A plain view, as publishing is: the token is the key, the answer text alone.

The token is judged before the body is read; what becomes of the request is for `services/receiving.py`.
"""

import logging
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from psycopg_pool import PoolTimeout

from deliveries.inbound.requests import MAX_BODY_BYTES, InboundRequest
from deliveries.pipeline import counters
from deliveries.pipeline.hops import hops_of
from deliveries.pipeline.ingest import DatabaseUnavailable
from deliveries.services import doors, receiving
from deliveries.services.doors import Answer, SourceDisabled, TooManyRequests
from deliveries.services.sources import base_url
from tenants import access
from tenants.addresses import remote_ip_of

logger = logging.getLogger(__name__)

METHODS = ("POST", "PUT", "GET")

RETRY_SECONDS = 5

MAX_TOKEN_LENGTH = 64


@csrf_exempt
def receive(request: HttpRequest, token: str) -> HttpResponse:
    """Nothing that a sender sends ends in a page, or in a 500 that is not ours."""
    if request.method not in METHODS:
        return _text(Answer(405, "", (("Allow", ", ".join(METHODS)),)))
    try:
        return _text(_receive(request, token))
    except (DatabaseUnavailable, OperationalError, InterfaceError, PoolTimeout) as error:
        logger.warning("database unavailable", exc_info=error)
        counters.add("database_errors:incoming")
        return _text(Answer(503, "Try again.", (("Retry-After", str(RETRY_SECONDS)),)))
    except (UnreadablePostError, DisallowedHost):
        return _text(Answer(400, "The request cannot be read."))
    except Exception:  # whatever it is, the sender gets a status and no page
        logger.exception("incoming request failed")
        counters.add("incoming:error")
        return _text(Answer(500, "This is a fault of ours, and is being looked at."))


def _receive(request: HttpRequest, token: str) -> Answer:
    if settings.WEBHOOKS_INBOUND_HOST and host_of(request) != settings.WEBHOOKS_INBOUND_HOST:
        return Answer(404, "Not found.")
    try:
        door = doors.find_door(token)
    except access.NotFound:
        counters.add("incoming:unknown")
        return Answer(404, "Not found.")
    except SourceDisabled:
        counters.add("incoming:disabled")
        return Answer(410, "Nothing is taken here any more.")
    except TooManyRequests as error:
        counters.add("incoming:too_many")
        return Answer(429, "Too many requests.", (("Retry-After", str(error.retry_after_seconds)),))
    hops = hops_of(request.META.get("HTTP_WEBHOOK_HOPS", ""))
    return receiving.receive(door=door, request=inbound(request), hops=hops)


def inbound(request: HttpRequest) -> InboundRequest:
    query = request.META.get("QUERY_STRING", "")
    return InboundRequest(
        method=str(request.method),
        url=f"{base_url(scheme=str(request.scheme), host=request.get_host())}{request.path}{'?' if query else ''}{query}",
        query=query,
        headers={name.lower(): value for name, value in request.headers.items()},
        content_type=request.META.get("CONTENT_TYPE", "").partition(";")[0].strip().lower(),
        body=_body(request),
        remote_ip=remote_ip_of(request),
    )


def _body(request: HttpRequest) -> bytes:
    """One byte more than may be, of a body that is too large: who judges it sees that it is. Raises UnreadablePostError."""
    stream = request.META["wsgi.input"]
    length = request.META.get("CONTENT_LENGTH") or ""
    if length:
        if not (length.isascii() and length.isdecimal()):
            raise UnreadablePostError("a length that is no number")
        wanted = min(int(length), MAX_BODY_BYTES + 1)
    elif "HTTP_TRANSFER_ENCODING" in request.META:
        # In chunks, whose end the server marks.
        wanted = MAX_BODY_BYTES + 1
    else:
        return b""
    body = bytearray()
    while len(body) < wanted:
        try:
            part = stream.read(wanted - len(body))
        except OSError as error:
            raise UnreadablePostError(*error.args) from error
        if not part:
            break
        body += part
    if length and len(body) < wanted:
        # The sender is gone. What came may look complete: half of a form is one, too.
        raise UnreadablePostError("the body ended early")
    return bytes(body)


def host_of(request: HttpRequest) -> str:
    """Without the dot that may end a name. Raises DisallowedHost."""
    return (urlsplit(f"//{request.get_host()}").hostname or "").rstrip(".")


def _text(answer: Answer) -> HttpResponse:
    """Plain text or JSON, which no browser takes for a page; no cookies."""
    looks_like_json = answer.body[:1] in {"{", "["}
    kind = "application/json" if looks_like_json else "text/plain; charset=utf-8"
    response = HttpResponse(answer.body, status=answer.status, content_type=kind)
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox"
    response["Cache-Control"] = "no-store"
    for name, value in answer.headers:
        response[name] = value
    return response
