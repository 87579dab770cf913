"""Among the settings a row of one tenant cannot hang on something of another: composite foreign keys say so.

Among the history, where there are too many rows for it, a scan looks: test_history_tenants.py.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, models, transaction

from deliveries.models import (
    EndpointSecret,
    EndpointVersion,
    Job,
    JobPart,
    Lane,
    PollConsumer,
    SourceToken,
    Subscription,
)
from deliveries.services.sources import create_source
from tenants.models import Tenant
from tenants.scoping import TenantOwned
from tenants.services.audit import COMMAND
from tests.support.builders import make_endpoint, make_tenant

pytestmark = pytest.mark.usefixtures("database")

SCANNED = {
    "deliveries.Announcement.endpoint",
    "deliveries.Delivery.endpoint",
    "deliveries.IncomingRequest.source",
    "deliveries.PollItem.endpoint",
}
"""History: written in bulk, and gone in a while."""

GUARDED: list[tuple[type[TenantOwned], str]] = [
    (EndpointSecret, "endpointsecret_same_tenant"),
    (EndpointVersion, "endpointversion_same_tenant"),
    (Job, "job_same_tenant"),
    (JobPart, "jobpart_same_tenant"),
    (Lane, "lane_same_tenant"),
    (PollConsumer, "pollconsumer_same_tenant"),
    (SourceToken, "sourcetoken_same_tenant"),
    (Subscription, "subscription_same_tenant"),
]


def make_one_of_each() -> Tenant:
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "https://shop.example.com/hooks")
    create_source(actor=COMMAND, tenant=tenant, name="in", event_type='"order.created"')
    job = Job(
        tenant=tenant,
        endpoint=endpoint,
        kind=Job.Kind.RECOVER,
        since=datetime(2026, 1, 1, tzinfo=UTC),
        until=datetime(2026, 1, 2, tzinfo=UTC),
    )
    job.save(force_insert=True)
    JobPart(tenant=tenant, job=job, number=1, data=b"x").save(force_insert=True)
    PollConsumer(tenant=tenant, endpoint=endpoint, name="one").save(force_insert=True)
    return tenant


@pytest.mark.parametrize(("model", "constraint"), GUARDED, ids=lambda each: getattr(each, "__name__", ""))
def test_no_row_hangs_on_something_of_another_tenant(model: type[TenantOwned], constraint: str) -> None:
    owner, other = make_one_of_each(), make_tenant()
    if model is Job:
        # Or it is the part that is found to hang on a job of another tenant.
        JobPart.unscoped.filter(tenant=owner).delete()

    # They are looked at when the transaction ends.
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        assert model.unscoped.filter(tenant=owner).update(tenant=other) == 1

    assert model.unscoped.filter(tenant=owner).count() == 1


def test_every_reference_among_the_settings_is_guarded() -> None:
    """Each by its own column: an endpoint has one, and a second reference to the same table wants another."""
    wanted = dict(references())
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conrelid::regclass::text, attname, confrelid::regclass::text, conname FROM pg_constraint"
            " JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey) AND attname <> 'tenant_id'"
            " WHERE contype = 'f' AND cardinality(conkey) = 2 AND convalidated"
        )
        found = cursor.fetchall()

    assert {name for name in wanted if wanted[name] not in {row[:3] for row in found}} == SCANNED
    assert sorted(name for *_, name in found) == sorted(constraint for _, constraint in GUARDED)


def references() -> Iterator[tuple[str, tuple[str, str, str]]]:
    """From one model of a tenant's to another: the field's name, and its table and column and the other table."""
    for model in apps.get_models():
        if not issubclass(model, TenantOwned):
            continue
        for field in model._meta.get_fields():
            if isinstance(field, models.ForeignKey):
                target: type[models.Model] = field.related_model
                if issubclass(target, TenantOwned):
                    yield (
                        f"{model._meta.label}.{field.name}",
                        (model._meta.db_table, field.column, target._meta.db_table),
                    )
