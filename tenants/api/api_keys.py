"""`/tenants/{tenant}/api-keys`: for operators, and tenant keys with `keys:write`."""

from datetime import UTC, datetime
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from tenants import access, ids, validation
from tenants.api import fields, problems
from tenants.api.fields import Field, Input, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.pagination import page
from tenants.api.query import PAGE
from tenants.api.rendering import optional_time_text, time_text
from tenants.api.schema import example, page_of
from tenants.api.views import TenantAPIView, created, no_store
from tenants.models import ApiKey
from tenants.services import keys
from tenants.services.keys import ScopesNotHeld
from tenants.validation import Invalid

SCOPES = fields.list_of({"type": "string", "enum": ApiKey.Scope.values})
EXAMPLE = {
    "id": "key_01h455vb4pex5vsknk084sn02q",
    "name": "backend",
    "prefix": "whk_Zk3vQ8aL",
    "scopes": ["events:write", "events:read"],
    "rate_limit": None,
    "expires_at": None,
    "last_used_at": "2026-03-01T12:00:00.000000Z",
    "created_at": "2026-03-01T12:00:00.000000Z",
}


def scopes(value: object) -> list[str]:
    return validation.list_of(
        value, lambda scope: validation.choice(scope, ApiKey.Scope.values), high=len(ApiKey.Scope.values)
    )


def expires_at(value: object) -> datetime:
    at = validation.moment(value)
    if at <= datetime.now(UTC):
        raise Invalid("in_the_past", "Must be in the future.")
    return at


@example({"name": "backend", "scopes": ["events:write", "events:read"], "expires_at": None})
class ApiKeyIn(Input):
    name = Field(validation.name, fields.text(200, 1, fields.NOT_BLANK), required=True)
    scopes = Field(
        scopes,
        SCOPES | {"maxItems": len(ApiKey.Scope.values)},
        required=True,
        help_text="No scope that the key which asks lacks.",
    )
    expires_at = Field(expires_at, fields.TIME, help_text="null: never.")
    rate_limit = Field(
        lambda value: validation.whole_number(value, low=1, high=1_000_000),
        fields.whole_number(1, 1_000_000),
        help_text="Requests per minute. null: the platform's. At most the limit of the key that asks, if it has one.",
    )


@example(EXAMPLE)
class ApiKeyOut(Output):
    id = Shown(fields.id_text(ids.API_KEY))
    name = Shown({"type": "string"})
    prefix = Shown({"type": "string"}, "The first letters, for people.")
    scopes = Shown(SCOPES)
    rate_limit = Shown(fields.nullable({"type": "integer"}), "Requests per minute; null is the platform's.")
    expires_at = Shown(fields.nullable(fields.TIME))
    last_used_at = Shown(fields.nullable(fields.TIME), "Exact to a minute.")
    created_at = Shown(fields.TIME)


@example({**EXAMPLE, "last_used_at": None, "key": "whk_Zk3vQ8aL0pXn5sT1uVw2yRb4cD6eF7gH9iJkMnOqPlA"})
class ApiKeyCreated(ApiKeyOut):
    key = Shown({"type": "string"}, "The key itself. This reply alone holds it.")


def key_json(key: ApiKey) -> dict[str, Any]:
    return {
        "id": ids.to_text(ids.API_KEY, key.id),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "rate_limit": key.rate_limit,
        "expires_at": optional_time_text(key.expires_at),
        "last_used_at": optional_time_text(key.last_used_at),
        "created_at": time_text(key.created_at),
    }


class ApiKeysView(TenantAPIView):
    scopes = {"GET": ApiKey.Scope.KEYS_WRITE, "POST": ApiKey.Scope.KEYS_WRITE}
    parameters = {"GET": PAGE}

    @extend_schema(
        operation_id="list_api_keys",
        summary="List API keys",
        tags=["API keys"],
        responses={200: page_of(ApiKeyOut)},
    )
    def get(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first, without revoked ones."""
        return page(
            self.query, ApiKey.objects.filter(tenant=self.tenant, revoked_at__isnull=True), serialize=key_json
        )

    @extend_schema(
        operation_id="create_api_key",
        summary="Create an API key",
        tags=["API keys"],
        request=ApiKeyIn,
        responses={201: ApiKeyCreated},
    )
    @idempotent(holds_secret=True)
    def post(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """The reply alone holds the key. A key grants no scope that it lacks (`403`)."""
        given = ApiKeyIn.read(request)
        limit = None if self.caller.is_operator else self.caller.rate_limit
        if limit is not None:
            if given.get("rate_limit") is None and self.caller.has_own_limit:
                given["rate_limit"] = limit
            if (given.get("rate_limit") or 0) > limit:
                raise problems.invalid([("rate_limit", "too_large", f"Must be at most {limit}, this key's.")])
        try:
            key, text = keys.create_key(
                actor=self.actor, tenant=self.tenant, granted=self.caller.scopes, **given
            )
        except ScopesNotHeld as error:
            raise problems.forbidden(", ".join(error.scopes)) from None
        location = f"/api/v1/tenants/{ids.to_text(ids.TENANT, self.tenant.id)}/api-keys/{ids.to_text(ids.API_KEY, key.id)}"
        return no_store(created({**key_json(key), "key": text}, location))


class ApiKeyView(TenantAPIView):
    scopes = {"GET": ApiKey.Scope.KEYS_WRITE, "DELETE": ApiKey.Scope.KEYS_WRITE}

    @extend_schema(
        operation_id="get_api_key", summary="Get an API key", tags=["API keys"], responses={200: ApiKeyOut}
    )
    def get(self, request: Request, tenant: str, key: str) -> Response:  # noqa: ARG002 - DRF's signature
        row = ApiKey.objects.filter(
            tenant=self.tenant, id=access.id_of(ids.API_KEY, key), revoked_at__isnull=True
        ).first()
        if row is None:
            raise access.NotFound
        return Response(key_json(row))

    @extend_schema(
        operation_id="revoke_api_key",
        summary="Revoke an API key",
        tags=["API keys"],
        responses={204: OpenApiResponse(description="Revoked.")},
    )
    def delete(self, request: Request, tenant: str, key: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Takes effect within five seconds."""
        keys.revoke_key(actor=self.actor, tenant=self.tenant, key_id=access.id_of(ids.API_KEY, key))
        return Response(status=204)
