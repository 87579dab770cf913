"""What becomes of lanes when their tenant is suspended, resumed or deleted."""

import pytest

from deliveries.models import Endpoint, Lane
from deliveries.services.endpoints import create_endpoint
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tenants.services.tenants import delete_tenant, update_tenant
from tests.support.api import make_tenant

pytestmark = pytest.mark.usefixtures("database")


def endpoint_of(tenant: Tenant) -> Endpoint:
    return create_endpoint(actor=COMMAND, tenant=tenant, url="https://shop.example.com")


def test_a_suspended_tenants_lanes_are_held_and_go_on_when_it_is_active_again() -> None:
    tenant, other = make_tenant(), make_tenant()
    held, elsewhere = endpoint_of(tenant), endpoint_of(other)

    update_tenant(actor=COMMAND, tenant=tenant, status="suspended")
    made_meanwhile = endpoint_of(tenant)

    assert Lane.objects.for_tenant(tenant).get(endpoint=held).is_paused
    assert Lane.objects.for_tenant(tenant).get(endpoint=made_meanwhile).is_paused
    assert not Lane.objects.for_tenant(other).get(endpoint=elsewhere).is_paused

    update_tenant(actor=COMMAND, tenant=tenant, status="active")

    assert [lane.is_paused for lane in Lane.objects.for_tenant(tenant)] == [False, False]
    assert [lane.is_ready for lane in Lane.objects.for_tenant(tenant)] == [True, True]


def test_an_endpoints_own_pause_outlasts_its_tenants() -> None:
    tenant = make_tenant()
    endpoint = endpoint_of(tenant)
    Endpoint.objects.for_tenant(tenant).filter(id=endpoint.id).update(is_paused=True)

    update_tenant(actor=COMMAND, tenant=tenant, status="suspended")
    update_tenant(actor=COMMAND, tenant=tenant, status="active")

    assert Lane.objects.for_tenant(tenant).get().is_paused


def test_a_deleted_tenants_lanes_are_woken_so_that_their_holder_ends_what_is_pending() -> None:
    tenant = make_tenant()
    endpoint = endpoint_of(tenant)
    update_tenant(actor=COMMAND, tenant=tenant, status="suspended")

    delete_tenant(actor=COMMAND, tenant=tenant)

    lane = Lane.objects.for_tenant(tenant).get()
    assert (lane.is_paused, lane.is_ready) == (False, True)
    before = endpoint.version
    endpoint.refresh_from_db()
    assert endpoint.version > before
