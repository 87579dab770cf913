"""Sending an endpoint's events again from the portal: counted, begun, watched, cancelled."""

from datetime import timedelta

import pytest
from django.utils import timezone

from deliveries.models import Delivery, Job
from deliveries.services import job_work, jobs
from deliveries.services.stopping import disable_endpoint
from tenants import ids
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant
from tests.support.portal import actions_of, browser, text_of
from tests.support.published import delivery_of, end, make_endpoint, make_type, publish

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def tenant(database: None) -> Tenant:
    made = make_tenant()
    make_type(made)
    return made


def test_counted_begun_watched_and_done(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    for _ in range(2):
        end(delivery_of(publish(tenant)), "failed")
    end(delivery_of(publish(tenant)), "succeeded")
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/again"

    asked = client.get(path, {"only": "failed", "within": "24h"})
    counted = client.get(f"{path}?{asked.context['count_query']}", headers={"HX-Request": "true"})
    begun = client.post(path, asked.context["exact"])
    running = client.get(begun["Location"])
    job = jobs.jobs_of(tenant).get()
    job_work.work(job_id=job.id)
    done = client.get(f"{begun['Location']}/progress")

    assert text_of(counted).startswith("2 events would be sent to this endpoint again.")
    assert (job.kind, job.only, job.total) == ("recover", "failed", 2)
    assert 'hx-trigger="every 1000ms"' in running.content.decode()
    assert '<progress value="0" max="2"' in " ".join(running.content.decode().split())
    assert "hx-trigger" not in done.content.decode()
    assert "2 of 2" in text_of(done)
    assert Delivery.objects.for_tenant(tenant).filter(trigger="replay").count() == 2
    assert "endpoint.recovered" in actions_of(tenant)


def test_the_same_window_is_sent_that_was_counted(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    end(delivery_of(publish(tenant)), "succeeded")
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/again"

    asked = client.get(
        path, {"only": "all", "within": "1h", "event_types": "order.*, invoice.paid", "count": "1"}
    )
    publish(tenant)
    client.post(path, asked.context["exact"])

    assert "1 event would be sent to this endpoint again." in text_of(asked)
    job = jobs.jobs_of(tenant).get()
    assert (job.kind, job.only, job.event_types) == ("replay", "all", ["order.*", "invoice.paid"])
    assert job.until.isoformat() == asked.context["exact"]["until"]
    assert job.total == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"only": "failed"}, "within"),
        ({"only": "some", "within": "24h"}, "only"),
        ({"only": "all", "since": "yesterday"}, "since"),
        ({"only": "all", "within": "1h", "event_types": "order.*.x"}, "event_types"),
    ],
)
def test_what_does_not_parse_is_said_beside_its_field(
    tenant: Tenant, query: dict[str, str], field: str
) -> None:
    endpoint = make_endpoint(tenant)
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/again"

    for response in (client.get(path, query), client.post(path, query)):
        assert response.status_code == 422
        assert field in response.context["form"].errors
    assert not jobs.jobs_of(tenant).exists()


def test_one_at_a_time_and_a_disabled_endpoint_explain_themselves(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/again"
    form = {"only": "all", "within": "1h"}

    first = client.post(path, form)
    second = client.post(path, form)
    said = text_of(client.get(second["Location"]))
    client.post(f"{first['Location']}/cancel")
    disable_endpoint(actor=COMMAND, endpoint=endpoint)
    refused = client.post(path, form)
    counted = client.get(path, form | {"count": "1"})

    assert second["Location"] == first["Location"]
    assert "A job is running for this endpoint." in said
    for response in (refused, counted):
        assert "The endpoint is disabled. Enable it first." in text_of(response)


def test_cancelled_in_its_middle_and_once_only(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    at = timezone.now()
    job = Job(
        tenant=tenant, endpoint=endpoint, kind="replay", only="all", since=at - timedelta(days=1), until=at
    )
    job.save(force_insert=True)
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/jobs/{ids.to_text('job', job.id)}"

    first = text_of(client.post(f"{path}/cancel", follow=True))
    second = text_of(client.post(f"{path}/cancel", follow=True))

    job.refresh_from_db()
    assert job.status == "cancelled"
    assert "What it did until now stays." in first
    assert "It had ended already" in second
    assert actions_of(tenant).count("job.cancelled") == 1
    assert "cancelled" in text_of(client.get(f"/portal/{tenant.slug}/jobs"))


def test_a_viewer_watches_and_is_offered_nothing(tenant: Tenant) -> None:
    endpoint = make_endpoint(tenant)
    at = timezone.now()
    job = Job(tenant=tenant, endpoint=endpoint, kind="replay", only="all", since=at, until=at)
    job.save(force_insert=True)
    client = browser(tenant, "viewer")

    page = client.get(f"/portal/{tenant.slug}/jobs/{ids.to_text('job', job.id)}")
    again = client.get(f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/again")

    assert "At work" in text_of(page)
    assert "/cancel" not in page.content.decode()
    assert again.status_code == 403
