"""Endpoints that hang, drip, never end or talk no HTTP have their own outcomes, and cost the others nothing."""

from collections import Counter
from uuid import UUID

import pytest

from deliveries.models import EndpointSecret
from tests.faults.compare import SLACK, compare
from tests.support.dns_server import DnsServer
from tests.support.hostile_receiver import HostileReceiver
from tests.support.platform import Place
from tests.support.receiver import CountingReceiver

LEAST = 0.9 - SLACK
"""Of the throughput without the fault."""

MOST_MEMORY_MB = 210
"""Of the largest process: 115 of them are the program, 32 payloads. Each transfer in the air costs 20 kB."""

BAD = {
    "hang": {"timeout"},
    "drip": {"timeout"},
    "drip-headers": {"timeout"},
    "status-then-hang/200": {"timeout"},
    # Cut at the cap: a 200 is a 200, however much comes behind it.
    "endless": {"succeeded"},
    "endless-interim": {"protocol_error"},
    "headers/2000000": {"protocol_error"},
    "not-http": {"protocol_error"},
    "http09": {"protocol_error"},
    "bad-chunks": {"protocol_error"},
    "close": {"connection_failed"},
    "reset": {"connection_failed"},
}
"""What the receiver does, and what becomes of it."""


@pytest.mark.timeout(180)
def test_receivers_that_behave_badly_have_their_own_outcomes(place: Place) -> None:
    good = place.make_world("good", 50)
    place.start()

    with place.beside() as quiet, HostileReceiver(address="127.0.0.1") as hostile:
        usual = quiet.make_world("good", 50)
        quiet.start()
        quiet.deliveries_per_second(usual)
        place.deliveries_per_second(good)
        worlds = {
            name: place.make_world(
                f"bad-{number}",
                5,
                base_url=lambda _, name=name: hostile.url(f"/{name}?as="),  # type: ignore[misc]
                timeout_seconds=3,
            )
            for number, name in enumerate(BAD)
        }
        for world in worlds.values():
            place.publish(world, 50)
        compared = compare(quiet, usual, place, good)
        place.wait_for(
            "SELECT count(*) FROM deliveries_delivery WHERE attempt_count = 0 AND tenant_id <> ALL(%s)",
            good.tenants,
            seconds=60,
        )
        outcomes = {name: outcomes_of(place, world.tenants) for name, world in worlds.items()}

    memory = place.memory_mb("dispatch")
    print(f"badly: {outcomes}, {compared}, {memory:.0f} MB")
    assert {name: set(counts) for name, counts in outcomes.items()} == BAD
    assert memory < MOST_MEMORY_MB
    assert compared.ratio > LEAST


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("endpoints", "capacity", "in_air", "most_memory_mb"),
    # Twenty and thirty tenants; the first would have 915 of its 1,024 slots if all came at the same moment.
    [(1_000, 2_048, 850, MOST_MEMORY_MB), (1_500, 8_192, 3_000, MOST_MEMORY_MB + 100)],
)
def test_hanging_endpoints_leave_room_for_the_others(
    place: Place, endpoints: int, capacity: int, in_air: int, most_memory_mb: int
) -> None:
    good = place.make_world("good", 50)
    place.start(WEBHOOKS_MAX_IN_FLIGHT=str(capacity))

    with place.beside() as quiet, CountingReceiver() as hanging:
        usual = quiet.make_world("good", 50)
        quiet.start(WEBHOOKS_MAX_IN_FLIGHT=str(capacity))
        quiet.deliveries_per_second(usual)
        place.deliveries_per_second(good)
        hanging.set_rule("/bad", seconds=3600)
        bad = place.make_world("bad", endpoints, base_url=lambda _: hanging.url(""), timeout_seconds=30)
        place.publish(bad, 10_000)
        hanging.wait_for_in_air(in_air, seconds=60)
        compared = compare(quiet, usual, place, good)
        still = hanging.count()["in_air"]

    memory = place.memory_mb("dispatch")
    print(f"{endpoints} hang, {still} in the air: {compared}, {memory:.0f} MB")
    # The receiver counts some that were given up a moment ago.
    assert in_air <= still <= capacity // 2 + 64
    assert memory < most_memory_mb
    assert compared.ratio > LEAST


@pytest.mark.timeout(180)
def test_names_that_do_not_resolve_delay_nobody_else(place: Place) -> None:
    with DnsServer({"good.test": ["127.0.0.1"]}) as names, place.beside() as quiet:
        names.silent = {"nowhere.test"}
        port = place.receiver.port
        good = place.make_world("good", 50, base_url=lambda _: f"http://good.test:{port}")
        bad = place.make_world(
            "bad",
            200,
            base_url=lambda number: f"http://n{number}.nowhere.test:{port}",
            endpoints_a_tenant=200,
            is_fan_out=True,
            timeout_seconds=5,
        )
        place.start(WEBHOOKS_DNS_SERVERS=names.address)
        usual = quiet.make_world("good", 50)
        quiet.start()
        quiet.deliveries_per_second(usual)
        place.deliveries_per_second(good)

        place.publish(bad, 10)
        place.wait_for(
            "SELECT 1 - least(1, count(*)) FROM deliveries_attempt WHERE tenant_id = ANY(%s)", bad.tenants
        )
        compared = compare(quiet, usual, place, good)
        outcomes = outcomes_of(place, bad.tenants)

    print(f"names: {outcomes}, {compared}")
    assert set(outcomes) == {"dns_failed"}
    assert compared.ratio > LEAST


def test_odd_bytes_and_a_lost_secret_are_that_delivery_alone(place: Place) -> None:
    with HostileReceiver(address="127.0.0.1") as hostile:
        good = place.make_world("good", 20)
        odd = place.make_world("odd", 2, base_url=lambda _: hostile.url("/odd-bytes?as="))
        lost = place.make_world("lost", 2)
        broken = EndpointSecret.unscoped.filter(endpoint_id=lost.endpoints[0]).update(
            encrypted=b"\x01not ours"
        )
        place.start()

        for world in (good, odd, lost):
            place.publish(world, 200)
        place.receiver.wait_for(300)
        place.wait_for("SELECT count(*) FROM deliveries_delivery WHERE attempt_count = 0")

    assert broken == 1
    place.assert_nothing_lost(good)
    assert outcomes_of(place, good.tenants) == {"succeeded": 200}
    assert outcomes_of(place, odd.tenants) == {"succeeded": 200}
    assert outcomes_of(place, lost.tenants) == {"succeeded": 100, "internal_error": 100}
    bodies = place.query(
        "SELECT DISTINCT response_body FROM deliveries_attempt WHERE tenant_id = ANY(%s)", odd.tenants
    )
    assert bodies == [(b"\x00\xff\xfe nul and no UTF-8 \xc3",)]


def outcomes_of(place: Place, tenants: list[UUID]) -> Counter[str]:
    rows = place.query(
        "SELECT outcome, count(*) FROM deliveries_attempt WHERE tenant_id = ANY(%s) GROUP BY 1", tenants
    )
    return Counter(dict(rows))
