"""30 days after a tenant was deleted its rows go, those of every app, and nobody else's."""

from datetime import UTC, datetime, timedelta

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, transaction

from tenants.models import ApiKey, AuditEntry, EventType, IdempotencyRecord, Member, PortalLink, Tenant, User
from tenants.scoping import TenantOwned
from tenants.services import erasure, tenants
from tenants.services.audit import COMMAND
from tests.support.api import make_key, make_tenant, operator_api, tenant_api

pytestmark = pytest.mark.usefixtures("database")


def full_tenant() -> Tenant:
    tenant = make_tenant(name="Acme", metadata={"a": "b"})
    make_key(tenant)
    api = tenant_api(tenant)
    api.post(f"/tenants/{tenant.slug}/event-types", {"name": "a"}, idempotency_key="k")
    api.post(f"/tenants/{tenant.slug}/portal-links", {"role": "viewer"})
    user = User.objects.create_user(email=f"{tenant.slug}@example.com")
    Member.objects.for_tenant(tenant).create(tenant=tenant, user=user, role="admin")
    return tenant


def rows(tenant: Tenant) -> dict[str, int]:
    return {
        "keys": ApiKey.objects.filter(tenant=tenant).count(),
        "types": EventType.objects.filter(tenant=tenant).count(),
        "links": PortalLink.objects.for_tenant(tenant).count(),
        "members": Member.objects.for_tenant(tenant).count(),
        "replies": IdempotencyRecord.objects.filter(space=tenant.id).count(),
        "audit": AuditEntry.objects.filter(tenant=tenant).count(),
    }


def test_after_thirty_days_nothing_is_left_but_the_slug() -> None:
    gone, kept = full_tenant(), full_tenant()
    before = rows(kept)
    tenants.delete_tenant(actor=COMMAND, tenant=gone)
    now = datetime.now(UTC)

    early = erasure.erase_deleted_tenants(now=now + timedelta(days=29, hours=23))
    assert gone.id not in early
    assert rows(gone)["keys"] == 2
    erased = erasure.erase_deleted_tenants(now=now + timedelta(days=30, minutes=1))

    gone.refresh_from_db()
    assert gone.id in erased
    assert rows(gone) == dict.fromkeys(before, 0)
    assert (gone.name, gone.metadata) == ("", {})
    assert rows(kept) == before
    assert operator_api().post("/tenants", {"slug": gone.slug}).status_code == 409
    assert erasure.erase_deleted_tenants(now=now + timedelta(days=31)) == []


def test_every_model_with_a_tenant_is_known() -> None:
    owned = erasure.owned_models()

    assert {model for model in apps.get_models() if issubclass(model, TenantOwned)} <= set(owned)
    assert {ApiKey, EventType, AuditEntry} <= set(owned)


def test_rows_go_before_those_that_they_refer_to() -> None:
    owned = erasure.owned_models()

    for position, model in enumerate(owned):
        referred = {field.related_model for field in model._meta.fields}
        assert not referred & set(owned[:position]), model


def test_the_audit_log_is_append_only_otherwise() -> None:
    tenant = make_tenant()
    entries = AuditEntry.objects.filter(tenant=tenant)

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        entries.delete()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        entries.update(action="nothing happened")
    with transaction.atomic(), connection.cursor() as cursor:
        # Only for deleting: even a purge does not rewrite history.
        cursor.execute("SET LOCAL webhooks.purging = 'yes'")
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            entries.update(action="nothing happened")
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            cursor.execute("TRUNCATE tenants_auditentry")

    assert entries.count() == 1
