"""Lanes change hands: what the dead held goes on, and the dead, should they come back, write nothing."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest
from django.db import connection

from deliveries.models import Delivery, Dispatcher, Endpoint, Lane
from deliveries.pipeline import ingest, lanes, lease, sweeps
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.dispatch import Ending
from deliveries.pipeline.rounds import until_id
from tenants.ids import new_id
from tests.support.builders import (
    attempts_of,
    deliveries_of,
    lane_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    new_event,
    publish,
)
from tests.support.running import Reply, Webhooks, run_until_dry, running, until

pytestmark = pytest.mark.usefixtures("quiet_lanes")

URL = "http://127.0.0.1:9/"


def take_all(own: psycopg.Connection[Row], me: UUID) -> list[bytes]:
    take = lanes.take(own, me=me, lanes=100, after=lanes.NO_TENANT)
    return sorted(lane.endpoint_id for lane in take.lanes)


def let_die(dispatcher_id: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE deliveries_dispatcher SET alive_until = now() - interval '1 second' WHERE id = %s",
            [dispatcher_id],
        )


def test_a_zombie_writes_nothing_to_a_lane_that_was_taken_over() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    zombie, heir = new_id(), new_id()
    release = [lanes.Release(endpoint.id.bytes, 7.0, 3600.0, "rate")]
    with connect(application_name="test", statement_timeout_seconds=5) as own:
        lease.register(own, me=zombie, process="test")
        assert take_all(own, zombie) == [endpoint.id.bytes]
        let_die(zombie)
        sweeps.sweep(wanted=1)
        lease.register(own, me=heir, process="test")
        assert take_all(own, heir) == [endpoint.id.bytes]
        before = lane_of(endpoint)

        is_alive, _, _ = lease.renew(own, me=zombie, has_room=True, is_draining=False, done=0)
        lanes.clear(own, me=zombie, lanes=release)
        looked = lanes.look_again(own, me=zombie, lanes=release, until=until_id())
        whole = lanes.release(own, me=zombie, lanes=release, until=until_id())
        held = lease.sign_off(own, me=zombie)

    after = lane_of(endpoint)
    assert (is_alive, looked, whole, held) == (False, 0, 0, 0)
    assert after.dispatcher_id == heir
    assert (after.ready_at, after.hold_until, after.slots) == (before.ready_at, None, 2.0)


def test_a_renewal_that_is_under_way_when_the_lease_ends_keeps_the_lanes() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    late = new_id()
    with (
        connect(application_name="late", statement_timeout_seconds=5) as own,
        connect(application_name="sweep", statement_timeout_seconds=5) as other,
        ThreadPoolExecutor() as threads,
    ):
        lease.register(own, me=late, process="test")
        assert take_all(own, late) == [endpoint.id.bytes]
        own.execute(
            "UPDATE deliveries_dispatcher SET alive_until = now() + interval '0.3 seconds' WHERE id = %s",
            [late],
        )

        def take_over() -> int:
            with other.transaction():
                return lease.take_over(other)

        with own.transaction():
            is_alive, _, _ = lease.renew(own, me=late, has_room=True, is_draining=False, done=0)
            time.sleep(0.5)
            sweep = threads.submit(take_over)
            time.sleep(0.3)
        freed = sweep.result(5)

    assert (is_alive, freed) == (True, 0)
    assert lane_of(endpoint).dispatcher_id == late


def test_a_dispatcher_that_is_not_alive_takes_nothing() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, URL)
    publish(tenant)
    never, dead = new_id(), new_id()
    with connect(application_name="test", statement_timeout_seconds=5) as own:
        lease.register(own, me=dead, process="test")
        let_die(dead)

        assert take_all(own, never) == take_all(own, dead) == []

    assert lane_of(endpoint).dispatcher_id is None


def test_lanes_of_the_dead_and_of_the_vanished_are_freed_and_those_of_the_living_kept() -> None:
    tenant = make_tenant()
    of_dead, of_vanished, of_living, held, idle = make_endpoints(tenant, [URL] * 5)
    dead, living = new_id(), new_id()
    with connect(application_name="test", statement_timeout_seconds=5) as own:
        lease.register(own, me=dead, process="test")
        lease.register(own, me=living, process="test")

    def give(endpoint: Endpoint, holder: UUID) -> None:
        # As between the two steps of a release: cleared, and not looked at again.
        Lane.unscoped.filter(endpoint=endpoint).update(dispatcher_id=holder, ready_at=None, is_ready=False)

    give(of_dead, dead)
    give(of_vanished, new_id())
    give(of_living, living)
    give(held, dead)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE deliveries_lane SET hold_until = now() + interval '1 hour' WHERE endpoint_id = %s",
            [held.id],
        )
    let_die(dead)

    sweeps.sweep(wanted=1)

    states = {
        endpoint.id: (lane.dispatcher_id, lane.is_ready, lane.ready_at is not None)
        for endpoint in (of_dead, of_vanished, of_living, held, idle)
        for lane in [lane_of(endpoint)]
    }
    assert states == {
        of_dead.id: (None, True, True),
        of_vanished.id: (None, True, True),
        of_living.id: (living, False, False),
        held.id: (None, False, True),
        idle.id: (None, False, False),
    }
    assert list(Dispatcher.objects.values_list("id", flat=True)) == [living]


def test_what_a_dead_dispatcher_left_between_the_steps_of_a_release_is_delivered() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant)
        dead = new_id()
        with connect(application_name="test", statement_timeout_seconds=5) as own:
            lease.register(own, me=dead, process="test")
            take_all(own, dead)
            lanes.clear(own, me=dead, lanes=[lanes.Release(endpoint.id.bytes, 2.0)])
        run_until_dry()
        assert webhooks.requests == []

        let_die(dead)
        sweeps.sweep(wanted=1)
        run_until_dry()

    assert len(webhooks.requests) == 1
    assert deliveries_of(tenant)[0].status == "succeeded"


def test_a_dispatcher_whose_lease_was_lost_stops_and_only_what_was_in_the_air_is_repeated() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=True)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), max_in_flight=2)
        ingest.publish([new_event(tenant) for _ in range(30)])
        with running() as one:
            webhooks.wait_for(2)
            in_air = {request.id for request in webhooks.requests}

            let_die(one.dispatcher.me)
            sweeps.sweep(wanted=1)
            one.dispatcher.heart.beat()  # as it does every five seconds
            ending = one.join()

        assert ending is Ending.LEASE_LOST
        assert lane_of(endpoint).dispatcher_id is None
        webhooks.replies["/a"] = Reply()
        run_until_dry()

    ids = [request.id for request in webhooks.requests]
    assert len(set(ids)) == 30
    assert len(ids) == 32
    assert {each for each in ids if ids.count(each) > 1} == in_air
    assert {(d.status, d.attempt_count) for d in deliveries_of(tenant)} == {("succeeded", 1)}


def test_late_results_of_a_zombie_add_their_attempt_and_change_nothing() -> None:
    """Its answer comes after the heir has delivered: fenced by the attempt count that it read."""
    tenant = make_tenant()
    answers = iter([Reply(500, waits=True), Reply(200)])
    with Webhooks(a=lambda _: next(answers)) as webhooks:
        make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant)
        with running() as zombie:
            webhooks.wait_for(1)
            # The lane is taken from it; it looks only every two seconds.
            Lane.objects.for_tenant(tenant).update(dispatcher_id=None, is_ready=True)
            with running():
                webhooks.wait_for(2)
                until(lambda: deliveries_of(tenant)[0].status == "succeeded")
            webhooks.release()
            until(lambda: len(attempts_of(deliveries_of(tenant)[0])) == 2)
            assert not zombie.ending.done()

    (delivery,) = deliveries_of(tenant)
    assert (delivery.status, delivery.attempt_count, delivery.last_status_code) == ("succeeded", 1, 200)
    assert sorted((a.number, a.outcome) for a in attempts_of(delivery)) == [
        (1, "http_error"),
        (1, "succeeded"),
    ]


def test_two_dispatchers_on_the_same_lanes_never_send_a_delivery_twice_at_once() -> None:
    tenants = [make_tenant() for _ in range(3)]
    failing = {f"/{n}" for n in range(0, 12, 3)}
    with Webhooks() as webhooks:
        for path in failing:
            webhooks.replies[path] = lambda request: Reply(
                500 if request.headers["webhook-attempt"] < "3" else 200
            )
        for tenant in tenants:
            make_endpoints(tenant, [webhooks.url(f"/{n}") for n in range(12)], retry_schedule=[0, 0])
        with running() as first, running() as second:
            until(lambda: Dispatcher.objects.count() == 2)
            events, done = 0, (0, 0)
            # Whoever is the quicker may have all that there is; then there is more.
            while events < 25 or (min(done) == 0 and events < 500):
                for tenant in tenants:
                    ingest.publish([new_event(tenant) for _ in range(5)])
                events += 5
                time.sleep(0.05)
                done = first.dispatcher.done, second.dispatcher.done
            until(lambda: not Delivery.unscoped.filter(status="pending").exists(), seconds=30)
            # What is written is told to the loop a moment later.
            until(lambda: first.dispatcher.done + second.dispatcher.done >= len(webhooks.requests))
            done = first.dispatcher.done, second.dispatcher.done

    # Events of each of 3 tenants, to 8 endpoints that answer well and to 4 that do at the third attempt
    assert len(webhooks.requests) == 3 * events * (8 + 4 * 3)
    assert webhooks.together == []
    assert Delivery.unscoped.filter(status="succeeded").count() == 3 * events * 12
    assert sum(done) == len(webhooks.requests)
    assert min(done) > 0
