"""The API as a client sees it, and the smallest tenants and keys. A test states every value that it relies on."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse
from django.test import Client

from tenants import access
from tenants.ids import new_id
from tenants.models import Tenant
from tenants.services import keys, tenants
from tenants.services.audit import COMMAND


@dataclass(frozen=True)
class Api:
    """Sends requests with one key, to paths below `/api/v1`."""

    key: str | None

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> HttpResponse:
        """`body`: bytes go as they are, None sends none, everything else as JSON."""
        sent = {"X-Request-Id": "the-request"} | (headers or {})
        if self.key is not None:
            sent["Authorization"] = f"Bearer {self.key}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if body is None:
            return Client(headers=sent).generic(method, f"/api/v1{path}")  # type: ignore[return-value] # its own subclass
        return Client(headers=sent).generic(method, f"/api/v1{path}", data, content_type)  # type: ignore[return-value] # as above

    def get(self, path: str, **query: Any) -> HttpResponse:
        return self.send("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: Any = None, *, idempotency_key: str | None = None) -> HttpResponse:
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self.send("POST", path, body, headers=headers)

    def put(self, path: str, body: Any) -> HttpResponse:
        return self.send("PUT", path, body)

    def patch(self, path: str, body: Any) -> HttpResponse:
        return self.send("PATCH", path, body)

    def delete(self, path: str) -> HttpResponse:
        return self.send("DELETE", path)


def new_slug() -> str:
    return f"t-{new_id().hex}"


def make_tenant(**fields: Any) -> Tenant:
    return tenants.create_tenant(actor=COMMAND, slug=fields.pop("slug", new_slug()), **fields)


def make_key(tenant: Tenant, *scopes: str) -> str:
    """A key with these scopes, or with all."""
    wanted = scopes or access.ALL_SCOPES
    return keys.create_key(
        actor=COMMAND, tenant=tenant, name="test", scopes=wanted, granted=access.ALL_SCOPES
    )[1]


def tenant_api(tenant: Tenant, *scopes: str) -> Api:
    return Api(make_key(tenant, *scopes))


def operator_api() -> Api:
    return Api(keys.create_operator_key(actor=COMMAND, name="test")[1])


def error_codes(response: HttpResponse) -> list[tuple[str, str]]:
    """(field, code) of everything that a refusal names."""
    return [(error["field"], error["code"]) for error in json.loads(response.content)["errors"]]
