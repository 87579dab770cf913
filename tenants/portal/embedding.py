"""The portal in a frame of a tenant's own application: everything below `/embed/portal/`.

The prefix is the whole switch. Below it there are only a tenant's pages and the page of a one-time link; links and
redirects keep it, because it is the script name. Cookies are others than those of the portal itself: named
`embedded-…`, `SameSite=None; Secure; Partitioned`, and the session's is sent to that tenant's pages alone. So nothing
that somebody does in a frame happens in the name of who is signed in to an account in the same browser.
"""

import hashlib
import http.cookies
from collections.abc import Callable
from typing import Any, Final

from csp.decorators import csp_replace
from django.conf import settings
from django.core.signing import BadSignature, TimestampSigner
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import get_script_prefix, set_script_prefix
from django.views.decorators.clickjacking import xframe_options_exempt
from django_htmx.http import reselect, reswap, retarget

from tenants.models import PortalLook
from tenants.portal import errors

PREFIX: Final = "/embed"

COOKIE_PREFIX: Final = "embedded-"

OPEN: Final = frozenset({"portal-enter", "portal-logo", "portal-style", "portal-language"})
"""What there is below the prefix besides a tenant's pages."""

ASKS_AGAIN: Final = frozenset(
    {"delete", "disable", "remove", "revoke", "rotate", "secret", "cancel", "end", "secrets", "credentials"}
)
"""Last words of names of pages that destroy something or show a secret: what stands around a frame could lay something
over the button. By the word, so that a page that comes later is asked about, too."""

ALSO_ASKS_AGAIN: Final = frozenset(
    {
        "portal-deliveries-everything",
        "portal-deliveries-picked",
        "portal-inspector-new",
        "portal-key-new",
        "portal-member-role",
        "portal-source-new",
        "portal-source-switch",
    }
)
"""Those that do the same under another name: cancel many, stop a source, show the URL of a new one."""

CONFIRMED: Final = "asked_again"
"""Name of the field whose value says that this form was asked about."""

CONFIRMED_SECONDS: Final = 120

# Python learned the attribute with 3.14.
http.cookies.Morsel._reserved.setdefault("partitioned", "Partitioned")  # type: ignore[attr-defined] # noqa: SLF001
http.cookies.Morsel._flags.add("partitioned")  # type: ignore[attr-defined] # noqa: SLF001

GetResponse = Callable[[HttpRequest], HttpResponseBase]


class EmbeddedPortal:
    """Takes the prefix off, and changes the cookies on the way in and out. Before all other middleware of pages."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(f"{PREFIX}/portal/"):
            return self.get_response(request)
        _take_prefix(request)
        before = get_script_prefix()
        set_script_prefix(f"{request.META['SCRIPT_NAME']}/")
        try:
            response = self.get_response(request)
        finally:
            set_script_prefix(before)
        _send_cookies(request, response)
        return response

    def process_view(
        self,
        request: HttpRequest,
        _view: Any,
        _args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> HttpResponseBase | None:
        if not is_embedded(request):
            return None
        match = request.resolver_match
        if "tenant" in kwargs or (match is not None and match.url_name in OPEN):
            return None
        return errors.not_found(request)


def is_embedded(request: HttpRequest) -> bool:
    return getattr(request, "is_embedded", False)


def _take_prefix(request: HttpRequest) -> None:
    request.is_embedded = True  # type: ignore[attr-defined] # added by us
    request.path_info = request.path_info.removeprefix(PREFIX)
    request.META["PATH_INFO"] = request.path_info
    request.META["SCRIPT_NAME"] = request.META.get("SCRIPT_NAME", "") + PREFIX
    request.COOKIES = {
        name.removeprefix(COOKIE_PREFIX): value
        for name, value in request.COOKIES.items()
        if name.startswith(COOKIE_PREFIX)
    }


def _send_cookies(request: HttpRequest, response: HttpResponseBase) -> None:
    look = getattr(request, "look", None)
    base = f"{get_script_prefix().rstrip('/')}{PREFIX}/"
    for name, cookie in list(response.cookies.items()):
        del response.cookies[name]
        own = COOKIE_PREFIX + name
        response.cookies[own] = cookie.value
        morsel = response.cookies[own]
        for key in ("expires", "max-age"):
            morsel[key] = cookie[key]
        is_the_session = name != settings.CSRF_COOKIE_NAME and look is not None
        morsel["path"] = f"{base}portal/{look.tenant.slug}/" if is_the_session and look else base
        morsel["httponly"] = True
        morsel["secure"] = True
        morsel["samesite"] = "None"
        morsel["partitioned"] = True


# --- what may be shown where ------------------------------------------------------------------------------------------


def may_show(request: HttpRequest, look: PortalLook) -> bool:
    """Outside a frame always; in one while the tenant lists an origin."""
    return not is_embedded(request) or bool(look.origins)


def allow_frame(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Say to the browser whose pages may have this one in a frame, once it is known whose it is."""
    look: PortalLook | None = getattr(request, "look", None)
    if not is_embedded(request) or look is None or not look.origins:
        return response
    answer = csp_replace({"frame-ancestors": list(look.origins)})(xframe_options_exempt(lambda _: response))
    return answer(request)


# --- asking again -----------------------------------------------------------------------------------------------------


def asks_again(request: HttpRequest) -> bool:
    if not is_embedded(request) or request.method != "POST" or request.resolver_match is None:
        return False
    name = request.resolver_match.url_name or ""
    is_asked = name in ALSO_ASKS_AGAIN or name.rpartition("-")[2] in ASKS_AGAIN
    return is_asked and not _is_confirmed(request)


def ask_again(request: HttpRequest) -> HttpResponse:
    """A page of its own with the same form and another button. What was typed goes along."""
    fields = [(name, value) for name, values in request.POST.lists() if name not in _OURS for value in values]
    context = {
        "fields": fields,
        "confirmed": _signer().sign(_fingerprint(request)),
        "confirmed_name": CONFIRMED,
    }
    response = render(request, "portal/ask_again.html", context)
    if getattr(request, "htmx", False):
        # In place of the whole page, not of the part that asked.
        return reswap(reselect(retarget(response, "#main"), "#main"), "outerHTML")
    return response


_OURS: Final = {CONFIRMED, "csrfmiddlewaretoken"}


def _is_confirmed(request: HttpRequest) -> bool:
    try:
        said = _signer().unsign(request.POST.get(CONFIRMED, ""), max_age=CONFIRMED_SECONDS)
    except BadSignature:
        return False
    return said == _fingerprint(request)


def _fingerprint(request: HttpRequest) -> str:
    """Of the act: whose session, which address with its filters, what is in the form."""
    parts = [request.session.session_key or "", request.get_full_path()]
    parts += [
        f"{name}={value}"
        for name, values in sorted(request.POST.lists())
        if name not in _OURS
        for value in values
    ]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()


def _signer() -> TimestampSigner:
    return TimestampSigner(salt="tenants.portal.embedding")
