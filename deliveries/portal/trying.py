"""A test event from the portal: pick a type, edit the example, send, and watch the attempt arrive."""

from typing import Any, Final

import msgspec
from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries.pipeline.ingest import DatabaseUnavailable, Refusal, Refused
from deliveries.pipeline.json_bytes import check_data
from deliveries.portal.endpoints import found, to_endpoint
from deliveries.recorded import said_again
from deliveries.services import trying
from deliveries.services.trying import TEST_TYPE, EndpointDisabled, TestRefused
from tenants import ids
from tenants.json_strict import MalformedJson
from tenants.models import EventType
from tenants.portal import errors
from tenants.portal.entry import PortalRequest, Role, portal_page
from tenants.portal.words import in_words, refusals
from tenants.services.event_types import catalogue_of
from tenants.validation import InvalidContent

MOST_TYPES: Final = 500
"""Offered to choose from."""


class TestForm(forms.Form):
    event_type = forms.ChoiceField(label=gettext_lazy("Event type"))
    payload = forms.CharField(
        label=gettext_lazy("Payload"),
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 12, "spellcheck": "false", "autocomplete": "off"}),
        help_text=gettext_lazy(
            "A JSON object, sent as it stands here. Empty: the example of the event type."
        ),
    )

    def __init__(self, *args: Any, types: list[EventType], **options: Any) -> None:
        super().__init__(*args, **options)
        names = [(each.name, each.name) for each in types]
        self.fields["event_type"] = forms.ChoiceField(
            label=gettext_lazy("Event type"),
            choices=[(TEST_TYPE, TEST_TYPE), *names],
            help_text=gettext_lazy("With its example to begin from, if it has one."),
            # Another type brings its example.
            widget=forms.Select(
                attrs={
                    "hx-get": "",
                    "hx-trigger": "change",
                    "hx-target": "#id_payload",
                    "hx-select": "#id_payload",
                    "hx-swap": "outerHTML",
                }
            ),
        )

    def clean_payload(self) -> bytes | None:
        text: str = self.cleaned_data["payload"]
        if not text.strip():
            return None
        data = text.strip().encode()
        try:
            check_data(data)
        except MalformedJson as error:
            raise forms.ValidationError(in_words(str(error))) from None
        except InvalidContent as invalid:
            raise forms.ValidationError(refusals(invalid)) from None
        return data


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def send_test(request: PortalRequest, endpoint: str) -> HttpResponse:
    row = found(request, endpoint)
    if row.status != "enabled":
        messages.error(request, _("The endpoint is disabled. Enable it first."))
        return to_endpoint(request, row)
    types = list(catalogue_of(request.tenant).filter(archived_at__isnull=True).order_by("name")[:MOST_TYPES])
    if request.method == "POST":
        form = TestForm(request.POST, types=types)
        if form.is_valid():
            wanted = form.cleaned_data["event_type"]
            try:
                delivery = trying.send_test(
                    actor=request.actor,
                    endpoint=row,
                    event_type=None if wanted == TEST_TYPE else wanted,
                    data=form.cleaned_data["payload"],
                )
            except EndpointDisabled:
                messages.error(request, _("The endpoint is disabled. Enable it first."))
                return to_endpoint(request, row)
            except TestRefused as error:
                for name, message in refusals_of(error.refused):
                    form.add_error(name, message)
            except InvalidContent as invalid:
                form.add_error("event_type", refusals(invalid))
            except DatabaseUnavailable:
                return errors.unavailable(request)
            else:
                delivery_id = ids.to_text(ids.DELIVERY, delivery.id)
                return redirect("portal-delivery", tenant=request.tenant.slug, delivery=delivery_id)
    else:
        form = TestForm(types=types, initial=_initial(request, types))
    status = 422 if form.is_bound else 200
    context = {"form": form, "endpoint": row}
    return render(request, "portal/endpoints/test.html", context, status=status)


def _initial(request: PortalRequest, types: list[EventType]) -> dict[str, str]:
    """By the URL's event type, with its example laid out to be edited."""
    wanted = request.GET.get("event_type", TEST_TYPE)
    example = next((each.example for each in types if each.name == wanted), None)
    data = "" if example is None else msgspec.json.format(msgspec.json.encode(example), indent=2).decode()
    return {"event_type": wanted, "payload": data}


def refusals_of(refused: Refused) -> list[tuple[str | None, str]]:
    """What publishing refuses, beside the field."""
    if refused.errors:
        return [("payload", f"{field}: {in_words(said_again(message))}") for field, message in refused.errors]
    match refused.reason:
        case Refusal.TENANT_SUSPENDED:
            return [(None, _("This tenant is suspended: it sends nothing until it is resumed."))]
        case Refusal.TENANT_RATE_LIMITED:
            return [(None, _("The tenant's events per second are used up. Try again in a moment."))]
        case Refusal.PAYLOAD_TOO_LARGE:
            return [("payload", _("At most %(limit)d bytes.") % {"limit": int(refused.limit or 0)})]
        case _:
            return [(None, _("The event was refused: %(reason)s.") % {"reason": refused.reason.value})]
