"""A subscription's page: pattern, filter and transformation, tried on an event while they are written."""

from typing import Any

import pytest
from django.test import Client

from deliveries.models import Endpoint, Subscription
from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import NewEvent
from deliveries.services.endpoints import create_endpoint
from deliveries.services.subscriptions import subscriptions_of
from tenants import ids
from tenants.models import EventType, Tenant
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant
from tests.support.portal import actions_of, browser, text_of

pytestmark = pytest.mark.usefixtures("database")


def made(**fields: Any) -> tuple[Tenant, Endpoint, Client, str]:
    tenant = make_tenant(**fields)
    EventType.objects.create(tenant=tenant, name="order.created", example={"amount": 120})
    endpoint = create_endpoint(
        actor=COMMAND, tenant=tenant, url="https://a.example.com", event_types=["order.*"]
    )
    path = f"/portal/{tenant.slug}/endpoints/{ids.to_text('ep', endpoint.id)}/subscriptions"
    return tenant, endpoint, browser(tenant), path


def rows(endpoint: Endpoint) -> list[Subscription]:
    return list(subscriptions_of(endpoint).order_by("id"))


def of(path: str, row: Subscription) -> str:
    return f"{path}/{ids.to_text('sub', row.id)}"


def test_a_filter_and_a_transformation_are_added() -> None:
    tenant, endpoint, client, path = made()
    form = {
        "event_type": "order.*",
        "filter": "data.amount > 100",
        "transformation": '{"total": data.amount}',
        "description": "Large ones",
        "sample": "whatever",
    }

    saved = client.post(of(path, rows(endpoint)[0]), form)

    assert (saved.status_code, saved["Location"]) == (302, path.removesuffix("/subscriptions"))
    (row,) = rows(endpoint)
    assert (row.filter, row.transformation, row.description) == (
        form["filter"],
        form["transformation"],
        "Large ones",
    )
    assert actions_of(tenant)[-1] == "subscription.changed"
    page = text_of(client.get(saved["Location"]))
    assert "if data.amount > 100" in page


def test_emptied_they_go() -> None:
    tenant, endpoint, client, path = made()
    row = rows(endpoint)[0]
    client.post(of(path, row), {"event_type": "order.*", "filter": "true"})

    client.post(of(path, row), {"event_type": "order.*", "filter": ""})

    assert [each.filter for each in rows(endpoint)] == [None]
    assert actions_of(tenant)[-2:] == ["subscription.changed", "subscription.changed"]


def test_another_one_and_its_removal() -> None:
    tenant, endpoint, client, path = made()

    added = client.post(f"{path}/new", {"event_type": "order.created", "filter": "data.x == 1"})
    both = [row.event_type for row in rows(endpoint)]
    client.post(f"{of(path, rows(endpoint)[0])}/delete")

    assert added.status_code == 302
    assert both == ["order.*", "order.created"]
    assert [row.event_type for row in rows(endpoint)] == ["order.created"]
    assert actions_of(tenant)[-2:] == ["subscription.created", "subscription.deleted"]


def test_what_is_wrong_stands_beside_the_field_and_what_was_typed_stays() -> None:
    tenant, endpoint, client, path = made(limits={"subscriptions_per_endpoint": 1})
    wrong = {
        "event_type": "order.*.x",
        "filter": "data.amount >",
        "transformation": "1 +",
        "sample": '{"kept": 1}',
    }

    answer = client.post(f"{path}/new", wrong)
    unknown = client.post(f"{path}/new", {"event_type": "no.such.type"})
    full = client.post(f"{path}/new", {"event_type": "order.created"})

    assert (answer.status_code, unknown.status_code, full.status_code) == (422, 422, 422)
    assert sorted(answer.context["form"].errors) == ["event_type", "filter", "transformation"]
    assert "data.amount &gt;" in answer.content.decode()
    assert list(unknown.context["form"].errors) == ["event_type"]
    assert "An endpoint may have 1 pattern." in text_of(full)
    assert len(rows(endpoint)) == 1
    assert actions_of(tenant)[-2:] == ["endpoint.created", "member.added"]


def test_the_page_begins_with_the_latest_event_that_matches_or_an_example() -> None:
    tenant, endpoint, client, path = made()
    address = of(path, rows(endpoint)[0])

    before = client.get(address).context["sample"].initial
    ingest.publish([NewEvent(tenant.id.bytes, "order.created", b'{"amount":7}')])
    after = client.get(address).context["sample"].initial

    assert before == {"sample_type": "order.created", "sample": '{\n  "amount": 120\n}'}
    assert after == {"sample_type": "order.created", "sample": '{\n  "amount": 7\n}'}


SAMPLE = {"sample_type": "order.created", "sample": '{"amount": 120, "html": "<b>"}'}

TRIED: list[tuple[dict[str, str], list[str]]] = [
    ({"event_type": "order.*"}, ["It would be sent.", "there is no filter", '"amount": 120']),
    ({"event_type": "order.*", "filter": "data.amount > 100"}, ["It would be sent.", "is true"]),
    ({"event_type": "order.*", "filter": "data.amount > 200"}, ["It would not be sent.", "false"]),
    ({"event_type": "invoice.*"}, ["It would not be sent.", "The pattern invoice.* does not match"]),
    (
        {"event_type": "*", "transformation": '{"total": data.amount}'},
        ["It would be sent.", 'The data that is sent { "total": 120 }'],
    ),
    (
        {"event_type": "*", "transformation": '{"total": data.nothing}'},
        ["It matches, but the transformation fails."],
    ),
    ({"event_type": "*", "filter": "data.amount >"}, ["This cannot be tried yet: Filter:"]),
    ({"event_type": "*", "sample": "{"}, ["This cannot be tried yet: Its data:"]),
    ({"event_type": ""}, ["This cannot be tried yet: Event type or pattern:"]),
]


@pytest.mark.parametrize(("form", "words"), TRIED)
def test_tried_while_it_is_written(form: dict[str, str], words: list[str]) -> None:
    tenant, endpoint, client, path = made()

    live = client.post(f"{path}/try", SAMPLE | form, headers={"HX-Request": "true"})
    plain = client.post(
        f"{path}/try", SAMPLE | form | {"subscription": ids.to_text("sub", rows(endpoint)[0].id)}
    )

    for page in (live, plain):
        for word in words:
            assert word in text_of(page)
        assert b"<b>" not in page.content
    assert b"<html" not in live.content
    assert plain.content.count(b"<h1") == 1
    assert [(row.filter, row.transformation) for row in rows(endpoint)] == [(None, None)]
    assert actions_of(tenant)[-2:] == ["endpoint.created", "member.added"]


def test_what_was_removed_meanwhile_explains_itself() -> None:
    _, endpoint, client, path = made()
    address = of(path, rows(endpoint)[0])
    client.post(f"{address}/delete")

    answers = [
        client.get(address),
        client.post(address, {"event_type": "*"}),
        client.post(f"{address}/delete"),
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert all("This is not here any more" in text_of(answer) for answer in answers)
