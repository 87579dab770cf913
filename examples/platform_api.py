"""What the receivers beside this file ask of the platform, over its public API. Plain Python.

WEBHOOKS_API is https://…/api/v1/tenants/<tenant>, and WEBHOOKS_KEY a key of that tenant.
"""

import json
import os
import urllib.request
from collections.abc import Mapping
from typing import Any


def call(method: str, path: str, body: object = None, **headers: str) -> Any:
    """The decoded reply. An error status raises `urllib.error.HTTPError`."""
    headers |= {"Authorization": f"Bearer {os.environ['WEBHOOKS_KEY']}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["WEBHOOKS_API"] + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.loads(reply.read() or b"null")


def publish(event_type: str, data: dict[str, Any], *, because_of: str, hops: str) -> str:
    """An event that a webhook brought about: its id makes it happen once, its hops end what goes in circles."""
    headers = {"Idempotency-Key": f"{event_type} {because_of}", "webhook-hops": hops}
    return str(call("POST", "/events", {"type": event_type, "data": data}, **headers)["id"])


def subscribe(name: str, url: str, wants: list[str], filters: Mapping[str, str], **settings: Any) -> str:
    """Have events of these patterns sent to the URL, some only if a CEL expression says so. Returns the secret."""
    call("PUT", f"/endpoints/{name}", {"url": url, "event_types": wants, **settings})
    for subscription in call("GET", f"/endpoints/{name}/subscriptions")["data"]:
        if pattern := filters.get(subscription["event_type"]):
            call("PATCH", f"/endpoints/{name}/subscriptions/{subscription['id']}", {"filter": pattern})
    return str(call("GET", f"/endpoints/{name}/secret")["secret"])
