"""Tenants whose endpoints have to echo a challenge before they are made: through the API, against real receivers."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from deliveries.models import Endpoint
from deliveries.services import endpoints, ownership
from tenants.models import IdempotencyRecord, Tenant
from tenants.services.audit import COMMAND
from tenants.validation import InvalidContent
from tests.support.api import Api, error_codes, make_tenant, tenant_api
from tests.support.echo_server import Challenged, EchoServer

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(params=["curl", "requests"])
def transport_name(request: pytest.FixtureRequest, settings: Any) -> str:
    settings.WEBHOOKS_TRANSPORT = request.param
    return str(request.param)


@pytest.fixture
def tenant() -> Tenant:
    return make_tenant(verify_endpoints=True)


@pytest.fixture
def api(tenant: Tenant) -> Api:
    return tenant_api(tenant)


@pytest.fixture
def receiver() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


def create(api: Api, tenant: Tenant, url: str, **fields: Any) -> Any:
    return api.post(f"/tenants/{tenant.slug}/endpoints", {"url": url, "uid": "one"} | fields)


def count(tenant: Tenant) -> int:
    return Endpoint.objects.for_tenant(tenant).count()


ECHOES: list[Callable[[str], tuple[int, dict[str, str], bytes]]] = [
    lambda challenge: (200, {}, challenge.encode()),
    lambda challenge: (200, {}, b' {"challenge": "%b", "more": 1}\n' % challenge.encode()),
    lambda challenge: (204, {"Webhook-Challenge": challenge}, b""),
]


@pytest.mark.parametrize("echo", ECHOES)
def test_an_endpoint_that_echoes_the_challenge_is_made(
    transport_name: str,
    tenant: Tenant,
    api: Api,
    receiver: EchoServer,
    echo: Callable[[str], tuple[int, dict[str, str], bytes]],
) -> None:
    receiver.answer = lambda asked: echo(asked.challenge)

    response = create(api, tenant, receiver.url, headers={"X-Team": "a", "X-Api-Key": "s3cret"})

    assert response.status_code == 201, response.content
    (asked,) = receiver.asked
    said = json.loads(asked.body)
    assert (asked.method, said["type"], said["data"]) == (
        "POST",
        "webhook.verification",
        {"challenge": asked.headers["webhook-challenge"]},
    )
    assert len(asked.challenge) == 43
    assert (asked.headers["x-team"], asked.headers["x-api-key"]) == ("a", "s3cret")


WRONG: list[tuple[Callable[[str], tuple[int, dict[str, str], bytes]], str]] = [
    (lambda _: (200, {}, b"ok"), "The answer does not hold the challenge."),
    (lambda challenge: (200, {}, b"x" + challenge.encode()), "The answer does not hold the challenge."),
    (lambda _: (200, {}, b"[" * 10_000), "The answer does not hold the challenge."),
    (lambda challenge: (404, {}, challenge.encode()), "The endpoint answered with status 404"),
    (lambda challenge: (302, {"Location": "/"}, challenge.encode()), "The endpoint answered with status 302"),
]


@pytest.mark.parametrize(("echo", "reason"), WRONG)
def test_one_that_does_not_is_refused_with_the_reason_and_nothing_is_made(
    tenant: Tenant,
    api: Api,
    receiver: EchoServer,
    echo: Callable[[str], tuple[int, dict[str, str], bytes]],
    reason: str,
) -> None:
    receiver.answer = lambda asked: echo(asked.challenge)

    response = create(api, tenant, receiver.url)

    assert (response.status_code, error_codes(response)) == (422, [("url", "not_verified")])
    (error,) = json.loads(response.content)["errors"]
    assert error["message"].startswith("The endpoint did not prove that it wants webhooks. " + reason)
    assert count(tenant) == 0


def test_nobody_at_home_is_told_in_words(
    transport_name: str,
    tenant: Tenant,
    api: Api,
) -> None:
    with EchoServer() as gone:
        url = gone.url

    response = create(api, tenant, url)

    (error,) = json.loads(response.content)["errors"]
    assert (response.status_code, error["field"]) == (422, "url")
    assert "No connection to the endpoint could be made" in error["message"]


def test_get_carries_the_challenge_in_the_query(tenant: Tenant, api: Api, receiver: EchoServer) -> None:
    response = create(api, tenant, receiver.url + "?a=1", method="GET")

    assert response.status_code == 201
    (asked,) = receiver.asked
    assert asked.path == f"/hook?a=1&challenge={asked.challenge}"


def test_a_tenant_that_does_not_ask_for_it_sends_nothing(receiver: EchoServer) -> None:
    tenant = make_tenant()

    response = create(tenant_api(tenant), tenant, receiver.url)

    assert response.status_code == 201
    assert receiver.asked == []


def test_the_challenge_is_sent_outside_of_a_transaction_and_once_for_a_key(
    tenant: Tenant, api: Api, receiver: EchoServer
) -> None:
    def look(asked: Challenged) -> tuple[int, dict[str, str], bytes]:
        # The row's lock would be held by a transaction that waits for this answer.
        receiver.is_free = EchoServer.is_tenant_free(tenant.id)
        return 200, {}, asked.challenge.encode()

    receiver.answer = look
    path, given = f"/tenants/{tenant.slug}/endpoints", {"url": receiver.url}

    first = api.post(path, given, idempotency_key="k")
    again = api.post(path, given, idempotency_key="k")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again["Idempotent-Replayed"] == "true"
    assert len(receiver.asked) == 1
    assert count(tenant) == 1
    assert receiver.is_free


def test_a_refused_challenge_leaves_the_key_free(tenant: Tenant, api: Api, receiver: EchoServer) -> None:
    receiver.answer = lambda _: (500, {}, b"")
    path, given = f"/tenants/{tenant.slug}/endpoints", {"url": receiver.url}
    assert api.post(path, given, idempotency_key="k").status_code == 422
    assert not IdempotencyRecord.objects.filter(space=tenant.id).exists()

    receiver.answer = lambda asked: (200, {}, asked.challenge.encode())

    assert api.post(path, given, idempotency_key="k").status_code == 201


def test_a_new_url_has_to_be_proved_and_other_changes_need_nothing(
    tenant: Tenant, api: Api, receiver: EchoServer
) -> None:
    create(api, tenant, receiver.url)
    path = f"/tenants/{tenant.slug}/endpoints/one"
    receiver.answer = lambda _: (200, {}, b"no")

    other = api.patch(path, {"description": "x", "url": receiver.url})
    refused = api.patch(path, {"url": receiver.url + "/new"})
    put = api.put(path, {"url": receiver.url + "/new"})

    assert other.status_code == 200
    assert error_codes(refused) == error_codes(put) == [("url", "not_verified")]
    assert Endpoint.objects.for_tenant(tenant).get(uid="one").url == receiver.url
    assert len(receiver.asked) == 3


def test_put_makes_one_that_proves_itself(tenant: Tenant, api: Api, receiver: EchoServer) -> None:
    assert api.put(f"/tenants/{tenant.slug}/endpoints/two", {"url": receiver.url}).status_code == 201
    assert len(receiver.asked) == 1


def test_the_service_takes_no_url_without_its_proof(tenant: Tenant, receiver: EchoServer) -> None:
    proof = ownership.prove_new(tenant=tenant, url=receiver.url)

    for without in (None, proof):
        with pytest.raises(InvalidContent):
            endpoints.create_endpoint(
                actor=COMMAND, tenant=tenant, url="https://other.example.com/", proof=without
            )
    assert count(tenant) == 0
    assert not connection.in_atomic_block
