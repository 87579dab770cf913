"""The event catalogue: `/tenants/{tenant}/event-types`, and the platform's own at `/event-types`.

Both are the same views over another owner; those of the platform, at the end, differ by their scope alone.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar
from uuid import UUID

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from tenants import access, ids, openapi_catalogue, validation
from tenants.api import fields, problems
from tenants.api.fields import Field, Input, NoBody, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.pagination import page
from tenants.api.permissions import OPERATOR
from tenants.api.query import PAGE
from tenants.api.rendering import time_text
from tenants.api.schema import EVENT_TYPE_NAME, example, page_of
from tenants.api.views import APIView, created
from tenants.models import ApiKey, EventType, Tenant
from tenants.schema_diff import Change, compare
from tenants.schemas import InvalidSchema, compile_schema
from tenants.services import event_types
from tenants.services.event_types import IsShared, NameTaken
from tenants.validation import Invalid

READ, WRITE = ApiKey.Scope.CATALOGUE_READ, ApiKey.Scope.CATALOGUE_WRITE

SCHEMA = {
    "type": "object",
    "additionalProperties": True,
    "description": "JSON Schema 2020-12 of `data`, at most 64 KiB, complete in itself. Patterns have no look-around.",
}

EXAMPLE: dict[str, Any] = {
    "name": "order.created",
    "description": "A customer placed an order.",
    "group": "Orders",
    "schema": {
        "type": "object",
        "properties": {"id": {"type": "string"}, "amount": {"type": "number"}},
        "required": ["id"],
    },
    "example": {"id": "A-17", "amount": 12.5},
}


def schema(value: object) -> dict[str, Any]:
    """An object, for now; the service says whether it is a schema."""
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be a JSON Schema, an object.")
    return value


@example({key: EXAMPLE[key] for key in ("description", "group", "schema", "example")})
class EventTypeChange(Input):
    description = Field(validation.description, fields.text(2000, pattern=fields.SEVERAL_LINES))
    group = Field(openapi_catalogue.group, fields.text(128), help_text="A heading to list it under.")
    schema = Field(schema, SCHEMA, help_text="null: anything goes.")
    example = Field(
        openapi_catalogue.example, fields.ANY_OBJECT, help_text="What the schema takes; `test` sends it."
    )


@example(EXAMPLE)
class EventTypeIn(EventTypeChange):
    name = Field(
        validation.catalogue_event_type_name,
        EVENT_TYPE_NAME,
        required=True,
        help_text="`openapi.json`, `import` and names that begin with `endpoint.`, `delivery.` or `webhook.` are reserved.",
    )


@example({**EXAMPLE, "archived": False, "shared": False, "created_at": "2026-03-01T12:00:00.000000Z"})
class EventTypeOut(Output):
    name = Shown(EVENT_TYPE_NAME)
    description = Shown({"type": "string"})
    group = Shown({"type": "string"})
    schema = Shown(fields.nullable(fields.ANY_OBJECT))
    example = Shown(fields.nullable(fields.ANY_OBJECT))
    archived = Shown(fields.BOOLEAN, "An archived type takes no new publishes.")
    shared = Shown(fields.BOOLEAN, "From the platform's catalogue: read-only to tenants.")
    created_at = Shown(fields.TIME)


def event_type_json(event_type: EventType) -> dict[str, Any]:
    return {
        "name": event_type.name,
        "description": event_type.description,
        "group": event_type.group,
        "schema": event_type.schema,
        "example": event_type.example,
        "archived": event_type.archived_at is not None,
        "shared": event_type.tenant_id is None,
        "created_at": time_text(event_type.created_at),
    }


@example({"schema": EXAMPLE["schema"]})
class SchemaIn(Input):
    schema = Field(schema, SCHEMA)


CHANGE = {
    "type": "object",
    "required": ["path", "change", "breaks_consumers", "message"],
    "properties": {
        "path": {"type": "string", "description": "Dotted path in `data`."},
        "change": {"type": "string"},
        "breaks_consumers": {"type": "boolean"},
        "message": {"type": "string"},
    },
}


@example(
    {
        "breaks_consumers": True,
        "changes": [
            {
                "path": "amount",
                "change": "type_changed",
                "breaks_consumers": True,
                "message": "The type was number, and is string now.",
            }
        ],
    }
)
class Comparison(Output):
    breaks_consumers = Shown(fields.BOOLEAN)
    changes = Shown(fields.list_of(CHANGE))


def change_json(change: Change) -> dict[str, Any]:
    return {
        "path": change.path,
        "change": change.change,
        "breaks_consumers": change.breaks_consumers,
        "message": change.message,
    }


# --- views ------------------------------------------------------------------------------------------------------------


class CatalogueView(APIView):
    """Of the catalogue whose owner the path names: a tenant, or nobody, which is the platform."""

    tenant: Tenant | None = None
    operation_ids: ClassVar[Mapping[str, str]] = {}

    def locate(self, **kwargs: Any) -> None:
        if "tenant" in kwargs:
            self.tenant = access.get_tenant(self.caller, kwargs["tenant"])

    @property
    def idempotency_space(self) -> UUID:
        return self.caller.key_id if self.tenant is None else self.tenant.id

    @property
    def path(self) -> str:
        if self.tenant is None:
            return "/api/v1/event-types"
        return f"/api/v1/tenants/{ids.to_text(ids.TENANT, self.tenant.id)}/event-types"


class EventTypesView(CatalogueView):
    scopes = {"GET": READ, "POST": WRITE}
    parameters = {"GET": PAGE}
    operation_ids = {"GET": "list_event_types", "POST": "create_event_type"}

    @extend_schema(summary="List event types", tags=["Event types"], responses={200: page_of(EventTypeOut)})
    def get(self, request: Request, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first; a tenant's own, and those of the platform's catalogue."""
        return page(self.query, event_types.catalogue_of(self.tenant), serialize=event_type_json)

    @extend_schema(
        summary="Create an event type",
        tags=["Event types"],
        request=EventTypeIn,
        responses={201: EventTypeOut},
    )
    @idempotent()
    def post(self, request: Request, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """`422` for a schema that is none, or that refuses the example. `409 name_taken` if the name is."""
        given = EventTypeIn.read(request)
        try:
            event_type = event_types.create_event_type(actor=self.actor, tenant=self.tenant, **given)
        except NameTaken:
            raise problems.conflict("name_taken", "The catalogue has an event type of this name.") from None
        return created(event_type_json(event_type), f"{self.path}/{event_type.name}")


class EventTypeView(CatalogueView):
    scopes = {"GET": READ, "PATCH": WRITE, "DELETE": WRITE}
    operation_ids = {"GET": "get_event_type", "PATCH": "update_event_type", "DELETE": "delete_event_type"}

    @extend_schema(summary="Get an event type", tags=["Event types"], responses={200: EventTypeOut})
    def get(self, request: Request, name: str, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        return Response(event_type_json(event_types.get_event_type(tenant=self.tenant, name=name)))

    @extend_schema(
        summary="Change an event type",
        tags=["Event types"],
        request=EventTypeChange,
        responses={200: EventTypeOut},
    )
    def patch(self, request: Request, name: str, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What is absent stays, null clears, a value sets. Holds for every event published after the reply."""
        given = EventTypeChange.read(request, is_partial=True)
        with refusing_shared():
            changed = event_types.update_event_type(actor=self.actor, tenant=self.tenant, name=name, **given)
        return Response(event_type_json(changed))

    @extend_schema(
        summary="Delete an event type",
        tags=["Event types"],
        responses={204: OpenApiResponse(description="Deleted.")},
    )
    def delete(self, request: Request, name: str, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Out of the catalogue. Events of it stay, and so do subscriptions to it."""
        with refusing_shared():
            event_types.delete_event_type(actor=self.actor, tenant=self.tenant, name=name)
        return Response(status=204)


class ArchiveView(CatalogueView):
    scopes = {"POST": WRITE}
    operation_ids = {"POST": "archive_event_type"}

    @extend_schema(
        summary="Archive an event type", tags=["Event types"], request=None, responses={200: EventTypeOut}
    )
    @idempotent()
    def post(self, request: Request, name: str, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """It takes no new publishes (`422 event_type_archived`); its history stays."""
        return _archived(self, request, name, is_archived=True)


class UnarchiveView(CatalogueView):
    scopes = {"POST": WRITE}
    operation_ids = {"POST": "unarchive_event_type"}

    @extend_schema(
        summary="Take an event type out of the archive",
        tags=["Event types"],
        request=None,
        responses={200: EventTypeOut},
    )
    @idempotent()
    def post(self, request: Request, name: str, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """It takes publishes again."""
        return _archived(self, request, name, is_archived=False)


def _archived(view: CatalogueView, request: Request, name: str, *, is_archived: bool) -> Response:
    NoBody.read(request)
    with refusing_shared():
        changed = event_types.archive_event_type(
            actor=view.actor, tenant=view.tenant, name=name, is_archived=is_archived
        )
    return Response(event_type_json(changed))


class CompareView(CatalogueView):
    scopes = {"POST": READ}
    operation_ids = {"POST": "compare_event_type_schema"}

    @extend_schema(
        summary="Compare a schema with the one in force",
        tags=["Event types"],
        request=SchemaIn,
        responses={200: Comparison},
    )
    @idempotent()
    def post(self, request: Request, name: str, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What would change, and what of it breaks those who receive the events. Changes nothing."""
        new = SchemaIn.read(request).get("schema")
        old = event_types.get_event_type(tenant=self.tenant, name=name).schema
        if new is not None:
            try:
                compile_schema(new)
            except InvalidSchema as error:
                raise problems.invalid([("schema", "invalid_schema", str(error))]) from None
        changes = compare(old, new)
        return Response(
            {
                "breaks_consumers": any(change.breaks_consumers for change in changes),
                "changes": [change_json(change) for change in changes],
            }
        )


@contextmanager
def refusing_shared() -> Iterator[None]:
    try:
        yield
    except IsShared:
        raise problems.Problem(
            403,
            "shared_event_type",
            "Shared event type",
            "This event type is of the platform's catalogue, which is read-only here.",
        ) from None


# --- the platform's own -----------------------------------------------------------------------------------------------


class SharedEventTypesView(EventTypesView):
    scopes = {"GET": OPERATOR, "POST": OPERATOR}
    operation_ids = {"GET": "list_shared_event_types", "POST": "create_shared_event_type"}


class SharedEventTypeView(EventTypeView):
    scopes = {"GET": OPERATOR, "PATCH": OPERATOR, "DELETE": OPERATOR}
    operation_ids = {
        "GET": "get_shared_event_type",
        "PATCH": "update_shared_event_type",
        "DELETE": "delete_shared_event_type",
    }


class SharedArchiveView(ArchiveView):
    scopes = {"POST": OPERATOR}
    operation_ids = {"POST": "archive_shared_event_type"}


class SharedUnarchiveView(UnarchiveView):
    scopes = {"POST": OPERATOR}
    operation_ids = {"POST": "unarchive_shared_event_type"}


class SharedCompareView(CompareView):
    scopes = {"POST": OPERATOR}
    operation_ids = {"POST": "compare_shared_event_type_schema"}
