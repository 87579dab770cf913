"""Endpoints that let nobody in without credentials: real receivers, real authorization servers, both transports."""

import base64
import logging
import ssl
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
import trustme
from django.db import connection

from deliveries.models import Endpoint
from deliveries.sealed import Part, seal_part
from tenants.models import Tenant
from tests.support.builders import (
    attempts_of,
    change_endpoint,
    deliveries_of,
    delivery_of,
    make_endpoint,
    make_tenant,
    publish,
)
from tests.support.hostile_receiver import HostileReceiver
from tests.support.running import Reply, Request, Webhooks, run_until_dry, running
from tests.support.token_server import TokenServer

pytestmark = pytest.mark.usefixtures("quiet_lanes")

SECRET = "s3cret of the receiver"


@pytest.fixture(params=["curl", "requests"])
def transport_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def with_auth(tenant: Tenant, url: str, auth: dict[str, Any], secret: str, **fields: Any) -> Endpoint:
    endpoint = make_endpoint(tenant, url, auth=auth, **fields)
    sealed = seal_part(Part.AUTH, secret, tenant_id=tenant.id, endpoint_id=endpoint.id)
    change_endpoint(endpoint, auth_encrypted=sealed)
    return endpoint


def with_oauth(
    tenant: Tenant, webhooks: Webhooks, server: TokenServer, *, path: str = "/a", **fields: Any
) -> Endpoint:
    auth = {
        "type": "oauth2",
        "token_url": server.url,
        "client_id": "the client",
        "scope": "hooks:write",
        "client_authentication": fields.pop("client_authentication", "basic"),
    }
    return with_auth(tenant, webhooks.url(path), auth, SECRET, **fields)


def only(*tokens: str) -> Any:
    """Answers 401 to every request without one of these."""
    return lambda request: Reply(
        200 if request.headers["authorization"] in {f"Bearer {token}" for token in tokens} else 401
    )


def tokens_of(requests: list[Request]) -> list[str]:
    return [request.headers["authorization"].removeprefix("Bearer ") for request in requests]


# --- basic and bearer -------------------------------------------------------------------------------------------------


def test_basic_and_bearer_go_out_and_are_masked_in_attempts(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        with_auth(tenant, webhooks.url("/basic"), {"type": "basic", "username": "anna"}, "pä:ss")
        with_auth(tenant, webhooks.url("/bearer"), {"type": "bearer"}, "to-ken")
        publish(tenant)

        run_until_dry(name=transport_name)

    (basic,) = webhooks.to("/basic")
    (bearer,) = webhooks.to("/bearer")
    assert basic.headers["authorization"] == "Basic " + base64.b64encode("anna:pä:ss".encode()).decode()
    assert bearer.headers["authorization"] == "Bearer to-ken"
    for delivery in deliveries_of(tenant):
        (attempt,) = attempts_of(delivery)
        assert bytes(attempt.request_headers).decode().splitlines()[-1] == "authorization: ***"


def test_credentials_that_are_refused_are_an_outcome_in_words() -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(401)) as webhooks:
        with_auth(tenant, webhooks.url("/a"), {"type": "bearer"}, "old", retry_schedule=[])
        event = publish(tenant)

        run_until_dry()

    delivery = delivery_of(event)
    (attempt,) = attempts_of(delivery)
    assert (delivery.status, delivery.last_outcome, delivery.last_status_code) == (
        "failed",
        "credentials_failed",
        401,
    )
    assert attempt.detail == "The receiver refused the endpoint's credentials."


# --- access tokens ----------------------------------------------------------------------------------------------------


def test_one_token_serves_all_and_outlives_the_dispatcher(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks(a=only("token-1")) as webhooks, TokenServer() as server:
        with_oauth(tenant, webhooks, server)
        for _ in range(30):
            publish(tenant)
        run_until_dry(name=transport_name)
        publish(tenant)
        run_until_dry(name=transport_name)

    assert [delivery.status for delivery in deliveries_of(tenant)] == ["succeeded"] * 31
    assert len(webhooks.requests) == 31
    (asked,) = server.asked
    assert asked.form == {"grant_type": "client_credentials", "scope": "hooks:write"}
    pair = base64.b64encode(b"the+client:s3cret+of+the+receiver").decode()
    assert asked.headers["authorization"] == f"Basic {pair}"
    # A source of the platform's own takes it for the end of a chain.
    assert asked.headers["webhook-hops"] == "5"
    (attempt,) = attempts_of(deliveries_of(tenant)[0])
    assert b"token-1" not in bytes(attempt.request_headers)
    assert bytes(attempt.request_headers).endswith(b"\nauthorization: ***")


def test_the_secret_goes_in_the_body_for_those_who_want_it_there() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks, TokenServer() as server:
        with_oauth(tenant, webhooks, server, client_authentication="body")
        publish(tenant)

        run_until_dry()

    (asked,) = server.asked
    assert asked.form == {
        "grant_type": "client_credentials",
        "scope": "hooks:write",
        "client_id": "the client",
        "client_secret": SECRET,
    }
    assert "authorization" not in asked.headers


def test_a_token_that_is_refused_is_renewed_once_within_the_same_attempt(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks(a=only("token-2")) as webhooks, TokenServer() as server:
        with_oauth(tenant, webhooks, server, max_in_flight=1)
        event = publish(tenant)

        run_until_dry(name=transport_name)

    assert tokens_of(webhooks.requests) == ["token-1", "token-2"]
    assert len({request.headers["webhook-signature"] for request in webhooks.requests}) == 1
    delivery = delivery_of(event)
    assert (delivery.status, delivery.attempt_count, delivery.last_status_code) == ("succeeded", 1, 200)
    assert len(attempts_of(delivery)) == 1


def test_a_receiver_that_refuses_every_token_is_asked_twice_an_attempt(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks(a=Reply(401)) as webhooks, TokenServer() as server:
        with_oauth(tenant, webhooks, server, retry_schedule=[])
        event = publish(tenant)

        run_until_dry(name=transport_name)

    assert tokens_of(webhooks.requests) == ["token-1", "token-2"]
    delivery = delivery_of(event)
    assert (delivery.status, delivery.last_outcome) == ("failed", "credentials_failed")


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ((401, b'{"error":"invalid_client"}'), "There is no access token: its URL answered 401."),
        ((302, b""), "There is no access token: its URL answered 302."),
        ((200, b"<html>"), "There is no access token: what its URL answered is not a token's JSON."),
        ((200, b'{"token":"x"}'), "There is no access token: what its URL answered is not a token's JSON."),
        (
            (200, b'{"access_token":"\xff"}'),
            "There is no access token: what its URL answered is not a token's JSON.",
        ),
        (
            (200, b'{"x":' + b"[" * 16_000),
            "There is no access token: what its URL answered is not a token's JSON.",
        ),
        (
            (200, b'{"access_token":"a\\r\\nx-evil: 1"}'),
            "There is no access token: the one that came cannot stand in a header.",
        ),
        (
            (200, b'{"access_token":"' + b"x" * 20_000 + b'"}'),
            "There is no access token: what its URL answered is not a token's JSON.",
        ),
    ],
)
def test_a_token_that_is_not_to_be_had_is_told_in_words(answer: tuple[int, bytes], detail: str) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks, TokenServer(lambda _: answer) as server:
        with_oauth(tenant, webhooks, server, retry_schedule=[])
        event = publish(tenant)

        run_until_dry()

    delivery = delivery_of(event)
    (attempt,) = attempts_of(delivery)
    assert (delivery.status, delivery.last_outcome, attempt.detail) == (
        "failed",
        "credentials_failed",
        detail,
    )
    assert webhooks.requests == []


def test_a_token_url_that_fails_is_not_asked_for_every_delivery() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks, TokenServer(lambda _: (500, b"")) as server:
        with_oauth(tenant, webhooks, server, retry_schedule=[])
        for _ in range(20):
            publish(tenant)

        run_until_dry()

    assert [delivery.last_outcome for delivery in deliveries_of(tenant)] == ["credentials_failed"] * 20
    assert len(server.asked) == 1


def test_the_guard_stands_before_the_token_url_as_well(transport_name: str) -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks, TokenServer() as server:
        auth = {
            "type": "oauth2",
            "token_url": server.url.replace("127.0.0.1", "169.254.169.254"),
            "client_id": "a",
            "scope": None,
            "client_authentication": "basic",
        }
        with_auth(tenant, webhooks.url("/a"), auth, SECRET, retry_schedule=[])
        event = publish(tenant)

        run_until_dry(name=transport_name)

    (attempt,) = attempts_of(delivery_of(event))
    assert attempt.outcome == "credentials_failed"
    assert "There is no access token, its URL did not answer." in attempt.detail
    assert server.asked == []


def test_a_token_url_that_hangs_delays_nobody_else() -> None:
    tenant = make_tenant()
    is_over = threading.Event()

    def hang(_: int) -> tuple[int, bytes]:
        is_over.wait(10)
        return 200, b'{"access_token":"late"}'

    with Webhooks() as webhooks, TokenServer(hang) as server:
        with_oauth(tenant, webhooks, server)
        make_endpoint(tenant, webhooks.url("/other"))
        with running():
            for _ in range(20):
                publish(tenant)
            webhooks.wait_for(20, "/other", seconds=5)
            assert webhooks.to("/a") == []
            is_over.set()
            webhooks.wait_for(20, "/a")

    assert len(server.asked) == 1


def test_two_tenants_never_share_a_token() -> None:
    with Webhooks() as webhooks, TokenServer() as server:
        for _ in range(2):
            tenant = make_tenant()
            with_oauth(tenant, webhooks, server)
            publish(tenant)

        run_until_dry()

    assert sorted(tokens_of(webhooks.requests)) == ["token-1", "token-2"]


def test_no_secret_is_in_logs_or_in_the_history(caplog: pytest.LogCaptureFixture) -> None:
    tenant = make_tenant()
    caplog.set_level(logging.DEBUG)
    with Webhooks(a=Reply(401)) as webhooks, TokenServer() as server:
        with_oauth(tenant, webhooks, server, retry_schedule=[])
        event = publish(tenant)

        run_until_dry()

    assert SECRET not in caplog.text
    assert "token-1" not in caplog.text
    (attempt,) = attempts_of(delivery_of(event))
    with connection.cursor() as cursor:
        cursor.execute("SELECT convert_from(request_headers, 'UTF8') || detail FROM deliveries_attempt")
        assert all("token-" not in text and SECRET not in text for (text,) in cursor.fetchall())
    assert attempt.outcome == "credentials_failed"


# --- certificates -----------------------------------------------------------------------------------------------------


def test_a_delivery_shows_its_client_certificate_and_trusts_its_own_authority(transport_name: str) -> None:
    authority, clients = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    clients.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    leaf = clients.issue_cert("client.example")
    tenant = make_tenant()
    with HostileReceiver(tls=context) as receiver:
        endpoint = make_endpoint(
            tenant,
            receiver.url("/ok"),
            ca_certificates=authority.cert_pem.bytes().decode(),
            client_certificate=leaf.cert_chain_pems[0].bytes().decode(),
        )
        key = leaf.private_key_pem.bytes().decode()
        sealed = seal_part(Part.CLIENT_KEY, key, tenant_id=tenant.id, endpoint_id=endpoint.id)
        change_endpoint(endpoint, client_key_encrypted=sealed)
        event = publish(tenant)

        run_until_dry(name=transport_name)

    assert delivery_of(event).status == "succeeded"
    assert len(receiver.requests) == 1


def test_a_client_certificate_that_has_expired_is_told_in_words() -> None:
    leaf = trustme.CA().issue_cert("client.example", not_after=datetime(2026, 1, 1, tzinfo=UTC))
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(
            tenant,
            webhooks.url("/a"),
            client_certificate=leaf.cert_chain_pems[0].bytes().decode(),
            retry_schedule=[],
        )
        event = publish(tenant)

        run_until_dry()

    (attempt,) = attempts_of(delivery_of(event))
    assert (attempt.outcome, attempt.detail) == (
        "credentials_failed",
        "The endpoint's client certificate has expired.",
    )
    assert webhooks.requests == []


def test_a_secret_that_does_not_open_is_that_endpoint_alone() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        bad = make_endpoint(tenant, webhooks.url("/bad"), auth={"type": "bearer"}, retry_schedule=[])
        change_endpoint(bad, auth_encrypted=b"no ciphertext")
        make_endpoint(tenant, webhooks.url("/good"))
        publish(tenant)

        run_until_dry()

    assert len(webhooks.to("/good")) == 1
    assert webhooks.to("/bad") == []
