"""Getting in and out: sign-in, sign-out, one-time links, and the choice of a tenant."""

import time
from typing import Any, Final

from django import forms
from django.conf import settings
from django.contrib import auth, messages
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from tenants import counting
from tenants.addresses import remote_ip_of
from tenants.counting import TooManyInvitations, TooManySignIns
from tenants.models import Member, PortalLink, User
from tenants.portal import embedding
from tenants.portal.entry import for_one_person, links_of, remember_link, to_sign_in
from tenants.portal.lists import posted
from tenants.services import accounts, members, portal_links, two_factor
from tenants.services.portal_links import LinkNotUsable
from tenants.services.portal_looks import look_of
from tenants.services.two_factor import WrongCode

HALF_SIGNED_IN: Final = "half_signed_in"
"""Key of the browser's session: whose password was right, and when."""

HALF_SECONDS: Final = 300
"""How long the second step may take."""


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
            counting.check_sign_in(email=email, remote_ip=remote_ip)
        except TooManySignIns as error:
            # The password is not looked at.
            form = SignInForm(request, initial={"username": email[:254]})
            response = _sign_in_page(request, form, 429, wait_text(error))
            response["Retry-After"] = str(error.retry_after_seconds)
            return response
        if form.is_valid():
            counting.forget_sign_ins(email=email, remote_ip=remote_ip)
            user = form.get_user()
            assert isinstance(user, User)
            if two_factor.is_on(user):
                request.session[HALF_SIGNED_IN] = [user.id.hex, int(time.time()), _next(request)]
                return redirect("portal-sign-in-code")
            return let_in(request, user, _next(request))
        status = 422
    return _sign_in_page(request, form, status)


def wait_text(error: TooManySignIns | TooManyInvitations) -> str:
    minutes = -(-error.retry_after_seconds // 60)
    return ngettext(
        "Too many attempts. Try again in a minute.",
        "Too many attempts. Try again in %(minutes)d minutes.",
        minutes,
    ) % {"minutes": minutes}


def let_in(request: HttpRequest, user: User, wanted: str) -> HttpResponse:
    """Everything was right: a session under a new key."""
    request.session.pop(HALF_SIGNED_IN, None)
    auth.login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    # One that a link made shorter.
    request.session.set_expiry(None)
    response = redirect(wanted)
    if user.language:
        remember_language(response, user.language)
    return response


class CodeForm(forms.Form):
    code = forms.CharField(
        label=gettext_lazy("Code"),
        max_length=40,
        help_text=gettext_lazy("The six digits of your authenticator app, or one of your recovery codes."),
        widget=forms.TextInput(
            attrs={"autofocus": True, "autocomplete": "one-time-code", "inputmode": "text"}
        ),
    )


@sensitive_post_parameters("code")
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in_code(request: HttpRequest) -> HttpResponse:
    """The second step, for accounts that have one."""
    user, wanted = _half_signed_in(request)
    if user is None:
        return redirect("portal-sign-in")
    form = CodeForm(posted(request))
    status = 200
    if request.method == "POST":
        status = 422
        try:
            counting.check_tries(
                "second-factor", account=user.email, remote_ip=remote_ip_of(request), per_account=10
            )
            if form.is_valid():
                two_factor.check(user=user, code=form.cleaned_data["code"], now=time.time())
                return let_in(request, user, wanted)
        except TooManySignIns as error:
            form, status = CodeForm(data={"code": ""}), 429
            form.errors.clear()
            form.add_error(None, wait_text(error))
        except WrongCode:
            form.add_error("code", _("This code is wrong, or was used before."))
    return for_one_person(render(request, "portal/sign_in_code.html", {"form": form}, status=status))


def _half_signed_in(request: HttpRequest) -> tuple[User | None, str]:
    """Whose password was right within the last minutes, and where the person wanted to go."""
    user_id, at, wanted = request.session.get(HALF_SIGNED_IN, ("", 0, ""))
    if time.time() - at > HALF_SECONDS:
        return None, ""
    return User.objects.filter(id=user_id, is_active=True).first(), wanted


@require_POST
def language(request: HttpRequest) -> HttpResponse:
    """Of this browser, and of the account that is signed in."""
    chosen = request.POST.get("language", "")
    response = redirect(_next(request))
    if chosen in dict(settings.LANGUAGES):
        remember_language(response, chosen)
        if isinstance(request.user, User):
            accounts.choose_language(user=request.user, language=chosen)
    return response


def remember_language(response: HttpResponse, chosen: str) -> None:
    response.set_cookie(
        settings.LANGUAGE_COOKIE_NAME,
        chosen,
        max_age=365 * 86_400,
        secure=settings.LANGUAGE_COOKIE_SECURE,
        httponly=settings.LANGUAGE_COOKIE_HTTPONLY,
        samesite="Lax",
    )


def _sign_in_page(request: HttpRequest, form: SignInForm, status: int, refusal: str = "") -> HttpResponse:
    context: dict[str, Any] = {"form": form, "next": request.POST.get("next") or request.GET.get("next", "")}
    return for_one_person(
        render(request, "portal/sign_in.html", context | {"refusal": refusal}, status=status)
    )


def _next(request: HttpRequest) -> str:
    wanted = request.POST.get("next") or request.GET.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(
        wanted, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    # A path: of what has no slash, `redirect` takes the name of a page.
    return wanted if is_ours and wanted.startswith("/") else "portal-home"


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
    return for_one_person(render(request, "portal/home.html", {"entries": entries}))


@require_http_methods(["GET", "HEAD", "POST"])
def enter(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows where the link leads; the button uses it up, so that looking (mail scanners do) costs nothing."""
    try:
        link = portal_links.find_link(token)
        _show_look(request, link)
        if request.method != "POST":
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
    embedding.allow_frame(request, response)
    return for_one_person(response)


def _show_look(request: HttpRequest, link: PortalLink) -> None:
    """The tenant's own, and in a frame only where the tenant wants one. Raises LinkNotUsable."""
    look = look_of(link.tenant)
    if not embedding.may_show(request, look):
        raise LinkNotUsable
    request.look = look  # type: ignore[attr-defined] # added by us
