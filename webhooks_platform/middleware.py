"""Middleware of the whole site, outermost first as in settings.MIDDLEWARE."""

import re
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.cache import patch_vary_headers
from django.utils.module_loading import import_string

from tenants import log_context
from tenants.addresses import came_by_tls_to_a_proxy
from tenants.api import problems
from tenants.api.problems import Problem, problem_response
from tenants.ids import new_id
from webhooks_platform import api_errors

GetResponse = Callable[[HttpRequest], HttpResponseBase]

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")


def request_id(get_response: GetResponse) -> GetResponse:
    """Give every request an id, the client's own if it is a decent one, and every response the same."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        wanted = request.META.get("HTTP_X_REQUEST_ID", "")
        request.request_id = wanted if REQUEST_ID.match(wanted) else new_id().hex  # type: ignore[attr-defined] # added by us
        log_context.begin_request(request.request_id)  # type: ignore[attr-defined] # added by us
        response = get_response(request)
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined] # added by us
        if isinstance(response, HttpResponse) and "Content-Length" not in response:
            # Without it the server sends chunks, which costs both sides more than the header.
            response["Content-Length"] = str(len(response.content))
        return response

    return middleware


def tls_at_the_proxy(get_response: GetResponse) -> GetResponse:
    """A request is as secure as the client's own connection, of which the proxy in front tells.

    Without it the forms of an https page would seem to come from elsewhere, and browsers would never be told to use
    nothing but https.
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if "HTTP_X_FORWARDED_PROTO" in request.META and came_by_tls_to_a_proxy(request):
            # Where Django looks; its own setting for this would believe everybody.
            request.META["wsgi.url_scheme"] = "https"
        return get_response(request)

    return middleware


def inbound_host(get_response: GetResponse) -> GetResponse:
    """With a host of their own, incoming webhooks are all there is on it: no page, no cookie, no API."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        own: str = settings.WEBHOOKS_INBOUND_HOST
        if own and not request.path_info.startswith(("/in/", "/health/")):
            host = request.META.get("HTTP_HOST", "").lower()
            # "in.example.com." is the same host.
            if host == own or host.partition(":")[0].rstrip(".") == own:
                return HttpResponse("Not found.", status=404, content_type="text/plain")
        return get_response(request)

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


class CsrfByFetchMetadata(CsrfViewMiddleware):
    """A form on a page whose address is a secret comes with `Origin: null`, as its `Referrer-Policy: no-referrer` asks.

    Browsers say of it in another header that it came from a page of ours, and no page can write that header.
    """

    def _origin_verified(self, request: HttpRequest) -> bool:
        if request.META["HTTP_ORIGIN"] == "null":
            return request.META.get("HTTP_SEC_FETCH_SITE") == "same-origin"
        return bool(super()._origin_verified(request))  # type: ignore[misc] # Django's own, not in the stubs


class ProblemsBelowApi:
    """What DRF never sees has the shape of every other error too: unknown paths, and whatever a plain view raises."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not is_api(request.path_info):
            return self.get_response(request)
        if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
            _read_chunked(request)
        response = self.get_response(request)
        if response.status_code >= 400 and "json" not in response.get("Content-Type", ""):
            return problem_response(request, _problem_of_page(response))
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return api_errors.respond(request, error) if is_api(request.path_info) else None


def _read_chunked(request: HttpRequest) -> None:
    """A body without a length, which Django takes for empty. The server puts its chunks together and marks its end.

    Of one that is too large, so much is read that it still is: the view says so, after it has looked at the key.
    """
    body = request.META["wsgi.input"].read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
    request.META["CONTENT_LENGTH"] = str(len(body))
    request._body = body  # noqa: SLF001 - where Django keeps what was read


def is_api(path: str) -> bool:
    return path.startswith("/api/v1/") or path == "/api/v1"


def _problem_of_page(response: HttpResponseBase) -> Problem:
    """Django's own pages: the resolver's 404, a method that a plain view does not take, a host that is not ours."""
    match response.status_code:
        case 404:
            return problems.not_found()
        case 405:
            return problems.method_not_allowed(response.get("Allow", "").split(", "))
        case status if status < 500:
            return Problem(400, "bad_request", "Bad request", "The request cannot be read.")
        case _:
            return problems.internal_error()


def cors(get_response: GetResponse) -> GetResponse:
    """Answers to the origins that the settings list, and to no other. Keys do not belong in browsers."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        origin = request.META.get("HTTP_ORIGIN", "")
        if origin not in settings.WEBHOOKS_CORS_ORIGINS or not is_api(request.path_info):
            return get_response(request)
        is_preflight = request.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.META
        response = HttpResponse(status=204) if is_preflight else get_response(request)
        response["Access-Control-Allow-Origin"] = origin
        patch_vary_headers(response, ["Origin"])
        if is_preflight:
            response["Access-Control-Allow-Methods"] = "GET, POST, PUT, PATCH, DELETE"
            response["Access-Control-Allow-Headers"] = (
                "Authorization, Content-Type, Idempotency-Key, X-Request-Id"
            )
            response["Access-Control-Max-Age"] = "600"
        else:
            response["Access-Control-Expose-Headers"] = (
                "X-Request-Id, Location, Retry-After, Idempotent-Replayed, "
                "RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset"
            )
        return response

    return middleware
