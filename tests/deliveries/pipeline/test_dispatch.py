"""From publish to endpoint and record, with a real dispatcher, database and endpoint; on both transports."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from deliveries.models import Delivery, Dispatcher, Endpoint, EndpointSecret, Event, Lane, Subscription
from deliveries.pipeline import dispatch, ingest, needs, rounds
from deliveries.pipeline.outcome import Wish, wish_of
from deliveries.pipeline.payloads import PAYLOAD_BYTES
from deliveries.pipeline.wake import wake
from tenants.ids import EVENT, to_text
from tests.support.builders import (
    accepted,
    attempts_of,
    change_endpoint,
    deliveries_of,
    delivery_of,
    events_of,
    lane_of,
    make_endpoint,
    make_endpoints,
    make_tenant,
    new_event,
    publish,
    raise_version,
)
from tests.support.running import Reply, Request, Webhooks, make_dispatcher, run_until_dry, running, until

pytestmark = pytest.mark.usefixtures("quiet_lanes")


@pytest.fixture(params=["curl", "requests"])
def transport_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_bytes_of_data_reach_the_endpoint_as_sent(transport_name: str) -> None:
    data = '{"z":1.10,"a":12345678901234567890123,"m":{"b":1,"a":[1.0,1e2,-0]},"t":"é\\u00e9\\/"  ,"n":null}'.encode()
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant, data, occurred_at=datetime(2026, 3, 1, 12, tzinfo=UTC))

        run_until_dry(name=transport_name)

    (request,) = webhooks.requests
    assert (
        request.body
        == b'{"type":"order.created","timestamp":"2026-03-01T12:00:00.000000Z","data":' + data + b"}"
    )


def test_a_request_carries_the_headers_of_the_platform_and_of_its_endpoint(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), headers={"x-team": "red"})
        event = publish(tenant, b"{}", hops=2)

        run_until_dry(name=transport_name)

    (request,) = webhooks.requests
    headers = dict(request.headers)
    assert abs(int(headers.pop("webhook-timestamp")) - time.time()) < 60
    assert headers.pop("webhook-signature").startswith("v1,")
    assert headers.pop("host") == f"127.0.0.1:{webhooks.port}"
    assert headers.pop("content-length") == str(len(request.body))
    # What a client adds by itself, if anything, says nothing.
    assert headers.pop("accept", "*/*") == "*/*"
    assert headers == {
        "content-type": "application/json",
        "user-agent": "Webhooks-Platform/test",
        "webhook-id": to_text(EVENT, events_of(tenant)[0].id),
        "webhook-attempt": "1",
        "webhook-hops": "3",
        "x-team": "red",
    }
    (attempt,) = attempts_of(delivery_of(event))
    assert bytes(attempt.request_headers).decode().splitlines()[-1] == "x-team: red"


def test_a_delivery_and_its_attempt_say_what_came(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(201, ("x-answer: yes",), b"thanks")) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        event = publish(tenant)

        run_until_dry(name=transport_name)

    delivery = delivery_of(event)
    assert delivery.completed_at is not None
    assert (delivery.status, delivery.attempt_count, delivery.schedule_step) == ("succeeded", 1, 1)
    assert (delivery.next_attempt_at, delivery.cancel_reason) == (None, None)
    assert (delivery.last_outcome, delivery.last_status_code) == ("succeeded", 201)
    (attempt,) = attempts_of(delivery)
    assert (attempt.number, attempt.trigger, attempt.outcome, attempt.status_code) == (
        1,
        "automatic",
        "succeeded",
        201,
    )
    assert (attempt.remote_ip, bytes(attempt.response_body), attempt.is_truncated) == (
        "127.0.0.1",
        b"thanks",
        False,
    )
    assert b"x-answer: yes" in bytes(attempt.response_headers)
    assert 0 < attempt.duration_ms < 5000
    lane = lane_of(endpoint)
    assert (lane.ready_at, lane.is_ready, lane.dispatcher_id) == (None, False, None)
    assert list(Dispatcher.objects.all()) == []


def test_every_event_reaches_every_endpoint_once(transport_name: str) -> None:
    tenant = make_tenant()
    paths = [f"/{n}" for n in range(5)]
    with Webhooks() as webhooks:
        make_endpoints(tenant, [webhooks.url(path) for path in paths])
        events = accepted(ingest.publish([new_event(tenant, b'{"n":%d}' % n) for n in range(60)]))

        run_until_dry(name=transport_name)

    ids = [to_text(EVENT, event.id) for event in events_of(tenant)]
    assert [sorted(request.id for request in webhooks.to(path)) for path in paths] == [sorted(ids)] * 5
    assert webhooks.together == []
    assert sum(len(event.delivery_ids) for event in events) == 300
    deliveries = deliveries_of(tenant)
    assert [(d.status, d.attempt_count) for d in deliveries] == [("succeeded", 1)] * 300
    assert all(len(attempts_of(delivery)) == 1 for delivery in deliveries[:10])
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT delivery_id) FROM deliveries_attempt")
        assert cursor.fetchone() == (300, 300)


def test_a_lane_in_order_of_publication_when_one_request_goes_at_a_time(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), max_in_flight=1)
        ingest.publish([new_event(tenant, b'{"n":%d}' % n) for n in range(40)])

        run_until_dry(name=transport_name)

    ids = [to_text(EVENT, event.id) for event in events_of(tenant)]
    assert [request.id for request in webhooks.requests] == ids


@pytest.mark.parametrize(
    "body", [b"before\x00after", b"\xff\xfe\x80 no UTF-8", b"\x00" * 100, "\U0001f600".encode()[:3]]
)
def test_answers_are_kept_byte_for_byte_whatever_they_hold(transport_name: str, body: bytes) -> None:
    tenant = make_tenant()
    with Webhooks(odd=Reply(500, ("x-odd: \x80\xff",), body)) as webhooks:
        odd = make_endpoint(tenant, webhooks.url("/odd"))
        make_endpoint(tenant, webhooks.url("/fine"))
        publish(tenant)

        run_until_dry(name=transport_name)

    by_endpoint = {delivery.endpoint_id == odd.id: delivery for delivery in deliveries_of(tenant)}
    assert (by_endpoint[True].status, by_endpoint[True].last_outcome) == ("pending", "http_error")
    (attempt,) = attempts_of(by_endpoint[True])
    assert bytes(attempt.response_body) == body
    assert b"x-odd: \x80\xff" in bytes(attempt.response_headers)
    assert by_endpoint[False].status == "succeeded"


def test_a_secret_that_does_not_decrypt_hurts_that_delivery_alone(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        broken, fine = make_endpoints(tenant, [webhooks.url("/broken"), webhooks.url("/fine")])
        EndpointSecret.unscoped.filter(endpoint=broken).update(encrypted=b"no token at all")
        publish(tenant)

        run_until_dry(name=transport_name)

    assert [request.path for request in webhooks.requests] == ["/fine"]
    by_endpoint = {delivery.endpoint_id: delivery for delivery in deliveries_of(tenant)}
    assert by_endpoint[fine.id].status == "succeeded"
    assert by_endpoint[broken.id].status == "pending"
    (attempt,) = attempts_of(by_endpoint[broken.id])
    assert (attempt.outcome, attempt.status_code) == ("internal_error", None)
    assert attempt.detail.startswith("a stored secret of this endpoint cannot be decrypted")


def test_settings_that_cannot_be_read_hurt_that_endpoint_alone() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        broken, gone, fine = make_endpoints(
            tenant, [webhooks.url(path) for path in ("/broken", "/gone", "/fine")]
        )
        Endpoint.unscoped.filter(id__in=[broken.id, gone.id]).update(signature_template={"preset": "no more"})
        publish(tenant)
        change_endpoint(gone, status="disabled", disabled_reason="manual")

        run_until_dry()

    by_endpoint = {delivery.endpoint_id: delivery for delivery in deliveries_of(tenant)}
    assert by_endpoint[fine.id].status == "succeeded"
    assert (by_endpoint[gone.id].status, by_endpoint[gone.id].cancel_reason) == (
        "cancelled",
        "endpoint_disabled",
    )
    assert by_endpoint[broken.id].status == "pending"
    (attempt,) = attempts_of(by_endpoint[broken.id])
    assert (attempt.outcome, attempt.status_code) == ("internal_error", None)
    assert attempt.detail == "the stored settings of this endpoint cannot be read; save them again"


def test_an_answer_that_cannot_be_judged_is_the_end_of_that_attempt_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wish(headers: bytes) -> Wish | None:
        if b"x-odd" in headers:
            raise ValueError("of our own making")
        return wish_of(headers)

    monkeypatch.setattr(dispatch, "wish_of", wish)
    odd, healthy = make_tenant(), make_tenant()
    with Webhooks(odd=Reply(headers=("x-odd: 1",))) as webhooks:
        make_endpoint(odd, webhooks.url("/odd"))
        make_endpoint(healthy, webhooks.url("/fine"))
        trouble = publish(odd)
        for _ in range(10):
            publish(healthy)

        run_until_dry()

    assert [delivery.status for delivery in deliveries_of(healthy)] == ["succeeded"] * 10
    (attempt,) = attempts_of(delivery_of(trouble))
    assert (attempt.outcome, attempt.detail) == ("internal_error", "the answer could not be read")
    assert len(webhooks.requests) == 11


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "1999-12-31T23:59:59.999999Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_an_event_of_any_year_goes_out_with_its_time(at: datetime, text: str) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant, occurred_at=at)

        run_until_dry()

    (event,) = events_of(tenant)
    (request,) = webhooks.requests
    assert event.occurred_at == at
    assert json.loads(request.body)["timestamp"] == text


def test_a_transformation_is_sent_as_it_was_at_publish(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        Subscription.unscoped.filter(endpoint=endpoint).update(transformation="{'total': data.amount + 1}")
        raise_version(tenant)
        event = publish(tenant, b'{"amount":41}')
        Subscription.unscoped.filter(endpoint=endpoint).update(transformation=None)
        raise_version(tenant)

        run_until_dry(name=transport_name)

    (request,) = webhooks.requests
    assert request.body.endswith(b',"data":{"total":42}}')
    assert delivery_of(event).status == "succeeded"


def test_a_transformation_that_failed_ends_the_delivery_at_its_first_attempt() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        Subscription.unscoped.filter(endpoint=endpoint).update(transformation="{'total': data.missing}")
        raise_version(tenant)
        event = publish(tenant)

        run_until_dry()

    assert webhooks.requests == []
    delivery = delivery_of(event)
    assert (delivery.status, delivery.last_outcome) == ("failed", "transformation_failed")
    assert [attempt.outcome for attempt in attempts_of(delivery)] == ["transformation_failed"]


def test_a_blocked_literal_address_ends_the_delivery_at_its_first_attempt(transport_name: str) -> None:
    tenant = make_tenant()
    make_endpoint(tenant, "http://169.254.169.254/latest/meta-data")
    event = publish(tenant)

    run_until_dry(name=transport_name)

    delivery = delivery_of(event)
    assert (delivery.status, delivery.last_outcome) == ("failed", "address_blocked")
    assert len(attempts_of(delivery)) == 1


def test_nothing_is_sent_before_deliver_at() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        began = time.monotonic()
        deliver_at = datetime.now(UTC) + timedelta(seconds=3)
        publish(tenant, deliver_at=deliver_at)
        run_until_dry()
        early = list(webhooks.requests)
        lane = lane_of(endpoint)

        with running():
            (request,) = webhooks.wait_for(1)

    assert early == []
    assert (lane.ready_at, lane.is_ready) == (deliver_at, False)
    assert 2.9 < request.at - began < 8


def test_payloads_keep_within_their_budget_of_memory() -> None:
    tenant = make_tenant()
    data = b'{"a":"' + b"x" * 261_000 + b'"}'
    seen: list[int] = []
    # Long enough that it does not take the start of its connections for the end of the work.
    dispatcher = make_dispatcher(dry_seconds=2.0)

    def look(_: Request) -> Reply:
        seen.append(dispatcher.book.payloads.bytes)
        return Reply()

    with Webhooks(a=look, b=look) as webhooks:
        make_endpoints(tenant, [webhooks.url("/a"), webhooks.url("/b")])
        for _ in range(5):
            ingest.publish([new_event(tenant, data) for _ in range(20)])

        dispatcher.run()

    assert len(webhooks.requests) == 200
    assert PAYLOAD_BYTES / 4 < max(seen) <= PAYLOAD_BYTES
    assert [delivery.status for delivery in deliveries_of(tenant)] == ["succeeded"] * 200


def test_what_was_sent_leaves_memory_though_an_earlier_one_hangs() -> None:
    slow, quick = make_tenant(), make_tenant()
    with Webhooks(slow=Reply(waits=True)) as webhooks, running() as one:
        make_endpoint(slow, webhooks.url("/slow"))
        make_endpoint(quick, webhooks.url("/quick"))
        publish(slow)
        webhooks.wait_for(1, "/slow")
        ingest.publish([new_event(quick) for _ in range(20)])
        until(lambda: [delivery.status for delivery in deliveries_of(quick)] == ["succeeded"] * 20)
        flights = list(one.dispatcher.flights)
        webhooks.release()

    # The one that hangs, if it is not a second old yet, keeps those behind it in line; not what they carried.
    assert sum(hasattr(flight, "payload") for flight in flights) <= 1


def test_what_was_answered_is_written_down_though_another_hangs_beyond_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "BATCH_SECONDS", 60.0)
    tenant = make_tenant()
    with Webhooks(slow=Reply(waits=True)) as webhooks:
        make_endpoints(tenant, [webhooks.url("/slow"), webhooks.url("/quick")])
        with running(drain_seconds=0.5) as one:
            publish(tenant)
            webhooks.wait_for(2)
            until(lambda: one.dispatcher.unrecorded == 1)

    assert one.join().value == "drained"
    assert sorted(delivery.status for delivery in deliveries_of(tenant)) == ["pending", "succeeded"]


def test_a_load_leaves_out_what_is_in_the_air_wherever_the_cursor_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that falls due before all others sets it back, while those hang."""
    monkeypatch.setattr(needs, "MAX_LOAD", 1)
    monkeypatch.setattr(rounds, "MAX_LOAD", 1)
    tenant = make_tenant()
    with Webhooks(a=Reply(waits=True)) as webhooks, running() as one:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), max_in_flight=8)
        Lane.unscoped.filter(endpoint=endpoint).update(slots=8)
        ingest.publish([new_event(tenant) for _ in range(3)])
        webhooks.wait_for(3)
        until(lambda: [lane.cleared_at is not None for lane in one.dispatcher.book.lanes.values()] == [True])
        late = delivery_of(publish(tenant, deliver_at=datetime.now(UTC) + timedelta(hours=1)))
        Delivery.unscoped.filter(id=late.id).update(next_attempt_at=datetime.now(UTC) - timedelta(hours=1))
        wake([(endpoint.id, None)])
        webhooks.wait_for(4)
        time.sleep(0.5)
        webhooks.release()
        until(lambda: {delivery.status for delivery in deliveries_of(tenant)} == {"succeeded"})

    assert len(webhooks.requests) == len({request.id for request in webhooks.requests}) == 4


def test_what_transformations_made_counts_as_payload() -> None:
    tenant = make_tenant()
    data = b'{"a":"' + b"x" * 250_000 + b'"}'
    with Webhooks(a=Reply(waits=True)) as webhooks:
        endpoints = make_endpoints(tenant, [webhooks.url("/a")] * 4)
        Subscription.unscoped.filter(endpoint__in=endpoints).update(transformation="{'b': data.a}")
        raise_version(tenant)
        for _ in range(5):
            ingest.publish([new_event(tenant, data) for _ in range(10)])

        with running() as one:
            webhooks.wait_for(8)
            until(lambda: one.dispatcher.book.loaded > 150)
            in_memory = one.dispatcher.book.payloads.bytes
            webhooks.release()
            webhooks.wait_for(200)

    assert len(webhooks.requests) == 200
    assert in_memory <= PAYLOAD_BYTES
    body = b',"data":{"b":"' + b"x" * 250_000 + b'"}}'
    assert all(request.body.endswith(body) for request in webhooks.requests)


def test_asked_to_stop_it_finishes_what_is_in_the_air_and_gives_everything_back() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(seconds=1.5)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), max_in_flight=2)
        ingest.publish([new_event(tenant) for _ in range(10)])
        with running() as one:
            webhooks.wait_for(2)
        sent = len(webhooks.requests)
        webhooks.replies["/a"] = Reply()

        lane = lane_of(endpoint)
        statuses = sorted(delivery.status for delivery in deliveries_of(tenant))
        run_until_dry()

    assert one.join().value == "drained"
    assert sent == 2
    assert (lane.dispatcher_id, lane.is_ready) == (None, True)
    assert statuses == ["pending"] * 8 + ["succeeded"] * 2
    assert len({request.id for request in webhooks.requests}) == len(webhooks.requests) == 10


def test_a_pipe_that_asks_to_stop_is_heard_by_every_dispatcher() -> None:
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with running(stop_fd=read_end) as first, running(stop_fd=read_end) as second:
        until(lambda: Dispatcher.objects.count() == 2)

        os.write(write_end, b"stop")

        assert [first.join().value, second.join().value] == ["drained", "drained"]
    os.close(read_end)
    os.close(write_end)


def test_lanes_are_idle_and_nobody_holds_them_when_all_is_delivered() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoints(tenant, [webhooks.url(f"/{n}") for n in range(30)])
        ingest.publish([new_event(tenant) for _ in range(5)])

        run_until_dry()

    lanes = Lane.objects.for_tenant(tenant).values_list("ready_at", "is_ready", "dispatcher_id", "slots")
    assert len(webhooks.requests) == 150
    assert [row[:3] for row in lanes] == [(None, False, None)] * 30
    assert all(row[3] > 2 for row in lanes)


def test_a_delivery_whose_event_is_gone_ends_and_does_not_wait_for_it() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[])
        publish(tenant)
        Event.objects.for_tenant(tenant).delete()

        run_until_dry()

        assert webhooks.to("/a") == []
    (delivery,) = deliveries_of(tenant)
    assert (delivery.status, delivery.last_outcome) == ("failed", "internal_error")


def test_what_the_database_refused_of_an_answer_is_out_of_memory_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It counts against the answers that wait to be recorded, beyond which nothing is sent."""
    monkeypatch.setitem(dispatch.WISHES, Wish.ABORT, "no text of PostgreSQL: \x00")
    tenant = make_tenant()
    with Webhooks(a=Reply(500, headers=("webhook-delivery: abort",))) as webhooks, running() as one:
        make_endpoint(tenant, webhooks.url("/a"))
        event = publish(tenant)
        until(lambda: delivery_of(event).status == "failed")
        until(lambda: one.dispatcher.unrecorded == 0)
        left = one.dispatcher.result_bytes

    assert [attempt.outcome for attempt in attempts_of(delivery_of(event))] == ["internal_error"]
    assert left == 0
