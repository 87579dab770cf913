"""The event catalogue: what each kind of event is called and looks like. Called by the API, the portal and imports.

`tenant` is the catalogue's owner; None is the platform's own, which every tenant sees.
"""

from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from tenants import access
from tenants.models import EventType, Tenant
from tenants.schemas import InvalidSchema, compile_schema
from tenants.services import audit
from tenants.services.audit import Actor
from tenants.services.versions import raise_settings_version, raise_shared_version
from tenants.validation import Collector, Invalid, event_type_name

CHANGEABLE = ("description", "group", "schema", "example")
DEFAULTS: dict[str, Any] = {"description": "", "group": "", "schema": None, "example": None}


class NameTaken(Exception):
    """The catalogue has an event type of this name."""


class IsShared(Exception):
    """It is of the platform's catalogue: read-only to tenants."""


def catalogue_of(tenant: Tenant | None) -> "QuerySet[EventType]":
    """What the owner sees: its own types, and those of the platform that it did not replace."""
    shared = EventType.objects.filter(tenant__isnull=True)
    if tenant is None:
        return shared
    own = EventType.objects.filter(tenant=tenant, name=OuterRef("name"))
    return EventType.objects.filter(Q(tenant=tenant) | Q(Q(tenant__isnull=True), ~Exists(own)))


def get_event_type(*, tenant: Tenant | None, name: str) -> EventType:
    """Raises access.NotFound, without a query for what is no name at all."""
    event_type = catalogue_of(tenant).filter(name=name).first() if is_name(name) else None
    if event_type is None:
        raise access.NotFound
    return event_type


def create_event_type(*, actor: Actor, tenant: Tenant | None, name: str, **fields: Any) -> EventType:
    """Raises NameTaken, InvalidContent."""
    event_type = EventType(tenant=tenant, name=name)
    _apply(event_type, fields)
    check(event_type)
    with transaction.atomic():
        _raise_version(tenant)
        try:
            with transaction.atomic():
                event_type.save(force_insert=True)
        except IntegrityError:
            raise NameTaken from None
        event_type.refresh_from_db()
        _record(actor, tenant, event_type, "event_type.created", after=facts(event_type))
    return event_type


def update_event_type(*, actor: Actor, tenant: Tenant | None, name: str, **fields: Any) -> EventType:
    """Raises access.NotFound, IsShared, InvalidContent."""
    with transaction.atomic():
        event_type = _own(tenant, name)
        before = facts(event_type)
        _apply(event_type, fields)
        check(event_type)
        event_type.updated_at = Now()
        event_type.save(update_fields=[*CHANGEABLE, "updated_at"])
        event_type.refresh_from_db()
        old, new = audit.changes(before, facts(event_type))
        if new:
            _record(actor, tenant, event_type, "event_type.changed", before=old, after=new)
    return event_type


def archive_event_type(*, actor: Actor, tenant: Tenant | None, name: str, is_archived: bool) -> EventType:
    """An archived type takes no new publishes; its history stays. Raises access.NotFound, IsShared."""
    with transaction.atomic():
        event_type = _own(tenant, name)
        if (event_type.archived_at is not None) != is_archived:
            event_type.archived_at = Now() if is_archived else None
            event_type.save(update_fields=["archived_at"])
            event_type.refresh_from_db()
            action = "event_type.archived" if is_archived else "event_type.unarchived"
            _record(actor, tenant, event_type, action)
    return event_type


def delete_event_type(*, actor: Actor, tenant: Tenant | None, name: str) -> None:
    """Out of the catalogue; events of it and subscriptions to it stay. Raises access.NotFound, IsShared."""
    with transaction.atomic():
        event_type = _own(tenant, name)
        _record(actor, tenant, event_type, "event_type.deleted", before=facts(event_type))
        event_type.delete()


def _own(tenant: Tenant | None, name: str) -> EventType:
    """The owner's type, locked by the version of its settings, which is raised first."""
    _raise_version(tenant)
    event_type = get_event_type(tenant=tenant, name=name)
    if tenant is not None and event_type.tenant_id is None:
        raise IsShared
    return event_type


def _raise_version(tenant: Tenant | None) -> None:
    if tenant is None:
        raise_shared_version()
    else:
        raise_settings_version(tenant.id)


def _apply(event_type: EventType, fields: dict[str, Any]) -> None:
    for field, value in fields.items():
        assert field in CHANGEABLE, field
        setattr(event_type, field, DEFAULTS[field] if value is None else value)


def check(event_type: EventType) -> None:
    """Raise InvalidContent if the schema is none, or refuses the example."""
    if event_type.schema is None:
        return
    wrong = Collector()
    try:
        compiled = compile_schema(event_type.schema)
    except InvalidSchema as error:
        wrong.add("schema", "invalid_schema", str(error))
    else:
        if event_type.example is not None:
            for path, message in compiled.errors(event_type.example):
                wrong.add(f"example.{path}" if path else "example", "schema_violation", message)
    wrong.done()


def facts(event_type: EventType) -> dict[str, Any]:
    return {field: getattr(event_type, field) for field in CHANGEABLE}


def _record(actor: Actor, tenant: Tenant | None, event_type: EventType, action: str, **more: Any) -> None:
    audit.record(actor=actor, tenant=tenant, action=action, target=event_type.name, **more)


def is_name(text: str) -> bool:
    try:
        event_type_name(text)
    except Invalid:
        return False
    return True
