"""What every view of the API declares, and what the document says of it. A view that declares nothing lets nobody in."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.views import APIView as AnyAPIView

from tenants.api.fields import Output
from tenants.api.idempotency import MARK
from tenants.api.permissions import ANY_KEY, OPERATOR
from tenants.api.schema import EXAMPLE
from tenants.api.views import APIView
from tenants.models import ApiKey
from tests.support.api import make_tenant, operator_api, tenant_api

METHODS = ("get", "post", "put", "patch", "delete")

NO_DRF = {"events", "events/batch", "openapi.json"}
"""The ends of paths whose views are plain, for speed or because they are open to all."""


def routes(patterns: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern) and path.startswith("api/v1/"):
            yield path, pattern.callback


VIEWS = [(path, callback.view_class) for path, callback in routes() if hasattr(callback, "view_class")]
DOCUMENT: dict[str, Any] = json.loads(Client().get("/api/v1/openapi.json").content)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


@pytest.mark.parametrize(("path", "view"), VIEWS)
def test_every_method_declares_its_scope(path: str, view: type[AnyAPIView]) -> None:
    assert issubclass(view, APIView), path
    handled = {method.upper() for method in METHODS if hasattr(view, method)}

    assert view.scopes.keys() == handled, path
    assert set(view.scopes.values()) <= {*ApiKey.Scope.values, OPERATOR, ANY_KEY}, path
    assert view.parameters.keys() <= handled, path


@pytest.mark.parametrize(("path", "view"), VIEWS)
def test_every_post_takes_an_idempotency_key(path: str, view: type[AnyAPIView]) -> None:
    post = getattr(view, "post", None)

    assert post is None or getattr(post, MARK, False), path


def test_plain_views_are_the_few_that_are_known() -> None:
    plain = {
        path.rsplit("<str:tenant>/", 1)[-1].removeprefix("api/v1/")
        for path, callback in routes()
        if not hasattr(callback, "view_class")
    }

    assert plain <= NO_DRF


@pytest.mark.parametrize(("path", "view"), VIEWS)
def test_the_document_names_each_routes_scope(path: str, view: Any) -> None:
    documented = DOCUMENT["paths"]["/" + path.replace("<str:", "{").replace(">", "}")]

    assert documented.keys() == {method.lower() for method in view.scopes}
    for method, operation in documented.items():
        scope = view.scopes[method.upper()]
        assert operation["security"] == [{"apiKey": [] if scope == ANY_KEY else [scope]}], (method, path)


def test_every_operation_is_told_whole() -> None:
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))
    for path, method, operation in operations():
        where = (method, path)
        assert operation["summary"], where
        assert operation["tags"], where
        assert operation["description"], where
        assert {"401", "403", "422", "429", "503"} <= operation["responses"].keys(), where
        assert any(status.startswith("2") for status in operation["responses"]), where
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (where, parameter["name"])
            assert parameter["schema"], (where, parameter["name"])


def test_every_object_has_an_example_with_exactly_its_fields() -> None:
    known = DOCUMENT["components"]["schemas"]
    shown = [each for each in all_outputs(Output) if getattr(each, EXAMPLE, None) is not None]
    assert shown
    for each in shown:
        value = getattr(each, EXAMPLE)
        assert value.keys() == set(each().fields), each.__name__
        if each.__name__ in known:
            assert known[each.__name__]["properties"].keys() == value.keys()


def all_outputs(base: type[Output]) -> Iterator[type[Output]]:
    for each in base.__subclasses__():
        yield each
        yield from all_outputs(each)


class Undeclared(APIView):
    def get(self, request: Any) -> Any:  # noqa: ARG002 - DRF's signature
        raise AssertionError("nobody comes here")


@pytest.mark.usefixtures("database")
def test_a_view_that_declares_nothing_lets_nobody_in() -> None:
    tenant = make_tenant()
    for api in (operator_api(), tenant_api(tenant)):
        request = RequestFactory(headers={"Authorization": f"Bearer {api.key}"}).get("/api/v1/undeclared")
        assert Undeclared.as_view()(request).status_code == 403
