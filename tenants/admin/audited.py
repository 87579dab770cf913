"""What operators change in the pages that libraries bring, groups of rights and beat's schedule, in the audit log.

Our own lists and pages change nothing by themselves: their actions call services, which write it down.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.db import transaction
from django.db.models import Model, QuerySet
from django.forms.models import model_to_dict
from django.http import HttpRequest
from django.utils.text import camel_case_to_spaces

from tenants.admin.base import actor_of
from tenants.services import audit

Done = Callable[[admin.ModelAdmin, HttpRequest, QuerySet], Any]  # type: ignore[type-arg] # none at run time
"""An action on the chosen rows of a list."""


class Audited(admin.ModelAdmin):  # type: ignore[type-arg] # Django's class takes none at run time
    """Mixed into a library's own by `OperatorSite.register`. The entry is in the transaction of the change."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """The last step of saving a form."""
        super().save_related(request, form, formsets, change)
        names = [name for name in form.changed_data if name in form.fields]
        before = {name: _shown(form.fields[name], form.initial.get(name)) for name in names}
        after = {name: _shown(form.fields[name], form.cleaned_data.get(name)) for name in names}
        if not change:
            self._record(request, form.instance, "created", after=after)
        elif names:
            self._record(request, form.instance, "changed", before=before, after=after)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        self._record(request, obj, "deleted", before=_facts(obj))
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> None:
        with transaction.atomic():
            for row in queryset:
                self._record(request, row, "deleted", before=_facts(row))
            super().delete_queryset(request, queryset)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Each writes down what it does. The one that deletes asks first, and then calls `delete_queryset`."""
        stock: dict[str, Any] = super().get_actions(request)
        return {
            name: (done if name == "delete_selected" else partial(_audited, name, done), name, label)
            for name, (done, _, label) in stock.items()
        }

    def _record(self, request: HttpRequest, row: Model, verb: str, **facts: dict[str, Any]) -> None:
        kind = camel_case_to_spaces(type(row).__name__).replace(" ", "_")
        audit.record(
            actor=actor_of(request), tenant=None, action=f"{kind}.{verb}", target=f"{row.pk} {row}", **facts
        )


def _audited(
    name: str,
    done: Done,
    of: Audited,
    request: HttpRequest,
    queryset: "QuerySet[Any]",
) -> Any:
    with transaction.atomic():
        before = {row.pk: _facts(row) for row in queryset}
        answer = done(of, request, queryset)
        for row in of.get_queryset(request).filter(pk__in=before).order_by("pk"):
            old, new = audit.changes(before[row.pk], _facts(row))
            of._record(request, row, name, before=old, after=new)  # noqa: SLF001 - of this file
    return answer


def _facts(row: Model) -> dict[str, Any]:
    return {name: _text(value) for name, value in model_to_dict(row).items()}


def _shown(field: forms.Field, value: Any) -> Any:
    """What a form's field began or ended with: rows by name, though the form began with the key of a single one."""
    if isinstance(field, forms.ModelChoiceField) and isinstance(value, int):
        value = field.queryset.filter(pk=value).first() if field.queryset is not None else value
    return _text(value)


def _text(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | set | QuerySet):
        return sorted(str(each) for each in value)
    return str(value)
