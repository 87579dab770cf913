"""The scope check of every view. A view that declares nothing for a method lets nobody in."""

from typing import Any, Final

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from tenants import access
from tenants.access import Caller

OPERATOR: Final = "operator"
"""Instead of a scope: operator keys alone."""

ANY_KEY: Final = "any key"
"""Instead of a scope: every valid key."""


class HasScope(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        caller = request.auth
        assert isinstance(caller, Caller)
        if str(request.method).lower() not in view.http_method_names or not hasattr(
            view, str(request.method).lower()
        ):
            return True  # answered with 405
        # HEAD asks for what GET shows.
        method = "GET" if request.method == "HEAD" else request.method
        scope = getattr(view, "scopes", {}).get(method)
        if scope is None:
            return False
        if scope == OPERATOR:
            access.require_operator(caller)
        elif scope != ANY_KEY:
            access.require(caller, scope)
        return True
