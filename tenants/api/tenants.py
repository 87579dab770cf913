"""`/tenants`: the platform's customers. For operators; a tenant key may read its own."""

from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from tenants import access, ids, validation
from tenants.api import fields, problems
from tenants.api.fields import Field, Input, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.pagination import page
from tenants.api.permissions import ANY_KEY, OPERATOR
from tenants.api.query import PAGE
from tenants.api.rendering import time_text
from tenants.api.schema import SLUG, TENANT_ID, example, page_of
from tenants.api.views import OperatorAPIView, TenantAPIView, created
from tenants.models import Tenant
from tenants.services import tenants
from tenants.services.tenants import SlugTaken

STATUS = {"type": "string", "enum": Tenant.Status.values}
SCHEMA_VALIDATION = {"type": "string", "enum": Tenant.SchemaValidation.values}
LIMITS = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "endpoints": fields.nullable(fields.whole_number(0, 1_000_000)),
        "subscriptions_per_endpoint": fields.nullable(fields.whole_number(0, 10_000)),
        "payload_bytes": fields.nullable(fields.whole_number(1, tenants.MAX_PAYLOAD_BYTES)),
        "events_per_second": fields.nullable({"type": "number", "minimum": 0.01, "maximum": 1_000_000}),
        "disable_after_days": fields.nullable(fields.whole_number(0, 365)),
        "disable_after_failures": fields.nullable(fields.whole_number(20, 1_000_000_000)),
    },
}
METADATA_CHANGES = {
    "type": "object",
    "maxProperties": validation.MAX_METADATA_KEYS,
    "propertyNames": fields.text(validation.MAX_METADATA_KEY_LENGTH, 1),
    "additionalProperties": fields.nullable(
        fields.text(validation.MAX_METADATA_VALUE_LENGTH, pattern=fields.SEVERAL_LINES)
    ),
}

EXAMPLE = {
    "id": "tnt_01h455vb4pex5vsknk084sn02q",
    "slug": "acme",
    "name": "Acme",
    "status": "active",
    "metadata": {"plan": "gold"},
    "retention_days": 90,
    "payload_retention_days": None,
    "attempt_retention_days": None,
    "schema_validation": "enforce",
    "weight": 1,
    "verify_endpoints": False,
    "limits": {
        "endpoints": 50,
        "subscriptions_per_endpoint": 100,
        "payload_bytes": 262144,
        "events_per_second": None,
        "disable_after_days": 5,
        "disable_after_failures": None,
    },
    "created_at": "2026-03-01T12:00:00.000000Z",
}


@example({"name": "Acme", "metadata": {"plan": "gold"}, "limits": {"endpoints": 200}})
class TenantPut(Input):
    name = Field(validation.name, fields.text(200, 1, fields.NOT_BLANK), help_text="Default: the slug.")
    status = Field(
        lambda value: validation.choice(value, Tenant.Status.values),
        STATUS,
        help_text="A suspended tenant's publishes are refused, its deliveries held.",
    )
    metadata = Field(
        validation.metadata_changes, METADATA_CHANGES, help_text="PATCH merges key by key; null removes one."
    )
    retention_days = Field(
        lambda value: validation.whole_number(value, low=1, high=365),
        fields.whole_number(1, 365, default=90),
        help_text="So long events, deliveries and attempts are kept.",
    )
    payload_retention_days = Field(
        lambda value: validation.whole_number(value, low=1, high=365),
        fields.whole_number(1, 365),
        help_text="So long payloads are kept; null: as long as their events.",
    )
    attempt_retention_days = Field(
        lambda value: validation.whole_number(value, low=1, high=365),
        fields.whole_number(1, 365),
        help_text="So long headers and bodies of attempts are kept; null: as long as the attempts.",
    )
    schema_validation = Field(
        lambda value: validation.choice(value, Tenant.SchemaValidation.values), SCHEMA_VALIDATION
    )
    verify_endpoints = Field(
        validation.boolean,
        fields.BOOLEAN,
        help_text="A new endpoint, or a new URL of one, has to echo a challenge first.",
    )
    weight = Field(
        lambda value: validation.whole_number(value, low=1, high=tenants.MAX_WEIGHT),
        fields.whole_number(1, tenants.MAX_WEIGHT, default=1),
        help_text="Its share while tenants compete for the dispatchers: with 3, up to three times another's.",
    )
    limits = Field(
        tenants.limits, LIMITS, help_text="PATCH merges key by key; null resets one to its default."
    )


@example({"slug": "acme", "name": "Acme", "metadata": {"plan": "gold"}, "limits": {"endpoints": 200}})
class TenantIn(TenantPut):
    slug = Field(validation.slug, SLUG, required=True, help_text="Unique for ever.")


@example(EXAMPLE)
class TenantOut(Output):
    id = Shown(TENANT_ID)
    slug = Shown(SLUG)
    name = Shown({"type": "string"})
    status = Shown(STATUS)
    metadata = Shown(fields.TEXTS)
    retention_days = Shown({"type": "integer"})
    payload_retention_days = Shown(fields.nullable({"type": "integer"}))
    attempt_retention_days = Shown(fields.nullable({"type": "integer"}))
    schema_validation = Shown(SCHEMA_VALIDATION)
    weight = Shown({"type": "integer"})
    verify_endpoints = Shown(fields.BOOLEAN)
    limits = Shown(LIMITS, "Those in force, defaults included.")
    created_at = Shown(fields.TIME)


def tenant_json(tenant: Tenant) -> dict[str, Any]:
    return {
        "id": ids.to_text(ids.TENANT, tenant.id),
        "slug": tenant.slug,
        "name": tenant.name,
        "status": tenant.status,
        "metadata": tenant.metadata,
        "retention_days": tenant.retention_days,
        "payload_retention_days": tenant.payload_retention_days,
        "attempt_retention_days": tenant.attempt_retention_days,
        "schema_validation": tenant.schema_validation,
        "weight": tenant.weight,
        "verify_endpoints": tenant.verify_endpoints,
        "limits": tenant.effective_limits,
        "created_at": time_text(tenant.created_at),
    }


def path_of(tenant: Tenant) -> str:
    return f"/api/v1/tenants/{ids.to_text(ids.TENANT, tenant.id)}"


class TenantsView(OperatorAPIView):
    scopes = {"GET": OPERATOR, "POST": OPERATOR}
    parameters = {"GET": PAGE}

    @extend_schema(
        operation_id="list_tenants",
        summary="List tenants",
        tags=["Tenants"],
        responses={200: page_of(TenantOut)},
    )
    def get(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first."""
        return page(self.query, Tenant.objects.filter(deleted_at__isnull=True), serialize=tenant_json)

    @extend_schema(
        operation_id="create_tenant",
        summary="Create a tenant",
        tags=["Tenants"],
        request=TenantIn,
        responses={201: TenantOut},
    )
    @idempotent()
    def post(self, request: Request) -> Response:
        """`409 slug_taken` if the slug is, or was, another's."""
        given = TenantIn.read(request)
        try:
            tenant = tenants.create_tenant(actor=self.actor, **given)
        except SlugTaken:
            raise slug_taken() from None
        return created(tenant_json(tenant), path_of(tenant))


class TenantView(TenantAPIView):
    scopes = {"GET": ANY_KEY, "PATCH": OPERATOR, "PUT": OPERATOR, "DELETE": OPERATOR}

    def locate(self, **kwargs: Any) -> None:
        # PUT makes what is not there.
        if self.request.method != "PUT":
            super().locate(**kwargs)

    @extend_schema(
        operation_id="get_tenant", summary="Get a tenant", tags=["Tenants"], responses={200: TenantOut}
    )
    def get(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """A tenant key may ask for its own tenant."""
        return Response(tenant_json(self.tenant))

    @extend_schema(
        operation_id="update_tenant",
        summary="Change a tenant",
        tags=["Tenants"],
        request=TenantIn,
        responses={200: TenantOut},
    )
    def patch(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What is absent stays, null resets to the default, a value sets. Suspends and resumes by `status`."""
        given = TenantIn.read(request, is_partial=True)
        try:
            changed = tenants.update_tenant(actor=self.actor, tenant=self.tenant, **given)
        except SlugTaken:
            raise slug_taken() from None
        return Response(tenant_json(changed))

    @extend_schema(
        operation_id="put_tenant",
        summary="Create or change a tenant by its slug",
        tags=["Tenants"],
        request=TenantPut,
        responses={200: TenantOut, 201: TenantOut},
    )
    def put(self, request: Request, tenant: str) -> Response:
        """Makes the tenant if no one has the slug. What is absent stays; `metadata` and `limits` are replaced.

        A `slug` in the body is taken if it is the one in the path.
        """
        try:
            slug = validation.slug(tenant)
        except validation.Invalid:
            slug = access.get_tenant(self.caller, tenant).slug
        given = TenantIn.read(request, is_partial=True)
        if given.pop("slug", slug) != slug:
            raise problems.invalid([("slug", "mismatch", "Must be the slug in the path, or left out.")])
        try:
            row, is_new = tenants.put_tenant(actor=self.actor, slug=slug, **given)
        except SlugTaken:
            raise slug_taken() from None
        return created(tenant_json(row), path_of(row)) if is_new else Response(tenant_json(row))

    @extend_schema(
        operation_id="delete_tenant",
        summary="Delete a tenant",
        tags=["Tenants"],
        responses={204: OpenApiResponse(description="Deleted.")},
    )
    def delete(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Ends it at once: keys and links stop, pending deliveries are cancelled. Rows are erased after 30 days."""
        tenants.delete_tenant(actor=self.actor, tenant=self.tenant)
        return Response(status=204)


def slug_taken() -> problems.Problem:
    return problems.conflict("slug_taken", "This slug is, or was, another tenant's.")
