"""The page that asks before an operator's action, and begins it. One page for all of them: `services/bulk.py`."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from deliveries.admin.history import DeliveryFilter
from deliveries.models import BulkAction, Endpoint
from deliveries.services import bulk, hosts
from deliveries.services.bulk import NothingChosen
from deliveries.services.bulk_actions import ACTIONS, Action, Target
from deliveries.services.bulk_selection import (
    MOST_COUNTED,
    count,
    examples_of,
    selection_of_deliveries,
    shown_id,
    trouble_began,
)
from deliveries.services.endpoints import address_of
from tenants.admin.base import Action as Button
from tenants.admin.base import actor_of, may_operate
from tenants.admin.show import act_url, list_url, number, page_url
from tenants.models import DEFAULT_LIMITS, Tenant
from tenants.services import tenants
from tenants.validation import InvalidContent

EXAMPLES: Final = 10
"""Of what is chosen, so many are named on the page that asks."""

MOST_CHOSEN: Final = 500
"""Ids in one address; more are chosen by a filter."""


USUAL_LOOK_BACK: Final = timedelta(days=1)
"""What recover and replay propose for trouble that is over."""

# --- what an action wants to know -------------------------------------------------------------------------------------


class Arguments(forms.Form):
    """Nothing, for most of them."""

    def how(self) -> dict[str, Any]:
        return {}


class Since(Arguments):
    """A day, or as long as the trouble lasts: `_initial`."""

    since = forms.DateTimeField(
        label=gettext_lazy("Since (UTC)"),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        initial=lambda: timezone.now() - USUAL_LOOK_BACK,
    )

    def clean_since(self) -> datetime:
        since: datetime = self.cleaned_data["since"]
        if since >= timezone.now():
            raise forms.ValidationError(_("Must be in the past."))
        return since

    def how(self) -> dict[str, Any]:
        return {"since": self.cleaned_data["since"].astimezone(UTC).isoformat()}


RETENTION: Final = {
    "retention_days": gettext_lazy("Days that history is kept"),
    "payload_retention_days": gettext_lazy("Days that payloads are kept"),
    "attempt_retention_days": gettext_lazy("Days that headers and bodies of attempts are kept"),
}


class Limits(Arguments):
    """One field for each limit there is, for its weight and for what is kept how long.

    Of one tenant the form shows them as they are, and an empty field means the default. Several begin with empty fields,
    which leave each of them as it is: whoever raises one limit of a hundred tenants does not mean to reset the others.
    """

    def __init__(self, *args: Any, of_several: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.of_several = of_several
        for name, default in DEFAULT_LIMITS.items():
            shown = _("none") if default is None else number(default)
            self.fields[name] = forms.FloatField(
                label=name.replace("_", " ").capitalize(),
                required=False,
                help_text=_("Default: %s") % shown,
            )
        self.fields["weight"] = forms.IntegerField(
            label=_("Weight"),
            required=False,
            min_value=1,
            max_value=tenants.MAX_WEIGHT,
            help_text=_("Its share while tenants compete: with 3, up to three times another's. Default: 1"),
        )
        for name, label in RETENTION.items():
            self.fields[name] = forms.IntegerField(label=label, required=False, min_value=1, max_value=365)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        wanted = {name: _whole(value) for name, value in cleaned.items() if name in DEFAULT_LIMITS}
        try:
            tenants.limits(wanted)
        except InvalidContent as invalid:
            for error in invalid.errors:
                self.add_error(error.field if error.field in self.fields else None, error.message)
        return {**cleaned, **wanted}

    def how(self) -> dict[str, Any]:
        """None of a limit removes it, of a time gives its default back."""
        given = {
            name: value
            for name, value in self.cleaned_data.items()
            if value is not None or not self.of_several
        }
        limits = {name: given.pop(name) for name in DEFAULT_LIMITS if name in given}
        return {"limits": limits, **given}


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and value.is_integer() else value


FORMS: Final[dict[str, type[Arguments]]] = {"limits": Limits, "recover": Since, "replay-endpoint": Since}


# --- what it is done to -----------------------------------------------------------------------------------------------


class Chosen:
    """The selection, as the address says it."""

    KEYS: ClassVar = ("ids", "host", "tenant", "endpoint", "status", "outcome", "event_type")

    def __init__(self, action: Action, request: HttpRequest) -> None:
        """Raises Http404 for what no page of ours leads to."""
        data = request.POST if request.method == "POST" else request.GET
        self.fields = [(key, value) for key in self.KEYS for value in data.getlist(key)]
        if ids := data.getlist("ids"):
            keys = dict.fromkeys(str(_uuid(each)) for each in ids[:MOST_CHOSEN])
            self.selection: dict[str, Any] = {"ids": list(keys)}
        elif action.target is Target.ENDPOINT and data.get("host"):
            self.selection = {"host": data["host"].lower()}
        elif action.target is Target.DELIVERY and data.get("tenant"):
            form = DeliveryFilter(data)
            if not form.is_valid() or not form.cleaned_data["status"]:
                raise Http404
            wanted = form.cleaned_data
            self.selection = selection_of_deliveries(
                tenant=wanted["tenant"],
                status=wanted["status"],
                endpoint_id=wanted["endpoint"],
                outcome=wanted["outcome"],
                event_type=wanted["event_type"],
                now=timezone.now(),
            )
        else:
            self.selection = {"ids": []}


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Http404 from None


def name_of(target: Target, row: Any) -> str:
    """For people: a slug or an address says more than an id."""
    if isinstance(row, Tenant):
        return f"{row.slug} ({row.name})"
    if isinstance(row, Endpoint):
        return f"{address_of(row)} ({row.tenant.slug})"
    return shown_id(target, row.pk)


# --- the page ---------------------------------------------------------------------------------------------------------


@require_http_methods(["GET", "HEAD", "POST"])
def act(request: HttpRequest, action: str) -> HttpResponse:
    """GET asks, POST begins. Small actions are done when it answers."""
    if not may_operate(request):
        raise PermissionDenied
    wanted = ACTIONS.get(action)
    if wanted is None:
        raise Http404
    chosen = Chosen(wanted, request)
    form_of = FORMS.get(action, Arguments)
    options: dict[str, Any] = (
        {"of_several": len(chosen.selection.get("ids", [])) != 1} if form_of is Limits else {}
    )
    form = (
        form_of(request.POST, **options)
        if request.method == "POST"
        else form_of(initial=_initial(action, chosen), **options)
    )
    if request.method == "POST" and form.is_valid():
        try:
            row = bulk.begin(actor=actor_of(request), name=action, selection=chosen.selection, how=form.how())
        except NothingChosen:
            messages.error(request, _("There is nothing of this kind to do it to any more."))
            return redirect("admin:index")
        return _after(request, wanted, row)
    return _ask(request, action, wanted, chosen, form)


def act_on_chosen(request: HttpRequest) -> HttpResponse:
    """From a list: the action is one of the form's fields."""
    name = request.GET.get("action", "")
    if not name:
        return redirect("admin:index")
    if name not in ACTIONS:
        raise Http404
    query = request.GET.copy()
    del query["action"]
    if not query.getlist("ids"):
        messages.warning(request, _("Choose at least one row first."))
        return redirect(list_url(ACTIONS[name].target.page))
    response = redirect("admin:act", action=name)
    response["Location"] += f"?{query.urlencode()}"
    return response


def _initial(action: str, chosen: Chosen) -> dict[str, Any]:
    """A time before the trouble began; limits as they are, where one tenant is chosen."""
    if FORMS.get(action) is Since:
        began = trouble_began(ACTIONS[action], chosen.selection)
        return {} if began is None else {"since": min(began, timezone.now() - USUAL_LOOK_BACK)}
    if action == "limits" and len(chosen.selection.get("ids", [])) == 1:
        tenant = Tenant.objects.filter(id=chosen.selection["ids"][0]).first()
        if tenant is not None:
            return {**tenant.limits, **{name: getattr(tenant, name) for name in (*RETENTION, "weight")}}
    return {}


def _ask(request: HttpRequest, name: str, action: Action, chosen: Chosen, form: Arguments) -> HttpResponse:
    total = count(action, chosen.selection)
    examples = examples_of(action, chosen.selection, most=EXAMPLES)
    context = {
        **admin.site.each_context(request),
        "title": action.label,
        "name": name,
        "action": action,
        "form": form,
        "fields": chosen.fields,
        "total": total,
        "shown_total": _("at least %s") % number(total) if total >= MOST_COUNTED else number(total),
        "examples": [(name_of(action.target, row), page_url(action.target.page, row.pk)) for row in examples],
        "more": max(0, total - len(examples)),
        "back": page_url(action.target.page, examples[0].pk) if total == 1 else list_url(action.target.page),
    }
    return TemplateResponse(request, "admin/act.html", context, status=422 if form.errors else 200)


def _after(request: HttpRequest, action: Action, row: BulkAction) -> HttpResponse:
    """One thing: back to it, with what came of it. Several: to the page that tells how far it is."""
    if row.total > 1 or row.status == BulkAction.Status.RUNNING:
        return redirect(page_url("deliveries_bulkaction", row.id))
    if row.refused:
        messages.error(request, _("It could not be done: %s") % row.problems[0][1])
    elif row.done:
        messages.success(request, _("Done."))
    else:
        messages.warning(request, _("There was nothing to do."))
    if "ids" in row.selection:
        return redirect(page_url(action.target.page, row.selection["ids"][0]))
    return redirect(page_url("deliveries_bulkaction", row.id))


# --- everything on one host -------------------------------------------------------------------------------------------


def host_actions(host: str) -> list[Button]:
    """What can be done to all endpoints of a host."""
    return [
        Button(str(ACTIONS[name].label), act_url(name, host=host), is_severe=ACTIONS[name].is_severe)
        for name in ("pause", "continue", "enable", "send-missed", "recover", "drain", "disable")
    ]


def host_counts(host: str) -> str:
    endpoints, tenants_ = hosts.count_of_host(host)
    at_least = _("at least ") if endpoints >= hosts.MOST_COUNTED else ""
    return _("%(at_least)s%(endpoints)s endpoints of %(tenants)s tenants") % {
        "at_least": at_least,
        "endpoints": number(endpoints),
        "tenants": number(tenants_),
    }
