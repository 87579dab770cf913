"""Every URL of the platform, asked by those who may not: nobody, a key without scopes, a stranger, a viewer.

The walk goes over the resolver, so a new route without a sample fails here.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from deliveries.models import Delivery, IncomingRequest, Job
from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import Accepted, NewEvent
from deliveries.services.endpoints import create_endpoint
from deliveries.services.sources import create_source
from tenants import ids
from tenants.api.permissions import ANY_KEY, OPERATOR
from tenants.ids import new_id
from tenants.models import ApiKey, EventType, Invitation, Member, PortalLink, Tenant, User
from tenants.services.members import set_member
from tests.support.api import Api, make_key, make_tenant, operator_api, tenant_api
from tests.support.operators import operator
from tests.support.portal import actions_of, browser, make_user
from tests.support.published import add_attempt

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

OPEN = {
    "health/live",
    "health/ready",
    "api/v1/openapi.json",
    "api/docs",
    "in/<str:token>",
}
"""No key needed. /metrics has a token of its own, and the URL of a source is its key."""

ADMIN = "admin/"
"""Behind a session: nobody is sent to sign in, keys open nothing."""

PORTAL = "portal/"
ENTRANCES = {
    "portal/",
    "portal/sign-in",
    "portal/sign-in/code",
    "portal/sign-out",
    "portal/language",
    "portal/reset",
    "portal/reset/<user_id:user>/<str:token>",
    "portal/enter/<portal_token:token>",
    "portal/invitation/<signed_token:token>",
    "portal/look/<logo:logo>.png",
    "portal/look/<colour:accent>.css",
}
"""Of the portal: where one signs in and out, and what pages before a tenant look like."""
ACCOUNT = {
    "portal/account",
    "portal/account/password",
    "portal/account/second-factor",
    "portal/account/second-factor/off",
}
"""Of a person, in no tenant."""
PERSONAL = {"portal/<str:tenant>/settings/notifications"}
"""A member's own choice, whatever the role."""
PUBLIC = "catalogue/"
"""Of tenants that want it."""

SHIPPED = {"pack"}
"""Names of what comes with the platform and belongs to nobody."""


@dataclass(frozen=True)
class Route:
    path: str
    """As the resolver has it: `api/v1/tenants/<str:tenant>/endpoints`."""
    callback: Any

    @property
    def names(self) -> list[str]:
        return re.findall(r"<\w+:(\w+)>", self.path)

    @property
    def names_of_rows(self) -> list[str]:
        """Without those that name the same thing for everybody."""
        return [name for name in self.names if name not in SHIPPED]

    @property
    def scopes(self) -> dict[str, str]:
        """Of plain views, which declare nothing, the scope that publishing needs."""
        view = getattr(self.callback, "view_class", None)
        return dict(view.scopes) if view else {"POST": "events:write"}

    def at(self, sample: dict[str, str]) -> str:
        return "/" + re.sub(r"<\w+:(\w+)>", lambda found: sample[found[1]], self.path)


def routes(patterns: Any = None, prefix: str = "") -> Iterator[Route]:
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        path = prefix + str(pattern.pattern).removesuffix("$").removeprefix("^")
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern):
            yield Route(path, pattern.callback)


ROUTES = list(routes())
API = [route for route in ROUTES if route.path.startswith("api/v1/") and route.path not in OPEN]
OWNED = [route for route in API if "tenant" in route.names]
PORTAL_PAGES = [route for route in ROUTES if route.path.startswith(PORTAL) and "tenant" in route.names]


@dataclass(frozen=True)
class World:
    owner: Tenant
    stranger: Tenant
    sample: dict[str, str]
    """One real object of the owner's for every name in a path."""


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    with django_db_blocker.unblock():
        yield make_world()


def make_world() -> World:
    owner, stranger = make_tenant(), make_tenant()
    EventType.objects.create(tenant=owner, name="secret.type")
    endpoint = create_endpoint(actor=operator_actor(), tenant=owner, url="https://owner.example.com")
    accepted = ingest.publish([NewEvent(tenant_id=owner.id.bytes, type="secret.type", data=b'{"secret":1}')])[
        0
    ]
    assert isinstance(accepted, Accepted)
    delivery = Delivery.objects.for_tenant(owner).get()
    job = Job(
        id=new_id(),
        tenant=owner,
        endpoint=endpoint,
        kind="recover",
        since=datetime(2026, 1, 1, tzinfo=UTC),
        until=datetime(2026, 1, 2, tzinfo=UTC),
    )
    job.save(force_insert=True)
    attempt = add_attempt(delivery)
    link = PortalLink(
        tenant=owner, hash=new_id().bytes, role="viewer", expires_at=datetime(2100, 1, 1, tzinfo=UTC)
    )
    link.save(force_insert=True)
    source, _ = create_source(actor=operator_actor(), tenant=owner, name="s", event_type='"secret.type"')
    incoming = IncomingRequest(
        id=new_id(),
        tenant=owner,
        source=source,
        verdict="unmapped",
        method="POST",
        query=b"",
        headers=b"",
        body=b"{}",
        size=2,
        status_code=200,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    incoming.save(force_insert=True)
    member = set_member(actor=operator_actor(), tenant=owner, user=make_user(), role=Member.Role("developer"))
    invitation = Invitation(
        tenant=owner,
        email="invited@example.com",
        role="viewer",
        language="en",
        expires_at=datetime(2100, 1, 1, tzinfo=UTC),
    )
    invitation.save(force_insert=True)
    make_key(owner)
    key = ApiKey.objects.filter(tenant=owner).latest("id")
    return World(
        owner,
        stranger,
        {
            "tenant": owner.slug,
            "endpoint": ids.to_text("ep", endpoint.id),
            "subscription": ids.to_text("sub", endpoint.subscriptions.all()[0].id),
            "event": ids.to_text("evt", delivery.event_id),
            "delivery": ids.to_text("dlv", delivery.id),
            "attempt": ids.to_text("att", attempt.id),
            "job": ids.to_text("job", job.id),
            "link": ids.to_text("lnk", link.id),
            "source": ids.to_text("src", source.id),
            "incoming": ids.to_text("req", incoming.id),
            "key": ids.to_text("key", key.id),
            "member": ids.to_text("mem", member.id),
            "invitation": ids.to_text("inv", invitation.id),
            "name": "secret.type",
            "pack": "accounts",
        },
    )


def operator_actor() -> Any:
    from tenants.services.audit import COMMAND

    return COMMAND


def missing(world: World) -> dict[str, str]:
    """Well-formed names of what does not exist, with a tenant that does."""
    prefixes = {
        "endpoint": "ep",
        "subscription": "sub",
        "event": "evt",
        "delivery": "dlv",
        "attempt": "att",
        "job": "job",
        "link": "lnk",
        "source": "src",
        "incoming": "req",
        "key": "key",
        "member": "mem",
        "invitation": "inv",
    }
    made_up = {name: ids.to_text(prefix, new_id()) for name, prefix in prefixes.items()}
    return {**made_up, "tenant": world.stranger.slug, "name": "no.such.type", "pack": "no-such-pack"}


def ask(api: Api, method: str, path: str) -> HttpResponse:
    assert path.startswith("/api/v1")
    return api.send(method, path.removeprefix("/api/v1"), None if method in {"GET", "DELETE"} else {})


def shown(response: HttpResponse) -> tuple[int, bytes, dict[str, str]]:
    return response.status_code, response.content, dict(response.headers)


def code(response: HttpResponse) -> tuple[int, str]:
    assert response["Content-Type"] == "application/problem+json"
    return response.status_code, json.loads(response.content)["code"]


# --- the walk itself --------------------------------------------------------------------------------------------------


def test_every_route_is_known_to_this_walk(world: World) -> None:
    unknown = [
        route.path
        for route in ROUTES
        if route not in API
        and route.path not in OPEN
        and route.path != "metrics"
        and not route.path.startswith(ADMIN)
        and route not in PORTAL_PAGES
        and route.path not in ENTRANCES | ACCOUNT
        and not route.path.startswith(PUBLIC)
    ]

    assert unknown == []
    assert {name for route in [*API, *PORTAL_PAGES] for name in route.names} <= world.sample.keys()


# --- the API ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", API, ids=lambda route: route.path)
@pytest.mark.usefixtures("database")
def test_nobody_is_told_to_bring_a_key(route: Route, world: World) -> None:
    for method in METHODS:
        for api in (Api(None), Api("whk_unknown")):
            response = ask(api, method, route.at(world.sample))
            if response.status_code == 429:
                # Unknown keys are counted; that is an answer before anything else is looked at, too.
                continue
            assert code(response) == (401, "unauthenticated"), method
            assert response["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("route", OWNED, ids=lambda route: route.path)
@pytest.mark.usefixtures("database")
def test_a_stranger_cannot_tell_what_is_there_from_what_is_not(route: Route, world: World) -> None:
    stranger = tenant_api(world.stranger)
    nothing = missing(world)
    for method, scope in route.scopes.items():
        if scope == OPERATOR:
            assert code(ask(stranger, method, route.at(world.sample))) == (403, "operator_only")
            continue
        answers = [
            shown(ask(stranger, method, route.at(world.sample))),
            shown(
                ask(stranger, method, route.at(world.sample | {"tenant": ids.to_text("tnt", world.owner.id)}))
            ),
            shown(ask(stranger, method, route.at(nothing | {"tenant": "nobody-at-all"}))),
        ]
        if len(route.names_of_rows) > 1 and not (method == "PUT" and route.names == ["tenant", "endpoint"]):
            answers += [
                shown(ask(stranger, method, route.at(world.sample | {"tenant": world.stranger.slug}))),
                shown(ask(stranger, method, route.at(nothing))),
            ]
        assert all(answer == answers[0] for answer in answers), method
        assert answers[0][0] == 404, method
        assert json.loads(answers[0][1]) == {
            "type": "/errors/not_found",
            "title": "Not found",
            "status": 404,
            "detail": "There is no such thing here.",
            "code": "not_found",
            "request_id": "the-request",
        }


@pytest.mark.parametrize("route", API, ids=lambda route: route.path)
@pytest.mark.usefixtures("database")
def test_a_key_without_the_scope_is_told_which(route: Route, world: World) -> None:
    everything = set(ApiKey.Scope.values)
    for method, scope in route.scopes.items():
        if scope == ANY_KEY:
            continue
        if scope == OPERATOR:
            answer = ask(tenant_api(world.owner), method, route.at(world.sample))
            assert code(answer) == (403, "operator_only"), method
        else:
            answer = ask(tenant_api(world.owner, *(everything - {scope})), method, route.at(world.sample))
            assert code(answer) == (403, "missing_scope"), method
            assert scope in json.loads(answer.content)["detail"]


# --- pages ------------------------------------------------------------------------------------------------------------

PAGE_SAMPLES = {
    "object_id": "00000000-0000-0000-0000-000000000001",
    "action": "suspend",
    "content_type_id": "1",
    "url": "nowhere",
    "app_label": "tenants",
}


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.path.startswith(ADMIN)], ids=lambda route: route.path
)
@pytest.mark.usefixtures("database")
def test_nobody_sees_a_page_of_the_admin(route: Route, world: World) -> None:
    if route.path in {"admin/login/", "admin/logout/", "admin/jsi18n/"}:
        return
    path = route.at(PAGE_SAMPLES) if "(?P<" not in route.path else "/admin/tenants/"
    key = make_key(world.owner)

    for client in (Client(), Client(headers={"Authorization": f"Bearer {key}"})):
        response = client.get(path)
        assert response.status_code in {302, 404}, path
        if response.status_code == 302:
            assert response["Location"].startswith("/admin/login/"), path


# --- the portal -------------------------------------------------------------------------------------------------------


def member_of(tenant: Tenant, role: str) -> Client:
    user = User.objects.create_user(f"{new_id().hex}@example.com", "a long password")
    Member(tenant=tenant, user=user, role=role).save(force_insert=True)
    client = Client(headers={"X-Request-Id": "the-request"})
    client.force_login(user)
    return client


def page(response: Any) -> tuple[int, str]:
    """Without what is new in every page."""
    text = re.sub(r'name="csrfmiddlewaretoken" value="[^"]*"', "", response.content.decode())
    return response.status_code, re.sub(r'"X-CSRFToken": *"[^"]*"', "", text)


@pytest.mark.parametrize("route", PORTAL_PAGES, ids=lambda route: route.path)
@pytest.mark.usefixtures("database")
def test_nobody_is_sent_to_sign_in_to_the_portal(route: Route, world: World) -> None:
    key = make_key(world.owner)
    for client in (Client(), Client(headers={"Authorization": f"Bearer {key}"})):
        answers = [client.get(route.at(world.sample)), client.post(route.at(world.sample), {})]
        assert {answer.status_code for answer in answers} <= {302, 405}
        assert {answer.status_code for answer in answers} != {405}
        for answer in answers:
            assert answer.status_code == 405 or answer["Location"].startswith("/portal/sign-in")


@pytest.mark.parametrize("route", PORTAL_PAGES, ids=lambda route: route.path)
@pytest.mark.usefixtures("database")
def test_a_member_of_another_tenant_sees_no_difference_to_what_is_not_there(
    route: Route, world: World
) -> None:
    client = member_of(world.stranger, "admin")
    nothing = missing(world)
    pairs = [(route.at(world.sample), route.at(nothing | {"tenant": "nobody-at-all"}))]
    if len(route.names_of_rows) > 1:
        # In the stranger's own tenant, whose menu the page has.
        pairs.append((route.at(world.sample | {"tenant": world.stranger.slug}), route.at(nothing)))
    for there, not_there in pairs:
        for send in (client.get, client.post):
            answer = page(send(there))
            assert answer[0] in {404, 405}
            assert answer == page(send(not_there))


@pytest.mark.parametrize("route", PORTAL_PAGES, ids=lambda route: route.path)
@pytest.mark.usefixtures("database")
def test_a_viewer_changes_nothing(route: Route, world: World) -> None:
    client = member_of(world.owner, "viewer")
    before = actions_of(world.owner)

    refused = {422} if route.path in PERSONAL else {403, 405}
    assert client.post(route.at(world.sample), {}).status_code in refused

    assert actions_of(world.owner) == before


def support_in(tenant: Tenant, *, reason: str) -> Client:
    client = operator()
    client.post(reverse("admin:support", args=[tenant.pk]), {"reason": reason})
    return client


FILLED_IN = {
    "name": "theirs",
    "event_type": '"secret.type"',
    "url": "https://elsewhere.example.com",
    "event_types": "secret.type",
    "pattern": "secret.type",
    "method": "POST",
    "format": "standard",
    "signature_scheme": "hmac-sha256",
    "success_statuses": "2xx",
    "timeout_seconds": "15",
    "max_in_flight": "10",
    "ordering": "none",
    "overlap": "0",
    "role": "admin",
    "email": "friend@example.com",
    "failing": "on",
    "digest": "daily",
    "response_status": "200",
    "dedup_seconds": "86400",
    "only": "failed",
    "within": "24h",
}
"""Enough for any form of the portal to do what it does."""

OPENS = re.compile(r"whsec_[\w+/=]{20}|whk_\w{20}|/in/[\w-]{43}|/enter/[\w-]{43}|invitation/[\w-]{43}")
"""Secrets of endpoints, keys, URLs of sources, and links, as whoever has one can use it."""


@pytest.mark.usefixtures("database")
def test_support_that_only_looks_changes_nothing(world: World) -> None:
    client = support_in(world.owner, reason="")
    before = rows_of(world.owner)

    for route in PORTAL_PAGES:
        for fields in ({}, FILLED_IN):
            answer = client.post(route.at(world.sample), fields)
            assert answer.status_code in {403, 405}, route.path

    after = rows_of(world.owner)
    assert {table for table in before if before[table] != after[table]} == set()


@pytest.mark.usefixtures("database")
def test_support_with_a_reason_reads_and_makes_nothing_that_opens_anything() -> None:
    world = make_world()
    client = support_in(world.owner, reason="ticket 4711")
    ending = re.compile("delete|remove|disable|switch|cancel|revoke|end$")
    tables = [
        "tenants_apikey",
        "tenants_member",
        "tenants_invitation",
        "tenants_portallink",
        "tenants_notificationpreference",
        "deliveries_source",
        "deliveries_sourcetoken",
    ]
    before = rows_of(world.owner)

    for method in ("get", "post"):
        for route in sorted(PORTAL_PAGES, key=lambda route: bool(ending.search(route.path))):
            if method == "post" and "sources/<str:source>" in route.path and "rotate" not in route.path:
                # What a developer does with a source that is there.
                continue
            answer = getattr(client, method)(route.at(world.sample), FILLED_IN)
            assert not OPENS.search(b"".join(answer).decode()), (method, route.path)

    after = rows_of(world.owner)
    assert [table for table in tables if before[table] != after[table]] == []
    actions = actions_of(world.owner)
    done = actions[actions.index("support.signed_in") :]
    assert "endpoint.created" in done
    assert [action for action in done if re.search("secret|key|token|member|rotate", action)] == []


def rows_of(tenant: Tenant) -> dict[str, str]:
    """Everything that the tenant has, table by table, as one text each. Without counts, which are written in a while."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.columns JOIN information_schema.tables"
            " USING (table_schema, table_name)"
            " WHERE column_name = 'tenant_id' AND table_schema = 'public' AND table_type = 'BASE TABLE'"
        )
        tables = [name for (name,) in cursor.fetchall() if name != "deliveries_usage"]
        rows = {}
        for table in tables:
            cursor.execute(
                f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t WHERE tenant_id = %s",
                [tenant.id],
            )
            rows[table] = cursor.fetchone()[0]
    return rows


@pytest.mark.parametrize("route", PORTAL_PAGES, ids=lambda route: route.path)
@pytest.mark.usefixtures("database")
def test_a_form_of_another_site_changes_nothing(route: Route, world: World) -> None:
    client = browser(world.owner, "admin", enforce_csrf_checks=True)
    before = actions_of(world.owner)

    assert client.post(route.at(world.sample), {}).status_code in {403, 405}

    assert actions_of(world.owner) == before


@pytest.mark.parametrize("path", sorted(ACCOUNT))
@pytest.mark.usefixtures("database")
def test_nobody_has_an_account_page(path: str, world: World) -> None:
    for client in (Client(), Client(headers={"Authorization": f"Bearer {make_key(world.owner)}"})):
        for answer in (client.get(f"/{path}"), client.post(f"/{path}", {})):
            assert (answer.status_code, answer["Location"][:15]) == (302, "/portal/sign-in")


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.path.startswith(PUBLIC)], ids=lambda route: route.path
)
@pytest.mark.usefixtures("database")
def test_a_catalogue_that_is_not_public_is_not_there(route: Route, world: World) -> None:
    nothing = missing(world) | {"tenant": "nobody-at-all"}
    for client in (Client(headers={"X-Request-Id": "r"}), member_of(world.owner, "admin")):
        answer = page(client.get(route.at(world.sample)))
        assert answer[0] == 404
        assert answer == page(client.get(route.at(nothing)))


@pytest.mark.usefixtures("database")
def test_after_the_walk_everything_is_still_there(world: World) -> None:
    """Last in the file: nothing that strangers sent changed or ended anything."""
    api = tenant_api(world.owner)
    root = f"/tenants/{world.owner.slug}"

    for path in ("endpoints/{endpoint}", "event-types/{name}", "api-keys/{key}", "events/{event}"):
        assert api.get(f"{root}/{path.format(**world.sample)}").status_code == 200, path
    endpoint = json.loads(api.get(f"{root}/endpoints/{world.sample['endpoint']}").content)
    assert (endpoint["url"], endpoint["status"]) == ("https://owner.example.com", "enabled")
    assert Delivery.objects.for_tenant(world.owner).count() == 1
    source = json.loads(api.get(f"{root}/sources/{world.sample['source']}").content)
    assert (source["name"], source["status"]) == ("s", "enabled")
    incoming = IncomingRequest.objects.for_tenant(world.owner).get()
    assert (incoming.verdict, bytes(incoming.body)) == ("unmapped", b"{}")
    assert operator_api().get(root).status_code == 200
