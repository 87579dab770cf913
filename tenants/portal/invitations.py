"""The page that an invitation's e-mail leads to. GET shows it, POST accepts it."""

from typing import Any

from django import forms
from django.contrib import auth, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from tenants import counting
from tenants.addresses import remote_ip_of
from tenants.counting import TooManySignIns
from tenants.models import Invitation, Member, User
from tenants.portal.entry import actor_of, for_one_person
from tenants.portal.lists import posted
from tenants.portal.passwords import NewPasswordForm
from tenants.portal.sessions import wait_text
from tenants.services import invitations
from tenants.services.invitations import InvitationNotUsable, WrongAccount


class NewAccountForm(NewPasswordForm):
    """For somebody without an account. The address is the invitation's."""

    name = forms.CharField(
        label=gettext_lazy("Your name"),
        max_length=150,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "name", "autofocus": True}),
    )
    field_order = ["name", "password"]


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def accept(request: HttpRequest, token: str) -> HttpResponse:
    try:
        counting.check_tries("invitation", account=token[:43], remote_ip=remote_ip_of(request))
        invitation = invitations.find(token)
        response = _accept(request, invitation, token)
    except (InvitationNotUsable, WrongAccount):
        response = render(request, "portal/link_refused.html", status=404)
    except TooManySignIns as error:
        context = {"title": _("Too many attempts"), "text": wait_text(error), "status": 429}
        response = render(request, "portal/error.html", context, status=429)
    # The address is the secret: no page that it leads to is told it.
    response["Referrer-Policy"] = "no-referrer"
    return for_one_person(response)


def _accept(request: HttpRequest, invitation: Invitation, token: str) -> HttpResponse:
    context: dict[str, Any] = {
        "invitation": invitation,
        "role": Member.Role(invitation.role).label,
        "token": token,
    }
    if isinstance(request.user, User):
        if request.user.email != invitation.email:
            return render(request, "portal/invitation.html", context | {"is_other": True})
        if request.method != "POST":
            return render(request, "portal/invitation.html", context)
        invitations.accept_as(actor=actor_of(request, request.user), invitation=invitation, user=request.user)
        return _welcome(request, invitation)
    if invitations.has_account(invitation):
        return render(request, "portal/invitation.html", context | {"must_sign_in": True})
    return _accept_as_new(request, invitation, context)


def _accept_as_new(request: HttpRequest, invitation: Invitation, context: dict[str, Any]) -> HttpResponse:
    form = NewAccountForm(posted(request), user=User(email=invitation.email))
    if request.method != "POST" or not form.is_valid():
        status = 422 if form.is_bound else 200
        return render(request, "portal/invitation.html", context | {"form": form}, status=status)
    user = invitations.accept_as_new(
        invitation=invitation,
        name=form.cleaned_data["name"],
        password=form.cleaned_data["password"],
        language=get_language() or "en",
        remote_ip=remote_ip_of(request) or None,
        request_id=getattr(request, "request_id", ""),
    )
    auth.login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    request.session.set_expiry(None)
    return _welcome(request, invitation)


def _welcome(request: HttpRequest, invitation: Invitation) -> HttpResponse:
    text = _("Welcome to %(tenant)s. You are %(role)s here.")
    role = Member.Role(invitation.role).label
    messages.success(request, text % {"tenant": invitation.tenant.name, "role": role})
    return redirect("portal-overview", tenant=invitation.tenant.slug)
