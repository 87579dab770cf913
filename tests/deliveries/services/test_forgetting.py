"""What nobody looks at any more goes, each after its time; what runs, or explains an event that is kept, stays."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deliveries.models import BulkAction, EndpointVersion, Job
from deliveries.services import forgetting
from tenants.models import Tenant
from tests.support.builders import make_endpoint, make_tenant

pytestmark = pytest.mark.usefixtures("database")

NOW = datetime.now(UTC)


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def make_job(tenant: Tenant, **fields: Any) -> Job:
    wanted = {
        "kind": Job.Kind.EXPORT,
        "only": Job.Only.ALL,
        "since": NOW,
        "until": NOW,
        "status": Job.Status.DONE,
    }
    made = Job(**({"tenant": tenant} | wanted | fields))
    made.save(force_insert=True)
    return made


def make_action(**fields: Any) -> BulkAction:
    return BulkAction.objects.create(
        **({"action": "retry", "selection": {}, "actor_id": "x", "actor_label": "x", "total": 1} | fields)
    )


def test_jobs_and_actions_that_ended_long_ago_go() -> None:
    tenant = make_tenant()
    old, late = days_ago(91), days_ago(89)
    make_job(tenant, completed_at=old)
    kept = make_job(tenant, completed_at=late)
    running = make_job(tenant, status=Job.Status.RUNNING)
    Job.objects.for_tenant(tenant).filter(id=running.id).update(created_at=days_ago(200))
    actions = [
        make_action(status=BulkAction.Status.DONE, completed_at=old),
        make_action(status=BulkAction.Status.DONE, completed_at=late),
        make_action(),
    ]

    forgetting.forget_old(now=NOW)

    assert {row.id for row in Job.objects.for_tenant(tenant)} == {kept.id, running.id}
    left = BulkAction.objects.filter(id__in=[row.id for row in actions])
    assert {row.id for row in left} == {row.id for row in actions[1:]}


def test_of_old_settings_the_last_before_the_oldest_event_stays() -> None:
    tenant = make_tenant(retention_days=90)
    endpoint = make_endpoint(tenant, "https://a.example.com")
    rows = EndpointVersion.objects.for_tenant(tenant).filter(endpoint=endpoint)
    rows.all().delete()
    for version, days in ((2, 300), (3, 200), (4, 98), (5, 96), (6, 1)):
        made = EndpointVersion(tenant=tenant, endpoint=endpoint, settings_version=version, snapshot={})
        EndpointVersion.objects.for_tenant(tenant).bulk_create([made])
        rows.filter(settings_version=version).update(created_at=days_ago(days))

    for _ in range(2):
        forgetting.forget_old(now=NOW)
        assert list(rows.order_by("settings_version").values_list("settings_version", flat=True)) == [4, 5, 6]
