"""Packs of event types: `/tenants/{tenant}/packs`, and for the platform's own catalogue `/packs`."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api import fields, query
from tenants.api.catalogue import ImportOut, import_json
from tenants.api.event_types import EXAMPLE, READ, WRITE, CatalogueView
from tenants.api.fields import NoBody, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.permissions import OPERATOR
from tenants.api.query import Parameter
from tenants.api.schema import EVENT_TYPE_NAME, example, page_of
from tenants.openapi_catalogue import Described
from tenants.services import packs
from tenants.services.packs import PackState

STATUS = {"type": "string", "enum": ["available", "installed", "different"]}

_BRIEF_TYPE = {
    "type": "object",
    "required": ["name", "description", "group", "status"],
    "properties": {
        "name": EVENT_TYPE_NAME,
        "description": {"type": "string"},
        "group": {"type": "string"},
        "status": STATUS,
    },
}
_WHOLE_TYPE = {
    "type": "object",
    "required": [*_BRIEF_TYPE["required"], "schema", "example"],
    "properties": {**_BRIEF_TYPE["properties"], "schema": fields.ANY_OBJECT, "example": fields.ANY_OBJECT},  # type: ignore[dict-item] # a mapping, above
}

_PACK_EXAMPLE: dict[str, Any] = {
    "name": "commerce",
    "version": 1,
    "title": "Commerce",
    "description": "Products, stock and orders of a shop.",
    "status": "available",
}
_TYPE_EXAMPLE = {**EXAMPLE, "status": "available"}
_HELP = (
    "`available`: nothing of it is in the catalogue. `installed`: all of it, as the pack has it."
    " `different`: some is missing or looks different; installing it with `dry_run` says what."
)


@example(
    {
        **_PACK_EXAMPLE,
        "types": [{key: _TYPE_EXAMPLE[key] for key in ("name", "description", "group", "status")}],
    }
)
class BriefPackOut(Output):
    name = Shown({"type": "string"})
    version = Shown({"type": "integer"})
    title = Shown({"type": "string"})
    description = Shown({"type": "string"})
    status = Shown(STATUS, _HELP)
    types = Shown(fields.list_of(_BRIEF_TYPE))


@example({**_PACK_EXAMPLE, "types": [_TYPE_EXAMPLE]})
class PackOut(BriefPackOut):
    types = Shown(fields.list_of(_WHOLE_TYPE))


def pack_json(state: PackState, *, is_whole: bool) -> dict[str, Any]:
    pack = state.pack
    statuses = state.type_statuses
    return {
        "name": pack.name,
        "version": pack.version,
        "title": pack.title,
        "description": pack.description,
        "status": state.status,
        "types": [type_json(each, statuses[each.name], is_whole=is_whole) for each in pack.types],
    }


def type_json(each: Described, status: str, *, is_whole: bool) -> dict[str, Any]:
    shown = {"name": each.name, "description": each.description, "group": each.group, "status": status}
    return {**shown, "schema": each.schema, "example": each.example} if is_whole else shown


class PacksView(CatalogueView):
    scopes = {"GET": READ}
    operation_ids = {"GET": "list_packs"}

    @extend_schema(
        summary="List packs of event types", tags=["Packs"], responses={200: page_of(BriefPackOut)}
    )
    def get(self, request: Request, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Event types by trade, ready to install, and what of them the catalogue has. All at once, by title."""
        found = [pack_json(each, is_whole=False) for each in packs.packs_of(self.tenant)]
        return Response({"data": found, "next_cursor": None, "prev_cursor": None})


class PackView(CatalogueView):
    scopes = {"GET": READ}
    operation_ids = {"GET": "get_pack"}

    @extend_schema(summary="Get a pack of event types", tags=["Packs"], responses={200: PackOut})
    def get(self, request: Request, pack: str, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """With the schema and the example of each type."""
        return Response(pack_json(packs.pack_of(self.tenant, pack), is_whole=True))


class InstallPackView(CatalogueView):
    scopes = {"POST": WRITE}
    operation_ids = {"POST": "install_pack"}
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

    @extend_schema(summary="Install a pack", tags=["Packs"], request=None, responses={200: ImportOut})
    @idempotent()
    def post(self, request: Request, pack: str, **kwargs: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Makes its types and changes those that look different, all or none. Done again, it changes nothing.

        A type that was changed by hand becomes the pack's again; `dry_run` says which, and what would break receivers.
        """
        NoBody.read(request)
        is_dry_run = self.query["dry_run"]
        installed = packs.install_pack(actor=self.actor, tenant=self.tenant, name=pack, is_dry_run=is_dry_run)
        return Response(import_json(installed, is_dry_run=is_dry_run))


class SharedPacksView(PacksView):
    scopes = {"GET": OPERATOR}
    operation_ids = {"GET": "list_shared_packs"}


class SharedPackView(PackView):
    scopes = {"GET": OPERATOR}
    operation_ids = {"GET": "get_shared_pack"}


class SharedInstallPackView(InstallPackView):
    scopes = {"POST": OPERATOR}
    operation_ids = {"POST": "install_shared_pack"}
