"""Requests to sources over real HTTP: what is taken, refused, answered, kept, and what comes of it."""

import base64
import hashlib
import hmac
import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
import requests
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deliveries.inbound.requests import MAX_BODY_BYTES
from deliveries.models import Event, IncomingRequest, Source
from deliveries.services import arrivals, erasing, sources
from tenants.models import EventType, Tenant
from tenants.services.audit import COMMAND
from tenants.services.tenants import delete_tenant, update_tenant
from tests.support.api import make_tenant, tenant_api
from tests.support.builders import deliveries_of, events_of, make_endpoint
from tests.support.live import live_platform
from tests.support.racing import at_once

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(scope="module")
def platform(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    with django_db_blocker.unblock(), live_platform() as url:
        yield url


def make_source(tenant: Tenant | None = None, **fields: Any) -> tuple[Source, str]:
    """The source and the path of its URL. Unless a field says otherwise: everything is an `order.created`."""
    if tenant is None:
        tenant = make_tenant()
        EventType.objects.create(tenant=tenant, name="order.created")
    if "preset" not in fields:
        fields = {"event_type": '"order.created"'} | fields
    source, token = sources.create_source(actor=COMMAND, tenant=tenant, name="in", **fields)
    return source, f"/in/{token}"


def kept(source: Source) -> list[IncomingRequest]:
    """The oldest first."""
    return list(arrivals.requests_of(source).order_by("id"))


def verdicts(source: Source) -> list[tuple[str, str, int]]:
    return [(each.verdict, each.reason, each.status_code) for each in kept(source)]


def data_of(tenant: Tenant) -> list[Any]:
    return [(event.type, json.loads(bytes(event.data or b""))) for event in events_of(tenant)]


# --- what is taken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "content_type", "query", "body", "data"),
    [
        ("POST", "application/json", "", b'{"n":  1.10}', b'{"n":  1.10}'),
        ("PUT", "application/json; charset=utf-8", "", b'{"n": 1}', b'{"n": 1}'),
        ("POST", "application/json", "", b"[1]", b'{"body":[1]}'),
        ("POST", "application/x-www-form-urlencoded", "", b"a=1&b=x+y", b'{"a":"1","b":"x y"}'),
        ("POST", "application/xml", "", b'<o id="7"><n>1</n></o>', b'{"o":{"@id":"7","n":"1"}}'),
        ("GET", "", "from=%2B44&text=Yes", b"", b'{"from":"+44","text":"Yes"}'),
    ],
)
def test_a_request_makes_an_event_that_is_fanned_out(
    platform: str, method: str, content_type: str, query: str, body: bytes, data: bytes
) -> None:
    source, path = make_source(response_status=202, response_body='{"ok": true}')
    make_endpoint(source.tenant, "https://shop.example.com")
    headers = (
        {"Content-Type": content_type, "X-Api-Key": "s3cret"} if content_type else {"X-Api-Key": "s3cret"}
    )

    answer = requests.request(
        method, f"{platform}{path}{'?' if query else ''}{query}", data=body, headers=headers, timeout=10
    )

    assert (answer.status_code, answer.content) == (202, b'{"ok": true}')
    (event,) = events_of(source.tenant)
    assert (event.type, bytes(event.data or b"")) == ("order.created", data)
    assert [each.event_id for each in deliveries_of(source.tenant)] == [event.id]
    (row,) = kept(source)
    assert (row.verdict, row.event_id, bytes(row.body), bytes(row.query)) == (
        "accepted",
        event.id,
        body,
        query.encode(),
    )
    assert (row.method, row.size, row.remote_ip) == (method, len(body), "127.0.0.1")
    assert b"x-api-key: ***" in bytes(row.headers)
    assert b"s3cret" not in bytes(row.headers)


def test_an_accepted_request_costs_two_statements_and_its_share_of_a_transaction() -> None:
    """The door and its count; the rest is `ingest`, on its own connection, with whoever else publishes."""
    source, path = make_source(dedup_path="id")
    send = partial(Client().post, path, content_type="application/json")
    send(b"{}")

    with CaptureQueriesContext(connection) as queries:
        assert send(b'{"id": 1}').status_code == 200

    assert [query["sql"].split()[0] for query in queries.captured_queries] == ["SELECT", "INSERT"]
    assert len(kept(source)) == 2


def test_answers_are_no_pages(platform: str) -> None:
    _, path = make_source(response_body="<b>hello</b>")
    good = requests.post(f"{platform}{path}", json={}, timeout=10)
    unknown = requests.post(f"{platform}/in/unknown", json={}, timeout=10)
    wrong = requests.delete(f"{platform}{path}", timeout=10)

    for answer, status in ((good, 200), (unknown, 404), (wrong, 405)):
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "sandbox"
        assert "Set-Cookie" not in answer.headers
    assert wrong.headers["Allow"] == "POST, PUT, GET"


def test_a_body_in_chunks_is_read(platform: str) -> None:
    """The server puts them together; there is no length."""
    source, path = make_source()

    answer = Client().generic(
        "POST",
        path,
        b"",
        "application/json",
        HTTP_TRANSFER_ENCODING="chunked",
        CONTENT_LENGTH="",
        **{"wsgi.input": io.BytesIO(b'{"a":1}')},  # type: ignore[arg-type] # an environ may hold anything
    )

    assert answer.status_code == 200
    assert data_of(source.tenant) == [("order.created", {"a": 1})]


@pytest.mark.parametrize("length", ["4", "²"])
def test_of_a_body_that_ended_early_nothing_is_kept(length: str) -> None:
    source, path = make_source()

    answer = Client().generic(
        "POST",
        path,
        b"",
        "application/x-www-form-urlencoded",
        CONTENT_LENGTH=length,
        **{"wsgi.input": io.BytesIO(b"a=1")},  # type: ignore[arg-type] # an environ may hold anything
    )

    assert answer.status_code == 400
    assert kept(source) == []
    assert events_of(source.tenant) == []


# --- presets ----------------------------------------------------------------------------------------------------------

GITHUB_SECRET = "It's a Secret to Everybody"


def github_headers(body: bytes, delivery: str = "72d3162e-cc78-11e3-81ab-4c9367dc0958") -> dict[str, str]:
    digest = hmac.new(GITHUB_SECRET.encode(), body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": f"sha256={digest}",
    }


def signed(preset: str, url: str) -> tuple[str, bytes, dict[str, str]]:
    """The secret, a body and its headers, made by the steps of each provider's page."""
    now = str(int(time.time()))
    match preset:
        case "github":
            body = b'{"ref": "refs/heads/main"}'
            return GITHUB_SECRET, body, github_headers(body)
        case "stripe":
            body = b'{"id": "evt_1", "type": "charge.refunded"}'
            digest = hmac.new(b"whsec_x", f"{now}.".encode() + body, hashlib.sha256).hexdigest()
            headers = {"Content-Type": "application/json", "Stripe-Signature": f"t={now},v1={digest}"}
            return "whsec_x", body, headers
        case "shopify":
            body = b'{"id": 7}'
            digest = base64.b64encode(hmac.digest(b"shpss", body, "sha256")).decode()
            return (
                "shpss",
                body,
                {
                    "Content-Type": "application/json",
                    "X-Shopify-Topic": "orders/create",
                    "X-Shopify-Webhook-Id": "b54557e4",
                    "X-Shopify-Hmac-Sha256": digest,
                },
            )
        case "slack":
            body = b'{"type": "event_callback", "event_id": "Ev1", "event": {"type": "app_mention"}}'
            digest = hmac.new(b"8f742231", f"v0:{now}:".encode() + body, hashlib.sha256).hexdigest()
            headers = {
                "Content-Type": "application/json",
                "X-Slack-Request-Timestamp": now,
                "X-Slack-Signature": f"v0={digest}",
            }
            return "8f742231", body, headers
        case _:
            fields = {"MessageSid": "SM1", "MessageStatus": "delivered", "To": "+18005551212"}
            text = url + "".join(f"{name}{fields[name]}" for name in sorted(fields))
            digest = base64.b64encode(hmac.digest(b"12345", text.encode(), "sha1")).decode()
            headers = {
                "Content-Type": "application/x-www-form-urlencoded",
                "X-Twilio-Signature": digest,
                "I-Twilio-Idempotency-Token": "t-1",
            }
            return "12345", urlencode(fields).encode(), headers


PRESETS = {
    "github": "github.push",
    "stripe": "stripe.charge.refunded",
    "shopify": "shopify.orders.create",
    "slack": "slack.app_mention",
    "twilio": "twilio.message.delivered",
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_request_makes_one_event_however_often_it_comes(platform: str, preset: str) -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name=PRESETS[preset])
    source, path = make_source(tenant, preset=preset, secrets=["will be changed:now"])
    url = f"{platform}{path}?from=here"
    secret, body, headers = signed(preset, url)
    sources.update_source(actor=COMMAND, source=source, secrets=[secret])

    answers = [requests.post(url, data=body, headers=headers, timeout=10).status_code for _ in range(2)]
    broken = requests.post(
        url, data=body.replace(b"1", b"2").replace(b"7", b"8") + b" ", headers=headers, timeout=10
    )

    assert answers == [200, 200]
    assert broken.status_code == 401
    assert [event.type for event in events_of(tenant)] == [PRESETS[preset]]
    assert verdicts(source) == [
        ("accepted", "", 200),
        ("duplicate", "", 200),
        ("refused", "signature_wrong", 401),
    ]
    first, second, _ = kept(source)
    assert first.event_id == second.event_id


# --- handshakes -------------------------------------------------------------------------------------------------------


def test_slacks_question_is_answered_when_it_is_signed(platform: str) -> None:
    """The body is the example of Slack's page on url_verification."""
    source, path = make_source(preset="slack", secrets=["8f742231"])
    challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
    body = json.dumps(
        {"token": "Jhj5dZrVaK7ZwHHjRyZWjbDl", "challenge": challenge, "type": "url_verification"}
    ).encode()
    now = str(int(time.time()))
    digest = hmac.new(b"8f742231", f"v0:{now}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-Slack-Request-Timestamp": now,
        "X-Slack-Signature": f"v0={digest}",
    }

    good = requests.post(f"{platform}{path}", data=body, headers=headers, timeout=10)
    unsigned = requests.post(
        f"{platform}{path}", data=body, headers=headers | {"X-Slack-Signature": "v0=0"}, timeout=10
    )

    assert (good.status_code, good.text) == (200, challenge)
    assert good.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert unsigned.status_code == 401
    assert challenge not in unsigned.text
    assert verdicts(source) == [("handshake", "", 200), ("refused", "signature_wrong", 401)]


def test_metas_question_is_answered_when_its_token_is_right(platform: str) -> None:
    """The query is the example of Meta's page on verification requests."""
    source, path = make_source(preset="meta", secrets=["app secret"], verify_token="meatyhamhock")
    query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock"

    good = requests.get(f"{platform}{path}?{query}", timeout=10)
    wrong = [
        requests.get(f"{platform}{path}?{query}x", timeout=10),
        requests.get(f"{platform}{path}?{query.replace('subscribe', 'other')}", timeout=10),
        requests.get(f"{platform}{path}?{query.replace('1158201444', '<script>')}", timeout=10),
        requests.get(f"{platform}{path}?{query.replace('1158201444', 'x' * 257)}", timeout=10),
    ]

    assert (good.status_code, good.text) == (200, "1158201444")
    assert [(answer.status_code, "script" in answer.text) for answer in wrong] == [(403, False)] * 4
    assert verdicts(source) == [("handshake", "", 200), *[("refused", "challenge_refused", 403)] * 4]
    api = tenant_api(source.tenant)
    reference = f"/tenants/{source.tenant.slug}/sources/src_"
    listed = json.loads(api.get(f"/tenants/{source.tenant.slug}/sources").content)["data"][0]
    assert listed["id"].startswith("src_")
    first = json.loads(api.get(f"{reference[:-4]}{listed['id']}/requests").content)["data"][-1]
    detail = json.loads(api.get(f"{reference[:-4]}{listed['id']}/requests/{first['id']}").content)
    assert "meatyhamhock" not in json.dumps(detail)


# --- what is refused --------------------------------------------------------------------------------------------------


def github(**fields: Any) -> tuple[Source, str]:
    return make_source(preset="github", secrets=[GITHUB_SECRET], **fields)


@pytest.mark.parametrize(
    ("reason", "status", "changed"),
    [
        ("signature_wrong", 401, {"headers": {"X-Hub-Signature-256": "sha256=" + "0" * 64}}),
        ("signature_wrong", 401, {"data": b'{"ref": "refs/heads/mais"}'}),
        ("signature_missing", 401, {"headers": {"X-Hub-Signature-256": None}}),
        ("too_large", 413, {"data": b"x" * (MAX_BODY_BYTES + 1)}),
        ("unsupported_content_type", 415, {"headers": {"Content-Type": "text/plain"}}),
        ("loop_detected", 508, {"headers": {"webhook-hops": "5"}}),
    ],
)
def test_what_is_refused_is_kept_with_its_reason(
    platform: str, reason: str, status: int, changed: dict[str, Any]
) -> None:
    source, path = github()
    body = b'{"ref": "refs/heads/main"}'
    headers = {**github_headers(body), **changed.get("headers", {})}

    answer = requests.post(f"{platform}{path}", data=changed.get("data", body), headers=headers, timeout=10)

    assert answer.status_code == status
    assert verdicts(source) == [("refused", reason, status)]
    (row,) = kept(source)
    assert row.detail == answer.text
    assert bytes(row.body) == (b"" if reason == "too_large" else changed.get("data", body))
    assert events_of(source.tenant) == []


def test_a_malformed_body_is_refused(platform: str) -> None:
    source, path = github()
    body = b'{"ref": '

    answer = requests.post(f"{platform}{path}", data=body, headers=github_headers(body), timeout=10)

    assert answer.status_code == 400
    assert verdicts(source) == [("refused", "malformed_body", 400)]


def test_xml_with_a_document_type_is_refused_and_reads_no_file(platform: str) -> None:
    source, path = make_source()
    body = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'

    answer = requests.post(
        f"{platform}{path}", data=body, headers={"Content-Type": "application/xml"}, timeout=10
    )

    assert answer.status_code == 400
    assert "root" not in answer.text
    assert events_of(source.tenant) == []


def test_an_old_timestamp_and_a_replay_are_told_apart(platform: str) -> None:
    """Within the tolerance a replay is a duplicate; past it, refused."""
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="stripe.charge.refunded")
    source, path = make_source(tenant, preset="stripe", secrets=["whsec_x"])
    url = f"{platform}{path}"
    _, body, headers = signed("stripe", url)
    old = str(int(time.time()) - 301)
    digest = hmac.new(b"whsec_x", f"{old}.".encode() + body, hashlib.sha256).hexdigest()

    first = requests.post(url, data=body, headers=headers, timeout=10)
    replay = requests.post(url, data=body, headers=headers, timeout=10)
    late = requests.post(
        url, data=body, headers=headers | {"Stripe-Signature": f"t={old},v1={digest}"}, timeout=10
    )

    assert [answer.status_code for answer in (first, replay, late)] == [200, 200, 401]
    assert verdicts(source) == [
        ("accepted", "", 200),
        ("duplicate", "", 200),
        ("refused", "timestamp_old", 401),
    ]
    assert len(events_of(tenant)) == 1


@pytest.mark.parametrize(
    ("scheme", "secret", "authorization", "challenge"),
    [("bearer", "s3cret", "Bearer s3cret", "Bearer"), ("basic", "u:p", "Basic dTpw", "Basic")],
)
def test_credentials_are_asked_for(
    platform: str, scheme: str, secret: str, authorization: str, challenge: str
) -> None:
    from deliveries.inbound.verification import settings_of

    source, path = make_source(verification=settings_of({"scheme": scheme}), secrets=[secret])
    url = f"{platform}{path}"

    good = requests.post(url, json={}, headers={"Authorization": authorization}, timeout=10)
    wrong = requests.post(url, json={}, headers={"Authorization": authorization + "x"}, timeout=10)

    assert (good.status_code, wrong.status_code) == (200, 401)
    assert wrong.headers["WWW-Authenticate"] == challenge
    assert all(b"authorization: ***" in bytes(row.headers) for row in kept(source))


def test_other_addresses_are_refused(platform: str) -> None:
    source, path = make_source(allowed_networks=["192.0.2.0/24"])

    assert requests.post(f"{platform}{path}", json={}, timeout=10).status_code == 403
    sources.update_source(actor=COMMAND, source=source, allowed_networks=["127.0.0.0/8"])
    assert requests.post(f"{platform}{path}", json={}, timeout=10).status_code == 200

    assert verdicts(source) == [("refused", "address_not_allowed", 403), ("accepted", "", 200)]


def test_a_suspended_tenant_takes_nothing_and_a_deleted_one_is_unknown(platform: str) -> None:
    source, path = make_source()
    update_tenant(actor=COMMAND, tenant=source.tenant, status="suspended")
    suspended = requests.post(f"{platform}{path}", json={}, timeout=10)
    delete_tenant(actor=COMMAND, tenant=source.tenant)
    deleted = requests.post(f"{platform}{path}", json={}, timeout=10)

    assert (suspended.status_code, deleted.status_code) == (403, 404)
    assert verdicts(source) == [("refused", "tenant_suspended", 403)]


# --- the door ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["x", "x" * 43, "x" * 5000, "%00", "%ff%fe", "../api"])
def test_an_unknown_token_costs_one_indexed_look_up(token: str) -> None:
    with CaptureQueriesContext(connection) as queries:
        answer = Client().post(f"/in/{token}", b"{}", content_type="application/json")

    assert answer.status_code == 404
    assert len(queries) <= 1
    if not queries.captured_queries:
        return
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(f"EXPLAIN {queries.captured_queries[0]['sql']}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("RESET enable_seqscan")
    assert "hash_key" in plan or "hash" in plan
    assert "Index" in plan


def test_a_disabled_source_is_gone_and_a_deleted_one_unknown(platform: str) -> None:
    source, path = make_source()
    sources.update_source(actor=COMMAND, source=source, status="disabled")
    disabled = requests.post(f"{platform}{path}", json={}, timeout=10)
    sources.update_source(actor=COMMAND, source=source, status="enabled")
    enabled = requests.post(f"{platform}{path}", json={}, timeout=10)
    sources.delete_source(actor=COMMAND, source=source)
    deleted = requests.post(f"{platform}{path}", json={}, timeout=10)

    assert [answer.status_code for answer in (disabled, enabled, deleted)] == [410, 200, 404]
    assert len(kept(source)) == 1


def test_too_many_requests_of_one_source_do_not_touch_another(platform: str) -> None:
    source, path = make_source(rate_limit=2)
    _, other = make_source(source.tenant)

    answers = [requests.post(f"{platform}{path}", json={}, timeout=10) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 60
    assert requests.post(f"{platform}{other}", json={}, timeout=10).status_code == 200
    assert len(kept(source)) == 2


def test_both_urls_take_requests_until_the_overlap_ends(platform: str) -> None:
    source, old = make_source()
    new = f"/in/{sources.rotate_token(actor=COMMAND, source=source, overlap=timedelta(minutes=5))}"
    both = [requests.post(f"{platform}{path}", json={}, timeout=10).status_code for path in (old, new)]
    last = f"/in/{sources.rotate_token(actor=COMMAND, source=source, overlap=timedelta(0))}"
    after = [requests.post(f"{platform}{path}", json={}, timeout=10).status_code for path in (old, new, last)]

    assert both == [200, 200]
    assert after == [404, 404, 200]


def test_a_host_of_its_own_takes_nothing_elsewhere(settings: Any) -> None:
    _, path = make_source()
    settings.WEBHOOKS_INBOUND_HOST = "in.example.com"
    settings.ALLOWED_HOSTS = ["*"]

    def status(host: str, where: str) -> int:
        return Client(headers={"Host": host}).post(where, b"{}", content_type="application/json").status_code

    for own in ("in.example.com", "in.example.com.", "IN.example.com:443", "in.example.com.:443"):
        assert status(own, path) == 200, own
        for page in ("/portal/sign-in", "/api/v1/whoami"):
            assert Client(headers={"Host": own}).get(page).status_code == 404, (own, page)
    assert status("app.example.com", path) == 404


@pytest.mark.parametrize("own", ["", "in.example.com"])
def test_a_host_that_is_not_ours_is_a_fault_of_the_sender(settings: Any, own: str) -> None:
    source, path = make_source()
    settings.WEBHOOKS_INBOUND_HOST = own
    settings.ALLOWED_HOSTS = ["in.example.com"]

    answer = Client(headers={"Host": "elsewhere.example"}).post(path, b"{}", content_type="application/json")

    assert (answer.status_code, answer.content) == (400, b"The request cannot be read.")
    assert list(kept(source)) == []


# --- once -------------------------------------------------------------------------------------------------------------


def test_the_second_of_an_id_gets_the_answer_of_the_first(platform: str) -> None:
    source, path = make_source(dedup_path="order.id", response_body="first")
    url = f"{platform}{path}"
    body = {"order": {"id": 7}, "n": 1}

    first = requests.post(url, json=body, timeout=10)
    sources.update_source(actor=COMMAND, source=source, response_body="changed", response_status=202)
    second = requests.post(url, json=body | {"n": 2}, timeout=10)
    other = requests.post(url, json={"order": {"id": 8}}, timeout=10)

    assert [(answer.status_code, answer.text) for answer in (first, second, other)] == [
        (200, "first"),
        (200, "first"),
        (202, "changed"),
    ]
    assert [each["order"]["id"] for _, each in data_of(source.tenant)] == [7, 8]
    assert [each.dedup_id for each in kept(source)] == ["7", "7", "8"]


def test_an_id_counts_within_its_window_and_its_source(platform: str) -> None:
    source, path = make_source(dedup_header="x-id", dedup_seconds=60)
    _, other = make_source(source.tenant, dedup_header="x-id")
    headers = {"X-Id": "a"}
    for where in (path, other, path):
        assert requests.post(f"{platform}{where}", json={}, headers=headers, timeout=10).status_code == 200
    assert len(events_of(source.tenant)) == 2

    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tenants_idempotencyrecord SET created_at = now() - interval '61 seconds' WHERE space = %s",
            [source.tenant_id],
        )
    requests.post(f"{platform}{path}", json={}, headers=headers, timeout=10)
    requests.post(f"{platform}{other}", json={}, headers=headers, timeout=10)

    assert len(events_of(source.tenant)) == 3


def test_many_of_one_id_at_once_make_one_event(platform: str) -> None:
    """They meet in one transaction, or find the first one's key locked or kept: whichever it is, one event."""
    source, path = make_source(dedup_header="x-id")

    def send(_: int) -> int:
        return requests.post(f"{platform}{path}", json={}, headers={"X-Id": "a"}, timeout=20).status_code

    answers = at_once(12, send)

    assert answers == [200] * 12
    assert len(events_of(source.tenant)) == 1
    assert sorted(each.verdict for each in kept(source)) == ["accepted", *["duplicate"] * 11]


# --- mapping ----------------------------------------------------------------------------------------------------------


def test_a_mapping_makes_type_and_data(platform: str) -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="sms.reply")
    source, path = make_source(
        tenant,
        event_type='data.query.kind == "mo" ? "sms/" + data.headers["x-kind"] : ""',
        data='{"from": data.body.from, "method": data.method}',
    )
    form = {"from": "+44", "text": "Yes"}

    requests.post(f"{platform}{path}?kind=mo", data=form, headers={"X-Kind": "reply"}, timeout=10)
    ignored = requests.post(f"{platform}{path}?kind=dlr", data=form, headers={"X-Kind": "x"}, timeout=10)

    assert data_of(tenant) == [("sms.reply", {"from": "+44", "method": "POST"})]
    assert ignored.status_code == 200
    assert verdicts(source) == [("accepted", "", 200), ("ignored", "", 200)]


def test_a_mapping_sees_no_credentials(platform: str) -> None:
    source, path = make_source(event_type='data.headers["x-api-key"]')

    requests.post(f"{platform}{path}", json={}, headers={"X-Api-Key": "order.created"}, timeout=10)

    assert verdicts(source) == [("unmapped", "mapping_failed", 200)]


def test_a_credential_is_kept_and_mapped_nowhere_whatever_its_header_is_called(platform: str) -> None:
    from deliveries.inbound.verification import settings_of

    source, path = make_source(
        verification=settings_of({"scheme": "bearer", "header": "X-Hook-Id"}),
        secrets=["s3cret-value"],
        event_type='data.headers["x-hook-id"]',
    )
    for given in ("s3cret-value", "s3cret-valuE"):
        requests.post(f"{platform}{path}", json={}, headers={"X-Hook-Id": given}, timeout=10)
    sources.update_source(actor=COMMAND, source=source, event_type='"order.created"')
    requests.post(f"{platform}{path}", json={}, headers={"X-Hook-Id": "s3cret-value"}, timeout=10)

    assert verdicts(source) == [
        ("unmapped", "mapping_failed", 200),
        ("refused", "credentials_wrong", 401),
        ("accepted", "", 200),
    ]
    assert all(b"x-hook-id: ***" in bytes(row.headers) for row in kept(source))
    assert all(b"s3cret" not in bytes(row.headers) for row in kept(source))


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"event_type": "data.body.kind"}, "mapping_failed", "the data has no key 'kind'"),
        ({"event_type": "data.body.n"}, "mapping_failed", "its result is no text"),
        ({"event_type": '"no spaces? yes!"'}, "mapping_failed", "cannot be one"),
        ({"event_type": '"order.unheard-of"'}, "event_refused", "unknown_event_type"),
        ({"event_type": '"order.created"', "data": "data.body.n"}, "mapping_failed", "not an object"),
    ],
)
def test_a_mapping_that_fails_keeps_the_request_and_says_why(
    platform: str, fields: dict[str, Any], reason: str, words: str
) -> None:
    source, path = make_source(**fields)

    answer = requests.post(f"{platform}{path}", json={"n": 1}, timeout=10)

    assert answer.status_code == 200
    (row,) = kept(source)
    assert (row.verdict, row.reason) == ("unmapped", reason)
    assert words in row.detail
    assert bytes(row.body) == b'{"n": 1}'
    assert events_of(source.tenant) == []


def test_once_mended_it_is_run_again_and_makes_one_event(platform: str) -> None:
    source, path = make_source(event_type="data.body.kind", dedup_path="id")
    for number in (1, 1, 2):
        requests.post(f"{platform}{path}", json={"id": number}, timeout=10)
    changed = sources.update_source(actor=COMMAND, source=source, event_type='"order.created"')

    assert arrivals.run_all_again(actor=COMMAND, source=changed) == (3, 0)

    assert [each["id"] for _, each in data_of(source.tenant)] == [1, 2]
    assert [each.verdict for each in kept(source)] == ["accepted", "duplicate", "accepted"]
    assert [event.occurred_at for event in events_of(source.tenant)] == [
        kept(source)[0].created_at,
        kept(source)[2].created_at,
    ]
    assert arrivals.run_all_again(actor=COMMAND, source=changed) == (0, 0)
    with pytest.raises(arrivals.NotAgain):
        arrivals.run_again(actor=COMMAND, source=changed, incoming=kept(source)[0])


def test_run_again_twice_at_once_makes_one_event(platform: str) -> None:
    source, path = make_source(event_type="data.body.kind")
    requests.post(f"{platform}{path}", json={}, timeout=10)
    changed = sources.update_source(actor=COMMAND, source=source, event_type='"order.created"')
    first, second = kept(source)[0], kept(source)[0]

    arrivals.run_again(actor=COMMAND, source=changed, incoming=first)
    arrivals.run_again(actor=COMMAND, source=changed, incoming=second)

    assert len(events_of(source.tenant)) == 1
    assert first.event_id == second.event_id


def test_a_failed_run_again_says_the_new_reason(platform: str) -> None:
    source, path = make_source(event_type="data.body.kind")
    requests.post(f"{platform}{path}", json={}, timeout=10)
    changed = sources.update_source(actor=COMMAND, source=source, event_type='"order.unheard-of"')

    assert arrivals.run_all_again(actor=COMMAND, source=changed) == (0, 1)

    (row,) = kept(source)
    assert (row.verdict, row.reason) == ("unmapped", "event_refused")


# --- circles ----------------------------------------------------------------------------------------------------------


def test_hops_go_on_with_the_event(platform: str) -> None:
    source, path = make_source()

    requests.post(f"{platform}{path}", json={}, headers={"webhook-hops": "4"}, timeout=10)

    assert [event.hops for event in events_of(source.tenant)] == [4]


# --- erasing and forgetting -------------------------------------------------------------------------------------------


def test_erasing_a_payload_reaches_the_request_its_copies_and_those_that_come_later(platform: str) -> None:
    source, path = make_source(dedup_path="id")
    body = {"id": 1, "name": "Ada Lovelace"}
    for _ in range(2):
        requests.post(f"{platform}{path}?name=Ada", json=body, headers={"X-Name": "Ada"}, timeout=10)
    (event,) = events_of(source.tenant)

    erasing.erase_data(actor=COMMAND, tenant=source.tenant, event=event)
    late = requests.post(f"{platform}{path}?name=Ada", json=body, headers={"X-Name": "Ada"}, timeout=10)

    assert late.status_code == 200
    assert len(events_of(source.tenant)) == 1
    rows = kept(source)
    assert [each.verdict for each in rows] == ["accepted", "duplicate", "duplicate"]
    for row in rows:
        assert b"Ada" not in bytes(row.body) + bytes(row.headers) + bytes(row.query)
    assert [row.erased_at is not None for row in rows] == [True, True, False]


def test_a_request_without_event_is_erased_by_itself_and_not_run_again(platform: str) -> None:
    source, path = make_source(event_type="data.body.kind")
    requests.post(f"{platform}{path}", json={"name": "Ada"}, timeout=10)
    (row,) = kept(source)

    arrivals.erase_request(actor=COMMAND, source=source, incoming=row)

    (row,) = kept(source)
    assert (bytes(row.body), bytes(row.headers), bytes(row.query)) == (b"", b"", b"")
    assert row.erased_at is not None
    with pytest.raises(arrivals.PayloadErased):
        arrivals.run_again(actor=COMMAND, source=source, incoming=row)


def test_requests_are_forgotten_after_their_days(platform: str, settings: Any) -> None:
    settings.WEBHOOKS_INBOUND_RETENTION_DAYS = 14
    source, path = make_source()
    requests.post(f"{platform}{path}", json={}, timeout=10)
    now = datetime.now(UTC)

    arrivals.forget_requests(now=now + timedelta(days=13, hours=23))
    assert len(kept(source)) == 1
    arrivals.forget_requests(now=now + timedelta(days=14, minutes=1))

    assert kept(source) == []
    assert len(events_of(source.tenant)) == 1


def test_an_event_of_a_request_is_an_event_like_others(platform: str) -> None:
    source, path = make_source()
    requests.post(f"{platform}{path}", json={"a": 1}, timeout=10)
    (row,) = kept(source)
    assert isinstance(row.event_id, UUID)

    event: Event = Event.objects.for_tenant(source.tenant).get(id=row.event_id)

    assert event.settings_version >= 1
    assert json.loads(bytes(event.data or b"")) == {"a": 1}
