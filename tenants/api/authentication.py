"""DRF's way to the entry check of `tenants/access.py`."""

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from tenants import access
from tenants.access import Caller
from tenants.addresses import remote_ip_of


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer whk_…`. There is no user: `request.auth` is the caller."""

    def authenticate(self, request: Request) -> tuple[None, Caller]:
        http_request = request._request  # noqa: SLF001 - the plain request that access needs
        return None, access.authenticate(
            http_request.META.get("HTTP_AUTHORIZATION"), remote_ip=remote_ip_of(http_request)
        )

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        return "Bearer"
