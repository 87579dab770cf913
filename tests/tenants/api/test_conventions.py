"""What holds for every request: ids, errors, bodies, parameters, methods, headers."""

import io
import json
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.test import Client, RequestFactory

from tests.support.api import Api, error_codes, make_tenant, new_slug, operator_api, tenant_api

pytestmark = pytest.mark.usefixtures("database")


def code(response: Any) -> tuple[int, str]:
    assert response["Content-Type"] == "application/problem+json"
    return response.status_code, json.loads(response.content)["code"]


# --- request ids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/v1/whoami", "/api/v1/nowhere", "/health/live", "/nowhere"])
def test_every_response_has_the_clients_request_id(path: str) -> None:
    response = Client(headers={"X-Request-Id": "Ab.9_-" * 21 + "ab"}).get(path)

    assert response["X-Request-Id"] == "Ab.9_-" * 21 + "ab"


@pytest.mark.parametrize("wanted", ["", "a b", "a/b", "é", "x" * 129, "a\n"])
def test_an_odd_request_id_is_replaced(wanted: str) -> None:
    response = Client(headers={"X-Request-Id": wanted}).get("/api/v1/whoami")

    given = response["X-Request-Id"]
    assert len(given) == 32
    assert given != wanted
    assert json.loads(response.content)["request_id"] == given


# --- paths and methods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/nowhere", "/tenants/", "/tenants/a/nowhere", "/whoami/x", "/tenants//api-keys", "/%2e%2e/admin"],
)
def test_unknown_paths_have_the_shape_of_every_error(path: str) -> None:
    response = operator_api().get(path)

    assert json.loads(response.content) == {
        "type": "/errors/not_found",
        "title": "Not found",
        "status": 404,
        "detail": "There is no such thing here.",
        "code": "not_found",
        "request_id": "the-request",
    }


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/whoami", "GET, HEAD"),
        ("OPTIONS", "/whoami", "GET, HEAD"),
        ("TRACE", "/whoami", "GET, HEAD"),
        ("BREW", "/whoami", "GET, HEAD"),
        ("PUT", "/tenants", "GET, HEAD, POST"),
        ("POST", "/tenants/x", "GET, HEAD, PUT, PATCH, DELETE"),
        ("GET", "/tenants/x/portal-links", "POST"),
        ("POST", "/openapi.json", "GET, HEAD"),
    ],
)
def test_wrong_methods_say_which_are_right(method: str, path: str, allowed: str) -> None:
    response = operator_api().send(method, path)

    assert code(response) == (405, "method_not_allowed")
    assert response["Allow"] == allowed


def test_head_is_get_without_its_body() -> None:
    api = operator_api()

    response = api.send("HEAD", "/whoami")

    assert (response.status_code, response.content) == (200, b"")


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", (400, "malformed_json")),
        (b"", (422, "invalid")),
        (b"{} {}", (400, "malformed_json")),
        (b'{"slug": NaN}', (400, "malformed_json")),
        (b'{"slug": "\xff"}', (400, "malformed_json")),
        (b'\xef\xbb\xbf{"slug": "a"}', (400, "malformed_json")),
        (b"[]", (422, "invalid")),
        (b"null", (422, "invalid")),
        (b'{"slug": "\\u0000"}', (422, "invalid")),
        (b'{"slug": "\\ud800"}', (422, "invalid")),
        (b'{"metadata": {"\\u0000": "x"}}', (422, "invalid")),
        (b'{"retention_days": 1' + b"0" * 5000 + b"}", (422, "invalid")),
        (b'{"retention_days": 1e999}', (422, "invalid")),
        (b'{"retention_days": 9223372036854775808}', (422, "invalid")),
        (b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", (422, "invalid")),
        (b'{"name": "' + b"x" * 1_100_000 + b'"}', (413, "too_large")),
        (b'{"name": "' + b"x" * 9_000_000 + b'"}', (413, "too_large")),
    ],
)
def test_hostile_bodies_are_refused_in_words(body: bytes, expected: tuple[int, str]) -> None:
    assert code(operator_api().send("POST", "/tenants", body)) == expected


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_other_content_types_are_refused(content_type: str) -> None:
    response = operator_api().send("POST", "/tenants", b'{"slug": "a"}', content_type=content_type)

    assert code(response) == (415, "unsupported_media_type")


def test_the_content_type_may_name_its_charset() -> None:
    response = operator_api().send(
        "POST",
        "/tenants",
        json.dumps({"slug": new_slug()}).encode(),
        content_type="Application/JSON; charset=utf-8",
    )

    assert response.status_code == 201


def send_chunked(api: Api, path: str, body: bytes) -> Any:
    """As a server passes it on that has put the chunks together: there is a body, and no length of it."""
    request = RequestFactory(
        headers={"Transfer-Encoding": "chunked", "Authorization": f"Bearer {api.key}"}
    ).post(f"/api/v1{path}", body, content_type="application/json")
    environ = request.environ | {"wsgi.input": io.BytesIO(body)}
    environ.pop("CONTENT_LENGTH", None)
    return WSGIHandler().get_response(WSGIRequest(environ))


def test_a_body_in_chunks_is_a_body() -> None:
    slug = new_slug()

    made = send_chunked(operator_api(), "/tenants", json.dumps({"slug": slug}).encode())
    empty = send_chunked(operator_api(), "/tenants", b"")

    assert (made.status_code, json.loads(made.content)["slug"]) == (201, slug)
    assert error_codes(empty) == [("slug", "required")]


def test_too_many_chunks_are_refused_after_the_key_was_looked_at() -> None:
    too_many = b" " * (8 * 1024 * 1024 + 2000)
    path = f"/tenants/{make_tenant().slug}/events/batch"

    assert code(send_chunked(operator_api(), path, too_many)) == (413, "too_large")
    assert code(send_chunked(operator_api(), "/tenants", too_many)) == (413, "too_large")
    assert code(send_chunked(Api("whk_nobody"), path, too_many)) == (401, "unauthenticated")


def test_of_a_body_that_ended_early_nothing_is_done() -> None:
    tenant, body = make_tenant(), b"openapi: 3.1.0\nwebhooks:\n  a: {post: {}}\n"
    request = RequestFactory(headers={"Authorization": f"Bearer {operator_api().key}"}).post(
        f"/api/v1/tenants/{tenant.slug}/event-types/import", body, content_type="application/yaml"
    )

    cut = WSGIHandler().get_response(
        WSGIRequest(request.environ | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body) + 1)})
    )
    whole: Any = WSGIHandler().get_response(WSGIRequest(request.environ | {"wsgi.input": io.BytesIO(body)}))

    assert code(cut) == (400, "bad_request")
    assert json.loads(whole.content)["created"] == ["a"]


def test_every_wrong_field_is_named_at_once() -> None:
    response = operator_api().post(
        "/tenants",
        {
            "name": "",
            "status": "gone",
            "metadata": {"a": 1, "b" * 65: "x"},
            "retention_days": 366,
            "schema_validation": None,
            "limits": {"endpoints": "many", "planets": 9},
            "nonsense": True,
            "\x01": 1,
        },
    )

    assert error_codes(response) == [
        ("nonsense", "unknown_field"),
        ("\ufffd", "unknown_field"),
        ("name", "blank"),
        ("status", "invalid_choice"),
        ("metadata.a", "invalid_type"),
        ("metadata." + "b" * 64, "too_long"),
        ("retention_days", "too_large"),
        ("limits.endpoints", "invalid_type"),
        ("limits.planets", "unknown_field"),
        ("slug", "required"),
    ]


def test_of_very_many_wrong_fields_a_hundred_are_named() -> None:
    tenant = make_tenant()
    path = f"/tenants/{tenant.slug}"
    many = {f"f{number}": 1 for number in range(5_000)}
    document = {"openapi": "3.1.0", "webhooks": {f"t{number}": 1 for number in range(5_000)}}
    api = operator_api()

    created = api.post("/tenants", many)
    published = api.post(f"{path}/events", many)
    imported = api.post(f"{path}/event-types/import", document)
    (refused,) = json.loads(api.post(f"{path}/events/batch", {"events": [many]}).content)["data"]

    unknown = [(f"f{number}", "unknown_field") for number in range(100)]
    assert error_codes(created) == error_codes(published) == unknown
    assert [(error["field"], error["code"]) for error in refused["error"]["errors"]] == unknown
    assert error_codes(imported) == [(f"webhooks.t{number}", "invalid") for number in range(100)]


@pytest.mark.parametrize("value", ["1", 1.5, True, [1], {"a": 1}])
def test_values_of_another_type_are_not_bent(value: Any) -> None:
    response = operator_api().post("/tenants", {"slug": new_slug(), "retention_days": value})

    assert error_codes(response) == [("retention_days", "invalid_type")]


def test_verbs_take_no_fields() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    api.post(f"/tenants/{tenant.slug}/event-types", {"name": "a"})

    refused = api.post(f"/tenants/{tenant.slug}/event-types/a/archive", {"force": True})
    without_body = api.post(f"/tenants/{tenant.slug}/event-types/a/archive")
    with_empty_one = api.post(f"/tenants/{tenant.slug}/event-types/a/archive", {})

    assert error_codes(refused) == [("force", "unknown_field")]
    assert (without_body.status_code, with_empty_one.status_code) == (200, 200)


# --- query parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "errors"),
    [
        ("limit=0", [("limit", "too_small")]),
        ("limit=251", [("limit", "too_large")]),
        ("limit=-1", [("limit", "invalid_type")]),
        ("limit=1.0", [("limit", "invalid_type")]),
        ("limit=%D9%A1", [("limit", "invalid_type")]),
        ("limit=" + "9" * 5000, [("limit", "invalid_type")]),
        ("limit=", [("limit", "invalid_type")]),
        ("limit=1&limit=2", [("limit", "repeated")]),
        (
            "page=2&limit=x&%00=1",
            [("page", "unknown_parameter"), ("limit", "invalid_type"), ("\ufffd", "unknown_parameter")],
        ),
    ],
)
def test_wrong_parameters_are_named(query: str, errors: list[tuple[str, str]]) -> None:
    assert error_codes(operator_api().send("GET", f"/tenants?{query}")) == errors


def test_parameters_are_judged_on_every_method() -> None:
    slug = new_slug()

    response = operator_api().send("POST", "/tenants?force=true", {"slug": slug})

    assert error_codes(response) == [("force", "unknown_parameter")]
    assert code(operator_api().get(f"/tenants/{slug}")) == (404, "not_found")


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "%00",
        "é",
        "a",
        "x01931f5c8f6f7e3c9d2a6f0e5b1c4d7a",  # no direction
        "a01931f5c8f6f7e3c9d2a6f0e5b1c4d7",  # not a whole id
        "a01931f5c-8f6f-7e3c-9d2a-6f0e5b1c4d7a",
        "aWyJ4Il0",  # ["x"]
        "aW10",  # []
        "aW1tbW1tbW1tb",
        "a" * 5000,
    ],
)
def test_a_cursor_that_makes_no_sense_is_refused(cursor: str) -> None:
    response = operator_api().send("GET", f"/tenants?cursor={cursor}")

    assert code(response) == (422, "invalid_cursor")
    assert error_codes(response) == [("cursor", "invalid_cursor")]


# --- other headers ----------------------------------------------------------------------------------------------------


def test_no_other_site_may_read_replies_unless_it_is_listed(settings: Any) -> None:
    settings.WEBHOOKS_CORS_ORIGINS = ["https://app.example.com"]

    def allowed(origin: str) -> str | None:
        response = Client(headers={"Origin": origin}).get("/api/v1/whoami")
        return response.headers.get("Access-Control-Allow-Origin")

    preflight = Client(
        headers={"Origin": "https://app.example.com", "Access-Control-Request-Method": "POST"}
    ).options("/api/v1/tenants")

    assert allowed("https://app.example.com") == "https://app.example.com"
    assert allowed("https://evil.example.com") is None
    assert allowed("null") is None
    assert preflight.status_code == 204
    assert preflight["Access-Control-Allow-Methods"] == "GET, POST, PUT, PATCH, DELETE"


def test_accept_is_not_looked_at() -> None:
    api = operator_api()

    response = api.send("GET", "/whoami", headers={"Accept": "text/html"})

    assert (response.status_code, response["Content-Type"]) == (200, "application/json")


def test_keys_and_links_are_not_stored_by_caches() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)

    key = api.post(f"/tenants/{tenant.slug}/api-keys", {"name": "x", "scopes": []})
    link = api.post(f"/tenants/{tenant.slug}/portal-links", {"role": "admin"})

    assert (key.status_code, key["Cache-Control"]) == (201, "no-store")
    assert (link.status_code, link["Cache-Control"]) == (201, "no-store")


def test_types_of_errors_name_the_platforms_address(settings: Any) -> None:
    settings.WEBHOOKS_PUBLIC_URL = "https://hooks.example.com"

    document = json.loads(Api(None).get("/whoami").content)

    assert document["type"] == "https://hooks.example.com/errors/unauthenticated"
