"""Sources over the API: made, shown without what is secret, changed, ended; what came to them, and again."""

import json
from typing import Any

import pytest
from django.test import Client

from deliveries.models import Source, SourceToken
from deliveries.pipeline.database import connect
from deliveries.services import sources
from tenants import access, ids
from tenants.idempotency import lock_key
from tenants.models import AuditEntry, EventType, IdempotencyRecord, Tenant
from tests.support.api import Api, error_codes, make_tenant, tenant_api
from tests.support.builders import events_of

pytestmark = pytest.mark.usefixtures("database")

GITHUB = {"name": "Repositories", "preset": "github", "secrets": ["the secret of the hook"]}


def body(response: Any, status: int) -> Any:
    assert response.status_code == status, response.content
    return json.loads(response.content)


def make(api: Api, tenant: Tenant, **fields: Any) -> tuple[str, str]:
    """The path of the source in the API, and the path of its URL."""
    made = body(
        api.post(f"/tenants/{tenant.slug}/sources", {"name": "in", "event_type": '"a.b"'} | fields), 201
    )
    return f"/tenants/{tenant.slug}/sources/{made['id']}", "/in/" + made["url"].rpartition("/in/")[2]


def send(path: str, data: Any) -> int:
    return Client().post(path, json.dumps(data), content_type="application/json").status_code


def test_a_preset_is_a_source_to_begin_with() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)

    response = api.post(f"/tenants/{tenant.slug}/sources", GITHUB)

    made = body(response, 201)
    assert response["Cache-Control"] == "no-store"
    assert response["Location"] == f"/api/v1/tenants/{ids.to_text('tnt', tenant.id)}/sources/{made['id']}"
    token = made["url"].rpartition("/in/")[2]
    assert len(token) == 43
    shown = body(api.get(f"/tenants/{tenant.slug}/sources/{made['id']}"), 200)
    assert shown == made | {"url": f"http://testserver/in/{token[:4]}***"}
    assert (made["verification"]["scheme"], made["verification"]["header"]) == ("hmac", "x-hub-signature-256")
    assert (made["preset"], made["secret_count"], made["dedup_header"]) == ("github", 1, "x-github-delivery")
    assert body(api.get(f"/tenants/{tenant.slug}/sources"), 200)["data"] == [shown]


def test_token_and_secrets_are_nowhere_in_the_clear() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    response = api.post(f"/tenants/{tenant.slug}/sources", GITHUB, idempotency_key="k")
    token = body(response, 201)["url"].rpartition("/in/")[2]

    source = Source.objects.for_tenant(tenant).get()
    row = SourceToken.objects.for_tenant(tenant).get()
    record = IdempotencyRecord.objects.get(space=tenant.id, key="k")
    entry = AuditEntry.objects.get(tenant=tenant, action="source.created")

    assert bytes(row.hash) == access.hash_of(token)
    assert b"the secret of the hook" not in bytes(source.secrets_encrypted)
    assert record.is_encrypted
    assert token.encode() not in bytes(record.body)
    assert "the secret of the hook" not in json.dumps([entry.before, entry.after])
    assert token not in json.dumps([entry.before, entry.after])
    again = api.post(f"/tenants/{tenant.slug}/sources", GITHUB, idempotency_key="k")
    assert json.loads(again.content)["url"].endswith(token)
    assert again["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": None}, [("name", "null")]),
        ({"event_type": "data."}, [("event_type", "invalid_expression")]),
        ({"event_type": "nothing.known"}, [("event_type", "invalid_expression")]),
        ({"data": "1 +"}, [("data", "invalid_expression")]),
        ({"verification": {"scheme": "hmac"}}, [("verification.header", "incomplete")]),
        ({"verification": {"scheme": "basic"}}, [("secrets", "incomplete")]),
        ({"preset": "nobody"}, [("preset", "invalid_choice")]),
        ({"secrets": []}, [("secrets", "too_short")]),
        ({"allowed_networks": ["everywhere"]}, [("allowed_networks.0", "invalid_network")]),
        ({"response_status": 302}, [("response_status", "too_large")]),
        ({"response_body": "\x00"}, [("response_body", "invalid_characters")]),
        ({"dedup_seconds": 59}, [("dedup_seconds", "too_small")]),
        ({"dedup_header": "x-id", "dedup_path": "id"}, [("dedup_path", "invalid")]),
        ({"handshake": "meta"}, [("verify_token", "incomplete")]),
        ({"kind": "other"}, [("kind", "invalid_choice")]),
        ({"other": 1}, [("other", "unknown_field")]),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], wrong: list[tuple[str, str]]) -> None:
    tenant = make_tenant()

    refused = tenant_api(tenant).post(
        f"/tenants/{tenant.slug}/sources", {"name": "in", "event_type": '"a.b"'} | fields
    )

    assert refused.status_code == 422, refused.content
    assert error_codes(refused) == wrong
    assert list(sources.sources_of(tenant)) == []


def test_without_preset_an_event_type_is_needed() -> None:
    tenant = make_tenant()

    refused = tenant_api(tenant).post(f"/tenants/{tenant.slug}/sources", {"name": "in"})

    assert error_codes(refused) == [("event_type", "incomplete")]


def test_patch_is_tri_state_and_leaves_secrets() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path, _ = make(api, tenant, preset="github", secrets=["one"], response_body="ok")

    changed = body(api.patch(path, {"response_body": None, "name": "new", "rate_limit": 5}), 200)

    assert (changed["response_body"], changed["name"], changed["rate_limit"]) == ("", "new", 5)
    assert (changed["secret_count"], changed["preset"]) == (1, "github")
    assert body(api.patch(path, {"secrets": ["two", "three"]}), 200)["secret_count"] == 2
    source = Source.objects.for_tenant(tenant).get()
    assert sources.secrets_of(source) == (["two", "three"], "")
    assert source.version == 3
    entries = AuditEntry.objects.filter(tenant=tenant, action="source.changed").order_by("id")
    assert [each.after for each in entries] == [
        {"response_body": "", "name": "new", "rate_limit": 5},
        {"secret_count": 2, "secrets": "***"},
    ]


def test_the_url_is_rotated() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="a.b")
    api = tenant_api(tenant)
    path, old = make(api, tenant)

    response = api.post(f"{path}/url/rotate", {"overlap_seconds": 0})

    new = "/in/" + body(response, 200)["url"].rpartition("/in/")[2]
    assert response["Cache-Control"] == "no-store"
    assert [send(old, {}), send(new, {})] == [404, 200]
    for _ in range(4):
        body(api.post(f"{path}/url/rotate"), 200)
    assert body(api.post(f"{path}/url/rotate"), 409)["code"] == "token_limit_reached"


def test_a_tenant_has_a_hundred_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_SOURCES", 1)
    tenant = make_tenant()
    api = tenant_api(tenant)
    make(api, tenant)

    refused = api.post(f"/tenants/{tenant.slug}/sources", GITHUB)

    assert body(refused, 409)["code"] == "limit_reached"


def test_what_came_is_listed_shown_and_run_again() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="a.b")
    api = tenant_api(tenant)
    path, url = make(api, tenant, event_type="data.body.type")
    send(f"{url}?token=s3cret&n=1", {"type": "a.b"})
    send(url, {"kind": "a.b"})

    listed = body(api.get(f"{path}/requests"), 200)["data"]
    assert [(each["verdict"], each["reason"]) for each in listed] == [
        ("unmapped", "mapping_failed"),
        ("accepted", None),
    ]
    unmapped = body(api.get(f"{path}/requests", verdict="unmapped"), 200)["data"]
    assert unmapped == listed[:1]
    first = body(api.get(f"{path}/requests/{listed[1]['id']}"), 200)
    assert (first["body"], first["query"]) == ('{"type": "a.b"}', "token=***&n=1")
    refused = api.post(f"{path}/requests/{listed[1]['id']}/rerun")
    assert body(refused, 409)["code"] == "not_unmapped"

    body(api.patch(path, {"event_type": "data.body.kind"}), 200)
    again = body(api.post(f"{path}/requests/{listed[0]['id']}/rerun"), 200)

    assert (again["verdict"], again["reason"]) == ("accepted", None)
    assert len(events_of(tenant)) == 2
    assert body(api.post(f"{path}/rerun"), 200) == {"mapped": 0, "unmapped": 0}
    assert api.delete(f"{path}/requests/{listed[1]['id']}/data").status_code == 204
    erased = body(api.get(f"{path}/requests/{listed[1]['id']}"), 200)
    assert (erased["body"], erased["headers"], erased["query"]) == ("", {}, "")


@pytest.mark.parametrize("rest", ["/requests/{}/rerun", "/rerun"])
def test_who_runs_it_again_while_somebody_does_is_told_to_try_again(rest: str) -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="a.b")
    api = tenant_api(tenant)
    path, url = make(api, tenant, event_type="data.body.type")
    send(url, {"kind": "a.b"})
    (came,) = body(api.get(f"{path}/requests"), 200)["data"]
    body(api.patch(path, {"event_type": "data.body.kind"}), 200)
    key = f"\x02{ids.from_text(ids.INCOMING, came['id']).hex}:again"

    with connect(application_name="test", statement_timeout_seconds=5) as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(tenant.id.bytes, key)])
        refused = api.post(path + rest.format(came["id"]))

    assert (body(refused, 503)["code"], refused["Retry-After"]) == ("unavailable", "1")
    assert body(api.post(f"{path}/rerun"), 200) == {"mapped": 1, "unmapped": 0}


def test_an_inspector_shows_what_reaches_it_and_makes_no_event() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    path, url = make(
        api, tenant, kind="inspector", verification={"scheme": "standard"}, secrets=[secret], event_type='"x"'
    )

    assert [send(url, {"a": 1}), Client().get(f"{url}?b=2").status_code] == [200, 200]

    listed = body(api.get(f"{path}/requests"), 200)["data"]
    assert [(each["verdict"], each["reason"]) for each in listed] == [("inspected", "signature_missing")] * 2
    assert events_of(tenant) == []
    assert body(api.get(path), 200)["expires_at"] is not None


def test_inspectors_end_after_their_day() -> None:
    from datetime import UTC, datetime

    tenant = make_tenant()
    api = tenant_api(tenant)
    path, url = make(api, tenant, kind="inspector")
    Source.objects.for_tenant(tenant).update(expires_at=datetime(2026, 1, 1, tzinfo=UTC))

    assert send(url, {}) == 410
    sources.end_inspectors()

    assert send(url, {}) == 404
    assert api.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "is_taken"),
    [
        (f"/in/{'a' * 43}", True),
        (f"/in/{'a' * 43}?x=1", True),
        ("/in/../api/v1/whoami", False),
        (f"/in/{'a' * 43}/../../admin", False),
        ("/in/", False),
        ("/portal/", False),
        ("", False),
    ],
)
def test_an_endpoint_may_lead_to_a_source_of_the_platform_and_nowhere_else_on_it(
    settings: Any, path: str, is_taken: bool
) -> None:
    settings.WEBHOOKS_PUBLIC_URL = "https://hooks.example.com"
    tenant = make_tenant()

    made = tenant_api(tenant).post(
        f"/tenants/{tenant.slug}/endpoints", {"url": f"https://hooks.example.com{path}"}
    )

    assert made.status_code == (201 if is_taken else 422)


@pytest.mark.parametrize(
    ("public", "url", "is_taken"),
    [
        ("https://hooks.example.com", "https://hooks.example.com:443/portal/", False),
        ("https://hooks.example.com", "http://hooks.example.com/portal/", False),
        ("https://hooks.example.com", "http://hooks.example.com:80/portal/", False),
        ("https://hooks.example.com", "https://Hooks.Example.com./portal/", False),
        ("https://hooks.example.com", "http://hooks.example.com:8000/portal/", False),
        ("https://hooks.example.com", f"https://hooks.example.com?/in/{'a' * 43}", False),
        ("https://Hooks.Example.com:443", "https://hooks.example.com/portal/", False),
        ("https://hooks.example.com:8443", "https://hooks.example.com:8443/portal/", False),
        ("https://hooks.example.com", f"https://hooks.example.com:443/in/{'a' * 43}", True),
        # Somebody else's server on the same machine.
        ("http://127.0.0.1:8000", "http://127.0.0.1:9500/hooks", True),
        ("https://hooks.example.com", "https://example.com/portal/", True),
    ],
)
def test_the_platforms_own_host_is_known_however_its_port_is_written(
    settings: Any, public: str, url: str, is_taken: bool
) -> None:
    settings.WEBHOOKS_PUBLIC_URL = public
    tenant = make_tenant()

    made = tenant_api(tenant).post(f"/tenants/{tenant.slug}/endpoints", {"url": url})

    assert made.status_code == (201 if is_taken else 422), made.content
    if not is_taken:
        assert error_codes(made) == [("url", "own_host")]
