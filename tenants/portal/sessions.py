"""Getting in and out: sign-in, sign-out, one-time links, and the choice of a tenant."""

from typing import Any

from django import forms
from django.contrib import auth, messages
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import patch_cache_control
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from tenants import access
from tenants.access import TooManySignIns
from tenants.addresses import remote_ip_of
from tenants.models import Member, User
from tenants.portal.entry import links_of, remember_link, to_sign_in
from tenants.services import members, portal_links
from tenants.services.portal_links import LinkNotUsable


class SignInForm(AuthenticationForm):
    """Answers alike for an account that does not exist, one that is not active, and a wrong password."""

    username = forms.EmailField(
        label=gettext_lazy("E-mail address"),
        max_length=254,
        widget=forms.EmailInput(attrs={"autofocus": True, "autocomplete": "username"}),
    )
    error_messages = {
        "invalid_login": gettext_lazy("The e-mail address or the password is wrong."),
        "inactive": gettext_lazy("The e-mail address or the password is wrong."),
    }

    def clean_username(self) -> str:
        return str(self.cleaned_data["username"]).lower()


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect(_next(request))
    form = SignInForm(request)
    status = 200
    if request.method == "POST":
        form = SignInForm(request, data=request.POST)
        email, remote_ip = request.POST.get("username", ""), remote_ip_of(request)
        try:
            access.check_sign_in(email=email, remote_ip=remote_ip)
        except TooManySignIns as error:
            # The password is not looked at.
            minutes = -(-error.retry_after_seconds // 60)
            form = SignInForm(request, initial={"username": email[:254]})
            wait = ngettext(
                "Too many attempts. Try again in a minute.",
                "Too many attempts. Try again in %(minutes)d minutes.",
                minutes,
            ) % {"minutes": minutes}
            response = _sign_in_page(request, form, 429, wait)
            response["Retry-After"] = str(error.retry_after_seconds)
            return response
        if form.is_valid():
            access.forget_sign_ins(email=email, remote_ip=remote_ip)
            auth.login(request, form.get_user())
            # One that a link made shorter.
            request.session.set_expiry(None)
            return redirect(_next(request))
        status = 422
    return _sign_in_page(request, form, status)


def _sign_in_page(request: HttpRequest, form: SignInForm, status: int, refusal: str = "") -> HttpResponse:
    context: dict[str, Any] = {"form": form, "next": request.POST.get("next") or request.GET.get("next", "")}
    return _private(render(request, "portal/sign_in.html", context | {"refusal": refusal}, status=status))


def _next(request: HttpRequest) -> str:
    wanted = request.POST.get("next") or request.GET.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(
        wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return wanted if is_ours else "portal-home"


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """The account and every link of this browser."""
    auth.logout(request)
    messages.success(request, _("You are signed out."))
    return redirect("portal-sign-in")


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The tenants of whoever comes; straight into the only one."""
    links = links_of(request)
    if not isinstance(request.user, User) and not links:
        return to_sign_in(request)
    found = {link.tenant.slug: (link.tenant, Member.Role(link.role).label) for link in reversed(links)}
    if isinstance(request.user, User):
        for member in members.memberships_of(request.user):
            found.setdefault(member.tenant.slug, (member.tenant, Member.Role(member.role).label))
    if len(found) == 1:
        return redirect("portal-overview", tenant=next(iter(found)))
    entries = [{"tenant": tenant, "role": role} for tenant, role in found.values()]
    return _private(render(request, "portal/home.html", {"entries": entries}))


@require_http_methods(["GET", "HEAD", "POST"])
def enter(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows where the link leads; the button uses it up, so that looking (mail scanners do) costs nothing."""
    try:
        if request.method != "POST":
            link = portal_links.find_link(token)
            response = render(
                request, "portal/enter.html", {"link": link, "role": Member.Role(link.role).label}
            )
        else:
            link = portal_links.use_link(
                token=token,
                remote_ip=remote_ip_of(request) or None,
                request_id=getattr(request, "request_id", ""),
            )
            remember_link(request, link)
            response = redirect("portal-overview", tenant=link.tenant.slug)
    except LinkNotUsable:
        response = render(request, "portal/enter_refused.html", status=404)
    # The address is the secret: no page that it leads to is told it.
    response["Referrer-Policy"] = "no-referrer"
    return _private(response)


def _private(response: HttpResponse) -> HttpResponse:
    patch_cache_control(response, private=True, no_store=True)
    return response
