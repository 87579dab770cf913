"""The end of a deleted tenant's rows, 30 days after. Called by a daily task.

Everything that has a tenant goes, whatever app it is of: this module knows the models by asking Django, not by name, so
that a new one cannot be forgotten. What stays is the tenant's own row, emptied, because its slug is not given again.
"""

import logging
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.apps import apps
from django.db import connection, models, transaction

from tenants import ids
from tenants.models import IdempotencyRecord, Tenant
from tenants.services import audit
from tenants.services.audit import PLATFORM

logger = logging.getLogger(__name__)

KEPT: Final = timedelta(days=30)
"""Between the deletion of a tenant and the end of its rows: the time to notice a mistake."""

BATCH: Final = 10_000
"""Rows a transaction. An old snapshot slows the queue tables, so none lasts long."""


def erase_deleted_tenants(*, now: datetime) -> list[UUID]:
    """Erase all whose time has come. Can be run twice, and goes on where a run before was stopped."""
    due = Tenant.objects.filter(deleted_at__lt=now - KEPT, erased_at__isnull=True).order_by("id")
    erased = []
    for tenant in due:
        erase_rows(tenant.id)
        with transaction.atomic():
            tenant.name, tenant.metadata, tenant.limits, tenant.erased_at = "", {}, {}, now
            tenant.save(update_fields=["name", "metadata", "limits", "erased_at"])
            audit.record(
                actor=PLATFORM, tenant=None, action="tenant.erased", target=ids.to_text(ids.TENANT, tenant.id)
            )
        logger.info("tenant erased", extra={"tenant_id": str(tenant.id)})
        erased.append(tenant.id)
    return erased


def erase_rows(tenant_id: UUID) -> None:
    for model in owned_models():
        _erase(model._meta.db_table, "tenant_id", tenant_id, is_batched=_has_index(model))  # noqa: SLF001 - Django's way
    _erase(IdempotencyRecord._meta.db_table, "space", tenant_id, is_batched=False)  # noqa: SLF001


def owned_models() -> list[type[models.Model]]:
    """Every model with a tenant, each before those that it refers to."""
    waiting = [
        model
        for model in apps.get_models()
        if any(field.name == "tenant" and field.related_model is Tenant for field in model._meta.fields)  # noqa: SLF001
    ]
    ordered: list[type[models.Model]] = []
    while waiting:
        free = [
            model
            for model in waiting
            if not any(model in _referred_by(other) for other in waiting if other is not model)
        ]
        ordered += free
        waiting = [model for model in waiting if model not in free]
    return ordered


def _referred_by(model: type[models.Model]) -> set[type[models.Model]]:
    return {field.related_model for field in model._meta.fields if isinstance(field.related_model, type)}  # noqa: SLF001


def _has_index(model: type[models.Model]) -> bool:
    """Whether the rows of a tenant are found without reading the table."""
    return any(index.fields[:1] == ["tenant"] for index in model._meta.indexes)  # noqa: SLF001


def _erase(table: str, column: str, tenant_id: UUID, *, is_batched: bool) -> None:
    # All three come from models, not from people.
    batch = f"ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {column} = %s LIMIT {BATCH}))"  # noqa: S608
    where = f"{column} = %s" + (f" AND {batch}" if is_batched else "")
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 0")
            # The one exception of the audit log's trigger.
            cursor.execute("SET LOCAL webhooks.purging = 'yes'")
            cursor.execute(f"DELETE FROM {table} WHERE {where}", [tenant_id] * (2 if is_batched else 1))  # noqa: S608
            if not is_batched or cursor.rowcount == 0:
                return
