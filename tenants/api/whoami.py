"""`GET /whoami`: what the key that asks is, and may do."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from tenants import access, ids
from tenants.access import Caller
from tenants.api import fields
from tenants.api.fields import Output, Shown
from tenants.api.permissions import ANY_KEY
from tenants.api.rendering import optional_time_text
from tenants.api.tenants import EXAMPLE
from tenants.api.views import APIView
from tenants.models import ApiKey, Tenant


class KeyOfCaller(Output):
    id = Shown(fields.id_text(ids.API_KEY))
    name = Shown({"type": "string"})
    scopes = Shown(fields.list_of({"type": "string", "enum": ApiKey.Scope.values}))
    is_operator = Shown(fields.BOOLEAN)
    rate_limit = Shown(fields.nullable({"type": "integer"}), "Requests per minute; null is none.")
    expires_at = Shown(fields.nullable(fields.TIME))


class TenantOfCaller(Output):
    id = Shown(fields.id_text(ids.TENANT))
    slug = Shown({"type": "string"})
    name = Shown({"type": "string"})
    status = Shown({"type": "string", "enum": Tenant.Status.values})
    limits = Shown(fields.ANY_OBJECT)


class WhoAmI(Output):
    key = KeyOfCaller()
    tenant = TenantOfCaller(allow_null=True, help_text="null for an operator key.")
    scopes = Shown(fields.list_of({"type": "string", "enum": ApiKey.Scope.values}))
    limits = Shown(fields.nullable(fields.ANY_OBJECT))


class WhoAmIView(APIView):
    scopes = {"GET": ANY_KEY}

    @extend_schema(
        operation_id="whoami",
        summary="Who am I",
        tags=["Service"],
        responses={200: WhoAmI},
        examples=[
            OpenApiExample(
                "A tenant key",
                value={
                    "key": {
                        "id": "key_01h455vb4pex5vsknk084sn02q",
                        "name": "backend",
                        "scopes": ["events:write"],
                        "is_operator": False,
                        "rate_limit": None,
                        "expires_at": None,
                    },
                    "tenant": {
                        "id": "tnt_01h455vb4pex5vsknk084sn02q",
                        "slug": "acme",
                        "name": "Acme",
                        "status": "active",
                        "limits": EXAMPLE["limits"],
                    },
                    "scopes": ["events:write"],
                    "limits": EXAMPLE["limits"],
                },
            )
        ],
    )
    def get(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """The key's tenant, scopes and limits."""
        tenant = None
        if self.caller.tenant_id is not None:
            tenant = access.get_tenant(self.caller, ids.to_text(ids.TENANT, self.caller.tenant_id))
        return Response(whoami_json(self.caller, tenant))


def whoami_json(caller: Caller, tenant: Tenant | None) -> dict[str, Any]:
    scopes = [scope for scope in ApiKey.Scope.values if scope in caller.scopes]
    limits = None if tenant is None else tenant.effective_limits
    return {
        "key": {
            "id": ids.to_text(ids.API_KEY, caller.key_id),
            "name": caller.name,
            "scopes": scopes,
            "is_operator": caller.is_operator,
            "rate_limit": caller.rate_limit,
            "expires_at": optional_time_text(caller.expires_at),
        },
        "tenant": None
        if tenant is None
        else {
            "id": ids.to_text(ids.TENANT, tenant.id),
            "slug": tenant.slug,
            "name": tenant.name,
            "status": tenant.status,
            "limits": limits,
        },
        "scopes": scopes,
        "limits": limits,
    }
