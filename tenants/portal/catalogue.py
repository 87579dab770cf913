"""The catalogue for people: each event type with its fields, an example, and code that handles it.

The same pages twice: for a tenant's members, and for anybody where the tenant wants that.
"""

import json
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from tenants import access
from tenants.models import EventType, Tenant
from tenants.portal import errors
from tenants.portal.entry import PortalRequest, portal_page
from tenants.schema_text import fields_of
from tenants.services.event_types import catalogue_of, get_event_type
from tenants.services.portal_looks import public_catalogue

MOST_TYPES: Final = 1000


@portal_page()
def listing(request: PortalRequest) -> HttpResponse:
    return render(request, "portal/catalogue/list.html", _list(request.tenant))


@portal_page()
def detail(request: PortalRequest, name: str) -> HttpResponse:
    return render(request, "portal/catalogue/detail.html", _type(request.tenant, name))


# --- for anybody ------------------------------------------------------------------------------------------------------


def public_page(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """The constant 404 for a tenant that does not exist, and for one that keeps its catalogue to itself."""

    @require_safe
    @wraps(view)
    def page(request: HttpRequest, tenant: str, **kwargs: str) -> HttpResponse:
        try:
            look = public_catalogue(tenant)
            request.look = look  # type: ignore[attr-defined] # added by us
            return view(request, look.tenant, **kwargs)
        except access.NotFound:
            return errors.not_found(request)

    return page


@public_page
def public_listing(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    context = _list(tenant) | {"public": tenant}
    return render(request, "portal/catalogue/list.html", context)


@public_page
def public_detail(request: HttpRequest, tenant: Tenant, name: str) -> HttpResponse:
    context = _type(tenant, name) | {"public": tenant}
    return render(request, "portal/catalogue/detail.html", context)


# --- parts ------------------------------------------------------------------------------------------------------------


def _list(tenant: Tenant) -> dict[str, Any]:
    rows = list(
        catalogue_of(tenant)
        .only("name", "description", "group", "archived_at", "tenant_id")
        .order_by("group", "name")[:MOST_TYPES]
    )
    groups: dict[str, list[EventType]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return {"groups": groups.items(), "count": len(rows)}


def _type(tenant: Tenant, name: str) -> dict[str, Any]:
    """Raises access.NotFound."""
    row = get_event_type(tenant=tenant, name=name)
    example = row.example if isinstance(row.example, dict) else None
    return {
        "type": row,
        "fields": fields_of(row.schema),
        "example": None if example is None else _json(_envelope(row.name, example)),
        "schema": None if row.schema is None else _json(row.schema),
        "python": _python(row, example),
        "javascript": _javascript(row, example),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _envelope(name: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"type": name, "timestamp": "2026-03-01T12:00:00Z", "data": data}


def _first_field(row: EventType, example: dict[str, Any] | None) -> str | None:
    properties = row.schema.get("properties") if isinstance(row.schema, dict) else None
    for source in (properties, example):
        if isinstance(source, dict) and source:
            return str(next(iter(source)))
    return None


def _python(row: EventType, example: dict[str, Any] | None) -> str:
    field = _first_field(row, example)
    data = 'event["data"]' + ("" if field is None else f"[{_quoted(field)}]")
    return (
        "# pip install standardwebhooks\n"
        "from standardwebhooks import Webhook\n\n\n"
        "def receive(body, headers, secret):\n"
        "    event = Webhook(secret).verify(body, headers)\n"
        f'    if event["type"] == {_quoted(row.name)}:\n'
        f"        print({data})\n"
    )


def _javascript(row: EventType, example: dict[str, Any] | None) -> str:
    field = _first_field(row, example)
    data = "event.data" + ("" if field is None else f"[{_quoted(field)}]")
    return (
        "// npm install standardwebhooks\n"
        'import { Webhook } from "standardwebhooks";\n\n'
        "export function receive(body, headers, secret) {\n"
        "  const event = new Webhook(secret).verify(body, headers);\n"
        f"  if (event.type === {_quoted(row.name)}) {{\n"
        f"    console.log({data});\n"
        "  }\n"
        "}\n"
    )


def _quoted(text: str) -> str:
    """A literal of both languages: ASCII, and no line ends."""
    return json.dumps(text)
