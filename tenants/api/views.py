"""What every view of the API begins with: whose key, how often, which scope, which tenant, which parameters.

A view declares `scopes` and, where it takes any, `parameters` by method; it reads bodies with `Input.read` and answers
with plain data. What it does not declare is refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from rest_framework import views
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from tenants import access, log_context
from tenants.access import Caller, Rate
from tenants.addresses import remote_ip_of
from tenants.api import problems, query
from tenants.api.authentication import ApiKeyAuthentication
from tenants.api.permissions import HasScope
from tenants.api.query import Parameter
from tenants.api.rendering import AlwaysJSON, JSONRenderer, StrictJSONParser
from tenants.api.schema import Schema
from tenants.models import Tenant
from tenants.services.audit import Actor, actor_of


class APIView(views.APIView):
    scopes: ClassVar[Mapping[str, str]] = {}
    """By method, what a key must carry. A method that is missing here is refused to all."""
    parameters: ClassVar[Mapping[str, Sequence[Parameter]]] = {}
    """By method, the query parameters. Any other is a 422."""

    authentication_classes = (ApiKeyAuthentication,)
    permission_classes = (HasScope,)
    renderer_classes = (JSONRenderer,)
    parser_classes: Sequence[type[BaseParser]] = (StrictJSONParser,)
    content_negotiation_class = AlwaysJSON
    schema = Schema()
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]

    caller: Caller
    query: dict[str, Any]
    """The query parameters, read and with their defaults."""
    rate: Rate | None = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - DRF's signature
        """In this order: 401, 429, 403, 405, 404, 422."""
        self.format_kwarg = None
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request)
        request.version, request.versioning_scheme = None, None
        self.perform_authentication(request)
        assert isinstance(request.auth, Caller)
        self.caller = request.auth
        log_context.key_id.set(self.caller.key_id)
        self.rate = access.check_rate(self.caller)
        self.check_permissions(request)
        method = "GET" if request.method == "HEAD" else str(request.method)
        if method not in self.allowed_methods:
            raise problems.method_not_allowed(self.allowed_methods)
        self.locate(**kwargs)
        self.query = query.read(request.query_params, self.parameters.get(method, ()))

    def locate(self, **kwargs: Any) -> None:
        """Find what the path names before anything else is judged. Raises NotFound."""

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {}

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        final = super().finalize_response(request, response, *args, **kwargs)
        if self.rate is not None:
            for name, value in rate_headers(self.rate).items():
                final[name] = value
        return final

    @property
    def actor(self) -> Actor:
        """Who acts, for the audit log."""
        request: HttpRequest = self.request._request  # noqa: SLF001 - the plain request
        return actor_of(
            self.caller,
            remote_ip=remote_ip_of(request) or None,
            request_id=getattr(request, "request_id", ""),
        )

    @property
    def idempotency_space(self) -> UUID:
        """Where this view's idempotency keys belong: to the tenant, or outside one to the operator's key."""
        return self.caller.key_id


class OperatorAPIView(APIView):
    """Of the platform, not of a tenant."""


class TenantAPIView(APIView):
    """Below `/tenants/{tenant}/`."""

    tenant: Tenant

    def locate(self, **kwargs: Any) -> None:
        self.tenant = access.get_tenant(self.caller, kwargs["tenant"])
        log_context.tenant_id.set(self.tenant.id)

    @property
    def idempotency_space(self) -> UUID:
        return self.tenant.id


def rate_headers(rate: Rate) -> dict[str, str]:
    return {
        "RateLimit-Limit": str(rate.limit),
        "RateLimit-Remaining": str(rate.remaining),
        "RateLimit-Reset": str(rate.reset_seconds),
    }


def with_rate(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Of a plain view, which leaves on the request where its key stands."""
    rate = getattr(request, "rate", None)
    if rate is not None:
        for name, value in rate_headers(rate).items():
            response[name] = value
    return response


def created(data: Any, location: str) -> Response:
    return Response(data, status=201, headers={"Location": location})


def no_store(response: Response) -> Response:
    """For replies that hold a key, a secret or a link."""
    response["Cache-Control"] = "no-store"
    return response
