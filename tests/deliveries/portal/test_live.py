"""The live tail: what is new since the look before, and how what was shown ended."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from django.utils import timezone

from deliveries.models import Delivery, Event
from deliveries.services import live
from tenants import ids
from tenants.models import Tenant
from tests.support.api import make_tenant
from tests.support.portal import browser, text_of
from tests.support.published import delivery_of, end, make_endpoint, make_type, publish

pytestmark = pytest.mark.usefixtures("database")

SOON = timedelta(seconds=2)


@pytest.fixture
def tenant(database: None) -> Tenant:
    made = make_tenant()
    make_type(made)
    make_type(made, "lonely.kind")
    return made


def keys(rows: list[Delivery | Event]) -> list[UUID]:
    return [row.id for row in rows]


def look(tenant: Tenant, after: UUID | None, at: datetime) -> live.Look:
    return live.look(tenant, after=after, now=at)


def test_news_come_once_and_ends_are_told(tenant: Tenant) -> None:
    make_endpoint(tenant, event_types=["order.*"])
    first, lonely = delivery_of(publish(tenant)), publish(tenant, "lonely.kind")
    now = timezone.now()

    opened = look(tenant, None, now + SOON)
    quiet = look(tenant, opened.cursor, now + 2 * SOON)
    ended = end(first, "succeeded", completed_at=now + 2 * SOON)
    told = look(tenant, quiet.cursor, now + 3 * SOON)
    later = look(tenant, told.cursor, now + 6 * SOON)

    assert keys(opened.new) == [lonely.id, first.id]
    assert (quiet.new, [row.id for row in quiet.changed]) == ([], [first.id])
    assert (told.new, [row.status for row in told.changed]) == ([], [ended.status])
    assert (later.new, later.changed) == ([], [])


def test_what_is_not_settled_is_left_for_the_next_look(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))

    early = look(
        tenant, ids.floor_of(delivery.created_at - SOON), delivery.created_at + timedelta(seconds=0.5)
    )
    next_ = look(tenant, early.cursor, delivery.created_at + SOON)

    assert early.new == []
    assert keys(next_.new) == [delivery.id]


def test_of_a_flood_the_newest_are_shown_and_it_is_said(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST", 3)
    make_endpoint(tenant)
    start = ids.floor_of(timezone.now() - SOON)
    made = [delivery_of(publish(tenant)).id for _ in range(5)]

    found = look(tenant, start, timezone.now() + SOON)

    assert keys(found.new) == made[:1:-1]
    assert found.skipped


def test_the_page_and_its_looks(tenant: Tenant) -> None:
    make_endpoint(tenant)
    stranger = make_tenant()
    make_type(stranger)
    publish(stranger)
    client = browser(tenant, "viewer")
    path = f"/portal/{tenant.slug}/live"

    empty = client.get(path)
    start = empty.context["cursor"]
    delivery = delivery_of(publish(tenant))
    with time_machine.travel(timezone.now() + SOON, tick=False):
        news = rows(client, path, start)
        again = rows(client, path, news.context["cursor"])
    nonsense = rows(client, path, "made up")

    assert "Quiet" in text_of(empty)
    assert f'id="{ids.to_text("dlv", delivery.id)}"' in news.content.decode()
    assert 'hx-swap-oob="afterbegin"' in news.content.decode()
    assert "order.created" in text_of(news)
    assert 'hx-swap-oob="true"' in again.content.decode()
    assert 'hx-swap-oob="afterbegin"' not in again.content.decode()
    assert f"after={again.context['cursor']}" in again.content.decode()
    assert nonsense.status_code == 200


def rows(client: Any, path: str, after: str) -> Any:
    return client.get(f"{path}/rows", {"after": after}, headers={"HX-Request": "true"})
