"""One subscription in the portal: its pattern, filter and transformation, tried on an event while they are written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries import validation
from deliveries.models import Endpoint, Event, Subscription
from deliveries.pipeline.json_bytes import check_data
from deliveries.portal.endpoints import found, to_endpoint, too_many_patterns
from deliveries.services import events, subscriptions, trying
from deliveries.services.subscriptions import SubscriptionLimitReached
from deliveries.texts import readable
from tenants import access, ids
from tenants.json_strict import MalformedJson
from tenants.models import EventType, Tenant
from tenants.portal.entry import PortalRequest, Role, changes, portal_page
from tenants.portal.words import in_words, refusals
from tenants.services.event_types import catalogue_of
from tenants.validation import InvalidContent

MOST_TYPES: Final = 500
"""Offered while a pattern is typed."""

MOST_SAMPLE: Final = 64 * 1024
"""Characters of an event that is tried."""

EXPRESSION: Final = {"rows": 3, "spellcheck": "false", "autocomplete": "off"}


class SubscriptionForm(forms.Form):
    """What is kept, and beside it an event to try it on, which is not."""

    event_type = forms.CharField(
        label=gettext_lazy("Event type or pattern"),
        max_length=130,
        widget=forms.TextInput(attrs={"list": "event-types", "spellcheck": "false", "autocomplete": "off"}),
        help_text=gettext_lazy("A type, or a pattern such as order.* for everything below it."),
    )
    filter = forms.CharField(
        label=gettext_lazy("Filter"),
        required=False,
        widget=forms.Textarea(
            attrs=EXPRESSION | {"placeholder": 'data.amount > 100 && data.currency == "EUR"'}
        ),
        help_text=gettext_lazy(
            "Only events for which this is true. It sees type, data, channels and occurred_at. Empty: all of them."
        ),
    )
    transformation = forms.CharField(
        label=gettext_lazy("Transformation"),
        required=False,
        widget=forms.Textarea(attrs=EXPRESSION | {"placeholder": '{"order": data.id, "total": data.amount}'}),
        help_text=gettext_lazy("What is sent in place of the event's data. Empty: the data as it is."),
    )
    description = forms.CharField(label=gettext_lazy("Description"), required=False, max_length=2000)

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or {}
        for name, rule in RULES.items():
            text = given.get(name)
            if text:
                try:
                    given[name] = rule(text)
                except InvalidContent as invalid:
                    self.add_refusal(invalid, at=name)
            elif name in given:
                given[name] = None
        return given

    def add_refusal(self, invalid: InvalidContent, *, at: str = "") -> None:
        for error in invalid.errors:
            name = at or error.field
            self.add_error(name if name in self.fields else None, in_words(error.message))


RULES: Final[dict[str, Callable[[object], Any]]] = {
    "event_type": validation.pattern,
    "filter": subscriptions.filter_text,
    "transformation": subscriptions.transformation_text,
}


class SampleForm(forms.Form):
    """The event that it is tried on."""

    sample_type = forms.CharField(
        label=gettext_lazy("Its type"),
        required=False,
        widget=forms.TextInput(attrs={"list": "event-types", "spellcheck": "false", "autocomplete": "off"}),
    )
    sample = forms.CharField(
        label=gettext_lazy("Its data"),
        required=False,
        max_length=MOST_SAMPLE,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 10, "spellcheck": "false", "autocomplete": "off"}),
    )

    def clean_sample(self) -> Any:
        text: str = self.cleaned_data["sample"].strip() or "{}"
        try:
            check_data(text.encode())
        except MalformedJson as error:
            raise forms.ValidationError(in_words(str(error))) from None
        except InvalidContent as invalid:
            raise forms.ValidationError(refusals(invalid)) from None
        return msgspec.json.decode(text)

    def clean_sample_type(self) -> str | None:
        text: str = self.cleaned_data["sample_type"]
        if not text:
            return None
        try:
            return str(validation.event_type_name(text))
        except InvalidContent as invalid:
            raise forms.ValidationError(refusals(invalid)) from None


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def create(request: PortalRequest, endpoint: str) -> HttpResponse:
    row = found(request, endpoint)
    form = SubscriptionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            subscriptions.create_subscription(actor=request.actor, endpoint=row, **form.cleaned_data)
        except REFUSALS as error:
            _show_refusal(form, error)
        else:
            messages.success(request, _("Added. It holds for every event published from now on."))
            return to_endpoint(request, row)
    return _page(request, row, form)


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def edit(request: PortalRequest, endpoint: str, subscription: str) -> HttpResponse:
    row = found(request, endpoint)
    current = subscriptions.get_subscription(endpoint=row, reference=subscription)
    initial = subscriptions.facts(current)
    form = SubscriptionForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        # What the form leaves as it was shown is not sent, so that it does not undo somebody else's change.
        changed = {
            name: value for name, value in form.cleaned_data.items() if (initial[name] or "") != (value or "")
        }
        try:
            subscriptions.update_subscription(
                actor=request.actor, endpoint=row, subscription=current, **changed
            )
        except REFUSALS as error:
            _show_refusal(form, error)
        else:
            messages.success(request, _("Saved. It holds for every event published from now on."))
            return to_endpoint(request, row)
    return _page(request, row, form, current)


@changes()
def delete(request: PortalRequest, endpoint: str, subscription: str) -> HttpResponse:
    row = found(request, endpoint)
    current = subscriptions.get_subscription(endpoint=row, reference=subscription)
    subscriptions.delete_subscription(actor=request.actor, endpoint=row, subscription=current)
    messages.success(request, _("Removed. What was sent because of it stays in the history."))
    return to_endpoint(request, row)


@changes()
def try_out(request: PortalRequest, endpoint: str) -> HttpResponse:
    """Changes nothing, and takes what is typed, so it is a POST. Without htmx: the whole page with the result."""
    row = found(request, endpoint)
    form, sample = SubscriptionForm(request.POST), SampleForm(request.POST)
    tried = _tried(row, form, sample)
    if request.htmx:
        return render(
            request, "portal/endpoints/_tried.html", {"tried": tried, "form": form, "sample": sample}
        )
    reference = request.POST.get("subscription", "")
    current = subscriptions.get_subscription(endpoint=row, reference=reference) if reference else None
    return _page(request, row, form, current, sample=sample, tried=tried)


# --- parts ------------------------------------------------------------------------------------------------------------

REFUSALS: Final = (InvalidContent, SubscriptionLimitReached)


@dataclass(frozen=True, slots=True)
class Tried:
    is_matched: bool
    reason: str
    sent: str | None = None
    """Laid out for people. Hostile text: the template escapes it."""
    error: str | None = None


def _tried(row: Endpoint, form: SubscriptionForm, sample: SampleForm) -> Tried | None:
    """None: something typed is not right yet; the forms say what."""
    if not (form.is_valid() & sample.is_valid()):
        return None
    given, data = form.cleaned_data, sample.cleaned_data["sample"]
    pattern = given["event_type"]
    draft = Subscription(
        endpoint=row, event_type=pattern, filter=given["filter"], transformation=given["transformation"]
    )
    # By itself: what the endpoint's other settings say is told on its page.
    alone = Endpoint(status=Endpoint.Status.ENABLED)
    verdict = trying.judge(
        endpoint=alone,
        subscriptions=[draft],
        event_type=sample.cleaned_data["sample_type"] or _example_type(pattern),
        data=data,
        channels=[],
        occurred_at=timezone.now(),
    )
    sent = verdict.transformed
    if verdict.is_matched and sent is None and verdict.transformation_error is None:
        sent = msgspec.json.encode(data)
    return Tried(
        verdict.is_matched,
        in_words(verdict.reason),
        None if sent is None else readable(msgspec.json.format(sent, indent=2))[:MOST_SAMPLE],
        None if verdict.transformation_error is None else in_words(verdict.transformation_error),
    )


def _example_type(pattern: str) -> str:
    """Some type that the pattern matches."""
    return pattern.replace("*", "example")


def _page(
    request: PortalRequest,
    row: Endpoint,
    form: SubscriptionForm,
    current: Subscription | None = None,
    *,
    sample: SampleForm | None = None,
    tried: Tried | None = None,
) -> HttpResponse:
    types = list(catalogue_of(request.tenant).filter(archived_at__isnull=True).order_by("name")[:MOST_TYPES])
    context = {
        "endpoint": row,
        "form": form,
        "subscription": current,
        "sample": sample
        or SampleForm(initial=_sample(request.tenant, current, types, request.GET.get("event"))),
        "tried": tried,
        "types": types,
    }
    is_wrong = form.is_bound and not form.is_valid()
    return render(request, "portal/endpoints/subscription.html", context, status=422 if is_wrong else 200)


def _sample(
    tenant: Tenant, current: Subscription | None, types: list[EventType], wanted: str | None
) -> dict[str, str]:
    """The event of the URL, the latest one that the pattern matches, or an example from the catalogue."""
    pattern = "*" if current is None else current.event_type
    event = _event(tenant, pattern, wanted)
    if event is not None and event.data is not None:
        text = readable(msgspec.json.format(bytes(event.data), indent=2))
        if len(text) <= MOST_SAMPLE:
            return {"sample_type": event.type, "sample": text}
    for each in types:
        if each.example is not None and validation.pattern_matches(pattern, each.name):
            text = msgspec.json.format(msgspec.json.encode(each.example), indent=2).decode()
            return {"sample_type": each.name, "sample": text}
    return {"sample_type": "", "sample": "{}"}


def _event(tenant: Tenant, pattern: str, wanted: str | None) -> Event | None:
    if wanted:
        try:
            return events.get_event(tenant=tenant, reference=wanted, with_data=True)
        except access.NotFound:
            return None
    if validation.is_wildcard(pattern):
        newest = events.find_events(tenant).order_by("-id")[:MOST_LOOKED_AT]
        row = next((each for each in newest if validation.pattern_matches(pattern, each.type)), None)
    else:
        row = events.find_events(tenant, type=pattern).order_by("-id").first()
    if row is None:
        return None
    return events.get_event(tenant=tenant, reference=ids.to_text(ids.EVENT, row.id), with_data=True)


MOST_LOOKED_AT: Final = 50
"""Of the newest events, for one that a wildcard matches."""


def _show_refusal(form: SubscriptionForm, error: InvalidContent | SubscriptionLimitReached) -> None:
    match error:
        case InvalidContent():
            form.add_refusal(error)
        case SubscriptionLimitReached():
            form.add_error(None, too_many_patterns(error))
