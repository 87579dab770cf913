"""Endpoints that hang, drip, never end or talk no HTTP have their own outcomes, and cost the others nothing."""

import time
from collections import Counter
from uuid import UUID

import pytest

from deliveries.bench.world import World
from deliveries.models import EndpointSecret
from tests.faults.compare import Comparison, compare
from tests.faults.size import EVENTS, IN_AIR, IS_FULL, RUNS, SLACK, tell
from tests.support.dns_server import DnsServer
from tests.support.hostile_receiver import HostileReceiver
from tests.support.platform import Place
from tests.support.receiver import CountingReceiver

pytestmark = pytest.mark.alone

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

HANGING = 4 * 5
"""Endpoints of the first four, of which there are five each: one request of each is in the air, however slow the machine."""

MANY = ["hang", "status-then-hang/200"] if IS_FULL else []
"""Of these there are 150 endpoints, with two requests at a time; of the others five, which keep their receiver busy."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("run", RUNS)
def test_receivers_that_behave_badly_have_their_own_outcomes(place: Place, run: int) -> None:
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
                150 if name in MANY else 5,
                base_url=lambda _, name=name: hostile.url(f"/{name}?as="),  # type: ignore[misc]
                timeout_seconds=6 if name in MANY else 3,
            )
            for number, name in enumerate(BAD)
        }
        for name in sorted(worlds, key=MANY.__contains__):
            place.publish(worlds[name], 600 if name in MANY else 50)
        tenants = [tenant for world in worlds.values() for tenant in world.tenants]
        in_air = most_unanswered(place, hostile, tenants)
        compared = compare(quiet, usual, place, good, least=LEAST)
        place.wait_for(
            "SELECT count(*) FROM deliveries_delivery WHERE attempt_count = 0 AND tenant_id = ANY(%s)",
            tenants,
            seconds=90,
        )
        outcomes = {name: outcomes_of(place, world.tenants) for name, world in worlds.items()}

    memory = place.memory_mb("dispatch")
    print(f"badly: {outcomes}")
    tell_of_the_good(
        "endpoints that hang, drip, never end or talk no HTTP", place, good, in_air, compared, memory
    )
    assert in_air >= (IN_AIR if IS_FULL else HANGING)
    assert {name: set(counts) for name, counts in outcomes.items()} == BAD
    assert memory < MOST_MEMORY_MB
    assert compared.ratio > LEAST


@pytest.mark.timeout(240)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    ("endpoints", "capacity", "in_air", "most_memory_mb"),
    # Twenty and thirty tenants; the first would have 915 of its 1,024 slots if all came at the same moment.
    [(1_000, 2_048, 850, MOST_MEMORY_MB), (1_500, 8_192, 3_000, MOST_MEMORY_MB + 100)],
)
def test_hanging_endpoints_leave_room_for_the_others(
    place: Place, endpoints: int, capacity: int, in_air: int, most_memory_mb: int, run: int
) -> None:
    good = place.make_world("good", 50)
    place.start(WEBHOOKS_MAX_IN_FLIGHT=str(capacity))

    with place.beside() as quiet, CountingReceiver() as hanging:
        usual = quiet.make_world("good", 50)
        quiet.start(WEBHOOKS_MAX_IN_FLIGHT=str(capacity))
        quiet.deliveries_per_second(usual)
        place.deliveries_per_second(good)
        hanging.set_rule("/bad", seconds=3600)
        # Longer than can be set, so that on a slow machine as many hang at once, and to the end.
        bad = place.make_world("bad", endpoints, base_url=lambda _: hanging.url(""), timeout_seconds=150)
        # Few enough to be loaded all, or some lanes would not be taken.
        place.publish(bad, 4 * endpoints)
        hanging.wait_for_in_air(in_air, seconds=60)
        compared = compare(quiet, usual, place, good, least=LEAST)
        still = hanging.count()["in_air"]

    memory = place.memory_mb("dispatch")
    tell_of_the_good(
        f"{endpoints:,} endpoints hang, of {capacity:,} slots", place, good, still, compared, memory
    )
    assert in_air <= still <= capacity // 2 + 64
    assert memory < most_memory_mb
    assert compared.ratio > LEAST


@pytest.mark.timeout(180)
@pytest.mark.parametrize("run", RUNS)
def test_names_that_do_not_resolve_delay_nobody_else(place: Place, run: int) -> None:
    with DnsServer({"good.test": ["127.0.0.1"]}) as names, place.beside() as quiet:
        names.silent = {"nowhere.test"}
        port = place.receiver.port
        good = place.make_world("good", 50, base_url=lambda _: f"http://good.test:{port}")
        # By name as well, so that those that do not resolve are all that they differ in.
        usual = quiet.make_world("good", 50, base_url=lambda _: f"http://good.test:{quiet.receiver.port}")
        bad = place.make_world(
            "bad",
            200,
            base_url=lambda number: f"http://n{number}.nowhere.test:{port}",
            endpoints_a_tenant=200,
            is_fan_out=True,
            timeout_seconds=5,
        )
        place.start(WEBHOOKS_DNS_SERVERS=names.address)
        quiet.start(WEBHOOKS_DNS_SERVERS=names.address)
        quiet.deliveries_per_second(usual)
        place.deliveries_per_second(good)

        place.publish(bad, 10)
        place.wait_for(
            "SELECT 1 - least(1, count(*)) FROM deliveries_attempt WHERE tenant_id = ANY(%s)", bad.tenants
        )
        compared = compare(quiet, usual, place, good, least=LEAST)
        outcomes = outcomes_of(place, bad.tenants)

    memory = place.memory_mb("dispatch")
    print(f"names: {outcomes}")
    tell_of_the_good("200 names of one tenant do not resolve", place, good, None, compared, memory)
    assert set(outcomes) == {"dns_failed"}
    assert memory < MOST_MEMORY_MB
    assert compared.ratio > LEAST


@pytest.mark.timeout(180)
@pytest.mark.parametrize("run", RUNS)
def test_odd_bytes_and_a_lost_secret_are_that_delivery_alone(place: Place, run: int) -> None:
    each = 4_000 if IS_FULL else 200
    with HostileReceiver(address="127.0.0.1") as hostile:
        good = place.make_world("good", 20)
        odd = place.make_world("odd", 2, base_url=lambda _: hostile.url("/odd-bytes?as="))
        lost = place.make_world("lost", 2)
        broken = EndpointSecret.unscoped.filter(endpoint_id=lost.endpoints[0]).update(
            encrypted=b"\x01not ours"
        )
        place.start()

        for world in (good, odd, lost):
            place.publish(world, each)
        place.receiver.wait_for(each + each // 2)
        place.wait_for("SELECT count(*) FROM deliveries_delivery WHERE attempt_count = 0")

    report = place.receiver.report()
    tell(
        "answers with NUL and invalid UTF-8, a secret that does not decrypt",
        accepted=place.accepted,
        in_air=None,
        repeated=report["requests"] - report["distinct"],
        lost=each + each // 2 - report["distinct"],
        after=f"{each // 2:,} with that secret are `internal_error`",
    )
    assert place.accepted == 3 * each
    assert broken == 1
    place.assert_nothing_lost(good)
    assert report["requests"] == report["distinct"] == each + each // 2
    assert outcomes_of(place, good.tenants) == {"succeeded": each}
    assert outcomes_of(place, odd.tenants) == {"succeeded": each}
    assert outcomes_of(place, lost.tenants) == {"succeeded": each // 2, "internal_error": each // 2}
    bodies = place.query(
        "SELECT DISTINCT response_body FROM deliveries_attempt WHERE tenant_id = ANY(%s)", odd.tenants
    )
    assert bodies == [(b"\x00\xff\xfe nul and no UTF-8 \xc3",)]


def most_unanswered(place: Place, hostile: HostileReceiver, tenants: list[UUID]) -> int:
    """Requests that the receiver got and nobody has written down yet: the most of the first two seconds."""
    most, deadline = 0, time.monotonic() + 2
    while time.monotonic() < deadline:
        recorded = outcomes_of(place, tenants).total()
        most = max(most, len(hostile.requests) - recorded)
        time.sleep(0.1)
    return most


def tell_of_the_good(
    fault: str, place: Place, good: World, in_air: int | None, compared: Comparison, memory: float
) -> None:
    """All that they were to get came, and once. Each round's requests were counted by their receiver already."""
    place.wait_for(
        "SELECT count(*) FROM deliveries_delivery WHERE status = 'pending' AND tenant_id = ANY(%s)",
        good.tenants,
    )
    accepted = place.count("SELECT count(*) FROM deliveries_event WHERE tenant_id = ANY(%s)", good.tenants)
    outcomes = outcomes_of(place, good.tenants)
    tell(
        fault,
        accepted=place.accepted,
        in_air=in_air,
        repeated=outcomes.total() - accepted,
        lost=accepted - outcomes["succeeded"],
        after=f"the others {compared}; {memory:.0f} MB",
    )
    assert place.accepted >= EVENTS
    assert outcomes == {"succeeded": accepted}


def outcomes_of(place: Place, tenants: list[UUID]) -> Counter[str]:
    rows = place.query(
        "SELECT outcome, count(*) FROM deliveries_attempt WHERE tenant_id = ANY(%s) GROUP BY 1", tenants
    )
    return Counter(dict(rows))
