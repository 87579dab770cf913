"""Endpoints stopped and started in the portal: what they missed, and a deletion that can be undone for a minute."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from deliveries.models import Delivery, Endpoint, EndpointSecret, Job
from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import NewEvent
from deliveries.services import job_work
from deliveries.services.endpoint_deletion import delete_endpoint, forget_deleted
from deliveries.services.endpoint_settings import all_headers
from deliveries.services.endpoints import create_endpoint
from deliveries.services.secrets import read_secret
from deliveries.services.stopping import disable_endpoint, enable_endpoint
from tenants import ids
from tenants.models import EventType, Tenant
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant
from tests.support.portal import actions_of, browser, text_of

pytestmark = pytest.mark.usefixtures("database")


def tenant_with_endpoint() -> tuple[Tenant, Endpoint, str]:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="order.created")
    endpoint = create_endpoint(
        actor=COMMAND,
        tenant=tenant,
        url="https://a.example.com",
        uid="shop",
        headers={"Authorization": "s3cret"},
    )
    return tenant, endpoint, f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}"


def publish(tenant: Tenant) -> None:
    ingest.publish([NewEvent(tenant.id.bytes, "order.created", b"{}")])


def current(endpoint: Endpoint) -> Endpoint:
    row: Endpoint = Endpoint.objects.for_tenant(endpoint.tenant_id).get(id=endpoint.id)
    return row


# --- what was missed --------------------------------------------------------------------------------------------------


def missed_something(tenant: Tenant, endpoint: Endpoint) -> None:
    """One was pending when it was disabled, one was published while it was, one came through before."""
    publish(tenant)
    Delivery.objects.for_tenant(tenant).update(status="succeeded", next_attempt_at=None)
    publish(tenant)
    disable_endpoint(actor=COMMAND, endpoint=endpoint)
    # As the dispatcher does, a moment later.
    Delivery.objects.for_tenant(tenant).filter(status="pending").update(
        status="cancelled",
        cancel_reason="endpoint_disabled",
        next_attempt_at=None,
        completed_at=timezone.now(),
    )
    publish(tenant)


def test_enabling_asks_whether_to_send_what_was_missed_and_sends_it() -> None:
    tenant, endpoint, path = tenant_with_endpoint()
    missed_something(tenant, endpoint)
    client = browser(tenant)

    page = client.get(client.post(f"{path}/enable")["Location"])
    answer = client.post(f"{path}/missed")

    assert "It missed events. Send them now?" in text_of(page)
    (job,) = Job.objects.for_tenant(tenant)
    assert answer["Location"] == f"/portal/{tenant.slug}/jobs/{ids.to_text('job', job.id)}"
    job_work.work(job_id=job.id)
    again = Delivery.objects.for_tenant(tenant).filter(trigger="replay")
    succeeded = Delivery.objects.for_tenant(tenant).get(status="succeeded")
    assert (again.count(), again.filter(event_id=succeeded.event_id).exists()) == (2, False)
    assert "It missed events" not in text_of(client.get(path))
    assert actions_of(tenant)[-1] == "endpoint.replayed"


def test_nobody_has_to_want_it() -> None:
    tenant, endpoint, path = tenant_with_endpoint()
    missed_something(tenant, endpoint)
    client = browser(tenant)
    client.post(f"{path}/enable")

    page = client.get(client.post(f"{path}/missed", {"leave": "yes"})["Location"])
    twice = client.get(client.post(f"{path}/missed")["Location"])

    assert "What it missed is left as it is." in text_of(page)
    assert "It missed events" not in text_of(page)
    assert "Nothing is left to send" in text_of(twice)
    assert (current(endpoint).missed_since, Job.objects.for_tenant(tenant).count()) == (None, 0)
    assert actions_of(tenant)[-1] == "endpoint.missed_left"


def test_while_it_is_disabled_nothing_is_sent() -> None:
    tenant, endpoint, path = tenant_with_endpoint()
    missed_something(tenant, endpoint)
    client = browser(tenant)

    page = client.get(client.post(f"{path}/missed")["Location"])

    assert "The endpoint is disabled. Enable it first." in text_of(page)
    assert Job.objects.for_tenant(tenant).count() == 0


# --- deleting and undoing ---------------------------------------------------------------------------------------------


def undo_of(client: Client, tenant: Tenant, path: str) -> str:
    """The page after deleting."""
    return text_of(client.get(client.post(f"{path}/delete")["Location"]))


def test_a_deletion_holds_at_once_and_can_be_undone() -> None:
    tenant, endpoint, path = tenant_with_endpoint()
    secret = read_secret(actor=COMMAND, endpoint=endpoint)
    client = browser(tenant)

    page = undo_of(client, tenant, path)
    publish(tenant)
    gone = client.get(path)
    restored = client.post(f"{path}/restore")

    assert "https://a.example.com was deleted. Undo" in page
    assert gone.status_code == 404
    assert Delivery.objects.for_tenant(tenant).count() == 0
    assert restored["Location"] == path
    row = current(endpoint)
    assert (row.deleted_at, row.restorable_until, row.uid) == (None, None, "shop")
    assert read_secret(actor=COMMAND, endpoint=row) == secret
    assert all_headers(row) == {"Authorization": "s3cret"}
    # What was published in between is remembered as missed.
    assert row.missed_since is not None
    after = text_of(client.get(path))
    assert "The endpoint is back, with its secret." in after
    assert "It missed events. Send them now?" in after
    assert [action for action in actions_of(tenant) if action.startswith("endpoint")] == [
        "endpoint.created",
        "endpoint.deleted",
        "endpoint.restored",
    ]


def test_events_go_to_it_again() -> None:
    tenant, endpoint, path = tenant_with_endpoint()
    client = browser(tenant)
    client.post(f"{path}/delete")
    client.post(f"{path}/restore")

    publish(tenant)

    assert [row.endpoint_id for row in Delivery.objects.for_tenant(tenant)] == [endpoint.id]


def test_a_minute_later_it_is_too_late() -> None:
    tenant, endpoint, path = tenant_with_endpoint()
    client = browser(tenant)
    client.post(f"{path}/delete")
    Endpoint.objects.for_tenant(tenant).filter(id=endpoint.id).update(
        restorable_until=timezone.now() - timedelta(seconds=1)
    )

    page = text_of(client.get(client.post(f"{path}/restore")["Location"]))
    offered = text_of(client.get(f"/portal/{tenant.slug}/endpoints?deleted={path.rpartition('/')[2]}"))

    assert "It is too late to undo this" in page
    assert "was deleted" not in offered
    assert current(endpoint).deleted_at is not None


def test_its_secrets_are_destroyed_when_the_minute_is_over() -> None:
    tenant, endpoint, path = tenant_with_endpoint()
    _, other, other_path = tenant_with_endpoint()
    client = browser(tenant)
    client.post(f"{path}/delete")
    browser(other.tenant).post(f"{other_path}/delete")
    Endpoint.objects.for_tenant(tenant).filter(id=endpoint.id).update(restorable_until=timezone.now())

    forget_deleted()

    row = current(endpoint)
    assert (row.restorable_until, row.sensitive_headers_encrypted) == (None, None)
    assert EndpointSecret.objects.for_tenant(tenant).count() == 0
    assert EndpointSecret.objects.for_tenant(other.tenant_id).count() == 1
    assert "It is too late" in text_of(client.get(client.post(f"{path}/restore")["Location"]))


def test_what_the_api_deletes_is_gone_at_once() -> None:
    tenant, endpoint, path = tenant_with_endpoint()

    delete_endpoint(actor=COMMAND, endpoint=endpoint)

    assert EndpointSecret.objects.for_tenant(tenant).count() == 0
    client = browser(tenant)
    assert "It is too late" in text_of(client.get(client.post(f"{path}/restore")["Location"]))


def test_an_id_that_another_endpoint_took_is_left_to_it() -> None:
    tenant, endpoint, path = tenant_with_endpoint()
    client = browser(tenant)
    client.post(f"{path}/delete")
    create_endpoint(actor=COMMAND, tenant=tenant, url="https://b.example.com", uid="shop")

    page = text_of(client.get(client.post(f"{path}/restore")["Location"]))

    assert "Another endpoint has its own id by now" in page
    assert (current(endpoint).uid, current(endpoint).deleted_at) == (None, None)


def test_a_place_that_another_endpoint_took_is_taken() -> None:
    tenant, endpoint, path = tenant_with_endpoint()
    Tenant.objects.filter(id=tenant.id).update(limits={"endpoints": 1})
    client = browser(tenant)
    client.post(f"{path}/delete")
    create_endpoint(actor=COMMAND, tenant=tenant, url="https://b.example.com")

    page = text_of(client.get(client.post(f"{path}/restore")["Location"]))

    assert "There is room for 1 endpoint." in page
    assert current(endpoint).deleted_at is not None


def test_a_disabled_one_comes_back_disabled() -> None:
    tenant, endpoint, path = tenant_with_endpoint()
    disable_endpoint(actor=COMMAND, endpoint=endpoint)
    since = current(endpoint).missed_since
    client = browser(tenant)
    client.post(f"{path}/delete")

    client.post(f"{path}/restore")

    assert (current(endpoint).status, current(endpoint).missed_since) == ("disabled", since)
    enable_endpoint(actor=COMMAND, endpoint=current(endpoint))


def test_nobody_undoes_what_is_anothers() -> None:
    tenant, endpoint, path = tenant_with_endpoint()
    browser(tenant).post(f"{path}/delete")
    stranger = make_tenant()
    reference = path.rpartition("/")[2]
    client = browser(stranger, "admin")

    assert client.post(f"/portal/{stranger.slug}/endpoints/{reference}/restore").status_code == 404
    assert browser(tenant, "viewer").post(f"{path}/restore").status_code == 403
    assert "was deleted" not in text_of(client.get(f"/portal/{stranger.slug}/endpoints?deleted={reference}"))
    assert current(endpoint).deleted_at is not None
