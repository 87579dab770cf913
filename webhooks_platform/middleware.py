"""Middleware of the whole site, outermost first as in settings.MIDDLEWARE."""

import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from tenants.ids import new_id

GetResponse = Callable[[HttpRequest], HttpResponseBase]

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")

current_request_id: ContextVar[str] = ContextVar("current_request_id", default="")
"""For log lines."""


def request_id(get_response: GetResponse) -> GetResponse:
    """Give every request an id, the client's own if it is a decent one, and every response the same."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        wanted = request.META.get("HTTP_X_REQUEST_ID", "")
        request.request_id = wanted if REQUEST_ID.match(wanted) else new_id().hex  # type: ignore[attr-defined] # added by us
        current_request_id.set(request.request_id)  # type: ignore[attr-defined] # added by us
        response = get_response(request)
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined] # added by us
        return response

    return middleware


def is_page(path: str) -> bool:
    """The API, incoming webhooks, health and metrics need no session, CSRF token, language or policy of pages."""
    return not path.startswith(("/api/v1/", "/in/", "/health/", "/metrics"))


class PagesOnly:
    """Everything that only pages need, built once from settings.PAGES_MIDDLEWARE and passed by for the rest."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.pages: GetResponse = get_response
        self.view_hooks: list[Callable[..., HttpResponseBase | None]] = []
        for path in reversed(settings.PAGES_MIDDLEWARE):
            self.pages = import_string(path)(self.pages)
            # Django asks only the middleware it lists for these; CSRF protection is one of them.
            if hook := getattr(self.pages, "process_view", None):
                self.view_hooks.insert(0, hook)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.pages(request) if is_page(request.path_info) else self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        if not is_page(request.path_info):
            return None
        for hook in self.view_hooks:
            if response := hook(request, view, args, kwargs):
                return response
        return None


def problems_below_api(get_response: GetResponse) -> GetResponse:
    """Unknown paths and wrong methods below /api/v1 have the same shape as every other error there."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return get_response(request)

    return middleware


