"""Which requests count as the same, and what is locked for one. Pure. Used by the API's POSTs and by `ingest`."""

import hashlib
from datetime import timedelta

KEPT = timedelta(hours=24)
"""How long the first answer to a request is given again."""


def lock_key(space: bytes, key: str) -> int:
    """The advisory lock of a key in its space, as a signed bigint: two requests with one key exclude each other."""
    digest = hashlib.sha256(b"idempotency\x00" + space + key.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def fingerprint(method: str, path: str, body: bytes) -> bytes:
    """What makes a request the same as an earlier one. `path` with its query, which can change what a request does."""
    return hashlib.sha256(b"\x00".join([method.encode(), path.encode(), body])).digest()
