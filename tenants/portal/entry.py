"""What every page of the portal begins with: who comes, into which tenant, in which role.

Nobody is sent to sign in; a person who is no member gets the constant 404; a member whose role is too low gets 403.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast
from urllib.parse import urlencode
from uuid import UUID

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, resolve_url
from django.utils import timezone
from django.utils.cache import patch_cache_control
from django.views.decorators.http import require_http_methods
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails
from psycopg_pool import PoolTimeout

from tenants import access, ids
from tenants.addresses import remote_ip_of
from tenants.models import Member, PortalLink, PortalLook, SupportSession, Tenant, User
from tenants.portal import embedding, errors
from tenants.services import members, portal_links, support
from tenants.services.audit import Actor
from tenants.services.portal_looks import leads_back, look_of

logger = logging.getLogger(__name__)

Role = Member.Role

RANKS: Final = {Role.VIEWER: 0, Role.DEVELOPER: 1, Role.ADMIN: 2}
"""A role may do what those below it may."""

READING: Final = {"GET", "HEAD"}
"""What changes nothing."""

LINKS: Final = "portal_links"
"""Key of the browser's session: the ids of links that it used."""

MOST_LINKS: Final = 20
"""Tenants in one browser by links; of more, the first ones go."""


class PortalRequest(HttpRequest):
    """A request that was let into a tenant."""

    htmx: HtmxDetails
    tenant: Tenant
    role: Role
    actor: Actor
    look: PortalLook
    by_link: PortalLink | None
    support: SupportSession | None
    """Of an operator, who is no member."""
    return_url: str
    """Where the link leads back to, if that is an application of the tenant's."""
    may_change: bool
    is_admin: bool
    """For templates, which show nobody a button that is refused."""


class PersonRequest(HttpRequest):
    """Of somebody who is signed in, about the own account."""

    user: User
    actor: Actor


Parameters = ParamSpec("Parameters")
View = Callable[Concatenate[PortalRequest, Parameters], HttpResponseBase]


AnyResponse = TypeVar("AnyResponse", bound=HttpResponseBase)


def for_one_person(response: AnyResponse) -> AnyResponse:
    """Neither proxies nor the next person at this browser keep it."""
    patch_cache_control(response, private=True, no_store=True)
    return response


def portal_page(
    *, needs: Role = Role.VIEWER, methods: Sequence[str] = ("GET", "HEAD")
) -> Callable[[View[Parameters]], Callable[..., HttpResponseBase]]:
    """A page below `/portal/<tenant>/`. The view gets the tenant with its request, and may raise access.NotFound."""

    def decorate(view: View[Parameters]) -> Callable[..., HttpResponseBase]:
        @require_http_methods(list(methods))
        @wraps(view)
        def page(request: HttpRequest, tenant: str, **kwargs: Any) -> HttpResponseBase:
            response = _answer(cast(PortalRequest, request), tenant, kwargs)
            if "Cache-Control" not in response:
                for_one_person(response)
            return embedding.allow_frame(request, response)

        def _answer(request: PortalRequest, slug: str, kwargs: dict[str, Any]) -> HttpResponseBase:
            if "\x00" in slug:
                # The database takes it in no text.
                return errors.not_found(request)
            if not _let_in(request, slug):
                if embedding.is_embedded(request):
                    _remember_look(request, slug)
                    return errors.frame_is_over(request)
                return to_sign_in(request) if request.user.is_anonymous else errors.not_found(request)
            request.may_change = is_at_least(request.role, Role.DEVELOPER)
            request.is_admin = is_at_least(request.role, Role.ADMIN)
            if request.support is not None and support.is_closed(_name_of_page(request)):
                return errors.closed_to_support(request)
            if not is_at_least(request.role, needs):
                return errors.forbidden(request, needs=needs)
            if request.support is not None and not request.may_change and request.method not in READING:
                # Whatever a page lets viewers do, each for oneself: who only looks does nothing.
                return errors.forbidden(request, needs=Role.DEVELOPER)
            if embedding.asks_again(request):
                return embedding.ask_again(request)
            try:
                return cast(Callable[..., HttpResponseBase], view)(request, **kwargs)
            except access.NotFound:
                return errors.gone(request)
            except (OperationalError, InterfaceError, PoolTimeout) as error:
                logger.warning("database unavailable", exc_info=error)
                return errors.unavailable(request)

        return page

    return decorate


def _name_of_page(request: HttpRequest) -> str:
    return "" if request.resolver_match is None else request.resolver_match.url_name or ""


def changes(needs: Role = Role.DEVELOPER) -> Callable[[View[Parameters]], Callable[..., HttpResponseBase]]:
    """A page that does something: by POST alone, refused to viewers."""
    return portal_page(needs=needs, methods=("POST",))


def is_at_least(role: Role, needed: Role) -> bool:
    return RANKS[role] >= RANKS[needed]


def _let_in(request: PortalRequest, slug: str) -> bool:
    """Say on the request who comes into which tenant. What was begun on purpose goes before a membership."""
    remote_ip = remote_ip_of(request) or None
    request_id = getattr(request, "request_id", "")
    request.support = _support_of(request, slug)
    if request.support is not None and isinstance(request.user, User):
        request.tenant, request.role = request.support.tenant, support.role_of(request.support)
        request.look, request.return_url, request.by_link = look_of(request.tenant), "", None
        request.actor = replace(actor_of(request, request.user), kind="operator")
        return True
    link = next((each for each in links_of(request) if each.tenant.slug == slug), None)
    if link is not None:
        request.tenant, request.role, request.by_link = link.tenant, Role(link.role), link
        request.actor = portal_links.actor_of(link, remote_ip=remote_ip, request_id=request_id)
        request.look = look_of(link.tenant)
        request.return_url = link.return_url if leads_back(request.look, link.return_url) else ""
        return embedding.may_show(request, request.look)
    if not isinstance(request.user, User):
        return False
    try:
        member = members.membership_in(user=request.user, slug=slug)
    except access.NotFound:
        return False
    request.tenant, request.role, request.by_link = member.tenant, Role(member.role), None
    request.look, request.return_url = look_of(member.tenant), ""
    request.actor = actor_of(request, request.user)
    return True


def _support_of(request: HttpRequest, slug: str) -> SupportSession | None:
    """Never in a frame: that has cookies of its own."""
    session_ids = request.session.get(support.SESSION_KEY, [])
    if not session_ids or not isinstance(request.user, User) or embedding.is_embedded(request):
        return None
    return support.session_in(user=request.user, slug=slug, session_ids=session_ids, now=timezone.now())


def actor_of(request: HttpRequest, user: User) -> Actor:
    request_id = getattr(request, "request_id", "")
    return Actor(
        "person", ids.to_text(ids.USER, user.id), user.email, remote_ip_of(request) or None, request_id
    )


# --- pages of a person's own account ----------------------------------------------------------------------------------

PersonView = Callable[Concatenate[PersonRequest, Parameters], HttpResponseBase]


def person_page(
    methods: Sequence[str] = ("GET", "HEAD"),
) -> Callable[[PersonView[Parameters]], Callable[..., HttpResponseBase]]:
    """A page about the own account: for whoever is signed in to one, not for who came by a link."""

    def decorate(view: PersonView[Parameters]) -> Callable[..., HttpResponseBase]:
        @require_http_methods(list(methods))
        @wraps(view)
        def page(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
            if not isinstance(request.user, User):
                return to_sign_in(request)
            person = cast(PersonRequest, request)
            person.actor = actor_of(request, request.user)
            response = cast(Callable[..., HttpResponseBase], view)(person, **kwargs)
            return for_one_person(response)

        return page

    return decorate


def _remember_look(request: PortalRequest, slug: str) -> None:
    """Whose frame it was, so that it can show that it is over."""
    link = portal_links.link_that_was(_link_ids(request), slug=slug)
    if link is not None:
        request.look = look_of(link.tenant)


def links_of(request: HttpRequest) -> list[PortalLink]:
    """Whose sessions last in this browser."""
    return portal_links.sessions_of(_link_ids(request))


def _link_ids(request: HttpRequest) -> list[UUID]:
    return [UUID(hex=each) for each in request.session.get(LINKS, [])]


def remember_link(request: HttpRequest, link: PortalLink) -> None:
    """A session of that tenant and role, beside whatever else this browser is signed in to, under a new session key."""
    request.session.cycle_key()
    request.session[LINKS] = [*request.session.get(LINKS, []), link.id.hex][-MOST_LINKS:]
    if request.user.is_anonymous:
        # A frame's lasts longer than what it opens, to say whose it was.
        more = timedelta(days=7) if embedding.is_embedded(request) else timedelta()
        request.session.set_expiry(portal_links.SESSION + more)


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """And back to this page; a part of a page, and a POST, cannot be come back to."""
    sign_in = resolve_url("portal-sign-in")
    if getattr(request, "htmx", False):
        return HttpResponseClientRedirect(sign_in)
    if request.method in READING:
        return redirect(f"{sign_in}?{urlencode({'next': request.get_full_path()})}")
    return redirect(sign_in)
