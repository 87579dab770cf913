"""Whether an endpoint belongs to who adds it: it has to echo a challenge. For tenants that want it so.

Called by the API and the portal *before* the service that makes or changes the endpoint, outside of any transaction: a
request to a stranger's server may take seconds. The services refuse a new URL that comes without its proof.
"""

import json
import os
import time
from base64 import urlsafe_b64encode
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Final

from django.conf import settings
from django.db import connection
from django.utils import timezone

from deliveries.models import Endpoint
from deliveries.pipeline.endpoints import EndpointConfig, config_of
from deliveries.pipeline.json_bytes import format_time
from deliveries.pipeline.outcome import Outcome, explain
from deliveries.pipeline.tokens import TokenFailure, Tokens
from deliveries.pipeline.transport import Answer, OutgoingRequest, Transport
from deliveries.services.endpoint_settings import apply
from deliveries.services.outgoing import open_configured_transport
from deliveries.validation import Invalid
from tenants import ids
from tenants.models import Tenant
from tenants.said import said

CHALLENGE_SECONDS: Final = 5.0
"""The client waits for it."""

EVENT_TYPE: Final = "webhook.verification"


@dataclass(frozen=True, slots=True)
class Proof:
    """Whoever answers at this URL wants to be an endpoint."""

    url: str


def prove_new(*, tenant: Tenant, url: str | None, **fields: Any) -> Proof | None:
    """For `create_endpoint` and `put_endpoint`, called before them. None: the tenant does not ask for it, or no URL.

    Raises InvalidContent, which says what was wrong.
    """
    if not tenant.verify_endpoints or url is None:
        return None
    candidate = Endpoint(id=ids.new_id(), tenant=tenant, url=url)
    apply(candidate, _shown_to_receivers(fields), is_merging=False)
    return _prove(candidate)


def prove_change(*, endpoint: Endpoint, is_merging: bool = True, **fields: Any) -> Proof | None:
    """For `update_endpoint`, as above. None: its URL stays."""
    url = fields.get("url", endpoint.url)
    if not url or url == endpoint.url or not endpoint.tenant.verify_endpoints:
        return None
    candidate = copy(endpoint)
    candidate.url = url
    apply(candidate, _shown_to_receivers(fields), is_merging=is_merging)
    return _prove(candidate)


def check_proof(tenant: Tenant, url: str, proof: Proof | None) -> None:
    """Raises Invalid."""
    if tenant.verify_endpoints and (proof is None or proof.url != url):
        raise Invalid("not_verified", "The endpoint did not prove that it wants webhooks.", at="url")


def _shown_to_receivers(fields: dict[str, Any]) -> dict[str, Any]:
    """What of an endpoint's settings a challenge needs."""
    wanted = ("method", "headers", "auth", "client_certificate", "ca_certificates", "success_statuses")
    return {name: value for name, value in fields.items() if name in wanted}


def _prove(endpoint: Endpoint) -> Proof:
    """Send the challenge as the endpoint would be sent events, and wait. Raises Invalid, which says what was wrong.

    `endpoint` need not be saved.
    """
    assert not connection.in_atomic_block, "a transaction would wait for a stranger"
    challenge = urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
    config = config_of(endpoint)
    config.destination = replace(config.destination, timeout_seconds=CHALLENGE_SECONDS)
    transport = open_configured_transport(4)
    try:
        lines = [
            f"user-agent: {settings.WEBHOOKS_USER_AGENT}",
            f"webhook-challenge: {challenge}",
            "webhook-hops: 1",
        ]
        lines += config.header_lines + _token_lines(transport, config, lines[0])
        answer = _ask(transport, _challenging(config, challenge, lines))
    finally:
        transport.close()
    if answer.failure is not None:
        raise _not_verified(explain(answer.failure, answer.status_code, answer.detail))
    if answer.status_code not in config.success:
        raise _not_verified(explain(Outcome.HTTP_ERROR, answer.status_code, ""))
    if not _echoes(answer, challenge):
        raise _not_verified("The answer does not hold the challenge.")
    return Proof(endpoint.url)


def _challenging(config: EndpointConfig, challenge: str, lines: list[str]) -> OutgoingRequest:
    if config.method == "GET":
        return OutgoingRequest(config.destination, "GET", f"challenge={challenge}", lines, b"", None)
    said = {
        "type": EVENT_TYPE,
        "timestamp": format_time(timezone.now()),
        "data": {"challenge": challenge},
    }
    body = json.dumps(said, separators=(",", ":")).encode()
    lines = ["content-type: application/json", *lines]
    return OutgoingRequest(config.destination, config.method, None, lines, body, None)


def _token_lines(transport: Transport, config: EndpointConfig, user_agent_line: str) -> list[str]:
    client = config.token_client
    if client is None:
        return []
    tokens = Tokens(user_agent_line=user_agent_line)
    if tokens.known(client) is None:
        asking = tokens.wait(client, None)
        assert asking is not None
        tokens.came(client, _ask(transport, asking))
    match tokens.known(client):
        case str(token):
            return [f"authorization: Bearer {token}"]
        case TokenFailure(outcome, detail):
            raise _not_verified(explain(outcome, None, detail))
        case None:
            raise _not_verified("Its access token expired at once.")


def _ask(transport: Transport, request: OutgoingRequest) -> Answer:
    """Every request ends within its time-out, looking up the name in its own."""
    transport.start(request)
    deadline = time.monotonic() + 4 * request.destination.timeout_seconds
    while time.monotonic() < deadline:
        for answer in transport.poll(1.0):
            return answer
    raise AssertionError("the transport does not keep its promise")


def _echoes(answer: Answer, challenge: str) -> bool:
    """In the header of the same name, as the whole body, or as `challenge` in a JSON object."""
    for line in answer.response_headers.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "webhook-challenge" and value.strip() == challenge:
            return True
    text = answer.response_body.decode("utf-8", "replace").strip()
    if text == challenge:
        return True
    try:
        said: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("challenge") == challenge


def _not_verified(reason: str) -> Invalid:
    return Invalid(
        "not_verified",
        said("The endpoint did not prove that it wants webhooks. %(reason)s", reason=reason),
        at="url",
    )
