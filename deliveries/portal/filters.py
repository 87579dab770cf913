"""What the lists of events and deliveries can be narrowed by. Filters stand in the URL, so that a list can be sent to a colleague."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries import validation
from deliveries.models import Delivery, Endpoint
from deliveries.portal.names import OUTCOMES
from deliveries.services import endpoint_settings
from tenants import ids
from tenants.ids import InvalidId
from tenants.models import Tenant
from tenants.portal.lists import RuleField, WindowForm
from tenants.validation import Invalid

MOST_CHOICES: Final = 100
"""Endpoints that a filter offers by name. Of more, an id is typed."""

ANY: Final = ("", gettext_lazy("any"))

PERIODS: Final = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}

ID: Final = re.compile(r"(?:evt|dlv|att|ep|job)_[0-9a-z]{26}")
"""What somebody who pastes an id into the search box wants to see, and what no search in payloads is for."""


def id_of(prefix: str) -> Any:
    def rule(value: object) -> Any:
        try:
            return ids.from_text(prefix, str(value))
        except InvalidId:
            raise Invalid(
                "invalid_id", _("Must be an id that begins with %(prefix)s_.") % {"prefix": prefix}
            ) from None

    return rule


def endpoint_reference(value: object) -> str:
    text = str(value)
    if text.startswith(f"{ids.ENDPOINT}_"):
        id_of(ids.ENDPOINT)(text)
    elif not endpoint_settings.is_uid(text):
        raise Invalid("invalid_id", _("Must be the id of an endpoint."))
    return text


class PeriodForm(WindowForm):
    """The last hour or day, or from one time to another. Times that are given go before a period."""

    within = forms.ChoiceField(
        label=gettext_lazy("Period"),
        required=False,
        choices=[
            ("", gettext_lazy("any, or as below")),
            ("1h", gettext_lazy("last hour")),
            ("24h", gettext_lazy("last 24 hours")),
            ("7d", gettext_lazy("last 7 days")),
            ("30d", gettext_lazy("last 30 days")),
        ],
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        period = cleaned.pop("within", "")
        if period and cleaned.get("since") is None:
            cleaned["since"] = timezone.now() - PERIODS[period]
        return cleaned


class SearchForm(PeriodForm):
    q = forms.CharField(
        label=gettext_lazy("Search"),
        required=False,
        max_length=200,
        widget=forms.TextInput(
            attrs={
                "type": "search",
                "placeholder": gettext_lazy("An id, or text in the payload"),
                "autocomplete": "off",
            }
        ),
    )

    @property
    def wanted_id(self) -> str | None:
        text: str = self.cleaned_data.get("q", "")
        return text if ID.fullmatch(text) else None

    @property
    def narrowing(self) -> list[forms.BoundField]:
        """Everything but the search box, which stands apart."""
        return [field for field in self if field.name != "q"]

    @property
    def is_narrowing(self) -> bool:
        return any(self.data.get(name) for name in self.fields if name != "q")


class EventFilter(SearchForm):
    type = RuleField(validation.event_type_name, label=gettext_lazy("Event type"))
    channel = RuleField(validation.channel, label=gettext_lazy("Channel"))

    field_order = ["q", "type", "channel", "within", "since", "until"]


class DeliveryFilter(SearchForm):
    status = forms.ChoiceField(
        label=gettext_lazy("Status"), required=False, choices=[ANY, *Delivery.Status.choices]
    )
    outcome = forms.ChoiceField(
        label=gettext_lazy("Last outcome"),
        required=False,
        choices=[ANY, *OUTCOMES.items()],
    )
    event_type = RuleField(validation.event_type_name, label=gettext_lazy("Event type"))
    endpoint = RuleField(endpoint_reference, label=gettext_lazy("Endpoint"), help_text="ep_…")
    event = RuleField(id_of(ids.EVENT), label=gettext_lazy("Event"), help_text="evt_…")

    field_order = ["q", "status", "outcome", "event_type", "endpoint", "event", "within", "since", "until"]

    def offer(self, rows: Sequence[Endpoint]) -> None:
        """Name the tenant's endpoints to choose from, and whichever the URL names beside."""
        if len(rows) > MOST_CHOICES:
            return
        choices = [(ids.to_text(ids.ENDPOINT, row.id), name_of(row)) for row in rows]
        given = self.data.get("endpoint", "")
        if given and given not in dict(choices):
            choices.append((given, given))
        self.fields["endpoint"].widget = forms.Select(choices=[ANY, *choices])
        self.fields["endpoint"].help_text = ""


def name_of(endpoint: Endpoint) -> str:
    """In one line."""
    url = validation.mask_url(endpoint.url).partition("://")[2]
    text = f"{endpoint.description} · {url}" if endpoint.description else url
    return text if len(text) <= 80 else f"{text[:79]}…"


def choices_of(tenant: Tenant) -> list[Endpoint]:
    """One query; one more than is offered tells that there are more."""
    rows = Endpoint.objects.for_tenant(tenant).filter(deleted_at__isnull=True)
    return list(rows.order_by("id")[: MOST_CHOICES + 1])
