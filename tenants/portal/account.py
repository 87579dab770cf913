"""A person's own account: name, password, second factor."""

import time
from typing import Any

import segno
from django import forms
from django.contrib import auth, messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_post_parameters

from tenants import counting
from tenants.addresses import remote_ip_of
from tenants.counting import TooManySignIns
from tenants.portal.entry import PersonRequest, person_page
from tenants.portal.lists import posted
from tenants.portal.passwords import NewPasswordForm
from tenants.portal.sessions import CodeForm, wait_text
from tenants.services import accounts, two_factor
from tenants.services.two_factor import WrongCode


class NameForm(forms.Form):
    name = forms.CharField(
        label=gettext_lazy("Your name"),
        max_length=150,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )


class ChangePasswordForm(NewPasswordForm):
    old = forms.CharField(
        label=gettext_lazy("Present password"),
        max_length=256,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    field_order = ["old", "password"]

    def clean_old(self) -> str:
        old: str = self.cleaned_data["old"]
        if not self.user.check_password(old):
            raise forms.ValidationError(_("This is not your present password."))
        return old


@person_page(methods=("GET", "HEAD", "POST"))
def account(request: PersonRequest) -> HttpResponse:
    form = NameForm(posted(request), initial={"name": request.user.name})
    if request.method == "POST" and form.is_valid():
        accounts.change_account(user=request.user, name=form.cleaned_data["name"])
        messages.success(request, _("Saved."))
        return redirect("portal-account")
    context = {
        "form": form,
        "has_second_factor": two_factor.is_on(request.user),
        "codes_left": two_factor.recovery_codes_left(request.user),
    }
    return render(request, "portal/account/account.html", context, status=422 if form.is_bound else 200)


@sensitive_post_parameters("old", "password")
@person_page(methods=("GET", "HEAD", "POST"))
def password(request: PersonRequest) -> HttpResponse:
    form = ChangePasswordForm(posted(request), user=request.user)
    if request.method == "POST":
        try:
            counting.check_sign_in(email=request.user.email, remote_ip=remote_ip_of(request))
        except TooManySignIns as error:
            messages.error(request, wait_text(error))
            return redirect("portal-account")
        if form.is_valid():
            new = form.cleaned_data["password"]
            accounts.set_password(actor=request.actor, user=request.user, password=new)
            # Other sessions of the account are over; this one goes on, under a new key.
            auth.update_session_auth_hash(request, request.user)
            messages.success(request, _("The new password is set. Everywhere else you are signed out."))
            return redirect("portal-account")
    return render(
        request, "portal/account/password.html", {"form": form}, status=422 if form.is_bound else 200
    )


@sensitive_post_parameters("code")
@person_page(methods=("GET", "HEAD", "POST"))
def second_factor(request: PersonRequest) -> HttpResponse:
    """Turned on by a first code, so that nobody locks oneself out with an app that did not take the secret."""
    if two_factor.is_on(request.user):
        return redirect("portal-account")
    form = CodeForm(posted(request))
    if request.method == "POST" and form.is_valid() and not _is_too_often(request, form):
        try:
            codes = two_factor.confirm(
                actor=request.actor, user=request.user, code=form.cleaned_data["code"], now=time.time()
            )
        except WrongCode:
            form.add_error("code", _("This code is wrong. Is the clock of your device right?"))
        else:
            return render(request, "portal/account/recovery_codes.html", {"codes": codes})
    secret = two_factor.begin(request.user)
    picture = segno.make(two_factor.address_for_app(request.user, secret), error="m")
    context: dict[str, Any] = {
        "form": form,
        "secret": " ".join(secret[start : start + 4] for start in range(0, len(secret), 4)),
        "picture": picture.svg_data_uri(scale=5, border=3, dark="#000", light="#fff"),
    }
    status = 422 if form.is_bound else 200
    return render(request, "portal/account/second_factor.html", context, status=status)


@sensitive_post_parameters("code")
@person_page(methods=("GET", "HEAD", "POST"))
def second_factor_off(request: PersonRequest) -> HttpResponse:
    if not two_factor.is_on(request.user):
        return redirect("portal-account")
    form = CodeForm(posted(request))
    if request.method == "POST" and form.is_valid() and not _is_too_often(request, form):
        try:
            two_factor.check(user=request.user, code=form.cleaned_data["code"], now=time.time())
        except WrongCode:
            form.add_error("code", _("This code is wrong, or was used before."))
        else:
            two_factor.turn_off(actor=request.actor, user=request.user)
            messages.success(request, _("Signing in takes the password alone from now on."))
            return redirect("portal-account")
    status = 422 if form.is_bound else 200
    return render(request, "portal/account/second_factor_off.html", {"form": form}, status=status)


def _is_too_often(request: PersonRequest, form: CodeForm) -> bool:
    try:
        counting.check_tries(
            "second-factor", account=request.user.email, remote_ip=remote_ip_of(request), per_account=10
        )
    except TooManySignIns as error:
        form.add_error(None, wait_text(error))
        return True
    return False
