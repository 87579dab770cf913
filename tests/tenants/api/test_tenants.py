"""`/tenants`: made, read, changed and ended by operators."""

import json
from typing import Any

import pytest

from tenants import ids
from tenants.models import AuditEntry, Tenant
from tenants.services import tenants
from tests.support.api import error_codes, make_tenant, new_slug, operator_api, tenant_api

pytestmark = pytest.mark.usefixtures("database")

DEFAULT_LIMITS = {
    "endpoints": 50,
    "subscriptions_per_endpoint": 100,
    "payload_bytes": 262144,
    "events_per_second": None,
    "disable_after_days": 5,
    "disable_after_failures": None,
}


def test_creating_answers_with_the_tenant_and_where_it_is() -> None:
    slug = new_slug()

    response = operator_api().post("/tenants", {"slug": slug, "name": "Acme", "metadata": {"plan": "gold"}})

    row = Tenant.objects.get(slug=slug)
    tenant_id = ids.to_text(ids.TENANT, row.id)
    assert response.status_code == 201
    assert response["Location"] == f"/api/v1/tenants/{tenant_id}"
    assert json.loads(response.content) == {
        "id": tenant_id,
        "slug": slug,
        "name": "Acme",
        "status": "active",
        "metadata": {"plan": "gold"},
        "retention_days": 90,
        "payload_retention_days": None,
        "attempt_retention_days": None,
        "schema_validation": "enforce",
        "weight": 1,
        "verify_endpoints": False,
        "limits": DEFAULT_LIMITS,
        "created_at": row.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    assert operator_api().get(f"/tenants/{slug}").content == response.content
    assert operator_api().get(f"/tenants/{tenant_id}").content == response.content


@pytest.mark.parametrize("slug", ["", "A", "a_b", "a.b", "a b", "é", "a" * 64, "tnt_x"])
def test_slugs_are_of_few_characters(slug: str) -> None:
    response = operator_api().post("/tenants", {"slug": slug})

    assert [field for field, _ in error_codes(response)] == ["slug"]


def test_a_slug_is_given_once_for_ever() -> None:
    api = operator_api()
    tenant = make_tenant()
    other = make_tenant()

    while_alive = api.post("/tenants", {"slug": tenant.slug})
    renamed = api.patch(f"/tenants/{other.slug}", {"slug": tenant.slug})
    api.delete(f"/tenants/{tenant.slug}")
    afterwards = [api.post("/tenants", {"slug": tenant.slug}), api.put(f"/tenants/{tenant.slug}", {})]

    codes = [json.loads(response.content)["code"] for response in (while_alive, renamed, *afterwards)]
    assert codes == ["slug_taken"] * 4
    assert Tenant.objects.filter(slug=tenant.slug).count() == 1


def test_patch_leaves_what_is_absent_clears_null_and_merges_maps() -> None:
    api = operator_api()
    tenant = make_tenant(
        name="Acme",
        retention_days=30,
        metadata={"plan": "gold", "region": "eu"},
        limits={"endpoints": 7, "payload_bytes": 1000},
    )

    response = api.patch(
        f"/tenants/{tenant.slug}",
        {
            "retention_days": None,
            "metadata": {"plan": None, "size": "xl"},
            "limits": {"endpoints": None, "events_per_second": 5},
        },
    )

    changed = json.loads(response.content)
    assert changed["name"] == "Acme"
    assert changed["retention_days"] == 90
    assert changed["metadata"] == {"region": "eu", "size": "xl"}
    assert changed["limits"] == DEFAULT_LIMITS | {"payload_bytes": 1000, "events_per_second": 5.0}
    cleared = json.loads(api.patch(f"/tenants/{tenant.slug}", {"metadata": None, "limits": None}).content)
    assert (cleared["metadata"], cleared["limits"]) == ({}, DEFAULT_LIMITS)


def test_merging_does_not_pass_the_bound_of_metadata() -> None:
    tenant = make_tenant(metadata={f"k{number}": "v" for number in range(50)})

    response = operator_api().patch(f"/tenants/{tenant.slug}", {"metadata": {"one-more": "v"}})

    assert error_codes(response) == [("metadata", "too_long")]
    tenant.refresh_from_db()
    assert len(tenant.metadata) == 50


def test_put_on_a_slug_creates_then_changes() -> None:
    api, slug = operator_api(), new_slug()

    made = api.put(f"/tenants/{slug}", {"name": "Acme", "metadata": {"a": "b"}})
    changed = api.put(f"/tenants/{slug}", {"slug": slug, "metadata": {"c": "d"}})

    assert (made.status_code, changed.status_code) == (201, 200)
    assert made["Location"] == f"/api/v1/tenants/{json.loads(made.content)['id']}"
    document = json.loads(changed.content)
    assert (document["name"], document["metadata"]) == ("Acme", {"c": "d"})
    assert error_codes(api.put(f"/tenants/{slug}", {"slug": "another"})) == [("slug", "mismatch")]
    assert api.put(f"/tenants/{document['id']}", {"name": "By id"}).status_code == 200
    assert api.put("/tenants/tnt_01h455vb4pex5vsknk084sn02q", {"name": "x"}).status_code == 404
    assert api.put("/tenants/No_Slug", {"name": "x"}).status_code == 404


def test_every_change_raises_the_settings_version_and_is_audited_with_before_and_after() -> None:
    tenant = make_tenant(name="Acme", schema_validation="warn")

    operator_api().patch(f"/tenants/{tenant.slug}", {"schema_validation": "off", "name": "Acme"})

    row = Tenant.objects.get(id=tenant.id)
    entries = AuditEntry.objects.filter(tenant=tenant).order_by("id")
    assert row.settings_version == tenant.settings_version + 1
    assert [entry.action for entry in entries] == ["tenant.created", "tenant.changed"]
    assert (entries[1].before, entries[1].after) == (
        {"schema_validation": "warn"},
        {"schema_validation": "off"},
    )
    assert entries[1].actor_kind == "operator"
    assert entries[1].actor.startswith("key_")
    assert entries[1].remote_ip == "127.0.0.1"
    assert entries[1].request_id == "the-request"


def test_who_holds_lanes_hears_of_suspension_resumption_and_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        tenants,
        "after_status_change",
        [lambda tenant: heard.append((tenant.status, tenant.deleted_at is not None))],
    )
    api, tenant = operator_api(), make_tenant()

    for status in ("active", "suspended", "suspended", None):
        api.patch(f"/tenants/{tenant.slug}", {"status": status})
    api.delete(f"/tenants/{tenant.slug}")

    assert heard == [("suspended", False), ("active", False), ("active", True)]


def test_deleting_ends_it_at_once() -> None:
    api, tenant = operator_api(), make_tenant()
    own = tenant_api(tenant)
    assert own.get(f"/tenants/{tenant.slug}").status_code == 200

    first = api.delete(f"/tenants/{tenant.slug}")

    assert (first.status_code, first.content) == (204, b"")
    assert own.get(f"/tenants/{tenant.slug}").status_code == 401
    for method in ("GET", "PATCH", "DELETE"):
        assert api.send(method, f"/tenants/{tenant.slug}", {}).status_code == 404
    listed = json.loads(api.get("/tenants", limit=250).content)["data"]
    assert tenant.slug not in [each["slug"] for each in listed]


def test_a_tenant_key_reads_its_own_tenant_alone() -> None:
    mine, other = make_tenant(), make_tenant()
    api = tenant_api(mine, "events:write")

    assert json.loads(api.get(f"/tenants/{mine.slug}").content)["slug"] == mine.slug
    assert api.get(f"/tenants/{other.slug}").status_code == 404


@pytest.mark.parametrize("rows", [1, 30])
def test_the_list_costs_the_same_whatever_its_length(rows: int, django_assert_num_queries: Any) -> None:
    api = operator_api()
    for _ in range(rows):
        make_tenant()
    api.get("/whoami")  # from here on the key is remembered

    with django_assert_num_queries(1):
        response = api.get("/tenants", limit=rows)

    assert len(json.loads(response.content)["data"]) == rows


def test_a_weight_is_from_1_to_100_and_null_resets_it() -> None:
    api = operator_api()
    tenant = make_tenant()

    heavier = api.patch(f"/tenants/{tenant.slug}", {"weight": 100})
    refused = api.patch(f"/tenants/{tenant.slug}", {"weight": 101})
    reset = api.patch(f"/tenants/{tenant.slug}", {"weight": None})

    assert json.loads(heavier.content)["weight"] == 100
    assert (refused.status_code, error_codes(refused)) == (422, [("weight", "too_large")])
    assert json.loads(reset.content)["weight"] == 1
