"""Bodies: the fields of an input, each with its rule, read all at once so that every wrong one is named.

Inputs and outputs are serializers of DRF for the sake of the OpenAPI document, which lists their fields; reading and
writing go past DRF's own machinery, which coerces ("1" becomes 1) and stops short of unknown fields.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from rest_framework import serializers
from rest_framework.request import Request

from tenants.api import problems
from tenants.validation import Collector, shown

T = TypeVar("T")

AnySchema = dict[str, Any]


class Field(serializers.Field):  # type: ignore[type-arg] # DRF's class takes none at run time
    """One field of an input. `rule` takes what was sent and returns the cleaned value, or raises Invalid."""

    def __init__(
        self,
        rule: Callable[[object], Any],
        schema: AnySchema,
        *,
        required: bool = False,
        nullable: bool = True,
        help_text: str = "",
        **kwargs: Any,
    ) -> None:
        """`nullable`: null is taken, and clears or resets to the default. Required ones cannot be cleared."""
        self.rule = rule
        self.schema = schema
        self.is_nullable = nullable and not required
        super().__init__(required=required, allow_null=self.is_nullable, help_text=help_text, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        return self.rule(data)

    def to_representation(self, value: Any) -> Any:
        return value


class Shown(serializers.Field):  # type: ignore[type-arg] # DRF's class takes none at run time
    """One field of an output: what it looks like in the document."""

    def __init__(
        self, schema: AnySchema, help_text: str = "", *, optional: bool = False, **kwargs: Any
    ) -> None:
        self.schema = schema
        # A field that is always there is `required` in the document, as drf-spectacular sees it.
        super().__init__(required=not optional, help_text=help_text, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        return data

    def to_representation(self, value: Any) -> Any:
        return value


class Output(serializers.Serializer):  # type: ignore[type-arg] # DRF's class takes none at run time
    """What a reply holds, for the document. The reply itself is made by a plain function; a test compares the two."""


class Input(serializers.Serializer):  # type: ignore[type-arg] # DRF's class takes none at run time
    """A body with these fields and no others."""

    @classmethod
    def documented(cls, schema: AnySchema) -> AnySchema:
        """What the document says of it, given what the fields say. For inputs that take more, or less, than they."""
        return schema

    @classmethod
    def read(cls, request: Request, *, is_partial: bool = False) -> dict[str, Any]:
        """What was sent, cleaned: only the fields that were given. `is_partial`: none is required (PATCH).

        Raises a 422 that names every wrong field.
        """
        wrong = Collector()
        cleaned = cls.read_value(request.data, wrong, is_partial=is_partial)
        if wrong.errors:
            raise problems.invalid(wrong.errors)
        return cleaned

    @classmethod
    def read_value(cls, data: Any, wrong: Collector, *, is_partial: bool = False) -> dict[str, Any]:
        if not isinstance(data, dict):
            wrong.add("", "invalid_type", "Must be a JSON object.")
            return {}
        fields = cast("dict[str, Field]", cls._declared_fields)
        cleaned: dict[str, Any] = {}
        for name in data:
            if name not in fields:
                wrong.add(shown(name), "unknown_field", "There is no such field.")
        for name, field in fields.items():
            if name not in data:
                if field.required and not is_partial:
                    wrong.add(name, "required", "Must be given.")
            elif data[name] is None and field.is_nullable:
                cleaned[name] = None
            elif data[name] is None:
                wrong.add(name, "null", "Must not be null.")
            else:
                cleaned[name] = wrong.check(name, field.rule, data[name])
        return cleaned


class NoBody(Input):
    """For verbs that take no field: an empty body, or an empty object."""


# --- schemas of fields ------------------------------------------------------------------------------------------------


def nullable(schema: AnySchema) -> AnySchema:
    """The schema, or null."""
    if isinstance(schema.get("type"), str):
        changed = schema | {"type": [schema["type"], "null"]}
        return changed | {"enum": [*schema["enum"], None]} if "enum" in schema else changed
    return {"oneOf": [schema, {"type": "null"}]}


ONE_LINE = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
SEVERAL_LINES = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$"
NOT_BLANK = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$"


def text(high: int, low: int = 0, pattern: str = ONE_LINE, **more: Any) -> AnySchema:
    """Without control characters, unless a pattern says otherwise."""
    schema: AnySchema = {"type": "string", "maxLength": high, "pattern": pattern}
    return schema | ({"minLength": low} if low else {}) | more


def whole_number(low: int, high: int, **more: Any) -> AnySchema:
    return {"type": "integer", "minimum": low, "maximum": high, **more}


def list_of(items: AnySchema, high: int | None = None, low: int = 0, **more: Any) -> AnySchema:
    schema: AnySchema = {"type": "array", "items": items}
    if high is not None:
        schema["maxItems"] = high
    return schema | ({"minItems": low} if low else {}) | more


def id_text(prefix: str) -> AnySchema:
    return {"type": "string", "pattern": f"^{prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$"}


TIME: AnySchema = {"type": "string", "format": "date-time"}
BOOLEAN: AnySchema = {"type": "boolean"}
ANY_OBJECT: AnySchema = {"type": "object", "additionalProperties": True}
TEXTS: AnySchema = {"type": "object", "additionalProperties": {"type": "string"}}
