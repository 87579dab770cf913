"""Rows of a tenant are reached through `.objects.for_tenant(tenant)`; what goes round it stands in a short list here."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import models

from tenants.models import (
    ApiKey,
    AuditEntry,
    EventType,
    IdempotencyRecord,
    PlatformState,
    RateCounter,
    SecondFactor,
    Tenant,
    User,
)
from tenants.scoping import TenantManager, TenantOwned, UnscopedQuery

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = ("webhooks_platform", "tenants", "deliveries")

NOT_OWNED: set[type[models.Model]] = {
    # The platform's own.
    Tenant,
    User,
    SecondFactor,
    PlatformState,
    RateCounter,
    apps.get_model("deliveries", "Dispatcher"),
    apps.get_model("deliveries", "SweepState"),
    apps.get_model("deliveries", "RollupState"),
    apps.get_model("deliveries", "MetricTotal"),
    apps.get_model("deliveries", "MetricSample"),
    # Of an operator, across tenants.
    apps.get_model("deliveries", "BulkAction"),
    # Of a tenant, or of the platform: their tenant may be empty, so each query says whose it wants.
    ApiKey,
    AuditEntry,
    EventType,
    apps.get_model("deliveries", "Notice"),
    # Its space is a tenant or an operator key.
    IdempotencyRecord,
    # Django's.
    Group,
    Permission,
    ContentType,
}

UNSCOPED = {
    ("deliveries/services/stopping.py", "disable_by_answer"): "the dispatcher knows the endpoint alone",
    ("deliveries/services/endpoint_deletion.py", "forget_deleted"): "a sweep over all tenants",
    ("deliveries/services/job_work.py", "stale_jobs"): "a sweep over all tenants",
    ("deliveries/services/job_work.py", "_job"): "the task knows the job alone",
    ("deliveries/services/job_work.py", "_lock"): "the task knows the job alone",
    ("deliveries/services/job_work.py", "_running"): "the task knows the job alone",
    ("deliveries/services/forgetting.py", "forget_old"): "a task for all tenants",
    ("tenants/services/forgetting.py", "forget_old"): "a task for all tenants",
    ("deliveries/services/erasing.py", "erase_echoes"): "a sweep over all tenants",
    ("deliveries/services/announcements.py", "_waiting"): "a sweep over all tenants",
    ("deliveries/services/announcements.py", "forget_old"): "a sweep over all tenants",
    (
        "deliveries/services/announcements.py",
        "facts_of",
    ): "of announcements of several tenants, each by its id",
    ("deliveries/services/announcements.py", "_heard_by"): "of the tenants that the announcements name",
    ("deliveries/services/announcements.py", "_deliveries"): "those that the announcements name",
    ("deliveries/services/notices.py", "gather"): "a task for all tenants",
    ("deliveries/services/notices.py", "_gather_for_operators"): "operators hear of all tenants",
    ("deliveries/services/summaries.py", "_tenants"): "which tenants have readers at all",
    ("deliveries/services/failing.py", "_disable"): "the sweep knows the endpoint alone",
    ("deliveries/services/failing.py", "_warn"): "the sweep knows the endpoint alone",
    ("deliveries/services/bulk_selection.py", "chosen"): "an operator's action, on things of many tenants",
    ("deliveries/services/hosts.py", "endpoints_of_host"): "operators look for a host across tenants",
    ("deliveries/services/overview.py", "_with_lanes"): "the operators' dashboard is of all tenants",
    ("deliveries/services/overview.py", "disabled_lately"): "the operators' dashboard is of all tenants",
    ("deliveries/services/overview.py", "waiting_longest"): "the operators' dashboard is of all tenants",
    ("deliveries/services/overview.py", "lanes_of"): "a dispatcher has lanes of all tenants",
    ("tenants/services/support.py", "end"): "the session's id is all that the banner's button knows",
    ("tenants/services/support.py", "session_in"): "the browser's session knows the ids alone",
    ("deliveries/services/usage.py", "month_of"): "operators look at many tenants at once",
    ("tenants/services/finding.py", "memberships_of_people"): "operators look for a person across tenants",
    ("deliveries/services/sources.py", "end_inspectors"): "a sweep over all tenants",
    ("deliveries/services/doors.py", "settings_of"): "the URL's token is all that is known",
    ("deliveries/services/exports.py", "expire"): "a sweep over all tenants",
    ("tenants/services/portal_links.py", "find_link"): "the token is all that is known",
    ("tenants/services/portal_links.py", "sessions_of"): "the browser's session knows the links alone",
    ("tenants/services/portal_links.py", "link_that_was"): "the browser's session knows the links alone",
    ("tenants/services/portal_looks.py", "public_catalogue"): "for anybody, where the tenant wants it",
    ("tenants/services/portal_looks.py", "find_logo"): "the hash is all that is known",
    ("tenants/services/invitations.py", "unsent"): "a sweep over all tenants",
    ("tenants/services/invitations.py", "send"): "the task knows the invitation alone",
    ("tenants/services/invitations.py", "find"): "the token is all that is known",
}
"""Who may use the bypass, and why."""

HOLES = {
    "get_object_or_404",
    "get_list_or_404",
    "ListView",
    "DetailView",
    "UpdateView",
    "DeleteView",
    "CreateView",
}
"""They take a model or its default manager, which knows no tenant."""


@cache
def files() -> list[tuple[str, ast.Module]]:
    return list(_read())


def _read() -> Iterator[tuple[str, ast.Module]]:
    for package in CODE:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if "/migrations/" not in name:
                yield name, ast.parse(path.read_text())


MANAGERS = {"unscoped", "_unscoped", "_base_manager", "_default_manager", "base_manager", "default_manager"}

QUERYSETS = {"TenantQuerySet", "QuerySet", "UnscopedManager"}
"""Made by hand they know no tenant, either."""


def goes_round(node: ast.AST) -> bool:
    match node:
        case (
            ast.Attribute(attr=name)
            | ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_])
        ) if name in MANAGERS:
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in QUERYSETS
    return False


def functions_that_go_round(tree: ast.Module) -> Iterator[str]:
    """The names of the functions, or `<module>`, in which the bypass is used."""

    def walk(node: ast.AST, inside: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            name = inside
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                name = child.name
            if goes_round(child):
                yield name
            yield from walk(child, name)

    yield from walk(tree, "<module>")


OWN_MODELS = [model for model in apps.get_models() if model.__module__.split(".")[0] in CODE]


@pytest.mark.parametrize("model", OWN_MODELS, ids=lambda model: model.__name__)
def test_every_model_is_scoped_or_known_not_to_be(model: type[models.Model]) -> None:
    if model in NOT_OWNED:
        assert not issubclass(model, TenantOwned)
        return
    assert issubclass(model, TenantOwned)
    assert isinstance(model.objects, TenantManager)
    assert not {field.name: field for field in model._meta.get_fields()}["tenant"].null


@pytest.mark.parametrize(
    "model",
    [model for model in OWN_MODELS if issubclass(model, TenantOwned)],
    ids=lambda model: model.__name__,
)
def test_the_door_leads_nowhere_without_a_tenant(model: type[TenantOwned]) -> None:
    for ask in ("all", "get", "filter", "count", "first", "exists", "values", "update", "create"):
        with pytest.raises(UnscopedQuery):
            getattr(model.objects, ask)()


def test_the_bypass_is_used_where_it_is_allowed_and_nowhere_else() -> None:
    used = {
        (name, function)
        for name, tree in files()
        if name != "tenants/scoping.py" and "/admin/" not in name and "/bench/" not in name
        for function in functions_that_go_round(tree)
    }

    assert used == UNSCOPED.keys()


@pytest.mark.parametrize(
    "line",
    [
        "Endpoint.unscoped.get(id=key)",
        "Endpoint.objects._unscoped().get(id=key)",
        "Endpoint._meta.default_manager.get(id=key)",
        "model._meta.base_manager.get(id=key)",
        "getattr(Endpoint, 'unscoped').get(id=key)",
        "TenantQuerySet(Endpoint).get(id=key)",
        "models.QuerySet(Endpoint).get(id=key)",
    ],
)
def test_the_finder_finds_ways_round(line: str) -> None:
    assert list(functions_that_go_round(ast.parse(f"def find(key):\n    return {line}"))) == ["find"]


def names_in(tree: ast.AST) -> Iterator[str]:
    """However they are reached: `shortcuts.get_object_or_404` as well, and what is imported under another name."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield name


def test_no_shortcut_takes_a_model_without_its_tenant() -> None:
    used = {(name, found) for name, tree in files() for found in HOLES.intersection(names_in(tree))}

    assert used == set()


@pytest.mark.parametrize(
    "line",
    [
        "get_object_or_404(Endpoint, id=key)",
        "shortcuts.get_object_or_404(Endpoint, id=key)",
        "from django.shortcuts import get_list_or_404 as these",
        "class Endpoints(generic.ListView): model = Endpoint",
    ],
)
def test_the_finder_finds_shortcuts(line: str) -> None:
    assert HOLES.intersection(names_in(ast.parse(line)))


FORMS = {"ModelForm", "ModelChoiceField", "ModelMultipleChoiceField"}


def test_forms_offer_no_choice_of_another_tenants_rows() -> None:
    """A ModelForm fills its foreign keys' choices from the default manager."""
    used = {name for name, tree in files() if "/admin/" not in name and FORMS.intersection(names_in(tree))}

    assert used == set()
