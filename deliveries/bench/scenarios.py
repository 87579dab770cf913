"""What is measured. Each scenario runs in a process and a database of its own (`__main__`) and returns lines of figures."""

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from deliveries.bench import full_tables
from deliveries.bench.dns import SUFFIX
from deliveries.bench.platform import Platform
from deliveries.bench.report import Line
from deliveries.bench.rig import STALL_SECONDS, Bench, Delivered, Lost, running_bench, say
from deliveries.bench.world import World

CONNECTIONS = 16

BATCH = 100
"""Events in a batched publish."""


# --- the bench itself -------------------------------------------------------------------------------------------------

LATENCY_SHARE = 10
LATENCY_RATE = 20.0
LATENCY_EVENTS = 200
SINGLE_SHARE = 4


def bench(*, events: int, endpoints: int, payload: int) -> dict[str, Any]:
    """The figures of `manage.py bench`. Each event goes to one endpoint, so that all counts are `events`."""
    slow = min(LATENCY_EVENTS, events // LATENCY_SHARE)
    single = max(1, (events - slow) // SINGLE_SHARE)
    with running_bench() as it:
        say(f"making {endpoints} endpoints …")
        world = it.make_world(name="bench", endpoints=endpoints, max_in_flight=in_flight_for(endpoints))
        it.hold(world)
        say(f"publishing {single} events one by one …")
        one_by_one = it.publish(it.plan(world, single, payload=payload, connections=CONNECTIONS))
        say(f"publishing {events - slow - single} events in batches of {BATCH} …")
        batched = it.publish(it.plan(world, events - slow - single, payload=payload, batch=BATCH))
        say(f"delivering {it.accepted} …")
        delivered = it.deliver(world)
        say(f"publishing {slow} events at {LATENCY_RATE:.0f} a second …")
        latency = measure_latency(it, world, events=slow, rate=LATENCY_RATE, payload=payload)
        memory = it.platform.dispatch_memory_mb(peak=True)
        counted = it.check_counts()
    return {
        "events_per_second": round(one_by_one["events_per_second"]),
        "batched_events_per_second": round(batched["events_per_second"]),
        "deliveries_per_second": round(delivered.per_second),
        "latency_ms": {"p50": latency.get("p50"), "p99": latency.get("p99")},
        "cpu_us_per_delivery": round(delivered.cpu_us, 1),
        "memory_mb": round(memory, 1),
        "accepted": counted.accepted,
        "received": counted.received,
        "recorded": counted.recorded,
    }


def in_flight_for(endpoints: int) -> int:
    """An endpoint that takes thousands a second alone is one whose owner raised its limit."""
    return max(10, 200 // endpoints)


def measure_latency(
    it: Bench, world: World, *, events: int, rate: float, payload: int = 1024
) -> dict[str, float]:
    """From just before the publish is sent to the receipt, in milliseconds. Lanes must not be held."""
    if not events:
        return {}
    it.publish(it.plan(world, events, payload=payload, rate=rate))
    it.wait_for_all()
    figures: dict[str, float] = it.receiver.ask("latency", group="bench", last=events)
    return figures


# --- the lines of the table -------------------------------------------------------------------------------------------


def publish(*, events: int = 80_000, payload: int = 1024) -> list[Line]:
    single = events // 8
    with running_bench() as it:
        world = it.make_world(name="bench", endpoints=50)
        it.hold(world)
        one_by_one = it.publish(it.plan(world, single, payload=payload, connections=CONNECTIONS))
        batched = it.publish(it.plan(world, events - single, payload=payload, batch=BATCH))
        it.deliver(world)
        checked = it.make_world(name="checked", endpoints=50, is_checked=True)
        it.hold(checked)
        it.hold(world)
        plan = it.plan(checked, single, payload=payload, connections=CONNECTIONS, has_keys=True)
        with_all = it.publish(plan)
        again = it.publish(it.plan(world, single, payload=payload, connections=CONNECTIONS))
        it.let_go(world)
        it.deliver(checked)
        it.check_counts()
    latency = one_by_one["latency_ms"]
    share = with_all["events_per_second"] / again["events_per_second"]
    return [
        Line("publishes/s, single, 16 connections", one_by_one["events_per_second"], at_least=1500),
        Line("  202 after, p50 / p99 ms", latency["p50"], more=f"/ {latency['p99']:.1f}"),
        Line("publishes/s, batched", batched["events_per_second"], at_least=12_000),
        Line("publishes/s, single, with schema, filter and key", with_all["events_per_second"]),
        Line("  of those without, %", share * 100, at_least=70),
    ]


LEAST = {1: 5000, 50: 6000, 20_000: 4000}


def deliver(*, endpoints: int, events: int = 60_000, payload: int = 1024) -> list[Line]:
    events = max(events, endpoints)
    with running_bench() as it:
        world = it.make_world(name="bench", endpoints=endpoints, max_in_flight=in_flight_for(endpoints))
        it.hold(world)
        batch = BATCH if endpoints <= 5000 else 50
        it.publish(it.plan(world, events, payload=payload, batch=batch))
        delivered = it.deliver(world)
        memory = it.platform.dispatch_memory_mb(peak=True)
        it.check_counts()
        report = it.receiver.report()
    line = Line(f"deliveries/s, {endpoints} endpoints", delivered.per_second, at_least=LEAST.get(endpoints))
    line.more = f"{delivered.cpu_us:.0f} µs CPU each, {memory:.0f} MB, {report['repeats']} repeats"
    return [line]


def latency(*, payload: int = 1024) -> list[Line]:
    lines = []
    with running_bench() as it:
        world = it.make_world(name="bench", endpoints=50)
        measure_latency(it, world, events=20, rate=20.0, payload=payload)  # the dispatcher starts
        for rate, events, p50, p99 in ((20.0, 300, 15, 60), (500.0, 7500, None, None)):
            figures = measure_latency(it, world, events=events, rate=rate, payload=payload)
            lines.append(Line(f"publish → received p50 ms, {rate:.0f} events/s", figures["p50"], at_most=p50))
            lines.append(Line(f"publish → received p99 ms, {rate:.0f} events/s", figures["p99"], at_most=p99))
        it.check_counts()
    return lines


def tls(*, names: int = 2000, rounds: int = 20, payload: int = 1024) -> list[Line]:
    with running_bench(is_tls=True) as it:
        port = it.receiver.port
        world = it.make_world(
            name="bench", endpoints=names, base_url=lambda number: f"https://host-{number}{SUFFIX}:{port}"
        )
        it.hold(world)
        it.publish(it.plan(world, names, payload=payload, batch=50))
        cold = it.deliver(world)
        connections = it.receiver.report()["connections"]
        it.hold(world)
        it.publish(it.plan(world, names * rounds, payload=payload, batch=50))
        warm = it.deliver(world)
        it.check_counts()
        opened = it.receiver.report()["connections"] - connections
    return [
        Line(f"new TLS connections/s, {names} host names, cold", cold.per_second, at_least=400),
        Line(
            f"deliveries/s, {names} host names over TLS, warm",
            warm.per_second,
            at_least=3000,
            more=f"{warm.cpu_us:.0f} µs CPU each, {opened} more connections opened",
        ),
    ]


TABLES_RUNS = 3


def tables(
    *, events: int = 60_000, finished: int = 1_000_000, pending: int = 1_000_000, idle: int = 500_000
) -> list[Line]:
    """The same delivery runs before and after the tables are filled; the median of each."""
    with running_bench() as it:
        world = it.make_world(name="bench", endpoints=50)
        it.hold(world)
        it.publish(it.plan(world, 5000, batch=BATCH))
        it.deliver(world)  # so that both runs find the dispatcher at work
        runs: dict[bool, list[Delivered]] = {False: [], True: []}
        recorded = 0
        for is_full in (False, True):
            if is_full:
                say(f"filling: {finished} finished, {pending} pending on a held lane, {idle} idle lanes …")
                full_tables.fill(
                    it.connection, world.tenants[0], finished=finished, pending=pending, idle=idle
                )
                recorded = it.recorded() - it.accepted
            for _ in range(TABLES_RUNS):
                it.hold(world)
                it.publish(it.plan(world, events, batch=BATCH))
                runs[is_full].append(_deliver_beside(it, world))
        it.check_counts(recorded_before=recorded)
    empty, full = (sorted(each, key=lambda run: run.per_second)[TABLES_RUNS // 2] for each in runs.values())
    return [
        Line("deliveries/s, 50 endpoints, empty tables", empty.per_second, at_least=6000),
        Line(
            "deliveries/s, 50 endpoints, full tables",
            full.per_second,
            at_least=0.9 * empty.per_second,
            more=f"{(full.per_second / empty.per_second - 1) * 100:+.1f} %, {full.cpu_us:.0f} µs CPU each",
        ),
    ]


def _deliver_beside(it: Bench, world: World) -> Delivered:
    """As `deliver`, with others pending on lanes that stay held."""
    cpu, before = it.platform.dispatch_cpu_seconds(), it.receiver.count()["distinct"]
    began = it.let_go(world)
    while it.receiver.count()["distinct"] < it.accepted:
        if time.monotonic() - began > 10 * STALL_SECONDS:
            raise Lost(it.shortfall())
        time.sleep(0.02)
    while it.number(PENDING_ON_LANES, [world.endpoints]):
        time.sleep(0.02)
    seconds = time.monotonic() - began
    return Delivered(it.accepted - before, seconds, it.platform.dispatch_cpu_seconds() - cpu)


PENDING_ON_LANES = (
    "SELECT count(*) FROM deliveries_delivery WHERE status = 'pending' AND endpoint_id = ANY(%s)"
)


# --- isolation --------------------------------------------------------------------------------------------------------

B_RATE = 50.0
B_SECONDS = 20
"""Of a thousand events the ten slowest are beyond the p99: one pause of the disk is not the result."""


def isolation(*, trouble: str) -> list[Line]:
    """Tenant B's latency alone, then while tenant A is in trouble."""
    make, words = TROUBLES[trouble]
    with running_bench() as it:
        b = it.make_world(name="b", endpoints=10)
        a = make(it)
        # The kernel keeps pages for thirty seconds, then writes them together, and every commit waits: those of making
        # the backlog would be measured as what the backlog does.
        os.sync()
        _latency_of_b(it, b, seconds=2)  # the dispatcher starts, the web server meets the tenant
        alone = _latency_of_b(it, b)
        it.let_go(a)
        time.sleep(2)
        beside = _latency_of_b(it, b)
        left = it.number(PENDING_ON_LANES, [a.endpoints])
        it.check_counts_of(b)
    if not left:
        raise Lost(f"tenant A was done before B's last event: nothing was measured beside {words}")
    return [
        Line(
            f"tenant B's p99 ms while A has {words}",
            beside["p99"],
            at_most=alone["p99"] * 1.1 + 50,
            more=f"alone {alone['p99']:.1f}, p50 {alone['p50']:.1f} → {beside['p50']:.1f}; A still has {left} pending",
        )
    ]


def _latency_of_b(it: Bench, b: World, *, seconds: int = B_SECONDS) -> dict[str, float]:
    events = int(B_RATE * seconds)
    before = it.receiver.count("b")["distinct"]
    it.publish(it.plan(b, events, rate=B_RATE))
    deadline = time.monotonic() + STALL_SECONDS
    while it.receiver.count("b")["distinct"] < before + events:
        if time.monotonic() > deadline:
            raise Lost(f"tenant B: {it.receiver.count('b')['distinct'] - before} of {events} received")
        time.sleep(0.05)
    figures: dict[str, float] = it.receiver.ask("latency", group="b", last=events)
    return figures


def _behind(it: Bench, a: World, **plan: Any) -> World:
    it.hold(a)
    it.publish(it.plan(a, **plan))
    return a


def _one_endpoint_behind(it: Bench) -> World:
    return _behind(it, it.make_world(name="a", endpoints=1), events=300_000, batch=500)


def _many_endpoints_behind(it: Bench) -> World:
    world = it.make_world(name="a", endpoints=5000, endpoints_a_tenant=5000, is_fan_out=True)
    return _behind(it, world, events=100)


def _hanging(it: Bench) -> World:
    it.receiver.set_rule("/a", seconds=30.0)
    world = it.make_world(
        name="a", endpoints=1000, endpoints_a_tenant=1000, is_fan_out=True, timeout_seconds=30
    )
    return _behind(it, world, events=20)


def _unresolvable(it: Bench) -> World:
    world = it.make_world(
        name="a",
        endpoints=200,
        endpoints_a_tenant=200,
        is_fan_out=True,
        base_url=lambda number: f"http://hang-{number}{SUFFIX}:{it.receiver.port}",
    )
    return _behind(it, world, events=20)


TROUBLES: dict[str, tuple[Callable[[Bench], World], str]] = {
    "backlog": (_one_endpoint_behind, "300,000 behind on one endpoint"),
    "many": (_many_endpoints_behind, "5,000 endpoints behind"),
    "hanging": (_hanging, "1,000 endpoints that hang for 30 s"),
    "names": (_unresolvable, "200 names that do not resolve"),
}


# --- memory -----------------------------------------------------------------------------------------------------------


def memory(*, deliveries: int = 1_000_000, payload: int = 1024, answer: int = 2) -> list[Line]:
    """Published and delivered at the same time, each event to 50 endpoints; resident memory twice a second."""
    with running_bench() as it:
        if answer != 2:
            it.receiver.set_rule("/bench", body_bytes=answer)
        world = it.make_world(name="bench", endpoints=50, is_fan_out=True)
        batch = max(1, min(BATCH, 2_000_000 // payload))
        with _sampled_memory(it.platform) as samples:
            it.publish(it.plan(world, deliveries // 50, payload=payload, batch=batch, connections=2))
            it.wait_for_all()
        peak = it.platform.dispatch_memory_mb(peak=True)
        it.check_counts()
    second, last = _quarter(samples, 1), _quarter(samples, 3)
    growth = (last / second - 1) * 100
    kind = f"{deliveries} deliveries of {payload} bytes, answers of {answer}"
    return [
        Line(f"memory MB, {kind}", peak, at_most=200, more=f"second quarter {second:.1f}, last {last:.1f}"),
        Line(f"memory growth %, {kind}", growth, at_most=5),
    ]


@contextlib.contextmanager
def _sampled_memory(platform: Platform) -> Iterator[list[float]]:
    """Megabytes, twice a second."""
    samples: list[float] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.5):
            samples.append(platform.dispatch_memory_mb(peak=False))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield samples
    finally:
        done.set()
        sampler.join()


def _quarter(values: Sequence[float], which: int) -> float:
    size = max(1, len(values) // 4)
    return statistics.fmean(values[which * size : (which + 1) * size] or values[-1:])
