"""A forgotten password: ask for a link by e-mail, and choose a new one on the page that it leads to."""

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth import password_validation
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from tenants import counting
from tenants.addresses import remote_ip_of
from tenants.counting import TooManySignIns
from tenants.models import User
from tenants.portal.entry import actor_of, for_one_person
from tenants.portal.lists import posted
from tenants.portal.sessions import wait_text
from tenants.services import accounts
from tenants.services.accounts import LinkNotUsable

NEW_PASSWORD = {"autocomplete": "new-password"}


class AddressForm(forms.Form):
    email = forms.EmailField(
        label=gettext_lazy("E-mail address"),
        max_length=254,
        widget=forms.EmailInput(attrs={"autofocus": True, "autocomplete": "username"}),
    )


class NewPasswordForm(forms.Form):
    password = forms.CharField(
        label=gettext_lazy("New password"),
        max_length=256,
        strip=False,
        widget=forms.PasswordInput(attrs=NEW_PASSWORD),
        help_text=gettext_lazy("At least ten characters; not a common one, and not like your address."),
    )

    def __init__(self, *args: Any, user: User, **options: Any) -> None:
        self.user = user
        super().__init__(*args, **options)

    def clean_password(self) -> str:
        return checked_password(self.cleaned_data["password"], self.user)


def checked_password(password: str, user: User) -> str:
    """Raises ValidationError."""
    password_validation.validate_password(password, user)
    if "\x00" in password:
        raise ValidationError(_("A password cannot have this character."))
    return password


@require_http_methods(["GET", "HEAD", "POST"])
def forgotten(request: HttpRequest) -> HttpResponse:
    """Says the same whether there is such an account or not, and does the same: a worker looks."""
    form = AddressForm(posted(request))
    if request.method != "POST":
        return _page(request, {"form": form})
    if not form.is_valid():
        return _page(request, {"form": form}, 422)
    email = form.cleaned_data["email"]
    try:
        counting.check_tries("reset", account=email, remote_ip=remote_ip_of(request), per_account=5)
    except TooManySignIns as error:
        response = _page(request, {"form": form, "refusal": wait_text(error)}, 429)
        response["Retry-After"] = str(error.retry_after_seconds)
        return response
    accounts.ask_for_reset(email=email, language=get_language() or "en")
    return _page(request, {"is_sent": True, "email": email})


def _page(request: HttpRequest, context: dict[str, Any], status: int = 200) -> HttpResponse:
    return for_one_person(render(request, "portal/password_forgotten.html", context, status=status))


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def reset(request: HttpRequest, user: str, token: str) -> HttpResponse:
    try:
        person = accounts.user_of_reset(user_text=user, token=token)
    except LinkNotUsable:
        response = render(request, "portal/link_refused.html", status=404)
    else:
        form = NewPasswordForm(posted(request), user=person)
        if request.method == "POST" and form.is_valid():
            accounts.set_password(
                actor=actor_of(request, person), user=person, password=form.cleaned_data["password"]
            )
            messages.success(request, _("The new password is set. Sign in with it."))
            response = redirect("portal-sign-in")
        else:
            status = 422 if form.is_bound else 200
            response = render(
                request, "portal/password_new.html", {"form": form, "person": person}, status=status
            )
    # The address is the secret: no page that it leads to is told it.
    response["Referrer-Policy"] = "no-referrer"
    return for_one_person(response)
