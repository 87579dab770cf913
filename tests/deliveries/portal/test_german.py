"""The portal in German: no page, and no refusal beside a field, is left with an English sentence.

English is told by its small words, which German has not. What customers wrote, codes and code are no sentences of ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Final

import pytest
from django.test import Client

from deliveries.models import Delivery, Endpoint, IncomingRequest, Job
from tenants import ids
from tenants.models import EventType
from tenants.packs import all_packs
from tests.architecture.test_strangers import (
    ACCOUNT,
    ENTRANCES,
    PORTAL_PAGES,
    PUBLIC,
    ROUTES,
    World,
    make_world,
)
from tests.support.api import make_tenant, tenant_api
from tests.support.everything import make_everything
from tests.support.portal import browser

ENGLISH: Final = frozenset(
    {
        *(
            "the",
            "is",
            "are",
            "of",
            "to",
            "and",
            "with",
            "not",
            "for",
            "it",
            "its",
            "this",
            "that",
            "from",
            "by",
        ),
        *(
            "be",
            "has",
            "have",
            "or",
            "must",
            "your",
            "you",
            "which",
            "may",
            "been",
            "when",
            "what",
            "how",
            "yes",
        ),
        *(
            "there",
            "their",
            "they",
            "who",
            "does",
            "did",
            "if",
            "than",
            "then",
            "them",
            "without",
            "every",
            "day",
            "days",
            "hour",
            "hours",
            "minutes",
            "seconds",
            "after",
            "attempt",
            "attempts",
        ),
    }
)
"""Small words of English that are none of German."""

SILENT: Final = {"script", "style", "pre", "code", "textarea", "template"}
NEVER_CLOSED: Final = {"br", "hr", "img", "input", "link", "meta", "wbr"}
READ_OUT: Final = {
    "title",
    "aria-label",
    "placeholder",
    "alt",
    "data-on",
    "data-off",
    "data-idle",
    "data-pause",
}

GERMAN: Final = {"Accept-Language": "de"}


@dataclass
class Reader(HTMLParser):
    """Gathers what people read, see or hear on a page, but for what is said to be in another language."""

    texts: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.texts += [str(given[name]) for name in READ_OUT & given.keys()]
        is_left_out = tag in SILENT or (tag != "html" and given.get("lang") == "en")
        if (self.left_out or is_left_out) and tag not in NEVER_CLOSED:
            self.left_out.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.left_out and self.left_out[-1] == tag:
            self.left_out.pop()

    def handle_data(self, data: str) -> None:
        if not self.left_out and data.strip():
            self.texts.append(" ".join(data.split()))


def english_in(response: Any) -> list[str]:
    reader = Reader()
    reader.feed(response.content.decode())
    return [text for text in reader.texts if ENGLISH & set(text.strip(".,:;!?()…").lower().split())]


# --- what there is to see ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    with django_db_blocker.unblock():
        made = make_world()
        make_everything(made.owner)
        yield made


@pytest.fixture(autouse=True)
def _without_a_shared_catalogue(database: None) -> None:
    """What other tests put there is described in English."""
    EventType.objects.filter(tenant__isnull=True).delete()


# --- pages ------------------------------------------------------------------------------------------------------------

ROWS: Final = ("delivery", "event", "job", "incoming", "name", "pack")
CANNOT_BE_READ: Final = ("/export", "/file", ".csv", "/embed")


def paths_of(world: World) -> list[str]:
    """Every route once, and those of rows for each row that differs."""
    rows: dict[str, list[dict[str, str]]] = {"": [{}]}
    tenant = world.owner
    rows["delivery"] = [
        {"delivery": ids.to_text("dlv", row.id), "event": ids.to_text("evt", row.event_id)}
        for row in Delivery.objects.for_tenant(tenant)
    ]
    rows["endpoint"] = [
        {"endpoint": ids.to_text("ep", row.id)}
        for row in Endpoint.objects.for_tenant(tenant).filter(deleted_at=None)
    ]
    rows["job"] = [{"job": ids.to_text("job", row.id)} for row in Job.objects.for_tenant(tenant)]
    rows["incoming"] = [
        {"incoming": ids.to_text("req", row.id), "source": ids.to_text("src", row.source_id)}
        for row in IncomingRequest.objects.for_tenant(tenant)
    ]
    rows["event"] = rows["delivery"]
    rows["name"] = [{"name": row.name} for row in EventType.objects.filter(tenant=tenant)]
    rows["pack"] = [{"pack": name} for name in all_packs()]
    found: dict[str, None] = {}
    for route in PORTAL_PAGES:
        about = next((name for name in ROWS if name in route.names), "")
        if route.names == ["tenant", "endpoint"]:
            about = "endpoint"
        for row in rows[about]:
            found[route.at(world.sample | row)] = None
    return [path for path in found if not path.endswith(CANNOT_BE_READ)]


@pytest.mark.usefixtures("database")
def test_no_page_of_a_tenant_has_english_left(world: World) -> None:
    client = browser(world.owner, "admin", headers=GERMAN)
    seen = 0
    left: dict[str, list[str]] = {}
    for path in paths_of(world):
        response = client.get(path)
        if response.status_code == 405 or "text/html" not in response["Content-Type"]:
            continue
        seen += 1
        if english := english_in(response):
            left[path] = english

    assert left == {}
    assert seen > 150


@pytest.mark.usefixtures("database")
def test_nor_those_around_them(world: World) -> None:
    nobody, person = Client(headers=GERMAN), browser(world.owner, "admin", headers=GERMAN)
    left: dict[str, list[str]] = {}
    paths = [f"/{path}" for path in sorted(ENTRANCES | ACCOUNT) if "<" not in path]
    paths += ["/portal/no-such-tenant/", "/portal/reset/usr_00000000000000000000000000/x"]
    paths += [route.at(world.sample) for route in ROUTES if route.path.startswith(PUBLIC)]
    for client in (nobody, person):
        for path in paths:
            response = client.get(path)
            if "text/html" in response.get("Content-Type", "") and (english := english_in(response)):
                left[path] = english

    assert left == {}


@pytest.mark.usefixtures("database")
def test_nor_the_pages_of_a_new_tenant() -> None:
    """Where there is nothing yet, pages say what to do."""
    tenant = make_tenant()
    client = browser(tenant, "admin", headers=GERMAN)
    left: dict[str, list[str]] = {}
    for route in PORTAL_PAGES:
        if route.names != ["tenant"] or route.path.endswith(CANNOT_BE_READ):
            continue
        response = client.get(route.at({"tenant": tenant.slug}))
        if "text/html" in response.get("Content-Type", "") and (english := english_in(response)):
            left[route.path] = english

    assert left == {}


# --- what forms refuse ------------------------------------------------------------------------------------------------

ENDPOINT: Final = {
    "url": "https://ok.example.com",
    "event_types": ["*"],
    "method": "POST",
    "format": "standard",
    "signature_scheme": "hmac-sha256",
    "success_statuses": "2xx",
    "timeout_seconds": "15",
    "max_in_flight": "10",
    "ordering": "none",
}


WRONG_ENDPOINTS: Final[list[Any]] = [
    *({"url": url} for url in ("", "ftp://x", "https:x", "https://u:p@x.example", "https://x/#a")),
    *({"url": f"https://{host}"} for host in ("", "10.0.0.1", "[::1]", "[x]", "a..b", "x:22", "x:y")),
    {"url": "https://a b"},
    {"headers": "Host: x"},
    {"headers": "Webhook-Id: x"},
    {"headers": "A B: x"},
    {"headers": "A:"},
    {"headers": "A: ü"},
    {"headers": "A: x\nA: y"},
    {"headers": "nothing"},
    {"channels": "ü"},
    {"success_statuses": "1xx"},
    {"timeout_seconds": "31"},
    {"timeout_seconds": "x"},
    {"rate_limit": "0"},
    {"max_in_flight": "0"},
    {"retry_schedule": "x"},
    {"retry_schedule": "99999"},
    {"retry_schedule": ",".join(["1"] * 21)},
    {"uid": "ep_x"},
    {"uid": "ü"},
    {"method": "GET", "format": "xml"},
    {"format": "smoke"},
    {"event_types": [], "more_patterns": "**"},
    {"event_types": [], "more_patterns": "no.such"},
    {"batch-max_events": "1", "batch-max_wait_ms": "70000"},
    {"batch-max_events": "5"},
    {"batch-max_events": "5", "batch-max_wait_ms": "0", "ordering": "fifo"},
    {"batch-max_events": "5", "batch-max_wait_ms": "0", "format": "xml"},
    {"auth-type": "basic", "auth-username": "a:b", "auth-password": ""},
    {"auth-type": "bearer", "auth-token": "a b"},
    {"auth-type": "bearer", "auth-token": "ab", "headers": "Authorization: x"},
    {"auth-type": "oauth2", "auth-token_url": "https://10.0.0.1", "auth-scope": "a  b"},
    {"client_certificate-certificate": "x", "client_certificate-private_key": "x"},
    {"signature_template-preset": "own", "signature_template-header": "Host"},
    *(
        {
            "signature_template-preset": "own",
            "signature_template-header": "X",
            f"signature_template-{name}": text,
        }
        for name, text in (("prefix_text", "{body}"), ("prefix_text", "ü"), ("signed_content", "{x}"))
    ),
]


@pytest.mark.usefixtures("database")
def test_what_an_endpoint_cannot_be_is_said_in_german(world: World) -> None:
    client = browser(world.owner, headers=GERMAN)
    left: list[tuple[object, list[str]]] = []
    for wrong in WRONG_ENDPOINTS:
        response = client.post(f"/portal/{world.owner.slug}/endpoints/new", ENDPOINT | wrong)
        assert response.status_code == 422, wrong
        if english := english_in(response):
            left.append((wrong, english))

    assert left == []


WRONG_TRIALS: Final[list[Any]] = [
    {"event_type": "**"},
    {"event_type": "no.such"},
    *({"filter": text} for text in ("x", "data.", "data.a(1)", "'", "@", "[" * 30, "data.matches(type)")),
    {"transformation": "data.x.y.z("},
    {"sample": "[1]"},
    {"sample": "{"},
    {"sample": '{"a":1,}'},
    {"sample": "{'a':1}"},
    {"sample": '{"a" 1}'},
    {"sample": '{"a":"b'},
    {"sample": '{"a":1} x'},
    {"sample": '{"a":1e999}'},
    {"sample": '{"a":NaN}'},
    {"sample": '{"a":"\\u0000"}'},
    {"sample_type": "a b"},
    # What the filter and the transformation make of it.
    {"filter": "data.gone == 1"},
    {"filter": "data.a > 'x'"},
    {"filter": "data.a"},
    {"filter": "data.a == 2"},
    {"filter": "data.a == 1"},
    {"filter": "data.list[5] == 1"},
    {"sample_type": "other.kind"},
    {"transformation": "data.a"},
    {"transformation": "{'x': data.gone}"},
    {"transformation": "{1: data.a}"},
    {"transformation": "{'a': data.a}"},
]


@pytest.mark.usefixtures("database")
def test_what_trying_out_says_is_said_in_german(world: World) -> None:
    client = browser(world.owner, headers=GERMAN)
    path = f"/portal/{world.owner.slug}/endpoints/{world.sample['endpoint']}/subscriptions/try"
    left: list[tuple[object, list[str]]] = []
    for wrong in WRONG_TRIALS:
        given = {
            "event_type": "order.*",
            "sample_type": "order.created",
            "sample": '{"a":1,"list":[]}',
        } | wrong
        response = client.post(path, given, headers={"HX-Request": "true"})
        assert response.status_code == 200, wrong
        if english := english_in(response):
            left.append((wrong, english))

    assert left == []


WRONG_TESTS: Final[list[Any]] = [
    {"payload": "{"},
    {"payload": "[1]"},
    {"payload": '{"a": "\\ud800"}'},
    {"payload": "{" * 200},
    {"payload": f'{{"a": {"1" * 500}}}'},
    {"payload": '{"a": "' + "x" * 300_000 + '"}'},
    {"event_type": "no.such"},
]


@pytest.mark.usefixtures("database")
def test_what_a_test_event_cannot_be_is_said_in_german(world: World) -> None:
    client = browser(world.owner, headers=GERMAN)
    path = f"/portal/{world.owner.slug}/endpoints/{world.sample['endpoint']}/test"
    left: list[tuple[object, list[str]]] = []
    for wrong in WRONG_TESTS:
        response = client.post(path, {"event_type": "webhook.test", "payload": "{}"} | wrong)
        assert response.status_code == 422, wrong
        if english := english_in(response):
            left.append((wrong, english))

    assert left == []


SOURCE: Final = {"name": "Laden", "event_type": '"order.created"', "scheme": "none"}


WRONG_SOURCES: Final[list[Any]] = [
    {"name": ""},
    {"event_type": "("},
    {"event_type": ""},
    {"data": "x +"},
    {"scheme": "hmac"},
    {"scheme": "hmac", "header": "X", "signed": "x"},
    {"scheme": "hmac", "header": "X", "signed": "{other}"},
    {"scheme": "hmac", "header": "X", "signed": "{timestamp}.{body}"},
    {"scheme": "hmac", "header": "X", "signed": "{id}.{body}"},
    {"scheme": "hmac", "header": "X Y"},
    {"scheme": "standard", "secrets": "short"},
    {"scheme": "standard", "secrets": "whsec_AAAA"},
    {"scheme": "basic", "secrets": "nobody"},
    {"scheme": "bearer"},
    {"allowed_networks": "nowhere"},
    {"dedup_header": "x", "dedup_path": "y"},
    {"dedup_seconds": "1"},
    {"handshake": "meta"},
    {"response_status": "99"},
    {"response_body": "x" * 5_000},
    {"rate_limit": "0"},
]


@pytest.mark.usefixtures("database")
def test_what_a_source_cannot_be_is_said_in_german(world: World) -> None:
    client = browser(world.owner, headers=GERMAN)
    left: list[tuple[object, list[str]]] = []
    for wrong in WRONG_SOURCES:
        response = client.post(f"/portal/{world.owner.slug}/sources/new", SOURCE | wrong)
        assert response.status_code == 422, wrong
        if english := english_in(response):
            left.append((wrong, english))

    assert left == []


WRONG_FILTERS: Final[list[Any]] = [
    *("deliveries?since=x", "deliveries?endpoint=x%20y", "deliveries?event=evt_x", "deliveries?status=x"),
    *("deliveries?event_type=a%20b", "events?channel=%20x", "events?q=x", "events?until=2026-13-01"),
    *("settings/audit?since=x", "settings/audit?target=x%00"),
]


@pytest.mark.usefixtures("database")
def test_what_a_filter_cannot_be_is_said_in_german(world: World) -> None:
    client = browser(world.owner, "admin", headers=GERMAN)
    left: list[tuple[object, list[str]]] = []
    for query in WRONG_FILTERS:
        response = client.get(f"/portal/{world.owner.slug}/{query}")
        assert response.status_code in {200, 422}, query
        if english := english_in(response):
            left.append((query, english))

    assert left == []


# --- the API stays as it is -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("database")
def test_the_api_speaks_english_whatever_a_client_asks_for(world: World) -> None:
    """Its texts are a part of what it promises. Explain is where most of them come from."""
    api = tenant_api(world.owner)
    paths = [f"/tenants/{world.owner.slug}/events/{row['event']}/explain" for row in events_of(world)]
    paths += [f"/tenants/{world.owner.slug}/deliveries?status=nonsense", "/tenants/x"]
    for path in paths:
        english, german = api.get(path), api.send("GET", path, headers=GERMAN)

        assert english.content == german.content


def events_of(world: World) -> list[dict[str, str]]:
    return [
        {"event": ids.to_text("evt", row.event_id)}
        for row in Delivery.objects.for_tenant(world.owner).order_by("id")
    ]
