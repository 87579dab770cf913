"""`Idempotency-Key`: the same request once, whatever a network does to it."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from tenants import access, ids
from tenants.api.idempotency import look
from tenants.idempotency import fingerprint, lock_key
from tenants.models import ApiKey, EventType, IdempotencyRecord, PortalLink, Tenant
from tests.support.api import Api, error_codes, make_key, make_tenant, new_slug, operator_api, tenant_api

pytestmark = pytest.mark.usefixtures("database")


def test_the_same_request_gets_the_first_answer_again() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/event-types"

    first = api.post(path, {"name": "a"}, idempotency_key="k 1 ~")
    again = api.post(path, {"name": "a"}, idempotency_key="k 1 ~")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again["Location"] == first["Location"]
    assert again["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first
    assert again["X-Request-Id"] == "the-request"


def test_another_request_with_the_same_key_is_refused() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/event-types"
    api.post(path, {"name": "a"}, idempotency_key="k")

    other_body = api.post(path, {"name": "b"}, idempotency_key="k")
    other_path = api.post(f"{path}/a/archive", {"name": "a"}, idempotency_key="k")
    other_query = api.send(
        "POST", f"{path}/import?dry_run=true", {"name": "a"}, headers={"Idempotency-Key": "k"}
    )

    for refused in (other_body, other_path, other_query):
        assert error_codes(refused) == [("Idempotency-Key", "idempotency_key_reused")]
        assert (refused.status_code, json.loads(refused.content)["code"]) == (422, "idempotency_key_reused")
    assert list(EventType.objects.filter(tenant=tenant).values_list("name", flat=True)) == ["a"]


def test_keys_of_two_tenants_have_nothing_to_do_with_each_other() -> None:
    one, two = make_tenant(), make_tenant()

    answers = [
        tenant_api(tenant).post(f"/tenants/{tenant.slug}/event-types", {"name": name}, idempotency_key="k")
        for tenant, name in ((one, "a"), (two, "b"))
    ]

    assert [answer.status_code for answer in answers] == [201, 201]


def test_outside_a_tenant_the_space_is_the_operators_key() -> None:
    one, two, slug = operator_api(), operator_api(), new_slug()

    answers = [api.post("/tenants", {"slug": slug}, idempotency_key="k") for api in (one, one, two)]

    assert [answer.status_code for answer in answers] == [201, 201, 409]
    assert Tenant.objects.filter(slug=slug).count() == 1


def test_refused_requests_are_not_kept() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/event-types"

    refused = [api.post(path, body, idempotency_key="k").status_code for body in ({}, {"name": "!"})]
    made = api.post(path, {"name": "a"}, idempotency_key="k")

    assert (refused, made.status_code) == ([422, 422], 201)


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb", "\x7f"])
def test_keys_are_printable_ascii(key: str) -> None:
    tenant = make_tenant()

    response = tenant_api(tenant).post(
        f"/tenants/{tenant.slug}/event-types", {"name": "a"}, idempotency_key=key
    )

    assert [field for field, _ in error_codes(response)] == ["Idempotency-Key"]
    assert EventType.objects.filter(tenant=tenant).count() == 0


def test_a_reply_with_a_secret_is_stored_encrypted() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    body = {"name": "x", "scopes": ["events:read"]}

    key_replies = [api.post(f"/tenants/{tenant.slug}/api-keys", body, idempotency_key="k1") for _ in range(2)]
    link_replies = [
        api.post(f"/tenants/{tenant.slug}/portal-links", {"role": "viewer"}, idempotency_key="k2")
        for _ in range(2)
    ]

    kept = IdempotencyRecord.objects.filter(space=tenant.id)
    key = json.loads(key_replies[0].content)["key"]
    token = json.loads(link_replies[0].content)["url"].rsplit("/", 1)[1]
    assert key_replies[1].content == key_replies[0].content
    assert link_replies[1].content == link_replies[0].content
    assert [reply["Cache-Control"] for reply in key_replies + link_replies] == ["no-store"] * 4
    assert [record.is_encrypted for record in kept] == [True, True]
    assert not any(secret.encode() in bytes(record.body) for record in kept for secret in (key, token))
    assert ApiKey.objects.filter(tenant=tenant, name="x").count() == 1
    assert PortalLink.objects.for_tenant(tenant).count() == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("api-keys", {"name": "x", "scopes": ["events:write", "deliveries:write"]}),
        ("portal-links", {"role": "admin"}),
    ],
)
def test_a_reply_with_a_secret_is_given_again_to_the_key_that_got_it_alone(
    path: str, body: dict[str, Any]
) -> None:
    """Another might not be allowed to grant what is in it."""
    tenant = make_tenant()
    full, lesser = tenant_api(tenant), tenant_api(tenant, "keys:write", "portal:write")
    operator = operator_api()
    path = f"/tenants/{tenant.slug}/{path}"

    first = full.post(path, body, idempotency_key="k")
    others = [api.post(path, body, idempotency_key="k") for api in (lesser, tenant_api(tenant), operator)]
    again = full.post(path, body, idempotency_key="k")

    assert first.status_code == 201
    secret = json.loads(first.content)["key" if "api-keys" in path else "url"]
    for refused in others:
        assert (refused.status_code, error_codes(refused)) == (
            422,
            [("Idempotency-Key", "idempotency_key_reused")],
        )
        assert secret.encode() not in refused.content
    assert (again.status_code, again.content) == (201, first.content)
    assert again["Idempotent-Replayed"] == "true"


def test_a_limited_key_gets_no_key_without_its_limit_by_an_idempotency_key() -> None:
    tenant = make_tenant()
    ApiKey.objects.filter(hash=access.hash_of(limited := make_key(tenant))).update(rate_limit=100)
    path, body = f"/tenants/{tenant.slug}/api-keys", {"name": "x", "scopes": []}
    tenant_api(tenant).post(path, body, idempotency_key="k")

    refused = Api(limited).post(path, body, idempotency_key="k")

    assert error_codes(refused) == [("Idempotency-Key", "idempotency_key_reused")]


def test_after_a_day_the_key_is_free_again() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/event-types"
    api.post(path, {"name": "a"}, idempotency_key="k")
    IdempotencyRecord.objects.filter(space=tenant.id).update(
        created_at=timezone.now() - timedelta(hours=24, seconds=1)
    )

    second = api.post(path, {"name": "b"}, idempotency_key="k")
    replayed = api.post(path, {"name": "b"}, idempotency_key="k")

    assert (second.status_code, "Idempotent-Replayed" in second) == (201, False)
    assert replayed.content == second.content


def test_while_the_first_is_running_the_second_is_told_so() -> None:
    # The first has the lock and has not committed: a second one that waited would hold a connection for as long, and
    # one that did not look would do the work twice.
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/event-types"
    digest = fingerprint("POST", f"/api/v1{path}", b'{"name": "a"}')

    def second() -> Any:
        try:
            return api.post(path, {"name": "a"}, idempotency_key="k")
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        assert look(tenant.id, "k", digest) is None
        refused = pool.submit(second).result()

    assert (refused.status_code, json.loads(refused.content)["code"]) == (409, "idempotency_in_progress")
    assert api.post(path, {"name": "a"}, idempotency_key="k").status_code == 201


def test_of_many_at_once_one_does_the_work() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)
    path = f"/tenants/{tenant.slug}/event-types"
    together = threading.Barrier(8)

    def send(_: int) -> tuple[int, str]:
        together.wait()
        try:
            response = api.post(path, {"name": "a"}, idempotency_key="k")
        finally:
            connection.close()
        document = json.loads(response.content)
        return response.status_code, document.get("code", "made")

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(send, range(8)))

    assert (201, "made") in answers
    assert answers <= {(201, "made"), (409, "idempotency_in_progress")}
    assert EventType.objects.filter(tenant=tenant).count() == 1
    assert IdempotencyRecord.objects.filter(space=tenant.id).count() == 1


def test_the_lock_of_a_key_is_one_number_of_a_bigint() -> None:
    space = ids.new_id().bytes

    assert lock_key(space, "k") == lock_key(space, "k")
    assert lock_key(space, "k") != lock_key(space, "l")
    assert lock_key(space, "k") != lock_key(ids.new_id().bytes, "k")
    assert all(-(2**63) <= lock_key(space, str(number)) < 2**63 for number in range(100))
