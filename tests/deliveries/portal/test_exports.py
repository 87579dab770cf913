"""Lists as files: streamed, or written by a job; safe in spreadsheets; gone in time, and with an erased payload."""

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deliveries.job_tasks import expire_exports
from deliveries.models import Delivery, Job, JobPart
from deliveries.services import erasing, exports, job_work, jobs
from deliveries.services.slices import Progress
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


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def lines(raw: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(raw.decode(), newline="")))


def run(job: Job) -> Job:
    for _ in range(20):
        if job_work.work(job_id=job.id) is Progress.ENDED:
            break
    job.refresh_from_db()
    return job


def test_deliveries_as_csv_have_what_the_filter_finds(tenant: Tenant) -> None:
    make_endpoint(tenant, url="https://a.example.com/?token=s3cret&x=1")
    delivery = end(delivery_of(publish(tenant)), "failed", last_outcome="http_error", last_status_code=500)
    publish(tenant)

    response = browser(tenant, "viewer").get(
        f"/portal/{tenant.slug}/deliveries/export", {"format": "csv", "status": "failed"}
    )

    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"].startswith('attachment; filename="deliveries-')
    (row,) = lines(body(response))
    assert row["id"] == ids.to_text("dlv", delivery.id)
    assert (row["status"], row["last_status_code"]) == ("failed", "500")
    assert row["endpoint_url"] == "https://a.example.com/?token=***&x=1"
    assert row["cancel_reason"] == ""


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(tenant: Tenant, begins: str) -> None:
    publish(tenant, ordering_key=f"{begins}cmd|' /C calc'!A0")

    response = browser(tenant).get(f"/portal/{tenant.slug}/events/export", {"format": "csv"})

    (row,) = lines(body(response))
    assert row["ordering_key"] == f"'{begins}cmd|' /C calc'!A0"


def test_events_as_json_have_their_payloads_as_they_came(tenant: Tenant) -> None:
    first = publish(tenant, data=b'{"big": 12345678901234567890, "n": 1.50}')
    second = publish(tenant)
    erasing.erase_data(actor=COMMAND, tenant=tenant, event=second)

    raw = body(browser(tenant).get(f"/portal/{tenant.slug}/events/export", {"format": "json"}))

    assert b'"data":{"big": 12345678901234567890, "n": 1.50}' in raw
    found = json.loads(raw)
    assert [row["id"] for row in found] == [ids.to_text("evt", first.id), ids.to_text("evt", second.id)]
    assert found[1]["data"] is None
    assert found[1]["data_erased_at"] is not None


def test_an_empty_list_is_a_file_too_and_an_unknown_form_is_none(tenant: Tenant) -> None:
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/events/export"

    assert json.loads(body(client.get(path, {"format": "json"}))) == []
    assert body(client.get(path, {"format": "csv"})).startswith(b"id,type,")
    assert client.get(path, {"format": "xls"}).status_code == 404


def test_what_is_too_much_for_a_request_is_written_by_a_job(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "STREAMED", 4)
    monkeypatch.setattr(exports, "BATCH", 2)
    make_endpoint(tenant)
    for _ in range(5):
        publish(tenant)
    client = browser(tenant)

    for form in ("csv", "json"):
        path = f"/portal/{tenant.slug}/deliveries/export"
        offered = client.get(path, {"format": form})
        begun = client.post(f"{path}/job?format={form}")
        job = run(jobs.jobs_of(tenant).latest("id"))
        shown = client.get(begun["Location"])
        fetched = client.get(f"{begun['Location']}/file")

        assert "This is more than 4 rows." in text_of(offered)
        assert (job.kind, job.status, job.done) == ("export", "done", 5)
        assert "Fetch the file" in text_of(shown)
        raw = body(fetched)
        wanted = [ids.to_text("dlv", row.id) for row in Delivery.objects.for_tenant(tenant).order_by("id")]
        rows = lines(raw) if form == "csv" else json.loads(raw)
        assert [row["id"] for row in rows] == wanted
        assert actions_of(tenant)[-1] == "deliveries.exported"


def test_a_viewer_is_offered_no_job(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "STREAMED", 0)
    publish(tenant)
    client = browser(tenant, "viewer")
    path = f"/portal/{tenant.slug}/events/export"

    offered = client.get(path, {"format": "csv"})

    assert "Your role may not begin one." in text_of(offered)
    assert '<form method="post"\n              action="/portal/' not in offered.content.decode()
    assert client.post(f"{path}/job?format=csv").status_code == 403
    assert not jobs.jobs_of(tenant).exists()


def finished(tenant: Tenant, form: str) -> tuple[Any, str, Job]:
    """A browser, the path of the job's page, the job."""
    client = browser(tenant)
    begun = client.post(f"/portal/{tenant.slug}/events/export/job?format={form}")
    return client, begun["Location"], run(jobs.jobs_of(tenant).latest("id"))


def test_a_file_goes_when_its_time_is_over(tenant: Tenant) -> None:
    publish(tenant)
    client, path, job = finished(tenant, "csv")
    Job.objects.for_tenant(tenant).filter(id=job.id).update(expires_at=timezone.now() - timedelta(seconds=1))

    text = text_of(client.get(f"{path}/file", follow=True))
    expire_exports()

    assert "The file is not there any more." in text
    assert not JobPart.objects.for_tenant(tenant).exists()


def test_a_file_that_nobody_can_fetch_goes_too(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tenant)
    _, _, kept = finished(tenant, "json")
    Job.objects.for_tenant(tenant).filter(id=kept.id).update(status="cancelled")

    expire_exports()

    assert not JobPart.objects.for_tenant(tenant).exists()


def test_an_erased_payload_takes_the_files_that_may_hold_it_along(tenant: Tenant) -> None:
    event = publish(tenant, data=b'{"name":"Ada"}')
    client, path, _ = finished(tenant, "json")
    _, other, _ = finished(tenant, "csv")
    before = body(client.get(f"{path}/file"))

    erasing.erase_data(actor=COMMAND, tenant=tenant, event=event)

    assert b"Ada" in before
    text = text_of(client.get(f"{path}/file", follow=True))
    assert "The file is not there any more." in text
    assert "A payload that the file may have held was erased" in text
    assert b"Ada" not in body(client.get(f"{other}/file"))
    assert JobPart.objects.for_tenant(tenant).count() == 1


def test_a_job_that_is_writing_fails_when_a_payload_is_erased(tenant: Tenant) -> None:
    event = publish(tenant, data=b'{"name":"Ada"}')
    browser(tenant).post(f"/portal/{tenant.slug}/events/export/job?format=json")

    erasing.erase_data(actor=COMMAND, tenant=tenant, event=event)

    job = run(jobs.jobs_of(tenant).get())
    assert (job.status, job.error) == ("failed", "payload_erased")


def test_a_file_that_grows_too_large_is_given_up(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "MOST_BYTES", 10)
    publish(tenant)

    _, _, job = finished(tenant, "csv")

    assert (job.status, job.error) == ("failed", "too_large")


def test_another_tenant_does_not_get_the_file(tenant: Tenant) -> None:
    publish(tenant)
    _, path, _ = finished(tenant, "csv")
    stranger = make_tenant()

    response = browser(stranger).get(path.replace(tenant.slug, stranger.slug) + "/file")

    assert response.status_code == 404
