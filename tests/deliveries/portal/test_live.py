"""The live tail: what is new since the look before, and how what was shown ended."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import time_machine
from django.utils import timezone

from deliveries.models import Attempt, Delivery, Event
from deliveries.services import live
from tenants import ids
from tenants.models import Tenant
from tests.support.api import make_tenant
from tests.support.portal import browser, text_of
from tests.support.published import add_attempt, delivery_of, end, make_endpoint, make_type, publish

pytestmark = pytest.mark.usefixtures("database")

SOON = timedelta(seconds=2)


@pytest.fixture
def tenant(database: None) -> Tenant:
    made = make_tenant()
    make_type(made)
    make_type(made, "lonely.kind")
    return made


def keys(rows: list[Delivery | Event | live.Tried]) -> list[UUID]:
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


def tried(delivery: Delivery, at: datetime, **fields: Any) -> Attempt:
    Delivery.objects.for_tenant(delivery.tenant_id).filter(id=delivery.id).update(
        attempt_count=fields["number"]
    )
    return add_attempt(delivery, id=ids.floor_of(at), **fields)


DAYS_LATER = timedelta(days=2)
"""What is published now is then older than anything that a page begins with."""


def test_an_attempt_of_an_older_delivery_is_told_once(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))
    now = timezone.now() + DAYS_LATER
    opened = look(tenant, None, now)
    tried(delivery, now, number=3, status_code=500)
    second = tried(delivery, now + SOON / 4, number=4, outcome="succeeded", status_code=200)
    end(delivery, "succeeded", last_outcome="succeeded", last_status_code=200)

    found = look(tenant, opened, now + SOON)
    later = look(tenant, found, now + 2 * SOON)

    assert opened.new == []
    (row,) = found.new
    assert isinstance(row, live.Tried)
    assert (row.id, row.number, row.outcome, row.status_code) == (second.id, 4, "succeeded", 200)
    assert (row.delivery.id, row.delivery.status) == (delivery.id, "succeeded")
    assert (found.changed, later.new, later.changed) == ([], [], [])


def test_an_attempt_by_hand_that_fails_again_is_told_though_its_delivery_is_on_the_page(
    tenant: Tenant,
) -> None:
    make_endpoint(tenant)
    delivery = end(delivery_of(publish(tenant)), "failed")
    opened = look(tenant, None, timezone.now() + SOON)
    quiet = look(tenant, opened, timezone.now() + 4 * SOON)
    again = tried(delivery, timezone.now() + 4 * SOON, number=2, trigger="manual")

    found = look(tenant, quiet, timezone.now() + 5 * SOON)

    assert keys(opened.new) == [delivery.id]
    assert (keys(found.new), found.changed) == ([again.id], [])


def test_an_attempt_of_what_the_page_shows_as_pending_changes_its_line_alone(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))
    opened = look(tenant, None, timezone.now() + SOON)
    tried(delivery, timezone.now() + SOON, number=1)

    found = look(tenant, opened, timezone.now() + 2 * SOON)

    assert (found.new, [row.id for row in found.changed]) == ([], [delivery.id])


def test_attempts_of_others_are_not_told_however_many_there_are(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look goes through so many attempts of all tenants: of a flood of others' it tells what is left."""
    make_endpoint(tenant)
    stranger = make_tenant()
    make_type(stranger)
    make_endpoint(stranger)
    mine, other = delivery_of(publish(tenant)), delivery_of(publish(stranger))
    now = timezone.now() + DAYS_LATER
    opened = look(tenant, None, now)
    attempt = tried(mine, now, number=2)
    for number in range(2, 5):
        tried(other, now + timedelta(milliseconds=number), number=number)

    found = look(tenant, opened, now + SOON)
    monkeypatch.setattr(live, "MOST_ATTEMPTS", 3)
    bounded = look(tenant, opened, now + SOON)

    assert keys(found.new) == [attempt.id]
    assert bounded.new == []


def test_a_page_that_was_away_for_long_is_told_of_the_last_seconds(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))
    now = timezone.now() + DAYS_LATER
    opened = look(tenant, None, now)
    tried(delivery, now, number=2)
    later = now + timedelta(minutes=5)
    last = tried(delivery, later - SOON, number=3)

    found = look(tenant, opened, later)

    assert keys(found.new) == [last.id]


def test_the_line_of_an_attempt(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))
    client = browser(tenant, "viewer")
    path = f"/portal/{tenant.slug}/live"
    now = timezone.now() + DAYS_LATER

    with time_machine.travel(now, tick=False):
        start = client.get(path).context
    attempt = tried(delivery, now, number=3, outcome="timeout", status_code=None)
    with time_machine.travel(now + SOON, tick=False):
        news = rows(client, path, start)

    assert f'id="{ids.to_text("att", attempt.id)}"' in news.content.decode()
    assert f"/deliveries/{ids.to_text('dlv', delivery.id)}" in news.content.decode()
    assert "order.created https://shop.example.com/hooks Attempt 3 time-out pending" in text_of(news)


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
