"""A whole catalogue at once: out as an OpenAPI document, and in from one, completely or not at all."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from tenants import openapi_catalogue
from tenants.models import EventType, Tenant
from tenants.openapi_catalogue import Described
from tenants.schema_diff import Change, compare
from tenants.services import audit, event_types
from tenants.services.audit import Actor
from tenants.services.versions import raise_settings_version, raise_shared_version
from tenants.validation import Collector, InvalidContent, join_path


@dataclass(frozen=True, slots=True)
class TypeChange:
    """What an import changes about a type that exists."""

    name: str
    fields: list[str]
    schema: list[Change]

    @property
    def breaks_consumers(self) -> bool:
        return any(change.breaks_consumers for change in self.schema)


@dataclass(slots=True)
class Imported:
    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    changes: list[TypeChange] = field(default_factory=list)

    @property
    def breaks_consumers(self) -> bool:
        return any(change.breaks_consumers for change in self.changes)


def export_catalogue(*, tenant: Tenant | None) -> dict[str, Any]:
    """Everything that the owner sees, by name. Archived types are marked as deprecated."""
    return openapi_catalogue.write_document(
        title="Events of the platform" if tenant is None else f"Events of {tenant.name}",
        version="1" if tenant is None else str(tenant.settings_version),
        types=[_described(each) for each in event_types.catalogue_of(tenant).order_by("name")],
    )


def import_catalogue(*, actor: Actor, tenant: Tenant | None, document: Any, is_dry_run: bool) -> Imported:
    """Make and change types as the document describes them; others stay. Raises InvalidContent: then nothing changed."""
    described = openapi_catalogue.read_document(document)
    return take_over(
        actor=actor, tenant=tenant, described=described, action="catalogue.imported", is_dry_run=is_dry_run
    )


def take_over(
    *,
    actor: Actor,
    tenant: Tenant | None,
    described: Sequence[Described],
    action: str,
    target: str = "",
    is_dry_run: bool,
) -> Imported:
    """Make and change types as described, all or none. Raises InvalidContent. What changes nothing leaves no trace."""
    with transaction.atomic():
        if not is_dry_run:
            # First, so that no other change comes between looking and writing.
            if tenant is None:
                raise_shared_version()
            else:
                raise_settings_version(tenant.id)
        imported, new, changed = _plan(tenant, described, existing_types(tenant, described))
        if is_dry_run or not (new or changed):
            transaction.set_rollback(True)
            return imported
        EventType.objects.bulk_create(new)
        EventType.objects.bulk_update(changed, [*event_types.CHANGEABLE, "updated_at"], batch_size=200)
        audit.record(
            actor=actor,
            tenant=tenant,
            action=action,
            target=target,
            after={"created": imported.created, "updated": imported.updated},
        )
    return imported


def existing_types(tenant: Tenant | None, described: Iterable[Described]) -> dict[str, EventType]:
    """Those of these names that the owner sees. One query."""
    names = [each.name for each in described]
    return {each.name: each for each in event_types.catalogue_of(tenant).filter(name__in=names)}


def difference(
    tenant: Tenant | None, described: Sequence[Described], existing: dict[str, EventType]
) -> Imported:
    """What `take_over` would do. Raises InvalidContent."""
    return _plan(tenant, described, existing)[0]


def _plan(
    tenant: Tenant | None, described: Sequence[Described], existing: dict[str, EventType]
) -> tuple[Imported, list[EventType], list[EventType]]:
    """What happens to each, the rows to make and the rows to change."""
    imported, new, changed = Imported(), [], []
    wrong = Collector()
    for each in described:
        row = existing.get(each.name)
        wanted = {name: getattr(each, name) for name in event_types.CHANGEABLE}
        before = event_types.facts(row) if row is not None else {}
        fields = [name for name in wanted if (before.get(name) or None) != (wanted[name] or None)]
        if row is not None and not fields:
            imported.unchanged.append(each.name)
            continue
        # A type of the platform's catalogue that is to look different here becomes the tenant's own.
        is_new = row is None or (tenant is not None and row.tenant_id is None)
        row = EventType(tenant=tenant, name=each.name) if is_new or row is None else row
        for name, value in wanted.items():
            setattr(row, name, value)
        try:
            event_types.check(row)
        except InvalidContent as invalid:
            for error in invalid.errors:
                wrong.add(join_path(f"webhooks.{each.name}", error.field), error.code, error.message)
            continue
        if is_new:
            imported.created.append(each.name)
            new.append(row)
        else:
            row.updated_at = Now()
            imported.updated.append(each.name)
            changed.append(row)
            diff = compare(before["schema"], wanted["schema"]) if "schema" in fields else []
            imported.changes.append(TypeChange(each.name, fields, diff))
    wrong.done()
    return imported, new, changed


def _described(row: EventType) -> Described:
    return Described(
        name=row.name,
        description=row.description,
        group=row.group,
        schema=row.schema,
        example=row.example,
        is_archived=row.archived_at is not None,
    )
