"""What the admin's own lists and pages have in common.

A list is never counted: it is paged by key, and its filters are those that have an index. A page shows facts, what
belongs to the object, and where people go next; it has no form. What changes something is an action with a page of its
own that asks first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants import ids, paging
from tenants.addresses import remote_ip_of
from tenants.models import Tenant, User
from tenants.paging import InvalidCursor, Page
from tenants.services.audit import Actor

PAGE_SIZE: Final = 50

Label = str | Promise
"""Translated when it is shown."""


def actor_of(request: HttpRequest) -> Actor:
    assert isinstance(request.user, User)
    return Actor(
        "operator",
        ids.to_text(ids.USER, request.user.id),
        request.user.email,
        remote_ip_of(request) or None,
        getattr(request, "request_id", ""),
    )


def may_operate(request: HttpRequest) -> bool:
    """Seeing is not enough: actions are for operators with all rights."""
    return isinstance(request.user, User) and request.user.is_active and request.user.is_superuser


# --- what a page is made of -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    label: Label
    value: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Link:
    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Action:
    """A button that leads to the page that asks."""

    label: str
    url: str
    is_severe: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    empty: str = ""
    """Said when there are no rows."""
    more: Link | None = None


@dataclass(slots=True)
class Sheet:
    """The page of one object."""

    title: str
    facts: list[tuple[str, object]]
    notes: list[str] = field(default_factory=list)
    """What an operator must not overlook."""
    links: list[Link] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    progress: tuple[int, int] | None = None
    """(done, of how many)"""
    refresh_seconds: int | None = None
    """The page loads itself again so soon: what it shows is under way."""


# --- filters ----------------------------------------------------------------------------------------------------------


class TenantField(forms.CharField):
    """By slug or id. Empty is None."""

    def __init__(self, **options: Any) -> None:
        defaults: dict[str, Any] = {"label": gettext_lazy("Tenant"), "required": False, "max_length": 80}
        super().__init__(**(defaults | options))

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text:
            return None
        try:
            tenant = Tenant.objects.filter(id=ids.from_text(ids.TENANT, text)).first()
        except ids.InvalidId:
            tenant = Tenant.objects.filter(slug=text).first()
        if tenant is None:
            raise ValidationError(_("There is no such tenant."))
        return tenant


class IdField(forms.CharField):
    """An id as the API spells it. Empty is None."""

    def __init__(self, prefix: str, **options: Any) -> None:
        self.prefix = prefix
        super().__init__(**({"required": False, "max_length": 40} | options))

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text:
            return None
        try:
            return ids.from_text(self.prefix, text)
        except ids.InvalidId:
            raise ValidationError(_("Must be an id that begins with %s_.") % self.prefix) from None


class OfTenant(forms.Form):
    tenant = TenantField()


ANY: Final = ("", gettext_lazy("any"))


# --- lists and pages --------------------------------------------------------------------------------------------------


class OperatorAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # Django's class takes none at run time
    """A list and a page, both read-only."""

    filters: ClassVar[type[forms.Form]] = forms.Form
    columns: ClassVar[Sequence[Column]] = ()
    bulk_actions: ClassVar[Sequence[tuple[str, Label]]] = ()
    """(name, label) of actions that can be done to several rows of the list at once."""

    def find(self, wanted: dict[str, Any]) -> "QuerySet[Any]":
        """The rows of the list. `wanted`: what the filters say."""
        raise NotImplementedError

    def get(self, key: UUID) -> Model | None:
        """The object of a page."""
        raise NotImplementedError

    def sheet(self, row: Any) -> Sheet:
        raise NotImplementedError

    def whole_list_actions(self, wanted: dict[str, Any]) -> list[Action]:  # noqa: ARG002 - most have none
        """Actions on everything that the filters find."""
        return []

    # Django asks these for its menu as well.

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002 - Django's
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002
        return False

    def get_urls(self) -> list[URLPattern]:
        """No others: there is nothing to add, change or delete here."""
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        return [
            path("", view(self.list_view), name=f"{name}_changelist"),
            path("<uuid:object_id>/", view(self.page_view), name=f"{name}_change"),
        ]

    def list_view(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = self.filters(request.GET)
        is_valid = form.is_valid()
        wanted = form.cleaned_data if is_valid else {}
        page: Page[Any] = page_of(request, self.find(wanted)) if is_valid else Page([], None, None)
        query = request.GET.copy()
        query.pop("cursor", None)
        context = {
            **self.admin_site.each_context(request),
            "title": capfirst(str(self.opts.verbose_name_plural)),
            "opts": self.opts,
            "form": form,
            "headings": [column.label for column in self.columns],
            "rows": [(row.pk, [column.value(row) for column in self.columns]) for row in page.rows],
            "page": page,
            "query": query.urlencode(),
            "bulk_actions": self.bulk_actions if may_operate(request) else (),
            "actions": self.whole_list_actions(wanted) if is_valid and may_operate(request) else [],
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/list.html", context, status=200 if is_valid else 422)

    def page_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = self.get(object_id)
        if row is None:
            raise Http404
        sheet = self.sheet(row)
        if not may_operate(request):
            sheet.actions = []
        context = {
            **self.admin_site.each_context(request),
            "title": sheet.title,
            "opts": self.opts,
            "sheet": sheet,
        }
        request.current_app = self.admin_site.name
        response = TemplateResponse(request, "admin/page.html", context)
        if sheet.refresh_seconds is not None:
            response["Refresh"] = str(sheet.refresh_seconds)
        return response


def page_of(request: HttpRequest, rows: "QuerySet[Any]", *, size: int = PAGE_SIZE) -> Page[Any]:
    """By the URL's cursor. One that makes no sense, from a mistyped or very old link, gives the first page."""
    try:
        return paging.cut(rows, cursor=request.GET.get("cursor") or None, limit=size)
    except InvalidCursor:
        return paging.cut(rows, cursor=None, limit=size)
