"""API keys: listed, made and shown once, revoked. For admins, who hold every scope."""

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants import access, ids, validation
from tenants.models import ApiKey
from tenants.portal.entry import PortalRequest, Role, changes, portal_page
from tenants.portal.lists import RuleField, TimeField, page_of, posted
from tenants.services import keys

Scope = ApiKey.Scope

SCOPES = [
    (Scope.EVENTS_WRITE, gettext_lazy("publish events")),
    (Scope.EVENTS_READ, gettext_lazy("read events and their payloads")),
    (Scope.ENDPOINTS_READ, gettext_lazy("see endpoints")),
    (Scope.ENDPOINTS_WRITE, gettext_lazy("add, change and delete endpoints, and read their secrets")),
    (Scope.CATALOGUE_READ, gettext_lazy("see event types")),
    (Scope.CATALOGUE_WRITE, gettext_lazy("add, change and delete event types")),
    (Scope.DELIVERIES_READ, gettext_lazy("see deliveries and attempts")),
    (Scope.DELIVERIES_WRITE, gettext_lazy("retry, cancel, recover and replay")),
    (Scope.KEYS_WRITE, gettext_lazy("make and revoke keys like this one")),
    (Scope.PORTAL_WRITE, gettext_lazy("make links that open this portal")),
]
assert {scope for scope, _text in SCOPES} == set(Scope)

USUAL = [Scope.EVENTS_WRITE.value, Scope.EVENTS_READ.value]


class KeyForm(forms.Form):
    name = RuleField(
        validation.name,
        label=gettext_lazy("Name"),
        required=True,
        max_length=200,
        help_text=gettext_lazy("Who or what uses it: each of them gets a key of its own."),
    )
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("What it may do"),
        choices=[(scope.value, text) for scope, text in SCOPES],
        initial=USUAL,
        error_messages={"required": gettext_lazy("Choose at least one.")},
    )
    expires_at = TimeField(
        label=gettext_lazy("Ends (UTC)"), help_text=gettext_lazy("Empty: when you revoke it.")
    )
    rate_limit = forms.IntegerField(
        label=gettext_lazy("Requests per minute"),
        required=False,
        min_value=1,
        max_value=1_000_000,
        help_text=gettext_lazy("Empty: what the platform allows."),
    )

    def clean_expires_at(self) -> datetime | None:
        at: datetime | None = self.cleaned_data["expires_at"]
        if at is not None and at <= datetime.now(UTC):
            raise forms.ValidationError(_("Must be in the future."))
        return at

    @property
    def choices(self) -> list[dict[str, Any]]:
        """To be ticked."""
        ticked = self["scopes"].value() or []
        return [{"name": scope.value, "text": text, "is_on": scope.value in ticked} for scope, text in SCOPES]


@portal_page(needs=Role.ADMIN)
def listing(request: PortalRequest) -> HttpResponse:
    rows = ApiKey.objects.filter(tenant=request.tenant, revoked_at__isnull=True)
    context = {"page": page_of(request, rows), "now": datetime.now(UTC)}
    return render(request, "portal/settings/keys.html", context)


@portal_page(needs=Role.ADMIN, methods=("GET", "HEAD", "POST"))
def create(request: PortalRequest) -> HttpResponse:
    """The page that answers is the only one that ever shows the key."""
    form = KeyForm(posted(request))
    if request.method == "POST" and form.is_valid():
        key, text = keys.create_key(
            actor=request.actor, tenant=request.tenant, granted=access.ALL_SCOPES, **form.cleaned_data
        )
        return render(request, "portal/settings/key_made.html", {"key": key, "text": text})
    return render(
        request, "portal/settings/key_new.html", {"form": form}, status=422 if form.is_bound else 200
    )


@changes(needs=Role.ADMIN)
def revoke(request: PortalRequest, key: str) -> HttpResponse:
    keys.revoke_key(actor=request.actor, tenant=request.tenant, key_id=access.id_of(ids.API_KEY, key))
    messages.success(request, _("Revoked. Within five seconds nothing is done with it any more."))
    return redirect("portal-keys", tenant=request.tenant.slug)
