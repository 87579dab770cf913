"""What is pending ends when its endpoint or tenant is stopped for good, whatever its lane waits for at that moment."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from deliveries.models import Endpoint, Lane
from deliveries.pipeline import ingest
from deliveries.services import endpoint_deletion, stopping
from tenants import ids
from tenants.models import Tenant
from tenants.services import tenants
from tenants.services.audit import COMMAND
from tests.support.builders import (
    deliveries_of,
    delivery_of,
    lane_of,
    make_endpoint,
    make_tenant,
    new_event,
    publish,
)
from tests.support.running import Webhooks, run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")

Verb = Callable[[Endpoint], object]


def pause(endpoint: Endpoint) -> None:
    stopping.pause_endpoint(actor=COMMAND, endpoint=endpoint)


def suspend(endpoint: Endpoint) -> None:
    tenants.update_tenant(actor=COMMAND, tenant=endpoint.tenant, status="suspended")


def disable(endpoint: Endpoint) -> None:
    stopping.disable_endpoint(actor=COMMAND, endpoint=endpoint)


def delete(endpoint: Endpoint) -> None:
    endpoint_deletion.delete_endpoint(actor=COMMAND, endpoint=endpoint)


def delete_tenant(endpoint: Endpoint) -> None:
    tenants.delete_tenant(actor=COMMAND, tenant=Tenant.objects.get(id=endpoint.tenant_id))


STOPS = [(disable, "endpoint_disabled"), (delete, "endpoint_deleted"), (delete_tenant, "tenant_deleted")]

stops = pytest.mark.parametrize(("stop", "reason"), STOPS, ids=["disable", "delete", "delete the tenant"])
holds = pytest.mark.parametrize("hold", [pause, suspend])


def ends(tenant: Tenant) -> list[tuple[str, str | None]]:
    return [(each.status, each.cancel_reason) for each in deliveries_of(tenant)]


@stops
@holds
def test_what_is_pending_behind_a_held_lane_ends_with_its_endpoint(
    hold: Verb, stop: Verb, reason: str
) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        ingest.publish([new_event(tenant) for _ in range(3)])
        hold(endpoint)
        run_until_dry()
        before = ends(tenant)

        stop(endpoint)
        run_until_dry()

    assert before == [("pending", None)] * 3
    assert ends(tenant) == [("cancelled", reason)] * 3
    assert (lane_of(endpoint).is_paused, lane_of(endpoint).ready_at) == (False, None)
    assert webhooks.requests == []


@stops
def test_an_endpoint_of_a_suspended_tenant_may_be_paused_as_well(stop: Verb, reason: str) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    publish(tenant)
    pause(endpoint)
    suspend(endpoint)

    stop(endpoint)
    run_until_dry()

    assert ends(tenant) == [("cancelled", reason)]


@pytest.mark.parametrize(("stop", "reason"), STOPS[:2], ids=["disable", "delete"])
def test_a_stopped_endpoint_whose_tenant_is_suspended_later_ends_what_is_pending(
    stop: Verb, reason: str
) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    publish(tenant)
    stop(endpoint)

    suspend(endpoint)
    run_until_dry()

    assert ends(tenant) == [("cancelled", reason)]


def test_a_disabled_endpoint_that_is_paused_rests_only_when_it_is_enabled_again() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"))
        publish(tenant)
        disable(endpoint)
        pause(endpoint)
        run_until_dry()
        stopping.enable_endpoint(actor=COMMAND, endpoint=endpoint)
        later = publish(tenant)
        run_until_dry()
        while_it_rests = ends(tenant)
        stopping.continue_endpoint(actor=COMMAND, endpoint=endpoint)
        run_until_dry()

    assert while_it_rests == [("cancelled", "endpoint_disabled"), ("pending", None)]
    assert ends(tenant) == [("cancelled", "endpoint_disabled"), ("succeeded", None)]
    assert [request.id for request in webhooks.requests] == [
        ids.to_text(ids.EVENT, UUID(bytes=later.event_id))
    ]
    assert delivery_of(later).status == "succeeded"


def test_an_endpoint_that_is_restored_rests_as_before() -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    pause(endpoint)
    endpoint_deletion.delete_endpoint(actor=COMMAND, endpoint=endpoint, is_undoable=True)
    while_deleted = lane_of(endpoint).is_paused

    endpoint_deletion.restore_endpoint(
        actor=COMMAND, tenant=tenant, reference=ids.to_text(ids.ENDPOINT, endpoint.id)
    )

    assert (while_deleted, lane_of(endpoint).is_paused) == (False, True)


@stops
@pytest.mark.parametrize("why", ["rate", "answer", "circuit"])
def test_what_is_pending_behind_a_wait_ends_at_once(why: str, stop: Verb, reason: str) -> None:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    later = timezone.now() + timedelta(minutes=10)
    Lane.unscoped.filter(endpoint=endpoint).update(hold_until=later, hold_reason=why)
    publish(tenant)
    run_until_dry()
    before = ends(tenant)

    stop(endpoint)
    run_until_dry()

    assert (before, ends(tenant)) == ([("pending", None)], [("cancelled", reason)])
