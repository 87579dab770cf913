"""Packs over the API: listed, shown, installed with a dry run before."""

import json
from typing import Any

import pytest
from django.http import HttpResponse

from tenants.models import AuditEntry, EventType, Tenant
from tenants.packs import all_packs
from tests.support.api import Api, make_tenant, operator_api, tenant_api

pytestmark = pytest.mark.usefixtures("database")

ACCOUNTS = ["user.registered", "user.email.changed"]


@pytest.fixture
def tenant() -> Tenant:
    EventType.objects.filter(tenant__isnull=True).delete()
    return make_tenant()


@pytest.fixture
def api(tenant: Tenant) -> Api:
    return tenant_api(tenant)


def decoded(response: HttpResponse, status: int = 200) -> Any:
    assert response.status_code == status, response.content
    return json.loads(response.content)


def test_the_list_says_what_there_is_and_what_of_it_is_installed(api: Api, tenant: Tenant) -> None:
    path = f"/tenants/{tenant.slug}/packs"
    api.post(f"{path}/accounts/install")

    listed = decoded(api.get(path))["data"]

    assert [each["name"] for each in listed] == list(all_packs())
    assert {each["name"]: each["status"] for each in listed} == (
        dict.fromkeys(all_packs(), "available") | {"accounts": "installed"}
    )
    assert listed[0] == {
        "name": "accounts",
        "version": 1,
        "title": "Accounts",
        "description": "People who register, and what they change about themselves.",
        "status": "installed",
        "types": [
            {
                "name": "user.registered",
                "description": "A person made an account.",
                "group": "Users",
                "status": "installed",
            },
            {
                "name": "user.email.changed",
                "description": "A person's e-mail address is another one now.",
                "group": "Users",
                "status": "installed",
            },
        ],
    }


def test_a_pack_is_shown_with_schemas_and_examples(api: Api, tenant: Tenant) -> None:
    pack = decoded(api.get(f"/tenants/{tenant.slug}/packs/accounts"))

    described = all_packs()["accounts"].types
    assert pack["status"] == "available"
    assert [(each["name"], each["schema"], each["example"]) for each in pack["types"]] == [
        (each.name, each.schema, each.example) for each in described
    ]


def test_a_dry_run_then_the_installation_then_nothing_more_to_do(api: Api, tenant: Tenant) -> None:
    path = f"/tenants/{tenant.slug}/packs/accounts/install"
    new = {"created": ACCOUNTS, "updated": [], "unchanged": [], "changes": []}

    assert decoded(api.post(f"{path}?dry_run=true")) == {"dry_run": True, **new}
    assert decoded(api.get(f"/tenants/{tenant.slug}/event-types"))["data"] == []
    assert decoded(api.post(path)) == {"dry_run": False, **new}
    assert decoded(api.post(path)) == {
        "dry_run": False,
        "created": [],
        "updated": [],
        "unchanged": ACCOUNTS,
        "changes": [],
    }

    entries = AuditEntry.objects.filter(tenant=tenant, action="pack.installed")
    assert [entry.actor_kind for entry in entries] == ["key"]


def test_what_is_different_is_named_before_it_is_changed(api: Api, tenant: Tenant) -> None:
    path = f"/tenants/{tenant.slug}"
    api.post(f"{path}/packs/accounts/install")
    api.patch(f"{path}/event-types/user.registered", {"schema": None})

    assert decoded(api.get(f"{path}/packs/accounts"))["status"] == "different"
    assert decoded(api.post(f"{path}/packs/accounts/install?dry_run=true"))["changes"] == [
        {
            "name": "user.registered",
            "fields": ["schema"],
            "breaks_consumers": False,
            "schema": [
                {
                    "path": "",
                    "change": "schema_added",
                    "breaks_consumers": False,
                    "message": "Events now keep a schema.",
                }
            ],
        }
    ]


def test_an_event_like_the_example_is_taken_and_another_refused(api: Api, tenant: Tenant) -> None:
    api.post(f"/tenants/{tenant.slug}/packs/accounts/install")
    example = all_packs()["accounts"].types[0].example
    assert example is not None
    without = {key: value for key, value in example.items() if key != "email"}

    decoded(api.post(f"/tenants/{tenant.slug}/events", {"type": ACCOUNTS[0], "data": example}), 202)
    refused = decoded(api.post(f"/tenants/{tenant.slug}/events", {"type": ACCOUNTS[0], "data": without}), 422)

    assert refused["errors"][0]["code"] == "schema_violation"


def test_a_pack_that_is_not_there_is_not_found(api: Api, tenant: Tenant) -> None:
    assert api.get(f"/tenants/{tenant.slug}/packs/nothing").status_code == 404
    assert api.post(f"/tenants/{tenant.slug}/packs/nothing/install").status_code == 404


def test_a_key_that_only_reads_installs_nothing(tenant: Tenant) -> None:
    reader = tenant_api(tenant, "catalogue:read")

    assert reader.get(f"/tenants/{tenant.slug}/packs").status_code == 200
    assert reader.post(f"/tenants/{tenant.slug}/packs/accounts/install").status_code == 403
    assert EventType.objects.filter(tenant=tenant).count() == 0


def test_the_operator_installs_for_all_tenants(api: Api, tenant: Tenant) -> None:
    operator = operator_api()

    assert decoded(operator.post("/packs/accounts/install"))["created"] == ACCOUNTS
    assert decoded(operator.get("/packs/accounts"))["status"] == "installed"
    assert {each["status"] for each in decoded(operator.get("/packs"))["data"]} == {"installed", "available"}
    assert decoded(api.get(f"/tenants/{tenant.slug}/packs/accounts"))["status"] == "installed"
    assert api.post("/packs/accounts/install").status_code == 403

    EventType.objects.filter(tenant__isnull=True).delete()
