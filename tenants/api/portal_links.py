"""`/tenants/{tenant}/portal-links`: one-time ways into a tenant's portal."""

import re
from datetime import timedelta

from django.conf import settings
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from tenants import access, ids, validation
from tenants.api import fields, problems
from tenants.api.fields import Field, Input, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.rendering import time_text
from tenants.api.schema import example
from tenants.api.views import TenantAPIView, created, no_store
from tenants.models import ApiKey, Member
from tenants.services import portal_links
from tenants.validation import Invalid

EMAIL = "^[!-?A-~]+@[!-?A-~]+$"
URL = r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?([/?][!-\[\]-~]*)?$"
LAST_PORT = 65_535


def email(value: object) -> str:
    """A label for the audit log, so no more than its shape is looked at."""
    return validation.matching(value, re.compile(EMAIL), high=254, says="Must be an e-mail address.")


def return_url(value: object) -> str:
    text = validation.text(value, low=1, high=2048)
    parts = re.fullmatch(URL, text)
    port = parts and parts[1]
    if parts is None or (port is not None and not 1 <= int(port[1:]) <= LAST_PORT):
        raise Invalid("invalid_url", "Must be an http or https URL.")
    return text


@example({"email": "ada@example.com", "role": "developer", "expires_in": 3600})
class PortalLinkIn(Input):
    email = Field(
        email, fields.text(254, 3, EMAIL), help_text="A label for the audit log; it signs nobody in."
    )
    role = Field(
        lambda value: validation.choice(value, Member.Role.values),
        {"type": "string", "enum": Member.Role.values},
        required=True,
        help_text="A link to `admin` needs a key with every scope.",
    )
    expires_in = Field(
        lambda value: validation.whole_number(value, low=60, high=604_800),
        fields.whole_number(60, 604_800, default=3600),
        help_text="Seconds.",
    )
    return_url = Field(return_url, fields.text(2048, 1, URL), help_text="Where the portal leads back to.")


@example(
    {
        "id": "lnk_01h455vb4pex5vsknk084sn02q",
        "url": "https://webhooks.example.com/portal/enter/x5vsknk084sn02qZk3vQ8aL0pXn5sT1uVw2yRb4cD6",
        "expires_at": "2026-03-01T13:00:00.000000Z",
    }
)
class PortalLinkOut(Output):
    id = Shown(fields.id_text(ids.PORTAL_LINK))
    url = Shown({"type": "string", "format": "uri"}, "Opens the portal once. This reply alone holds it.")
    expires_at = Shown(fields.TIME)


class PortalLinksView(TenantAPIView):
    scopes = {"POST": ApiKey.Scope.PORTAL_WRITE}

    @extend_schema(
        operation_id="create_portal_link",
        summary="Create a portal link",
        tags=["Portal"],
        request=PortalLinkIn,
        responses={201: PortalLinkOut},
    )
    @idempotent(holds_secret=True)
    def post(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """A one-time link that opens the tenant's portal without a password."""
        given = PortalLinkIn.read(request)
        missing = SCOPES_OF_ROLE[given["role"]] - self.caller.scopes
        if missing:
            raise problems.forbidden(", ".join(sorted(missing)))
        link, token = portal_links.create_link(
            actor=self.actor,
            tenant=self.tenant,
            role=given["role"],
            expires_in=timedelta(seconds=given.get("expires_in") or 3600),
            email=given.get("email") or "",
            return_url=given.get("return_url") or "",
        )
        host = settings.WEBHOOKS_PUBLIC_URL or f"{request.scheme}://{request.get_host()}"
        link_id = ids.to_text(ids.PORTAL_LINK, link.id)
        reply = {
            "id": link_id,
            "url": f"{host}/portal/enter/{token}",
            "expires_at": time_text(link.expires_at),
        }
        location = f"/api/v1/tenants/{ids.to_text(ids.TENANT, self.tenant.id)}/portal-links/{link_id}"
        return no_store(created(reply, location))


READING = {
    ApiKey.Scope.EVENTS_READ,
    ApiKey.Scope.ENDPOINTS_READ,
    ApiKey.Scope.CATALOGUE_READ,
    ApiKey.Scope.DELIVERIES_READ,
}
SCOPES_OF_ROLE: dict[str, set[str]] = {
    Member.Role.VIEWER: {str(scope) for scope in READING},
    Member.Role.DEVELOPER: {
        str(scope)
        for scope in READING
        | {ApiKey.Scope.EVENTS_WRITE, ApiKey.Scope.ENDPOINTS_WRITE, ApiKey.Scope.DELIVERIES_WRITE}
    },
    Member.Role.ADMIN: set(ApiKey.Scope.values),
}
"""What a role may do in the portal, as scopes: a key gives no more than it has."""


class PortalLinkView(TenantAPIView):
    scopes = {"DELETE": ApiKey.Scope.PORTAL_WRITE}

    @extend_schema(
        operation_id="end_portal_link",
        summary="End a portal link",
        tags=["Portal"],
        responses={204: OpenApiResponse(description="Ended.")},
    )
    def delete(self, request: Request, tenant: str, link: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Ends the link and its sessions."""
        portal_links.end_link(
            actor=self.actor, tenant=self.tenant, link_id=access.id_of(ids.PORTAL_LINK, link)
        )
        return Response(status=204)
