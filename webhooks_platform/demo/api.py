"""HTTP for those who publish in a story: the public REST API in twenty lines, and a bare POST."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

DEMO_SCOPES = [
    "events:write",
    "events:read",
    "endpoints:read",
    "endpoints:write",
    "catalogue:read",
    "catalogue:write",
    "deliveries:read",
    "deliveries:write",
]


class Api:
    def __init__(self, base: str, key: str) -> None:
        self.base = base
        self.key = key

    def send(self, method: str, path: str, body: object = None, *, idempotency_key: str = "") -> Any:
        """The decoded reply. An error status raises `urllib.error.HTTPError`."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.base + path, data, headers, method=method)  # noqa: S310 - http, our own
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            return json.loads(response.read() or b"null")

    def publish(self, event_type: str, data: dict[str, Any], *, idempotency_key: str) -> str:
        """The id of the event, once it is durable. With the same key it can be tried again and happens once."""
        event = {"type": event_type, "data": data}
        return str(self.send("POST", "/events", event, idempotency_key=idempotency_key)["id"])


def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """The status, whichever it is."""
    request = urllib.request.Request(url, body, dict(headers), method="POST")  # noqa: S310 - of the story
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
