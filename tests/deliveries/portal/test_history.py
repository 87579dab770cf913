"""Events and deliveries in the portal: lists with filters in the URL, explain, retry, cancel, replay."""

from contextlib import suppress
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.utils import timezone

from deliveries.models import Delivery, Endpoint, Event
from deliveries.pipeline import ingest
from deliveries.pipeline.ingest import Accepted, NewEvent
from deliveries.services.endpoint_deletion import delete_endpoint
from deliveries.services.stopping import disable_endpoint
from tenants import ids
from tenants.models import EventType, Tenant
from tenants.portal.lists import PAGE_SIZE
from tenants.services.audit import COMMAND
from tenants.services.event_types import NameTaken, create_event_type
from tests.deliveries.portal.test_endpoints import make_endpoint
from tests.support.api import make_tenant
from tests.support.portal import actions_of, browser, text_of

pytestmark = pytest.mark.usefixtures("database")


def publish(tenant: Tenant, type: str = "order.created", data: bytes = b"{}") -> str:
    """The event's id."""
    with suppress(NameTaken):
        create_event_type(actor=COMMAND, tenant=tenant, name=type)
    accepted = ingest.publish([NewEvent(tenant.id.bytes, type, data)])[0]
    assert isinstance(accepted, Accepted)
    return ids.to_text("evt", next(iter(Event.objects.for_tenant(tenant).order_by("-id"))).id)


def delivery_id(tenant: Tenant) -> str:
    return ids.to_text("dlv", Delivery.objects.for_tenant(tenant).latest("id").id)


def types_of(page: object) -> list[str]:
    return [row["delivery"].event_type for row in page.context["rows"]]  # type: ignore[attr-defined] # of the test client


def test_lists_page_by_cursor_both_ways() -> None:
    tenant = make_tenant()
    make_endpoint(tenant)
    EventType.objects.create(tenant=tenant, name="order.created")
    ingest.publish([NewEvent(tenant.id.bytes, "order.created", b"{}") for _ in range(PAGE_SIZE + 5)])
    client = browser(tenant)

    for section in ("events", "deliveries"):
        path = f"/portal/{tenant.slug}/{section}"
        first = client.get(path)
        second = client.get(path, {"cursor": first.context["page"].next_cursor})
        back = client.get(path, {"cursor": second.context["page"].prev_cursor})
        lost = client.get(path, {"cursor": "made up"})

        assert [len(page.context["page"].rows) for page in (first, second, back, lost)] == [
            PAGE_SIZE,
            5,
            PAGE_SIZE,
            PAGE_SIZE,
        ]
        assert "Older" in text_of(first)
        assert "Newer" in text_of(second)
        assert back.context["page"].rows == first.context["page"].rows


def test_filters_stand_in_the_url() -> None:
    tenant = make_tenant()
    one, _ = make_endpoint(tenant, event_types=["*"])
    make_endpoint(tenant, event_types=["invoice.*"])
    event = publish(tenant)
    publish(tenant, "invoice.paid")
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/deliveries"
    tomorrow = (timezone.now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")

    found = {
        "": 3,
        "?status=pending": 3,
        "?status=failed": 0,
        "?event_type=invoice.paid": 2,
        f"?endpoint={ids.to_text('ep', one.id)}": 2,
        f"?event={event}": 1,
        f"?since={tomorrow}": 0,
        f"?until={tomorrow}&status=pending": 3,
    }

    assert {query: len(types_of(client.get(path + query))) for query in found} == found
    assert "Nothing matches" in text_of(client.get(f"{path}?status=failed"))
    assert len(client.get(f"/portal/{tenant.slug}/events?type=order.created").context["page"].rows) == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=lost", "status"),
        ("outcome=bad_luck", "outcome"),
        ("event=evt_x", "event"),
        ("endpoint=ep_zzz", "endpoint"),
        ("endpoint=nobody", "endpoint"),
        ("since=yesterday", "since"),
        ("since=2026-02-02T00:00&until=2026-01-01T00:00", "until"),
        ("event_type=a%20b%00", "event_type"),
    ],
)
def test_a_filter_that_does_not_parse_says_so_beside_its_field(query: str, field: str) -> None:
    tenant = make_tenant()

    response = browser(tenant).get(f"/portal/{tenant.slug}/deliveries?{query}")

    assert response.status_code == 422
    assert list(response.context["form"].errors) == [field]
    assert "This filter cannot be applied" in text_of(response)


def test_an_event_shows_its_payload_and_why_each_endpoint_got_it_or_not() -> None:
    tenant = make_tenant()
    make_endpoint(tenant, url="https://wants.example.com")
    make_endpoint(tenant, url="https://other.example.com", event_types=["invoice.*"])
    event = publish(tenant, data=b'{"html":"<img src=x onerror=alert(1)>","big":12345678901234567890}')

    response = browser(tenant, "viewer").get(f"/portal/{tenant.slug}/events/{event}")

    page, text = response.content.decode(), text_of(response)
    assert "<img src=x" not in page
    assert "&quot;html&quot;: &quot;&lt;img src=x onerror=alert(1)&gt;&quot;" in page
    assert "12345678901234567890" in page
    assert "https://wants.example.com Waiting for its first attempt. pending" in text
    assert "The endpoint was subscribed to invoice.*, which does not include order.created." in text
    assert "Send again" not in text


def test_an_event_that_was_taken_with_a_warning_says_what_is_wrong_with_it() -> None:
    tenant = make_tenant(schema_validation="warn")
    schema = {"type": "object", "properties": {"amount": {"type": "integer"}}}
    create_event_type(actor=COMMAND, tenant=tenant, name="order.created", schema=schema)
    event = publish(tenant, data=b'{"amount": "much"}')

    page = text_of(browser(tenant).get(f"/portal/{tenant.slug}/events/{event}"))

    assert "It is not as the schema of its type says." in page
    assert 'data.amount the value is not of type "integer"' in page


def test_replay_to_all_that_match_or_to_one() -> None:
    tenant = make_tenant()
    make_endpoint(tenant)
    other, _ = make_endpoint(tenant, event_types=["invoice.*"])
    event = publish(tenant)
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/events/{event}"

    to_all = client.post(f"{path}/replay", follow=True)
    to_one = client.post(f"{path}/replay", {"endpoint": ids.to_text("ep", other.id)}, follow=True)

    assert "Sent again to 1 endpoint." in text_of(to_all)
    assert "Sent again to 1 endpoint." in text_of(to_one)
    triggers = Delivery.objects.for_tenant(tenant).order_by("id").values_list("trigger", "endpoint_id")
    assert [trigger for trigger, _ in triggers] == ["automatic", "replay", "replay"]
    assert list(triggers)[-1][1] == other.id
    assert actions_of(tenant)[-2:] == ["event.replayed", "event.replayed"]


def test_replay_to_what_is_gone_meanwhile_explains_itself() -> None:
    tenant = make_tenant()
    stopped, _ = make_endpoint(tenant)
    deleted, _ = make_endpoint(tenant)
    event = publish(tenant)
    disable_endpoint(actor=COMMAND, endpoint=stopped)
    delete_endpoint(actor=COMMAND, endpoint=deleted)
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/events/{event}/replay"

    def said(row: Endpoint | None) -> str:
        form = {} if row is None else {"endpoint": ids.to_text("ep", row.id)}
        return text_of(client.post(path, form, follow=True))

    assert "The endpoint is disabled. Enable it first." in said(stopped)
    assert "The endpoint was deleted" in said(deleted)
    assert "No endpoint wants this event as things stand now" in said(None)
    assert Delivery.objects.for_tenant(tenant).count() == 2


def test_retry_and_cancel() -> None:
    tenant = make_tenant()
    make_endpoint(tenant)
    publish(tenant)
    client = browser(tenant)
    path = f"/portal/{tenant.slug}/deliveries/{delivery_id(tenant)}"

    cancelled = client.post(f"{path}/cancel", follow=True)
    again = client.post(f"{path}/cancel", follow=True)
    retried = client.post(f"{path}/retry", follow=True)

    assert "cancelled cancelled by request" in text_of(cancelled)
    assert "It had ended already" in text_of(again)
    assert "Trying again now" in text_of(retried)
    assert Delivery.objects.for_tenant(tenant).get().manual_requested_at is not None
    assert actions_of(tenant)[-2:] == ["delivery.cancelled", "delivery.retried"]


def test_links_lead_from_a_delivery_to_its_event_and_endpoint() -> None:
    tenant = make_tenant()
    _, endpoint = make_endpoint(tenant)
    event = publish(tenant)
    client = browser(tenant, "viewer")
    path = f"/portal/{tenant.slug}/deliveries/{delivery_id(tenant)}"

    page = client.get(path).content.decode()

    for link in (endpoint, f"/portal/{tenant.slug}/events/{event}"):
        assert f'href="{link}"' in page
        assert client.get(urlsplit(link).path).status_code == 200
