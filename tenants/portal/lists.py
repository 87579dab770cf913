"""Lists of the portal: filters from the URL, and pages by cursor. What does not parse is said beside its field."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.http import HttpRequest, QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants import paging
from tenants.paging import InvalidCursor, Page
from tenants.portal.words import refusals
from tenants.validation import InvalidContent, moment

Row = TypeVar("Row", bound=models.Model)

PAGE_SIZE: Final = 30


def posted(request: HttpRequest) -> QueryDict | None:
    """For a form: what was sent, if only nothing at all; None when the page is merely looked at."""
    return request.POST if request.method == "POST" else None


def page_of(request: HttpRequest, rows: "models.QuerySet[Row]") -> Page[Row]:
    """By the URL's cursor. One that makes no sense, from a mistyped or very old link, gives the first page."""
    try:
        return paging.cut(rows, cursor=request.GET.get("cursor") or None, limit=PAGE_SIZE)
    except InvalidCursor:
        return paging.cut(rows, cursor=None, limit=PAGE_SIZE)


class RuleField(forms.CharField):
    """A text that keeps a rule of `validation.py`; empty is None."""

    def __init__(self, rule: Callable[[object], Any], **options: Any) -> None:
        self.rule = rule
        super().__init__(**({"required": False, "max_length": 2048} | options))

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text:
            return None
        try:
            return self.rule(text)
        except InvalidContent as invalid:
            raise ValidationError(refusals(invalid)) from None


def time(value: object) -> datetime:
    """As browsers send it, in UTC, or in RFC 3339."""
    text = str(value)
    if len(text) in {16, 19} and text[10] == "T":
        text += "Z" if len(text) == 19 else ":00Z"
    return moment(text)


class TimeField(RuleField):
    """Shown again as it was typed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            time, widget=forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}), **options
        )

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, datetime):
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return value


class WindowForm(forms.Form):
    """Filters of things that happened. Every field may be empty."""

    since = TimeField(label=gettext_lazy("From (UTC)"))
    until = TimeField(label=gettext_lazy("Before (UTC)"))

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        since, until = cleaned.get("since"), cleaned.get("until")
        if since is not None and until is not None and since > until:
            self.add_error("until", _("Must not be before the beginning."))
        return cleaned

    @property
    def is_filtering(self) -> bool:
        return any(self.data.get(name) for name in self.fields)
