"""The admin's lists and pages: who sees them, what they never show, how they lead on, and what they cost."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import trustme
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from deliveries import credentials
from deliveries.models import Delivery, Endpoint, Event, Lane
from deliveries.services.endpoint_deletion import delete_endpoint
from deliveries.services.endpoints import create_endpoint
from deliveries.services.sources import create_source
from deliveries.services.stopping import disable_endpoint
from tenants import ids
from tenants.models import ApiKey, Member, Tenant
from tenants.services.audit import COMMAND
from tenants.services.tenants import delete_tenant, update_tenant
from tests.support.api import make_key, make_tenant
from tests.support.operators import looker, operator, without_rights
from tests.support.portal import make_member, text_of
from tests.support.published import (
    add_attempt,
    deliveries_of,
    delivery_of,
    end,
    make_endpoint,
    make_type,
    publish,
)

pytestmark = pytest.mark.usefixtures("database")

SECRETS = ("s3cret-header", "s3cret-query", "s3cret-payload", "s3cret-answer", "s3cret-response-header")

LEAF = trustme.CA().issue_cert("client.example")
CERTIFICATE = LEAF.cert_chain_pems[0].bytes().decode()
KEY = LEAF.private_key_pem.bytes().decode()

MODELS = [
    "tenants_tenant",
    "tenants_user",
    "tenants_member",
    "tenants_apikey",
    "tenants_portallink",
    "tenants_eventtype",
    "tenants_auditentry",
    "deliveries_endpoint",
    "deliveries_subscription",
    "deliveries_event",
    "deliveries_delivery",
    "deliveries_attempt",
    "deliveries_dispatcher",
    "deliveries_job",
    "deliveries_bulkaction",
]


@dataclass(frozen=True)
class World:
    tenant: Tenant
    endpoint: Endpoint
    event: Event
    delivery: Delivery
    pages: dict[str, str]
    key: str


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    with django_db_blocker.unblock():
        yield make_world()


def make_world() -> World:
    """One of everything, each with what must not be shown."""
    tenant = make_tenant(name="North Clinic")
    kind = make_type(tenant)
    endpoint = make_endpoint(
        tenant,
        f"https://hooks.{tenant.slug}.example.com/in?token=s3cret-query",
        headers={"authorization": "Bearer s3cret-header", "x-team": "blue"},
    )
    event = publish(tenant, data=b'{"name":"s3cret-payload"}')
    delivery = end(
        delivery_of(event), "failed", last_outcome="http_error", last_status_code=500, attempt_count=1
    )
    attempt = add_attempt(
        delivery,
        response_body=b"s3cret-answer",
        response_headers=b"HTTP/1.1 500 Oops\r\nset-cookie: s3cret-response-header\r\n\r\n",
    )
    user = make_member(tenant)
    key = make_key(tenant)
    row = ApiKey.objects.filter(tenant=tenant).latest("id")
    subscription = endpoint.subscriptions.all()[0]
    pages = {
        "tenants_tenant": tenant.pk,
        "tenants_user": user.pk,
        "tenants_member": Member.objects.for_tenant(tenant).get().pk,
        "tenants_apikey": row.pk,
        "tenants_eventtype": kind.pk,
        "deliveries_endpoint": endpoint.pk,
        "deliveries_subscription": subscription.pk,
        "deliveries_event": event.pk,
        "deliveries_delivery": delivery.pk,
        "deliveries_attempt": attempt.pk,
    }
    return World(
        tenant,
        endpoint,
        event,
        delivery,
        {model: reverse(f"admin:{model}_change", args=[key]) for model, key in pages.items()},
        key,
    )


def list_of(model: str) -> str:
    return reverse(f"admin:{model}_changelist")


def all_pages(world: World) -> list[str]:
    return [
        *map(list_of, MODELS),
        *world.pages.values(),
        list_of("deliveries_delivery") + f"?tenant={world.tenant.slug}&status=failed",
        reverse("admin:index"),
        reverse("admin:find") + f"?q={world.tenant.slug}",
        reverse("admin:host") + f"?host=hooks.{world.tenant.slug}.example.com",
        reverse("admin:sending"),
        reverse("admin:act", args=["disable"]) + f"?ids={world.endpoint.pk}",
    ]


# --- who --------------------------------------------------------------------------------------------------------------


def test_an_operator_sees_every_list_and_page(world: World) -> None:
    client = operator()

    for path in all_pages(world):
        assert client.get(path).status_code == 200, path


def test_who_may_look_sees_them_without_a_button(world: World) -> None:
    client = looker()
    asking = (reverse("admin:sending"), "/admin/act/")

    for path in all_pages(world):
        response = client.get(path)
        if path.startswith(asking):
            assert response.status_code == 403, path
        else:
            assert response.status_code == 200, path
            assert "/admin/act/" not in response.content.decode(), path
            assert "Stop all sending…" not in text_of(response)


def test_who_looks_cannot_act_by_hand_either(world: World) -> None:
    client = looker()

    answers = [
        client.post(reverse("admin:act", args=["disable"]), {"ids": str(world.endpoint.pk)}),
        client.post(reverse("admin:sending"), {"to": "stop", "reason": "because"}),
    ]

    assert [answer.status_code for answer in answers] == [403, 403]
    world.endpoint.refresh_from_db()
    assert world.endpoint.status == "enabled"


def test_staff_without_rights_see_nothing_of_any_tenant(world: World) -> None:
    client = without_rights()

    for path in all_pages(world):
        response = client.get(path)
        if path == reverse("admin:index"):
            assert response.status_code == 200
            assert "You may see nothing here." in text_of(response)
        else:
            assert response.status_code == 403, path
        assert world.tenant.slug not in response.content.decode().replace(path, "")


def test_members_and_strangers_do_not_get_in(world: World) -> None:
    member, nobody = Client(), Client()
    member.force_login(make_member(world.tenant, "admin"))

    for path in all_pages(world):
        for client in (member, nobody):
            response = client.get(path)
            assert response.status_code == 302, path
            assert response["Location"].startswith("/admin/login/")
    # Where nobody is asked for a password a second time.
    assert member.get("/admin/login/?next=/admin/").status_code == 403
    assert nobody.get("/admin/login/?next=/admin/")["Location"] == "/portal/sign-in?next=%2Fadmin%2F"
    assert operator().get("/admin/login/")["Location"] == "/admin/"


# --- what ---------------------------------------------------------------------------------------------------------------


def test_no_secret_is_on_any_page(world: World) -> None:
    client = operator()

    for path in all_pages(world):
        body = client.get(path).content.decode()
        for secret in (*SECRETS, world.key, "whsec_"):
            assert secret not in body, (path, secret)


def test_the_policy_holds_and_nothing_is_inline(world: World) -> None:
    client = operator()
    beat = [
        reverse("admin:django_celery_beat_periodictask_changelist"),
        reverse("admin:django_celery_beat_periodictask_add"),
        reverse("admin:django_celery_beat_crontabschedule_add"),
        reverse("admin:auth_group_add"),
    ]

    for path in [*all_pages(world), *beat]:
        response = client.get(path)
        body = response.content.decode()
        assert response.status_code == 200, path
        assert "script-src 'self'" in response["Content-Security-Policy"].split("; "), path
        assert "style-src 'self'" in response["Content-Security-Policy"], path
        assert not re.search(r"<[^>]+ (style|on[a-z]+)=", body), path
        assert "<style" not in body, path
        # Our own markup, escaped by mistake. Lists also show what other tests made, hostile text included.
        assert not re.search(r"&lt;/?(a|br|code|li|p|pre|span|strong|time|ul)\b", body), path
        for attributes in re.findall(r"<script([^>]*)>", body):
            assert "src=" in attributes or 'type="application/json"' in attributes, (path, attributes)


def test_hostile_text_is_text(world: World) -> None:
    hostile = '<script>alert("x")</script>'
    tenant = make_tenant(name=hostile)
    endpoint = make_endpoint(tenant, description=hostile)
    client = operator()

    for path in (
        reverse("admin:tenants_tenant_change", args=[tenant.pk]),
        reverse("admin:deliveries_endpoint_change", args=[endpoint.pk]),
        list_of("tenants_tenant") + f"?q={tenant.slug}",
        list_of("deliveries_endpoint") + f"?tenant={tenant.slug}",
        reverse("admin:find") + "?q=%3Cscript%3E",
    ):
        body = client.get(path).content.decode()
        assert "&lt;script&gt;" in body, path
        assert "<script>" not in body, path


def test_one_thing_leads_to_the_next(world: World) -> None:
    """Tenant, endpoints, deliveries, attempts, and why."""
    client = operator()
    slug, endpoint_id = world.tenant.slug, ids.to_text("ep", world.endpoint.pk)

    assert (
        f"/admin/deliveries/endpoint/?tenant={slug}"
        in client.get(world.pages["tenants_tenant"]).content.decode()
    )
    endpoint = client.get(world.pages["deliveries_endpoint"]).content.decode().replace("&amp;", "&")
    assert f"/admin/deliveries/delivery/?tenant={slug}&endpoint={endpoint_id}&status=failed" in endpoint
    failed = client.get(
        list_of("deliveries_delivery"), {"tenant": slug, "endpoint": endpoint_id, "status": "failed"}
    )
    assert world.pages["deliveries_delivery"] in failed.content.decode()
    delivery = client.get(world.pages["deliveries_delivery"])
    assert "The endpoint answered with status 500; it failed on its side" in text_of(delivery)
    assert world.pages["deliveries_event"] in delivery.content.decode()
    event = client.get(world.pages["deliveries_event"])
    assert "Who got it, who did not, and why" in text_of(event)
    assert world.pages["deliveries_attempt"] in delivery.content.decode()


def test_the_page_of_an_endpoint_tells_how_it_is_called_without_a_secret() -> None:
    tenant = make_tenant()
    row = make_endpoint(
        tenant,
        auth={
            "type": "oauth2",
            "token_url": "https://login.example.com/token?api_key=s3cret-query",
            "client_id": "shop",
            "client_secret": "s3cret-client",
        },
        batch={"max_events": 50, "max_wait_ms": 2_000},
        client_certificate={"certificate": CERTIFICATE, "private_key": KEY},
        ca_certificates=CERTIFICATE,
    )
    (about,) = credentials.about(CERTIFICATE)

    response = operator().get(reverse("admin:deliveries_endpoint_change", args=[row.pk]))

    page = text_of(response)
    certificate = f"{about.subject} until {about.expires_at:%Y-%m-%d %H:%M:%S}"
    assert "Signs in by oauth2, https://login.example.com/token?api_key=***, shop" in page
    assert "Batches up to 50 events, after 2,000 ms at most" in page
    assert f"Client certificate {certificate} Authorities of its own {certificate}" in page
    for secret in ("s3cret", "PRIVATE KEY", "BEGIN"):
        assert secret not in response.content.decode()


def test_whatever_id_somebody_quotes_leads_to_its_page(world: World) -> None:
    source, _token = create_source(
        actor=COMMAND, tenant=world.tenant, name="Till", event_type="order.created"
    )
    quoted = {ids.SOURCE: source.pk} | {
        ids.ENDPOINT: world.endpoint.pk,
        ids.DELIVERY: world.delivery.pk,
        ids.MEMBER: Member.objects.for_tenant(world.tenant).earliest("id").pk,
    }
    client = operator()

    found = [
        client.get(reverse("admin:find"), {"q": ids.to_text(prefix, key)}, follow=True)
        for prefix, key in quoted.items()
    ]

    assert [each.redirect_chain[-1][0].rsplit("/", 3)[1:3] for each in found] == [
        ["source", str(source.pk)],
        ["endpoint", str(world.endpoint.pk)],
        ["delivery", str(world.delivery.pk)],
        ["member", str(quoted[ids.MEMBER])],
    ]
    assert [each.status_code for each in found] == [200, 200, 200, 200]


def test_an_endpoint_without_an_address_has_a_name() -> None:
    """One that is polled. A link without a text would lead somewhere unseen."""
    tenant = make_tenant()
    row = create_endpoint(actor=COMMAND, tenant=tenant, kind="poll", url=None, description="the <b>warehouse")
    page = reverse("admin:deliveries_endpoint_change", args=[row.pk])
    client = operator()

    shown = [
        client.get(list_of("deliveries_endpoint") + f"?tenant={tenant.slug}"),
        client.get(page),
        client.get(reverse("admin:act", args=["disable"]) + f"?ids={row.pk}"),
    ]

    assert all("polled: the <b>warehouse" in text_of(each) for each in shown)
    assert all(b"></a>" not in each.content for each in shown)
    assert "Everybody's endpoints on this host" not in text_of(shown[1])


def test_what_does_not_exist_is_not_found(world: World) -> None:
    client = operator()
    nothing = "00000000-0000-7000-8000-000000000000"

    for model in MODELS:
        assert client.get(reverse(f"admin:{model}_change", args=[nothing])).status_code == 404, model
        assert client.get(list_of(model) + "?cursor=made-up").status_code == 200, model
        assert client.get(list_of(model) + "add/").status_code == 404, model


def test_filters_say_what_they_cannot_do(world: World) -> None:
    client = operator()
    deliveries = list_of("deliveries_delivery")

    assert "There is no such tenant." in text_of(client.get(deliveries + "?tenant=nobody-at-all"))
    without = client.get(deliveries + "?status=failed")
    assert without.status_code == 422
    assert "Say of which tenant" in text_of(without)
    assert "Must be an id that begins with ep_." in text_of(
        client.get(deliveries + f"?tenant={world.tenant.slug}&endpoint=x")
    )


def test_the_page_of_an_endpoint_tells_its_circuit_and_when_it_will_be_disabled() -> None:
    tenant = make_tenant(limits={"disable_after_days": 5})
    endpoint = make_endpoint(tenant)
    page = reverse("admin:deliveries_endpoint_change", args=[endpoint.pk])
    now = timezone.now()
    since = now - timedelta(days=2)
    client = operator()

    def shown(**of_lane: Any) -> str:
        Lane.objects.for_tenant(tenant).filter(endpoint=endpoint).update(**of_lane)
        return text_of(client.get(page))

    well = shown()
    assert "Circuit closed Will be disabled, if it goes on failing - Held until -" in well
    is_open = shown(
        failing_since=since,
        failed_at=now,
        failures=30,
        circuit_opened_at=since,
        hold_until=now + timedelta(minutes=5),
        hold_reason="circuit",
    )
    began, ends = f"{since:%Y-%m-%d %H:%M:%S}", f"{since + timedelta(days=5):%Y-%m-%d %H:%M:%S}"
    assert f"Circuit open since {began} Will be disabled, if it goes on failing {ends} Held until" in is_open
    assert f"Circuit half open since {began}" in shown(hold_until=now - timedelta(seconds=1))
    Endpoint.unscoped.filter(id=endpoint.id).update(deleted_at=now)
    assert "Will be disabled, if it goes on failing -" in shown()


def test_what_the_platform_disabled_is_on_the_dashboard_and_in_a_list_of_its_own() -> None:
    tenant = make_tenant()
    by_us, by_them, by_hand, deleted = (
        make_endpoint(tenant, f"https://{name}.{tenant.slug}.example.com")
        for name in ("failing", "gone", "manual", "deleted")
    )
    for endpoint, reason in (
        (by_us, "failing"),
        (by_them, "gone"),
        (by_hand, "manual"),
        (deleted, "failing"),
    ):
        disable_endpoint(actor=COMMAND, endpoint=endpoint, reason=Endpoint.DisabledReason(reason))
    delete_endpoint(actor=COMMAND, endpoint=deleted)
    client = operator()

    (table,) = re.findall(
        r"<h2>Disabled by the platform lately</h2>.*?</section>",
        client.get(reverse("admin:index")).content.decode(),
        re.DOTALL,
    )
    listed = client.get(list_of("deliveries_endpoint") + f"?by_platform=on&tenant={tenant.slug}")

    rows = [re.findall(r">([^<]+)</a>", row)[0] for row in table.split("<tr>")[2:]]
    assert rows[:2] == [by_them.url, by_us.url]
    assert "it failed for too long" in table
    assert "the receiver answered 410 Gone" in table
    assert "/admin/deliveries/endpoint/?by_platform=on" in table
    assert by_hand.url not in table
    assert deleted.url not in table
    assert re.findall(rf">(https://\w+\.{tenant.slug}[^<]*)</a>", listed.content.decode()) == [
        by_them.url,
        by_us.url,
    ]


def test_what_fails_of_a_deleted_tenant_is_not_on_the_dashboard() -> None:
    tenant = make_tenant()
    failing, gone = (
        make_endpoint(tenant, f"https://{name}.{tenant.slug}.example.com") for name in ("failing", "gone")
    )
    # Before all others.
    Lane.objects.for_tenant(tenant).filter(endpoint=failing).update(
        failing_since="2000-01-01T00:00:00Z", failed_at=timezone.now(), failures=30
    )
    disable_endpoint(actor=COMMAND, endpoint=gone, reason=Endpoint.DisabledReason.GONE)
    client = operator()

    def tables_that_name_it() -> list[str]:
        page = client.get(reverse("admin:index")).content.decode()
        sections = re.findall(r"<h2>([^<]+)</h2>(.*?)</section>", page, re.DOTALL)
        # Of its lanes, which are ready to be ended, another table may tell.
        return [title for title, text in sections if tenant.slug in text and not title.startswith("Lanes")]

    before = tables_that_name_it()
    delete_tenant(actor=COMMAND, tenant=tenant)

    assert before == [
        "Tenants that it hurts",
        "Hosts that fail",
        "Endpoints that fail longest",
        "Disabled by the platform lately",
    ]
    assert tables_that_name_it() == []
    listed = client.get(list_of("deliveries_endpoint") + "?by_platform=on").content.decode()
    assert tenant.slug not in listed


def test_the_page_of_an_endpoint_says_why_it_is_held() -> None:
    tenant = make_tenant()
    pushed = make_endpoint(tenant)
    polled = create_endpoint(actor=COMMAND, tenant=tenant, kind="poll", url=None)
    client = operator()

    def pages() -> list[str]:
        paths = [reverse("admin:deliveries_endpoint_change", args=[each.pk]) for each in (pushed, polled)]
        return [text_of(client.get(path)) for path in paths]

    well = pages()
    update_tenant(actor=COMMAND, tenant=tenant, status=Tenant.Status.SUSPENDED)
    suspended = pages()

    assert [page.count("Held, because its tenant is suspended.") for page in well] == [0, 0]
    assert [page.count("Held, because its tenant is suspended.") for page in suspended] == [1, 1]


def test_a_host_or_text_that_the_database_cannot_hold_is_found_nowhere() -> None:
    client = operator()

    found = client.get(reverse("admin:find") + "?q=%00nowhere%00.example")
    host = client.get(reverse("admin:host") + "?host=%00.example.com")
    asked = client.get(reverse("admin:act", args=["pause"]) + "?host=%00.example.com")
    done = client.post(reverse("admin:act", args=["pause"]), {"host": "\0.example.com"}, follow=True)

    assert "Found for nowhere.example" in text_of(found)
    assert "No endpoint leads there." in text_of(host)
    assert (asked.status_code, done.status_code) == (200, 200)
    assert "There is nothing of this kind to do it to any more." in text_of(done)


# --- at what cost -----------------------------------------------------------------------------------------------------


def test_a_list_asks_as_often_for_many_rows_as_for_one() -> None:
    one, many = make_tenant(), make_tenant(limits={"endpoints": None})
    for tenant, count in ((one, 1), (many, 5)):
        make_type(tenant)
        for number in range(count):
            make_endpoint(tenant, f"https://{number}.example.com")
            make_member(tenant)
        for _ in range(count):
            add_attempt(deliveries_of(publish(tenant))[0])
    client = operator()

    for model in MODELS:
        if model in {"tenants_user", "tenants_tenant", "deliveries_dispatcher", "deliveries_bulkaction"}:
            continue
        counted = []
        for tenant in (one, many):
            path = list_of(model) + ("" if model == "deliveries_attempt" else f"?tenant={tenant.slug}")
            with CaptureQueriesContext(connection) as queries:
                assert client.get(path).status_code == 200, model
            counted.append(len(queries))
            assert not [query for query in queries.captured_queries if "COUNT(" in query["sql"]], model
        assert counted[0] == counted[1], model
        assert counted[0] <= 6, model


def test_the_dashboard_costs_the_same_whatever_fails() -> None:
    client = operator()

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get("/admin/").status_code == 200
        return len(captured)

    tenant = make_tenant()
    make_type(tenant)

    def fail(number: int) -> None:
        endpoint = make_endpoint(tenant, f"https://{number}.down.example.com")
        Lane.objects.for_tenant(tenant).filter(endpoint=endpoint).update(
            failing_since="2020-01-01T00:00:00Z", failures=7
        )

    fail(1)
    queries()
    before = queries()
    for number in range(2, 7):
        fail(number)

    assert queries() == before
    assert before <= 19
