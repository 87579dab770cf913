"""The payloads that a dispatcher has in memory, shared by their deliveries, within a budget of bytes. Part of its `book`.

What was fetched stays until it was sent once; what nobody carries any more goes, the oldest first, when room is needed.
So the budget covers what waits and what is in the air together, and a tenant gets more of it only while it has less than
is free.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

PAYLOAD_BYTES = 24 * 1024 * 1024
"""Payloads in memory at once."""

LANE_PAYLOAD_BYTES = 1024 * 1024
"""Payloads fetched ahead for one lane in a round, beyond its first: one that hangs keeps no more memory than this."""


@dataclass(slots=True, eq=False)
class Payload:
    """An event's data, shared by all its deliveries in memory; or what a transformation made of it for one of them."""

    key: bytes
    """`Owed.payload_key`."""
    tenant_id: bytes
    id_text: str
    type: str
    occurred_at: datetime
    data: bytes | None
    hops: int
    channels: list[str] | None
    size: int
    """Bytes it takes in memory: the data, and the body made of it."""
    fetched_at: float
    users: int = 0
    """Deliveries in the air that carry it."""
    encoded: dict[str, tuple[list[str], bytes]] = field(default_factory=dict)
    """By format: header lines that say what it is, and body."""
    traceparent: str | None = None
    """Of its publish, if that is traced."""


def memory_of(size: int) -> int:
    """Bytes that a payload takes in memory: the data, and the body made of it."""
    return 2 * size + 500


@dataclass(slots=True)
class PayloadRoom:
    """What may be fetched now. A tenant gets more only while it has less waiting or in the air than is free."""

    free: int
    pinned: dict[bytes, int]
    """By tenant."""
    ahead: dict[bytes, int] = field(default_factory=dict)
    """By lane, in this round."""
    weights: Mapping[bytes, int] = field(default_factory=dict)
    """Of the tenants whose weight is not 1."""

    def is_full(self, tenant_id: bytes) -> bool:
        return self.pinned.get(tenant_id, 0) >= self.free * self.weights.get(tenant_id, 1)

    def take(self, *, tenant_id: bytes, endpoint_id: bytes, size: int) -> bool:
        needed = memory_of(size)
        ahead = self.ahead.get(endpoint_id, 0)
        if needed > self.free or self.is_full(tenant_id) or (ahead and ahead + needed > LANE_PAYLOAD_BYTES):
            return False
        self.free -= needed
        self.pinned[tenant_id] = self.pinned.get(tenant_id, 0) + needed
        self.ahead[endpoint_id] = ahead + needed
        return True


class Payloads:
    def __init__(self) -> None:
        self.by_key: dict[bytes, Payload] = {}
        self.unused: OrderedDict[bytes, Payload] = OrderedDict()
        """Those that nobody carries any more, the oldest first."""
        self.bytes = 0
        self.pinned: dict[bytes, int] = {}
        """Bytes of those that wait to be sent or are in the air, by tenant."""

    def put(self, payload: Payload) -> None:
        if payload.key in self.by_key:
            return
        self.by_key[payload.key] = payload
        self.bytes += payload.size
        self._pin(payload)

    def use(self, payload: Payload) -> None:
        if not payload.users and self.unused.pop(payload.key, None) is not None:
            self._pin(payload)
        payload.users += 1

    def done_with(self, payload: Payload) -> None:
        payload.users -= 1
        self.unpin(payload.key)

    def unpin(self, key: bytes) -> None:
        """A delivery that waited for it waits no more. Nothing, if it is not here or somebody carries it."""
        payload = self.by_key.get(key)
        if payload is not None and not payload.users and key not in self.unused:
            self.unused[key] = payload
            left = self.pinned[payload.tenant_id] - payload.size
            if left:
                self.pinned[payload.tenant_id] = left
            else:
                del self.pinned[payload.tenant_id]

    def unpin_stale(self, *, before: float) -> None:
        """Those whose lane was lost before they were sent."""
        for payload in list(self.by_key.values()):
            if not payload.users and payload.fetched_at < before:
                self.unpin(payload.key)

    def room(self, weights: Mapping[bytes, int]) -> PayloadRoom:
        """What may be fetched now; makes room by forgetting what nobody carries. `weights`: of tenants, where not 1."""
        while self.unused and self.bytes > PAYLOAD_BYTES // 2:
            self._forget(next(iter(self.unused)))
        return PayloadRoom(max(0, PAYLOAD_BYTES - self.bytes), dict(self.pinned), weights=weights)

    def _pin(self, payload: Payload) -> None:
        self.pinned[payload.tenant_id] = self.pinned.get(payload.tenant_id, 0) + payload.size

    def _forget(self, key: bytes) -> None:
        payload = self.unused.pop(key)
        del self.by_key[key]
        self.bytes -= payload.size
