"""Traces, seen by a collector and by the receiver: one from the publisher to each attempt, and nothing while they are off."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from django.test import Client, override_settings

from deliveries.models import Event
from deliveries.services import sources, traces
from tenants import ids
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tests.support.api import tenant_api
from tests.support.builders import (
    attempts_of,
    deliveries_of,
    events_of,
    make_due,
    make_endpoint,
    make_tenant,
    publish,
)
from tests.support.collector import Collector, attributes_of
from tests.support.running import Reply, Webhooks, run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PUBLISHER = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector, override_settings(WEBHOOKS_TRACES=True):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        traces._tracer.cache_clear()
        yield collector
        traces._tracer()._provider.shutdown()
        traces._tracer.cache_clear()


def publish_over_http(tenant: Tenant, traceparent: str | None = None) -> Event:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    body = {"type": "order.created", "data": {}}
    answer = tenant_api(tenant).send("POST", f"/tenants/{tenant.slug}/events", body, headers=headers)
    assert answer.status_code == 202, answer.content
    return events_of(tenant)[-1]


def deliver() -> None:
    run_until_dry(traces=traces.attempt_traces())
    traces.flush()


def test_a_publish_and_its_attempts_are_spans_of_the_publishers_trace(collector: Collector) -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(500)) as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), retry_schedule=[3600])
        event = publish_over_http(tenant, PUBLISHER)
        deliver()
        webhooks.replies["/a"] = Reply(200)
        make_due(tenant)
        deliver()

    (published,), attempts = collector.named("publish"), collector.named("attempt")
    (delivery,) = deliveries_of(tenant)
    recorded = attempts_of(delivery)
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert published.parent_span_id.hex() == "00f067aa0ba902b7"
    assert [span.parent_span_id for span in attempts] == [published.span_id] * 2
    assert event.traceparent == f"00-{TRACE}-{published.span_id.hex()}-01"
    assert [request.headers["traceparent"] for request in webhooks.requests] == [
        f"00-{TRACE}-{span.span_id.hex()}-01" for span in attempts
    ]
    assert attributes_of(published) == {
        "webhooks.tenant_id": ids.to_text(ids.TENANT, tenant.id),
        "webhooks.event_type": "order.created",
        "webhooks.event_id": ids.to_text(ids.EVENT, event.id),
        "webhooks.deliveries": 1,
    }
    for number, (span, attempt) in enumerate(zip(attempts, recorded, strict=True), start=1):
        facts = attributes_of(span)
        assert facts["webhooks.tenant_id"] == ids.to_text(ids.TENANT, tenant.id)
        assert facts["webhooks.endpoint_id"] == ids.to_text(ids.ENDPOINT, endpoint.id)
        assert facts["webhooks.event_id"] == ids.to_text(ids.EVENT, event.id)
        assert facts["webhooks.delivery_id"] == ids.to_text(ids.DELIVERY, delivery.id)
        assert facts["webhooks.attempt_id"] == ids.to_text(ids.ATTEMPT, attempt.id)
        assert facts["webhooks.attempt"] == number
        assert facts["http.response.status_code"] == attempt.status_code
        assert f"traceparent: 00-{TRACE}-{span.span_id.hex()}-01" in bytes(attempt.request_headers).decode()
        lasted_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
        assert lasted_ms == pytest.approx(attempt.duration_ms, abs=0.01)
    assert [(span.status.code, span.status.message) for span in attempts] == [(2, "http_error"), (0, "")]
    assert collector.paths == {"/v1/traces"}
    assert collector.services == {"webhooks-platform"}


def test_a_request_to_a_source_carries_its_senders_trace_on(collector: Collector) -> None:
    tenant = make_tenant()
    fields = {"event_type": '"order.created"'}
    _, token = sources.create_source(actor=COMMAND, tenant=tenant, name="in", **fields)
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/"))
        answer = Client(headers={"traceparent": PUBLISHER}).post(f"/in/{token}", b"{}", "application/json")
        deliver()

    (published,), (attempt,) = collector.named("publish"), collector.named("attempt")
    assert answer.status_code == 200
    assert published.trace_id.hex() == attempt.trace_id.hex() == TRACE
    assert webhooks.requests[0].headers["traceparent"].startswith(f"00-{TRACE}-")


def test_each_event_of_a_batch_is_a_span_and_a_refused_one_says_why(collector: Collector) -> None:
    tenant = make_tenant()
    make_endpoint(tenant, "https://receiver.example/")
    events = [{"type": "order.created", "data": {}}, {"type": "nobody.knows", "data": {}}]

    answer = tenant_api(tenant).send(
        "POST", f"/tenants/{tenant.slug}/events/batch", {"events": events}, headers={"traceparent": PUBLISHER}
    )
    traces.flush()

    assert answer.status_code == 202
    assert [(span.trace_id.hex(), span.status.message) for span in collector.named("publish")] == [
        (TRACE, ""),
        (TRACE, "unknown_event_type"),
    ]


def test_a_batch_that_is_answered_again_names_no_events(collector: Collector) -> None:
    tenant = make_tenant()
    body = {"events": [{"type": "order.created", "data": {}}] * 2}

    for _ in range(2):
        answer = tenant_api(tenant).post(f"/tenants/{tenant.slug}/events/batch", body, idempotency_key="k")
        assert answer.status_code == 202
    traces.flush()

    told = [attributes_of(span) for span in collector.named("publish")]
    assert [one.get("webhooks.is_replayed", False) for one in told] == [False, False, True, True]
    assert ["webhooks.event_id" in one for one in told] == [True, True, False, False]


@pytest.mark.parametrize(
    ("said", "header"),
    [
        ("nothing", None),
        ("no hexadecimal digits", "00-zzf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("too short", "00-4bf92f3577b34da6-00f067aa0ba902b7-01"),
        ("a trace of zeros", f"00-{'0' * 32}-00f067aa0ba902b7-01"),
        ("a span of zeros", f"00-{TRACE}-{'0' * 16}-01"),
        ("a version that may not be", f"ff-{TRACE}-00f067aa0ba902b7-01"),
        ("more than its version has", f"{PUBLISHER}-what"),
        ("another header", "no\tspan at all; drop table"),
        ("a megabyte", "0" * 60_000),
    ],
)
def test_what_is_no_traceparent_begins_a_trace_of_its_own(
    collector: Collector, said: str, header: str | None
) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/"))
        publish_over_http(tenant, header)
        deliver()

    (published,), (attempt,), (request,) = (
        collector.named("publish"),
        collector.named("attempt"),
        webhooks.requests,
    )
    assert not published.parent_span_id, said
    assert published.trace_id.hex() != TRACE
    assert attempt.trace_id == published.trace_id
    assert request.headers["traceparent"].split("-")[1] == published.trace_id.hex()


def test_a_trace_that_nobody_records_is_passed_on_and_makes_no_spans(collector: Collector) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/"))
        event = publish_over_http(tenant, PUBLISHER.removesuffix("01") + "00")
        deliver()

    (request,) = webhooks.requests
    assert request.headers["traceparent"] == event.traceparent
    assert request.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert request.headers["traceparent"].endswith("-00")
    assert collector.spans == []


def test_what_the_sampler_leaves_out_begins_no_trace(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/"))
        event = publish_over_http(tenant)
        publish_over_http(tenant, PUBLISHER)
        deliver()

    assert event.traceparent is None
    assert ["traceparent" in request.headers for request in webhooks.requests] == [False, True]
    assert sorted(span.name for span in collector.spans) == ["attempt", "publish"]


def test_an_endpoints_own_header_of_that_name_stays_as_it_is(collector: Collector) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/"), headers={"Traceparent": "mine"})
        publish_over_http(tenant, PUBLISHER)
        deliver()

    (request,) = webhooks.requests
    assert request.headers["traceparent"] == "mine"
    assert len(collector.named("attempt")) == 1


def test_of_several_events_in_one_request_the_first_ones_trace_is_told(collector: Collector) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/"), batch={"max_events": 3, "max_wait_ms": 10})
        for number in range(3):
            publish_over_http(tenant, f"00-{number + 1:032x}-00f067aa0ba902b7-01")
        deliver()

    (request,) = webhooks.requests
    attempts = {int(span.trace_id.hex(), 16): span for span in collector.named("attempt")}
    assert sorted(attempts) == [1, 2, 3]
    assert request.headers["traceparent"] == f"00-{1:032x}-{attempts[1].span_id.hex()}-01"


def test_a_collector_that_does_not_answer_delays_and_loses_nothing(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deliveries.pipeline.tracing.FLUSH_SECONDS", 0.3)
    tenant = make_tenant()
    collector.answers.clear()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/"))
        publish_over_http(tenant, PUBLISHER)
        began = time.monotonic()
        deliver()
        lasted = time.monotonic() - began
    collector.answers.set()

    assert len(webhooks.requests) == 1
    assert deliveries_of(tenant)[0].status == "succeeded"
    # It would not be given up for ten seconds.
    assert lasted < 8


def test_with_traces_off_nothing_is_kept_or_sent_and_opentelemetry_is_not_loaded() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/"))
        event = publish_over_http(tenant, PUBLISHER)
        publish(tenant)
        run_until_dry(traces=traces.attempt_traces())
    code = (
        "import sys, django; django.setup()\n"
        "import deliveries.api.publish, deliveries.tasks, webhooks_platform.urls\n"
        "assert deliveries.services.traces.attempt_traces() is None\n"
        # The client of Redis looks for OpenTelemetry's API by itself.
        "assert 'deliveries.pipeline.tracing' not in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.exporter')]"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env={"DJANGO_SETTINGS_MODULE": "webhooks_platform.settings", "DEBUG": "true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert event.traceparent is None
    assert ["traceparent" in request.headers for request in webhooks.requests] == [False, False]
    assert loaded.returncode == 0, loaded.stderr
