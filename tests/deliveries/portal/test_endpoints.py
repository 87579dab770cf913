"""Endpoints in the portal: the same services as the API's, and forms that keep what was typed."""

import json
import re
from typing import Any

import pytest

from deliveries.models import Delivery, Endpoint
from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import NewEvent
from deliveries.services.endpoint_deletion import delete_endpoint
from deliveries.services.endpoint_settings import all_headers, patterns_of
from deliveries.services.endpoints import create_endpoint
from tenants import ids
from tenants.models import AuditEntry, EventType, Tenant
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant
from tests.support.portal import actions_of, browser, text_of

pytestmark = pytest.mark.usefixtures("database")

FORM: dict[str, Any] = {
    "url": "https://shop.example.com/hooks",
    "event_types": ["*"],
    "method": "POST",
    "format": "standard",
    "signature_scheme": "hmac-sha256",
    "success_statuses": "2xx",
    "timeout_seconds": "15",
    "max_in_flight": "10",
    "ordering": "none",
}


def make_endpoint(tenant: Tenant, **fields: Any) -> tuple[Endpoint, str]:
    """The row, and the path of its page."""
    endpoint = create_endpoint(actor=COMMAND, tenant=tenant, **({"url": "https://a.example.com"} | fields))
    return endpoint, f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}"


def endpoints_of(tenant: Tenant) -> list[Endpoint]:
    return list(Endpoint.objects.for_tenant(tenant).filter(deleted_at__isnull=True).order_by("id"))


# --- adding -----------------------------------------------------------------------------------------------------------


def test_the_empty_list_says_what_an_endpoint_is() -> None:
    tenant = make_tenant()

    for role, words in (("developer", "Add the first endpoint"), ("viewer", "A developer or an admin")):
        page = text_of(browser(tenant, role).get(f"/portal/{tenant.slug}/endpoints"))
        assert "Where should events go?" in page
        assert words in page


def test_the_form_offers_the_catalogue_with_descriptions_and_wildcards() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="order.created", description="Somebody <b>bought</b>")
    EventType.objects.create(tenant=tenant, name="ping")
    EventType.objects.create(tenant=tenant, name="old.type", archived_at="2026-01-01T00:00:00Z")

    response = browser(tenant).get(f"/portal/{tenant.slug}/endpoints/new")

    page = response.content.decode()
    offered = [
        part.partition('"')[0]
        for part in page.split('name="event_types"')[1:]
        for part in [part.split('value="')[1]]
    ]
    # Tests of the shared catalogue may have left more, which are offered as well.
    own = [name for name in offered if name in {"*", "order.*", "order.created", "ping", "old.*", "old.type"}]
    assert own == ["*", "order.*", "order.created", "ping"]
    assert "Somebody &lt;b&gt;bought&lt;/b&gt;" in page


def test_one_form_makes_an_endpoint() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="invoice.paid")
    client = browser(tenant)
    form = FORM | {
        "description": "Orders",
        "event_types": ["invoice.paid"],
        "more_patterns": "order.*\nendpoint.disabled",
        "headers": "X-Team: a\nAuthorization: Bearer s3cret",
        "channels": "shop-1, shop-2",
        "retry_schedule": "5, 300",
        "rate_limit": "2.5",
        "uid": "shop-17",
    }

    response = client.post(f"/portal/{tenant.slug}/endpoints/new", form)

    (made,) = endpoints_of(tenant)
    assert (response.status_code, response["Location"]) == (
        302,
        f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', made.id)}/secret?new",
    )
    assert (made.url, made.description, made.uid) == (FORM["url"], "Orders", "shop-17")
    assert patterns_of(made) == ["invoice.paid", "order.*", "endpoint.disabled"]
    assert all_headers(made) == {"X-Team": "a", "Authorization": "Bearer s3cret"}
    assert made.sensitive_headers == ["Authorization"]
    assert (made.channels, made.retry_schedule, made.rate_limit) == (["shop-1", "shop-2"], [5, 300], 2.5)
    assert actions_of(tenant)[-1] == "endpoint.created"
    assert "Endpoint added" in text_of(client.get(response["Location"]))


def test_a_refused_form_keeps_what_was_typed_and_says_what_is_wrong_beside_the_field() -> None:
    tenant = make_tenant()
    form = FORM | {
        "url": "https://user:pw@shop.example.com/",
        "description": "Keep <me>",
        "event_types": [],
        "more_patterns": "no.such.type",
        "headers": "Host: evil",
        "timeout_seconds": "31",
        "retry_schedule": "soon",
    }

    response = browser(tenant).post(f"/portal/{tenant.slug}/endpoints/new", form)

    assert response.status_code == 422
    shown = response.context["form"]
    assert sorted(shown.errors) == ["headers", "retry_schedule", "timeout_seconds", "url"]
    page = response.content.decode()
    assert 'value="https://user:pw@shop.example.com/"' in page
    assert "Keep &lt;me&gt;" in page
    assert "no.such.type" in page
    assert 'aria-invalid="true"' in page
    assert endpoints_of(tenant) == []


def test_what_the_services_refuse_stands_beside_the_field_too() -> None:
    tenant = make_tenant(limits={"endpoints": 1})
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/endpoints/new"

    unknown = client.post(path, FORM | {"event_types": [], "more_patterns": "no.such.type"})
    first = client.post(path, FORM | {"uid": "same"})
    full = client.post(path, FORM)

    assert unknown.context["form"].errors == {
        "event_types": ["There is no event type no.such.type in the catalogue."]
    }
    assert first.status_code == 302
    assert "There is room for 1 endpoint." in text_of(full)
    assert len(endpoints_of(tenant)) == 1


# --- changing ---------------------------------------------------------------------------------------------------------


def test_editing_leaves_what_the_form_does_not_change() -> None:
    tenant = make_tenant()
    _, path = make_endpoint(
        tenant, headers={"X-Team": "a", "Authorization": "Bearer s3cret"}, event_types=["order.*", "x.*"]
    )
    client = browser(tenant)

    page = client.get(f"{path}/edit")
    form = {name: field.value() for name, field in ((field.name, field) for field in page.context["form"])}
    saved = client.post(
        f"{path}/edit",
        {name: "" if value is None else value for name, value in form.items()} | {"description": "New"},
    )

    changed = endpoints_of(tenant)[0]
    assert b"s3cret" not in page.content
    assert "Authorization: ***" in form["headers"]
    assert (saved.status_code, changed.description) == (302, "New")
    assert all_headers(changed) == {"X-Team": "a", "Authorization": "Bearer s3cret"}
    assert patterns_of(changed) == ["order.*", "x.*"]


def test_metadata_are_lines_of_the_form_and_merge_with_what_others_changed() -> None:
    tenant = make_tenant()
    endpoint, path = make_endpoint(tenant, metadata={"region": "north", "team": "blue", "old": "x"})
    client = browser(tenant)
    page = client.get(f"{path}/edit")

    assert page.context["form"]["metadata"].value() == "old=x\nteam=blue\nregion=north"
    answer = client.post(
        f"{path}/edit",
        FORM | {"url": endpoint.url, "metadata": "region = south \r\n\r\nteam=blue\r\nnote=a=b"},
    )

    assert answer.status_code == 302
    (changed,) = endpoints_of(tenant)
    assert changed.metadata == {"region": "south", "team": "blue", "note": "a=b"}
    entry = AuditEntry.objects.filter(tenant=tenant, action="endpoint.changed").latest("id")
    assert entry.after == {"metadata": {"region": "south", "team": "blue", "note": "a=b"}}
    assert "region: south" in text_of(client.get(path))


def test_metadata_that_do_not_fit_on_lines_are_json_and_stay_as_they_are() -> None:
    tenant = make_tenant()
    hard = {"note": "two\nlines", "a=b": " spaced ", "{x": "", "plain": "ü"}
    endpoint, path = make_endpoint(tenant, metadata=hard)
    client = browser(tenant)

    shown = client.get(f"{path}/edit").context["form"]["metadata"].value()
    unchanged = client.post(
        f"{path}/edit", FORM | {"url": endpoint.url, "metadata": shown.replace("\n", "\r\n")}
    )

    assert json.loads(shown) == hard
    assert unchanged.status_code == 302
    assert endpoints_of(tenant)[0].metadata == hard
    client.post(f"{path}/edit", FORM | {"url": endpoint.url, "metadata": '{"plain": "a"}'})
    assert endpoints_of(tenant)[0].metadata == {"plain": "a"}
    client.post(f"{path}/edit", FORM | {"url": endpoint.url, "metadata": ""})
    assert endpoints_of(tenant)[0].metadata == {}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("region", "Each line must be a key, an equals sign and a value."),
        ("a=1\na=2", "The key a is given twice."),
        ("=x", "Must not be empty."),
        (f"{'k' * 65}=x", f"{'k' * 64}: Must have at most 64 characters."),
        (f"a={'x' * 513}", "a: Must have at most 512 characters."),
        ("\n".join(f"k{number}=x" for number in range(51)), "Must have at most 50 keys."),
        ('{"a": 1}', "a: Must be a text."),
        ('{"a": ', "Expecting value in line 1, column 6."),
    ],
)
def test_metadata_are_refused_in_the_words_of_the_api(typed: str, said: str) -> None:
    tenant = make_tenant()

    answer = browser(tenant).post(f"/portal/{tenant.slug}/endpoints/new", FORM | {"metadata": typed})

    assert answer.status_code == 422
    assert answer.context["form"].errors["metadata"] == [said]
    assert answer.context["form"]["metadata"].value() == typed
    assert endpoints_of(tenant) == []


def test_a_header_line_that_is_gone_removes_the_header() -> None:
    tenant = make_tenant()
    _, path = make_endpoint(tenant, headers={"X-Team": "a", "Authorization": "Bearer s3cret"})

    browser(tenant).post(f"{path}/edit", FORM | {"headers": "authorization: ***"})

    assert all_headers(endpoints_of(tenant)[0]) == {"Authorization": "Bearer s3cret"}


def test_disable_enable_and_delete() -> None:
    tenant = make_tenant()
    _, path = make_endpoint(tenant)
    client = browser(tenant)

    for verb, status in (("disable", "disabled"), ("enable", "enabled")):
        assert client.post(f"{path}/{verb}")["Location"] == path
        assert endpoints_of(tenant)[0].status == status
    deleted = f"/portal/{tenant.slug}/endpoints?deleted={path.rpartition('/')[2]}"
    assert client.post(f"{path}/delete")["Location"] == deleted

    assert endpoints_of(tenant) == []
    assert actions_of(tenant)[-3:] == ["endpoint.disabled", "endpoint.enabled", "endpoint.deleted"]


def test_a_page_of_something_deleted_meanwhile_explains_itself() -> None:
    tenant = make_tenant()
    endpoint, path = make_endpoint(tenant)
    client = browser(tenant)
    delete_endpoint(actor=COMMAND, endpoint=endpoint)

    answers = [client.get(path), client.post(f"{path}/edit", FORM), client.post(f"{path}/disable")]

    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert all("This is not here any more" in text_of(answer) for answer in answers)


# --- a viewer ---------------------------------------------------------------------------------------------------------


def test_a_viewer_sees_no_secret_no_button_and_no_credentials_of_the_url() -> None:
    tenant = make_tenant()
    _, path = make_endpoint(
        tenant, url="https://a.example.com/?token=s3cret", headers={"X-Api-Key": "s3cret"}
    )
    client = browser(tenant, "viewer")

    page = client.get(path)

    assert page.status_code == 200
    assert b"s3cret" not in page.content
    assert b"s3cret" not in client.get(f"/portal/{tenant.slug}/endpoints").content
    # Signing out and the language are the only forms.
    actions = re.findall(r'<form[^>]*action="([^"]*)"', page.content.decode())
    assert [action for action in actions if f"/{tenant.slug}/" in action] == []
    assert client.get(f"{path}/secret").status_code == 403
    assert client.post(f"{path}/secret").status_code == 403
    assert "secret.read" not in actions_of(tenant)


# --- what it says of itself -------------------------------------------------------------------------------------------


def test_the_retry_schedule_in_words() -> None:
    tenant = make_tenant()
    _, path = make_endpoint(tenant, retry_schedule=[30, 3_600])
    _, once = make_endpoint(tenant, retry_schedule=[])
    client = browser(tenant)

    page, other = text_of(client.get(path)), text_of(client.get(once))

    assert "at once after 30 seconds after 1 hour, 30 seconds Each wait is lengthened" in page
    assert "One attempt, no retries." in other


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "after 3 days, 3 hours"),
        ("5, 300", "at once after 5 seconds after 5 minutes, 5 seconds"),
        ("none", "One attempt, no retries."),
        ("soon", "Must be whole numbers of seconds"),
    ],
)
def test_the_schedule_that_is_typed_is_drawn(typed: str, words: str) -> None:
    tenant = make_tenant()

    page = browser(tenant).get(f"/portal/{tenant.slug}/endpoints/new/retries", {"retry_schedule": typed})

    assert words in text_of(page)
    assert page.status_code == 200


def test_metadata_that_the_api_set_is_shown() -> None:
    tenant = make_tenant()
    _, path = make_endpoint(tenant, metadata={"shop": "17", "<b>": "&"})

    page = text_of(browser(tenant).get(path))

    assert "Metadata <b>: & shop: 17 Added" in page


def test_types_stand_in_their_groups() -> None:
    tenant = make_tenant()
    for name, group in (("order.created", "Shop"), ("invoice.paid", "Money"), ("order.paid", "Shop")):
        EventType.objects.create(tenant=tenant, name=name, group=group)

    page = text_of(browser(tenant).get(f"/portal/{tenant.slug}/endpoints/new"))

    assert "Money invoice.* everything below invoice invoice.paid Shop order.* everything below order" in page


def test_the_list_shows_the_latest_deliveries_of_each() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="a.b")
    make_endpoint(tenant)
    make_endpoint(tenant, event_types=[])
    ingest.publish([NewEvent(tenant.id.bytes, "a.b", b"{}") for _ in range(3)])
    rows = Delivery.objects.for_tenant(tenant)
    rows.update(status="succeeded", next_attempt_at=None, attempt_count=1, last_outcome="succeeded")
    rows.filter(id=rows.latest("id").id).update(status="failed", last_outcome="timeout")

    page = browser(tenant).get(f"/portal/{tenant.slug}/endpoints")

    assert "1 of the latest 3 failed" in text_of(page)
    assert "nothing sent lately" in text_of(page)
    assert b'<path class="failed" d="M158 24v-24" />' in page.content
