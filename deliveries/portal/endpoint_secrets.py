"""The secret of an endpoint in the portal: how to verify with it, itself on request, and its rotation."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries.models import Endpoint
from deliveries.portal.endpoints import found
from deliveries.portal.verifying import snippets
from deliveries.services import secrets
from deliveries.services.secrets import DEFAULT_OVERLAP, MAX_LIVE, SecretLimitReached, Shown
from tenants import ids
from tenants.portal.entry import PortalRequest, Role, changes, portal_page


class RotateForm(forms.Form):
    overlap = forms.TypedChoiceField(
        label=gettext_lazy("The old one goes on signing"),
        coerce=lambda text: timedelta(seconds=int(text)),
        choices=[
            (3600, gettext_lazy("for an hour")),
            (86_400, gettext_lazy("for a day")),
            (604_800, gettext_lazy("for a week")),
            (0, gettext_lazy("not at all: it leaked")),
        ],
        initial=int(DEFAULT_OVERLAP.total_seconds()),
        help_text=gettext_lazy(
            "While both sign, requests carry two signatures, and a receiver that knows either accepts them."
        ),
    )


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def secret(request: PortalRequest, endpoint: str) -> HttpResponse:
    """By GET how to verify; by POST with the secret in it: each reading is in the audit log."""
    row = found(request, endpoint)
    if request.method != "POST":
        return _page(request, row)
    shown = secrets.read_secret(actor=request.actor, endpoint=row)
    if request.htmx:
        return render(request, "portal/endpoints/_secret.html", _shown(row, shown))
    return _page(request, row, shown=shown)


@changes()
def rotate(request: PortalRequest, endpoint: str) -> HttpResponse:
    row = found(request, endpoint)
    form = RotateForm(request.POST)
    if not form.is_valid():
        return _page(request, row, form=form)
    overlap = form.cleaned_data["overlap"]
    try:
        secrets.rotate_secret(actor=request.actor, endpoint=row, overlap=overlap)
    except SecretLimitReached:
        limit = _("%(number)d secrets are live. Wait until the overlap of one ends, or let none overlap.")
        form.add_error("overlap", limit % {"number": MAX_LIVE})
        return _page(request, row, form=form)
    if overlap:
        messages.success(
            request, _("There is a new secret. Put it into your receiver before the old one ends.")
        )
    else:
        messages.success(request, _("There is a new secret, and no other is valid any more."))
    return redirect(
        "portal-endpoint-secret", tenant=request.tenant.slug, endpoint=ids.to_text(ids.ENDPOINT, row.id)
    )


def _page(
    request: PortalRequest, row: Endpoint, *, shown: Shown | None = None, form: RotateForm | None = None
) -> HttpResponse:
    context = _shown(row, shown) | {
        "form": form or RotateForm(),
        "ending": secrets.ending(endpoint=row, now=timezone.now()),
        "is_new": "new" in request.GET,
    }
    status = 422 if form is not None else 200
    return render(request, "portal/endpoints/secret.html", context, status=status)


def _shown(row: Endpoint, shown: Shown | None) -> dict[str, Any]:
    key = None if shown is None else shown.secret or shown.public_key
    return {"endpoint": row, "key": key, "snippets": snippets(row.signature_scheme, key)}
