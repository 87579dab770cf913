"""A whole catalogue at once: `GET …/event-types/openapi.json` and `POST …/event-types/import`."""

from collections.abc import Mapping
from typing import IO, Any

from drf_spectacular.utils import extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from tenants import yaml_strict
from tenants.api import fields, problems, query
from tenants.api.event_types import CHANGE, READ, WRITE, CatalogueView, change_json
from tenants.api.fields import Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.permissions import OPERATOR
from tenants.api.query import Parameter
from tenants.api.rendering import StrictJSONParser, body_of
from tenants.api.schema import EVENT_TYPE_NAME, example
from tenants.openapi_catalogue import MAX_TAGS
from tenants.services import catalogue
from tenants.services.catalogue import Imported
from tenants.yaml_strict import MalformedYaml

_CONTENT = {
    "type": "object",
    "properties": {
        "schema": {"anyOf": [{"type": "object"}, {"const": True}, {"type": "null"}]},
        "example": {"type": ["object", "null"]},
    },
}
_OPERATION = {
    "type": "object",
    "properties": {
        "description": fields.nullable(fields.text(2000, pattern=fields.SEVERAL_LINES)),
        "tags": fields.nullable(fields.list_of(fields.text(128), MAX_TAGS)),
        "deprecated": {"type": "boolean"},
        "requestBody": {
            "type": "object",
            "required": ["content"],
            "properties": {
                "content": {
                    "type": "object",
                    "required": ["application/json"],
                    "properties": {"application/json": _CONTENT},
                }
            },
        },
    },
}
DOCUMENT = {
    "type": "object",
    "description": "An OpenAPI 3.1 document with a `webhooks` section.",
    "required": ["openapi", "webhooks"],
    "properties": {
        "openapi": {"type": "string", "pattern": r"^3\.[12]"},
        "webhooks": {
            "type": "object",
            "propertyNames": EVENT_TYPE_NAME,
            "additionalProperties": {
                "type": "object",
                "required": ["post"],
                "properties": {"post": _OPERATION},
            },
        },
    },
}


class YAMLParser(BaseParser):
    """YAML as far as it is JSON in another spelling."""

    media_type = "application/yaml"

    def parse(
        self,
        stream: IO[Any],  # noqa: ARG002 - DRF's signature
        media_type: str | None = None,  # noqa: ARG002
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        assert parser_context is not None
        try:
            return yaml_strict.loads(body_of(parser_context["request"]))
        except MalformedYaml as error:
            raise problems.Problem(400, "malformed_yaml", "Malformed YAML", str(error)) from None


class XYAMLParser(YAMLParser):
    media_type = "application/x-yaml"


class TextYAMLParser(YAMLParser):
    media_type = "text/yaml"


class OpenAPIYAMLParser(YAMLParser):
    media_type = "application/openapi+yaml"


class OpenAPIJSONParser(StrictJSONParser):
    media_type = "application/openapi+json"


NAMES = fields.list_of({"type": "string"})


@example(
    {
        "dry_run": True,
        "created": ["order.shipped"],
        "updated": ["order.created"],
        "unchanged": ["order.paid"],
        "changes": [
            {
                "name": "order.created",
                "fields": ["schema"],
                "breaks_consumers": False,
                "schema": [
                    {
                        "path": "coupon",
                        "change": "property_added",
                        "breaks_consumers": False,
                        "message": "coupon is new.",
                    }
                ],
            }
        ],
    }
)
class ImportOut(Output):
    dry_run = Shown(fields.BOOLEAN)
    created = Shown(NAMES)
    updated = Shown(NAMES)
    unchanged = Shown(NAMES)
    changes = Shown(
        fields.list_of(
            {
                "type": "object",
                "required": ["name", "fields", "breaks_consumers", "schema"],
                "properties": {
                    "name": {"type": "string"},
                    "fields": NAMES,
                    "breaks_consumers": fields.BOOLEAN,
                    "schema": fields.list_of(CHANGE),
                },
            }
        ),
        "What is different about each updated type.",
    )


def import_json(imported: Imported, *, is_dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": is_dry_run,
        "created": imported.created,
        "updated": imported.updated,
        "unchanged": imported.unchanged,
        "changes": [
            {
                "name": change.name,
                "fields": change.fields,
                "breaks_consumers": change.breaks_consumers,
                "schema": [change_json(each) for each in change.schema],
            }
            for change in imported.changes
        ],
    }


class ExportView(CatalogueView):
    scopes = {"GET": READ}
    operation_ids = {"GET": "export_event_types"}

    @extend_schema(summary="Export the catalogue", tags=["Event types"], responses={200: DOCUMENT})
    def get(self, request: Request, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """As an OpenAPI 3.1 document with a `webhooks` section. Imported again, it changes nothing."""
        return Response(catalogue.export_catalogue(tenant=self.tenant))


class ImportView(CatalogueView):
    scopes = {"POST": WRITE}
    operation_ids = {"POST": "import_event_types"}
    parser_classes = (
        StrictJSONParser,
        YAMLParser,
        XYAMLParser,
        TextYAMLParser,
        OpenAPIYAMLParser,
        OpenAPIJSONParser,
    )
    parameters = {
        "POST": (
            Parameter(
                "dry_run",
                query.boolean,
                "Only say what would change.",
                {"type": "boolean", "default": False},
                default=False,
            ),
        )
    }

    @extend_schema(
        summary="Import a catalogue",
        tags=["Event types"],
        request={"application/json": DOCUMENT, "application/yaml": DOCUMENT},
        responses={200: ImportOut},
    )
    @idempotent()
    def post(self, request: Request, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Makes and changes types as the document describes them, all or none; types it does not name stay.

        At most 1 MiB, JSON or YAML without anchors and tags. A body schema with exactly `type`, `timestamp` and `data`
        is unwrapped to `data`.
        """
        is_dry_run = self.query["dry_run"]
        imported = catalogue.import_catalogue(
            actor=self.actor, tenant=self.tenant, document=request.data, is_dry_run=is_dry_run
        )
        return Response(import_json(imported, is_dry_run=is_dry_run))


class SharedExportView(ExportView):
    scopes = {"GET": OPERATOR}
    operation_ids = {"GET": "export_shared_event_types"}


class SharedImportView(ImportView):
    scopes = {"POST": OPERATOR}
    operation_ids = {"POST": "import_shared_event_types"}
