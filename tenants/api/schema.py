"""The OpenAPI 3.1 document of the API, generated from what the views declare: scopes, parameters, inputs and outputs.

`Schema` adds to every operation what all of them share: the key and its scope, path parameters, `Idempotency-Key`,
the problems that can be answered, and the headers of replies.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema_serializer
from rest_framework import serializers

from tenants import ids
from tenants.api import fields
from tenants.api.fields import AnySchema, Field, Input, Output, Shown
from tenants.api.links import add_links
from tenants.api.permissions import ANY_KEY, OPERATOR
from tenants.api.query import Parameter

S = TypeVar("S", bound=type[serializers.Serializer])  # type: ignore[type-arg] # DRF's class takes none at run time

SLUG: AnySchema = {"type": "string", "pattern": "^[a-z0-9-]{1,63}$"}
EVENT_TYPE_NAME: AnySchema = {
    "type": "string",
    "pattern": r"^[a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*$",
    "maxLength": 128,
}

PATH_PARAMETERS: dict[str, tuple[str, AnySchema, str]] = {
    "tenant": ("The tenant's id or slug.", {"type": "string"}, "acme"),
    "key": ("The key's id.", {"type": "string"}, "key_01h455vb4pex5vsknk084sn02q"),
    "name": ("The event type's name.", {"type": "string"}, "order.created"),
    "pack": ("The pack's name.", {"type": "string"}, "messaging"),
    "link": ("The link's id.", {"type": "string"}, "lnk_01h455vb4pex5vsknk084sn02q"),
    "endpoint": ("The endpoint's id or uid.", {"type": "string"}, "ep_01h455vb4pex5vsknk084sn02q"),
    "subscription": ("The subscription's id.", {"type": "string"}, "sub_01h455vb4pex5vsknk084sn02q"),
    "event": ("The event's id.", {"type": "string"}, "evt_01h455vb4pex5vsknk084sn02q"),
    "delivery": ("The delivery's id.", {"type": "string"}, "dlv_01h455vb4pex5vsknk084sn02q"),
    "source": ("The source's id.", {"type": "string"}, "src_01h455vb4pex5vsknk084sn02q"),
    "incoming": ("The request's id.", {"type": "string"}, "req_01h455vb4pex5vsknk084sn02q"),
    "job": ("The job's id.", {"type": "string"}, "job_01h455vb4pex5vsknk084sn02q"),
}

_HEADERS: dict[str, AnySchema] = {
    "X-Request-Id": {"description": "Finds the request in the logs.", "schema": {"type": "string"}},
    "Location": {"description": "The path of what was created.", "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "`true` if this is the kept answer to an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}},
    "RateLimit-Limit": {
        "description": "Requests per minute, if the key has a limit.",
        "schema": {"type": "integer"},
    },
    "RateLimit-Remaining": {"description": "What is left of them.", "schema": {"type": "integer"}},
    "RateLimit-Reset": {
        "description": "Seconds until they are all there again.",
        "schema": {"type": "integer"},
    },
}

_PROBLEM: AnySchema = {
    "type": "object",
    "description": "RFC 9457.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable; for programs."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "Every wrong field.",
            "items": {
                "type": "object",
                "required": ["field", "code", "message"],
                "properties": {
                    "field": {"type": "string", "description": "Dotted path, parameter or header."},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}

_PROBLEMS: dict[str, tuple[str, str, str, list[str]]] = {
    "400": ("MalformedJSON", "malformed_json", "The body is not JSON.", []),
    "401": (
        "Unauthenticated",
        "unauthenticated",
        "No key, or one that is unknown, revoked or expired.",
        ["WWW-Authenticate"],
    ),
    "403": ("Forbidden", "missing_scope", "The key is good, but not for this.", []),
    "404": ("NotFound", "not_found", "It does not exist, or belongs to somebody else.", []),
    "409": ("Conflict", "conflict", "It conflicts with how things stand; the code says how.", []),
    "413": ("TooLarge", "too_large", "The body or its payload is too large.", []),
    "415": ("UnsupportedMediaType", "unsupported_media_type", "The body is of another content type.", []),
    "422": ("Invalid", "invalid", "Well-formed, with wrong content. Names every wrong field.", []),
    "429": ("TooManyRequests", "too_many_requests", "Over a rate limit.", ["Retry-After"]),
    "503": ("Unavailable", "unavailable", "Try again later; nothing was changed.", ["Retry-After"]),
}

DESCRIPTION = """
Publish an event once; every endpoint that wants it gets it, signed, fast and never lost.

Send your key with every request: `Authorization: Bearer whk_…`. Bodies are JSON in UTF-8. Every wrong field of a
request is named at once, in an `application/problem+json` document. Every POST takes an `Idempotency-Key`.
Lists are paged by `cursor`. Replies carry an `X-Request-Id`; tell it to us when something is odd.
""".strip()


class Schema(AutoSchema):
    """What a view's operations look like in the document."""

    view: Any  # one of tenants/api/views.py, which imports this module

    def get_auth(self) -> list[dict[str, list[str]]]:
        scope = self.view.scopes.get(self.method)
        # OpenAPI 3.1 lets other schemes than OAuth name the roles that an operation needs.
        return [{"apiKey": [] if scope in {None, ANY_KEY} else [scope]}]

    def get_operation_id(self) -> str:
        named: str | None = getattr(self.view, "operation_ids", {}).get(self.method)
        return named or super().get_operation_id()

    def get_description(self) -> str:  # type: ignore[override] # drf-spectacular's, not DRF's
        scope = self.view.scopes.get(self.method)
        needs = {
            OPERATOR: "Operator keys only.",
            ANY_KEY: "Any key.",
        }.get(scope, f"Needs the scope `{scope}`.")
        return f"{super().get_description()}\n\n{needs}".strip()

    def get_override_parameters(self) -> list[Any]:
        parameters = [_parameter(each) for each in self.view.parameters.get(self.method, ())]
        if self.method == "POST":
            parameters.append(
                OpenApiParameter(
                    "Idempotency-Key",
                    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
                    OpenApiParameter.HEADER,
                    description="The same key with the same request gives the first answer again for 24 hours.",
                )
            )
        return parameters

    def _resolve_path_parameters(self, variables: list[str]) -> list[AnySchema]:
        return [
            {
                "in": "path",
                "name": name,
                "required": True,
                "description": PATH_PARAMETERS[name][0],
                "schema": PATH_PARAMETERS[name][1],
                "example": PATH_PARAMETERS[name][2],
            }
            for name in variables
        ]

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        schema = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call] # has no types
        target = serializer if isinstance(serializer, type) else type(serializer)
        if issubclass(target, Input):
            schema["additionalProperties"] = False
            schema = target.documented(schema)
        if target.__doc__ is None:
            # drf-spectacular takes the docstring of the base class.
            schema.pop("description", None)
        return schema

    def _get_request_body(self, direction: Any = "request") -> Any:
        body = super()._get_request_body(direction)  # type: ignore[no-untyped-call] # has no types
        if body and any("required" in media["schema"] for media in body["content"].values()):
            # drf-spectacular knows it of serializers alone.
            body["required"] = True
        return body

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        responses = super()._get_response_bodies(direction)
        for status, response in responses.items():
            response["description"] = response["description"] or HTTPStatus(int(status)).phrase
            response["headers"] = response.get("headers", {}) | _header_references(
                self._success_headers(status)
            )
        for status in self._problem_statuses():
            responses.setdefault(status, {"$ref": f"#/components/responses/{_PROBLEMS[status][0]}"})
        return dict(sorted(responses.items()))

    def _success_headers(self, status: str) -> list[str]:
        names = ["X-Request-Id", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"]
        if status == "201":
            names.append("Location")
        if self.method == "POST":
            names.append("Idempotent-Replayed")
        return names

    def _problem_statuses(self) -> list[str]:
        statuses = ["401", "403", "422", "429", "503"]
        if "{" in self.path:
            statuses.append("404")
        if self.method != "GET":
            statuses.append("409")
        if self.method in {"POST", "PUT", "PATCH"}:
            statuses += ["400", "413", "415"]
        return statuses


def _parameter(parameter: Parameter) -> OpenApiParameter:
    schema = dict(parameter.schema)
    return OpenApiParameter(
        parameter.name, schema, OpenApiParameter.QUERY, description=parameter.description, required=False
    )


def _header_references(names: list[str]) -> AnySchema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


class FieldExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call] # has no types
    """A field of ours brings its own schema."""

    target_class: Any = Field
    match_subclasses = True

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> AnySchema:  # noqa: ARG002
        schema = dict(self.target.schema)
        if getattr(self.target, "is_nullable", False) and "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
        return schema


class ShownExtension(FieldExtension):  # type: ignore[no-untyped-call] # has no types
    target_class = Shown


def add_components(result: AnySchema, **_: Any) -> AnySchema:
    """Post-processing hook: what operations refer to."""
    result["info"]["description"] = DESCRIPTION
    add_links(result["paths"])
    components = result.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    components["headers"] = _HEADERS
    components["responses"] = {
        name: {
            "description": description,
            "headers": _header_references(["X-Request-Id", *headers]),
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": {
                        "type": f"/errors/{code}",
                        "title": HTTPStatus(int(status)).phrase,
                        "status": int(status),
                        "detail": description,
                        "code": code,
                        "request_id": "01931f5c8f6f7e3c9d2a6f0e5b1c4d7a",
                    },
                }
            },
        }
        for status, (name, code, description, headers) in _PROBLEMS.items()
    }
    components["securitySchemes"] = {
        "apiKey": {
            "type": "http",
            "scheme": "bearer",
            "description": "A key of a tenant with scopes, or of an operator. Roles named by an operation are scopes.",
        }
    }
    return result


# --- outputs ----------------------------------------------------------------------------------------------------------


EXAMPLE = "example_value"


def example(value: Any) -> Callable[[S], S]:
    """Decorates an input or output with what one looks like."""

    def decorate(serializer: S) -> S:
        setattr(serializer, EXAMPLE, value)
        extended: S = extend_schema_serializer(examples=[OpenApiExample("Example", value=value)])(serializer)
        return extended

    return decorate


CURSORS = {
    "next_cursor": Shown(fields.nullable({"type": "string"}), "The page behind this one; null on the last."),
    "prev_cursor": Shown(fields.nullable({"type": "string"}), "The page before this one; null on the first."),
}


def page_of(output: type[Output]) -> type[Output]:
    """The output of a list."""
    shown = getattr(output, EXAMPLE, None)
    page = type(f"{output.__name__}Page", (Output,), {"data": output(many=True), **CURSORS})
    if shown is None:
        return page
    return example({"data": [shown], "next_cursor": None, "prev_cursor": None})(page)


TENANT_ID = fields.id_text(ids.TENANT)
