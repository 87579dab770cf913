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


def look(tenant: Tenant, before: live.Look | None, at: datetime) -> live.Look:
    if before is None:
        return live.look(tenant, after=None, now=at)
    return live.look(tenant, after=before.cursor, oldest=before.oldest, now=at)


def test_news_come_once_and_ends_are_told(tenant: Tenant) -> None:
    make_endpoint(tenant, event_types=["order.*"])
    first, lonely = delivery_of(publish(tenant)), publish(tenant, "lonely.kind")
    now = timezone.now()

    opened = look(tenant, None, now + SOON)
    quiet = look(tenant, opened, now + 2 * SOON)
    ended = end(first, "succeeded", completed_at=now + 2 * SOON)
    told = look(tenant, quiet, now + 3 * SOON)
    later = look(tenant, told, now + 6 * SOON)

    assert keys(opened.new) == [lonely.id, first.id]
    assert (quiet.new, [row.id for row in quiet.changed]) == ([], [first.id])
    assert (told.new, [row.status for row in told.changed]) == ([], [ended.status])
    assert (later.new, later.changed) == ([], [])


def test_what_is_not_settled_is_left_for_the_next_look(tenant: Tenant) -> None:
    make_endpoint(tenant)
    opened = look(tenant, None, timezone.now())
    delivery = delivery_of(publish(tenant))

    early = look(tenant, opened, delivery.created_at + timedelta(seconds=0.5))
    next_ = look(tenant, early, delivery.created_at + SOON)

    assert early.new == []
    assert keys(next_.new) == [delivery.id]


def test_of_a_flood_the_newest_are_shown_and_what_is_not_shown_does_not_change(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST", 3)
    make_endpoint(tenant)
    opened = look(tenant, None, timezone.now())
    made = [delivery_of(publish(tenant)).id for _ in range(5)]

    found = look(tenant, opened, timezone.now() + SOON)
    later = look(tenant, found, timezone.now() + 2 * SOON)

    assert keys(found.new) == made[:1:-1]
    assert found.skipped
    assert [row.id for row in later.changed] == made[:1:-1]


def test_the_page_and_its_looks(tenant: Tenant) -> None:
    make_endpoint(tenant)
    stranger = make_tenant()
    make_type(stranger)
    publish(stranger)
    client = browser(tenant, "viewer")
    path = f"/portal/{tenant.slug}/live"

    empty = client.get(path)
    start = empty.context
    delivery = delivery_of(publish(tenant))
    with time_machine.travel(timezone.now() + SOON, tick=False):
        news = rows(client, path, start)
        again = rows(client, path, news.context)
    nonsense = rows(client, path, {"cursor": "made up", "oldest": ""})

    assert "Quiet" in text_of(empty)
    assert f'id="{ids.to_text("dlv", delivery.id)}"' in news.content.decode()
    assert 'hx-swap-oob="afterbegin"' in news.content.decode()
    assert "order.created" in text_of(news)
    assert 'hx-swap-oob="true"' in again.content.decode()
    assert 'hx-swap-oob="afterbegin"' not in again.content.decode()
    assert f"after={again.context['cursor']}" in again.content.decode()
    assert nonsense.status_code == 200


def rows(client: Any, path: str, before: Any) -> Any:
    place = {"after": before["cursor"], "oldest": before["oldest"]}
    return client.get(f"{path}/rows", place, headers={"HX-Request": "true"})
