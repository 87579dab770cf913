"""What is measured of single features: order, an endpoint that is dead, sources, messages, shared transactions."""

import time

import redis
from django.conf import settings

from deliveries.bench.platform import WEB_APPLICATION
from deliveries.bench.report import Line
from deliveries.bench.rig import Bench, Lost, running_bench
from deliveries.bench.scenarios import BATCH, CONNECTIONS
from deliveries.bench.world import World
from deliveries.models import Endpoint
from deliveries.services import sources
from tenants.models import Tenant
from tenants.services.audit import COMMAND

IDLE_SECONDS = 5.0

# Of one ordering key, by the clock of one dispatcher: where a request began before the one of the delivery before it
# had ended in success.
OUT_OF_ORDER = """
SELECT count(*) FROM (
    SELECT a.started_at,
           lag(a.started_at + a.duration_ms * interval '1 millisecond')
               OVER (PARTITION BY d.endpoint_id, d.ordering_key ORDER BY d.sequence, d.id) AS free_at
    FROM deliveries_delivery d JOIN deliveries_attempt a ON a.delivery_id = d.id AND a.outcome = 'succeeded'
    WHERE d.endpoint_id = ANY(%s)
) line
WHERE started_at < free_at - interval '1 millisecond'
"""

LATE = """
SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM a.started_at - d.created_at) * 1000)
FROM deliveries_delivery d JOIN deliveries_attempt a ON a.delivery_id = d.id AND a.number = 1
"""


def order(*, keys: int = 1000, rate: float = 500.0, seconds: int = 40, behind: int = 100_000) -> list[Line]:
    """One endpoint in order: with failures that are tried again each second; then with most of it behind one blocked key."""
    with running_bench() as it:
        world = _in_order(it, "a", retry_schedule=[1, 1, 1])
        it.receiver.set_rule("/a", fail_rate=0.05)
        it.publish(it.plan(world, int(rate * seconds), rate=rate, ordering_keys=keys))
        _wait_until_ended(it)
        lost = it.accepted - it.number(
            "SELECT count(*) FROM deliveries_delivery WHERE status IN ('succeeded', 'failed')"
        )
        swapped = it.number(OUT_OF_ORDER, [world.endpoints])
        tries = it.number("SELECT count(*) FROM deliveries_attempt") / it.accepted
        late = it.number(LATE)

        alone = _keys_at_once(it, _in_order(it, "alone"), keys)
        blocked = _in_order(it, "blocked")
        it.publish(it.plan(blocked, 1, ordering_keys=1, deliver_after_seconds=3600))
        it.publish(it.plan(blocked, behind, batch=500, payload=64, ordering_keys=1))
        beside = _keys_at_once(it, blocked, keys, first_key=1)
        time.sleep(1)
        cpu = it.platform.dispatch_cpu_seconds()
        time.sleep(IDLE_SECONDS)
        idle = (it.platform.dispatch_cpu_seconds() - cpu) / IDLE_SECONDS * 100
    return [
        Line(
            f"in order: {rate:.0f} events/s over {keys} keys, 5 % fail: out of order or lost",
            swapped + lost,
            at_most=0,
            more=f"{tries:.3f} attempts each, p99 to the first {late} ms",
        ),
        Line(f"in order, deliveries/s over {keys} keys", alone),
        Line(f"  beside {behind} behind a blocked key", beside, at_least=0.9 * alone),
        Line("  CPU of the dispatcher when all that is left is blocked, %", idle, at_most=5),
    ]


def _in_order(it: Bench, name: str, *, retry_schedule: list[int] | None = None) -> World:
    world = it.make_world(name=name, endpoints=1, max_in_flight=100)
    Endpoint.objects.for_tenant(world.tenants[0]).update(ordering="fifo", retry_schedule=retry_schedule)
    return world


def _keys_at_once(it: Bench, world: World, keys: int, *, first_key: int = 0, events: int = 20_000) -> float:
    """Deliveries a second of what was held."""
    it.hold(world)
    it.publish(it.plan(world, events, batch=BATCH, ordering_keys=keys, first_key=first_key))
    before = it.receiver.count()["distinct"]
    began = it.let_go(world)
    while (received := it.receiver.count()["distinct"] - before) < events:
        if time.monotonic() - began > 120:
            raise Lost(f"{received} of {events} received")
        time.sleep(0.02)
    return events / (time.monotonic() - began)


def _wait_until_ended(it: Bench) -> None:
    deadline = time.monotonic() + 60
    while it.pending():
        if time.monotonic() > deadline:
            raise Lost(it.shortfall())
        time.sleep(0.1)


# For long enough that its circuit opens with the next failure.
DEAD = """
UPDATE deliveries_lane SET failures = 20, failing_since = now() - interval '1 hour', failed_at = now()
WHERE endpoint_id = ANY(%s)
"""


def dead(*, endpoints: int = 1000, events: int = 60_000, rounds: int = 3) -> list[Line]:
    """A thousand endpoints, then the same with one more that answers 500 and has thousands waiting."""
    speeds: dict[bool, list[float]] = {False: [], True: []}
    with running_bench() as it:
        world = it.make_world(name="good", endpoints=endpoints)
        bad = it.make_world(name="bad", endpoints=1)
        it.receiver.set_rule("/bad", status=500)
        it.hold(bad)
        it.publish(it.plan(bad, 5000, batch=500, payload=64))
        it.connection.execute(DEAD, [bad.endpoints])
        it.accepted = 0
        for _ in range(rounds):
            for is_beside in (False, True):
                it.hold(bad)
                time.sleep(3)
                it.hold(world)
                it.publish(it.plan(world, events, batch=BATCH))
                before = it.receiver.count("good")["distinct"]
                if is_beside:
                    it.let_go(bad)
                began = it.let_go(world)
                while it.receiver.count("good")["distinct"] - before < events:
                    if time.monotonic() - began > 120:
                        raise Lost(it.shortfall())
                    time.sleep(0.01)
                speeds[is_beside].append(events / (time.monotonic() - began))
        requests = it.receiver.count("bad")["requests"]
    alone, beside = max(speeds[False]), max(speeds[True])
    return [
        Line(f"deliveries/s, {endpoints} endpoints, best of {rounds}", alone),
        Line(
            "  beside a dead one with 5,000 waiting",
            beside,
            at_least=0.95 * alone,
            more=f"{(beside / alone - 1) * 100:+.1f} %, {requests} requests to the dead one",
        ),
    ]


def incoming(*, rate: float = 200.0, seconds: int = 20) -> list[Line]:
    """Requests to a source, each of which becomes an event and a delivery."""
    with running_bench() as it:
        world = it.make_world(name="in", endpoints=1)
        tenant = Tenant.objects.get(id=world.tenants[0])
        _, token = sources.create_source(
            actor=COMMAND, tenant=tenant, name="bench", event_type='"bench.e0"', dedup_header="x-id"
        )
        plan = it.plan(world, int(rate * seconds), rate=rate, connections=32)
        plan.targets = [(f"/in/{token}", "", "")]
        plan.is_incoming = True
        it.publish(it.plan(world, 100, rate=50.0))  # everything starts
        result = it.publish(plan)
        it.wait_for_all()
        it.check_counts()
    latency = result["latency_ms"]
    return [
        Line(
            f"request to a source → answer p99 ms, {rate:.0f}/s",
            latency["p99"],
            at_most=50,
            more=f"p50 {latency['p50']:.1f}",
        )
    ]


# --- messages ---------------------------------------------------------------------------------------------------------

FEW_SLOTS = 16
SLOW_ANSWER_SECONDS = 0.05
"""With so few slots and answers so slow, a dispatcher falls behind and has no room for the rest of the time."""


def messages(
    *, has_room: bool, endpoints: int = 20_000, rate: float = 4000.0, seconds: int = 20, batch: int = 20
) -> list[Line]:
    """What the broker carries while as much is published as one machine takes, over idle endpoints in turn."""
    slots = settings.WEBHOOKS_MAX_IN_FLIGHT if has_room else FEW_SLOTS
    with running_bench(WEBHOOKS_MAX_IN_FLIGHT=str(slots)) as it:
        if not has_room:
            it.receiver.set_rule("/bench", seconds=SLOW_ANSWER_SECONDS)
        world = it.make_world(name="bench", endpoints=endpoints)
        plan = it.plan(world, int(rate * seconds), rate=rate, batch=batch, connections=CONNECTIONS)
        with redis.Redis.from_url(settings.CELERY_BROKER_URL) as broker:
            before, began = carried(broker), time.monotonic()
            published = it.publish(plan)
            sent, took = carried(broker) - before, time.monotonic() - began
        it.receiver.set_rule("/bench")
        it.wait_for_all()
        it.check_counts()
    words = "" if has_room else ", no dispatcher has room"
    return [
        Line(
            f"messages/s at {rate:.0f} events/s over {endpoints} endpoints{words}",
            sent / took,
            at_most=25,
            more=f"{published['events_per_second']:.0f} events/s came about, {sent} messages",
        )
    ]


def carried(broker: redis.Redis) -> int:
    """Messages that were ever put into a queue of this broker, of whatever database."""
    return int(broker.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"])


# --- shared transactions ----------------------------------------------------------------------------------------------


def single(*, is_shared: bool, events: int = 10_000, payload: int = 1024) -> list[Line]:
    """Single publishes as they are, or through a web server in which each has a transaction of its own."""
    with running_bench(web=WEB_APPLICATION if is_shared else "deliveries.bench.unshared:application") as it:
        world = it.make_world(name="bench", endpoints=50)
        it.hold(world)
        it.publish(it.plan(world, events // 10, payload=payload, connections=CONNECTIONS))
        published = it.publish(it.plan(world, events, payload=payload, connections=CONNECTIONS))
        it.deliver(world)
        it.check_counts()
    latency = published["latency_ms"]
    return [
        Line(
            f"publishes/s, single, {'shared transactions' if is_shared else 'a transaction each'}",
            published["events_per_second"],
            more=f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms",
        )
    ]
