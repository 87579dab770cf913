"""The memory for payloads, shared by tenants, then lanes."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from deliveries.pipeline.payloads import (
    LANE_PAYLOAD_BYTES,
    PAYLOAD_BYTES,
    Payload,
    Payloads,
    memory_of,
)
from tenants.ids import new_id

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def a_tenant() -> bytes:
    return new_id().bytes


def a_payload(tenant_id: bytes, size: int) -> Payload:
    return Payload(
        key=new_id().bytes,
        tenant_id=tenant_id,
        id_text="evt_x",
        type="order.created",
        occurred_at=NOW,
        data=b"",
        hops=0,
        channels=None,
        size=memory_of(size),
        fetched_at=0.0,
    )


def take_all(payloads: Payloads, tenant_id: bytes, size: int, *, lanes: int = 1000) -> int:
    """How many payloads of one tenant, each for another lane, may be fetched and pinned."""
    taken = 0
    room = payloads.room({})
    while taken < lanes and room.take(tenant_id=tenant_id, endpoint_id=new_id().bytes, size=size):
        payloads.put(a_payload(tenant_id, size))
        taken += 1
    return taken


def test_payloads_of_one_tenant_take_half_of_the_memory_and_the_next_one_half_of_the_rest() -> None:
    payloads = Payloads()
    half = PAYLOAD_BYTES // memory_of(262_144) // 2

    counts = [take_all(payloads, a_tenant(), 262_144) for _ in range(3)]

    assert counts == pytest.approx([half, half / 2, half / 4], abs=1)
    assert payloads.bytes <= PAYLOAD_BYTES


def test_one_lane_fetches_no_more_than_its_part_ahead_but_always_its_first() -> None:
    room = Payloads().room({})
    tenant, lane, large = a_tenant(), a_tenant(), a_tenant()
    sizes = [262_144] * 5

    taken = [room.take(tenant_id=tenant, endpoint_id=lane, size=size) for size in sizes]
    first = room.take(tenant_id=tenant, endpoint_id=large, size=LANE_PAYLOAD_BYTES)

    assert Counter(taken) == {True: LANE_PAYLOAD_BYTES // memory_of(262_144), False: 5 - 1}
    assert first


def test_what_nobody_carries_any_more_is_kept_while_there_is_room_and_not_counted_against_its_tenant() -> (
    None
):
    payloads = Payloads()
    tenant = a_tenant()
    twelve = [a_payload(tenant, 1_000_000) for _ in range(12)]
    for payload in twelve:
        payloads.put(payload)
        payloads.use(payload)
    pinned = dict(payloads.pinned)
    for payload in twelve:
        payloads.done_with(payload)

    room = payloads.room({})

    assert pinned == {tenant: 12 * memory_of(1_000_000)}
    assert payloads.pinned == {}
    assert PAYLOAD_BYTES // 2 - memory_of(1_000_000) < payloads.bytes <= PAYLOAD_BYTES // 2
    assert room.free == PAYLOAD_BYTES - payloads.bytes
    # The oldest went first; one that is used again counts again.
    assert twelve[-1].key in payloads.by_key
    assert twelve[0].key not in payloads.by_key
    payloads.use(twelve[-1])
    assert payloads.pinned == {tenant: memory_of(1_000_000)}
