"""The first page of a tenant: what it says to somebody new, and of what goes well and what does not."""

import re
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders

from deliveries.models import Delivery
from deliveries.services.endpoints import create_endpoint
from deliveries.services.stopping import disable_endpoint
from tenants import ids
from tenants.services.audit import COMMAND
from tests.support.builders import make_endpoint, make_tenant, publish
from tests.support.portal import browser, text_of

pytestmark = pytest.mark.usefixtures("database")


def test_somebody_new_is_told_what_to_do_first() -> None:
    tenant = make_tenant()

    for role, words in (("developer", "Add the first endpoint"), ("viewer", "A developer or an admin")):
        page = text_of(browser(tenant, role).get(f"/portal/{tenant.slug}/"))
        assert "Receive the first event in three steps" in page
        assert words in page
        assert "Success rate" not in page


def test_with_an_endpoint_the_next_step_is_a_test() -> None:
    tenant = make_tenant()
    endpoint = create_endpoint(actor=COMMAND, tenant=tenant, url="https://a.example.com")

    page = browser(tenant).get(f"/portal/{tenant.slug}/")

    assert "Nothing was sent yet" in text_of(page)
    assert f"/endpoints/{ids.to_text('ep', endpoint.id)}/test" in page.content.decode()


def test_figures_chart_and_the_table_behind_it() -> None:
    tenant = make_tenant()
    make_endpoint(tenant, "https://a.example.com")
    for _ in range(8):
        publish(tenant)
    rows = Delivery.objects.for_tenant(tenant)
    rows.update(status="succeeded", next_attempt_at=None, attempt_count=1, last_outcome="succeeded")
    rows.filter(id=rows.latest("id").id).update(status="failed", last_outcome="http_error")

    response = browser(tenant, "viewer").get(f"/portal/{tenant.slug}/")

    page = text_of(response)
    assert "Success rate 87.5 % of deliveries that ended" in page
    assert "Deliveries 8 1 failed" in page
    assert "All endpoints are doing well." in page
    body = response.content.decode()
    assert body.count('<th scope="row">') == 24
    assert re.search(r'<rect class="failed"\s+x="[0-9.]+"', body)
    assert response.context["overview"].totals.total == 8


def test_endpoints_that_need_attention_come_first_with_what_to_do() -> None:
    tenant = make_tenant()
    failing = make_endpoint(tenant, "https://failing.example.com/?token=s3cret")
    gone = make_endpoint(tenant, "https://gone.example.com")
    make_endpoint(tenant, "https://fine.example.com")
    publish(tenant)
    rows = Delivery.objects.for_tenant(tenant)
    rows.update(status="succeeded", next_attempt_at=None, attempt_count=1, last_outcome="succeeded")
    rows.filter(endpoint=failing).update(last_outcome="http_error", last_status_code=500, status="failed")
    disable_endpoint(actor=COMMAND, endpoint=gone, reason=gone.DisabledReason.GONE)

    response = browser(tenant).get(f"/portal/{tenant.slug}/")

    assert [concern.endpoint.id for concern in response.context["concerns"]] == [gone.id, failing.id]
    page = text_of(response)
    assert "2 endpoints need attention Disabled since" in page
    assert page.index("https://gone.example.com") < page.index("https://failing.example.com")
    assert "The endpoint answered with status 500" in page
    assert b"s3cret" not in response.content


@pytest.mark.parametrize(("asked", "shown"), [("7d", "7d"), ("30d", "30d"), ("nonsense", "24h"), ("", "24h")])
def test_the_window_stands_in_the_url(asked: str, shown: str) -> None:
    tenant = make_tenant()
    make_endpoint(tenant, "https://a.example.com")
    publish(tenant)

    response = browser(tenant).get(f"/portal/{tenant.slug}/", {"window": asked})

    assert response.context["window"] == shown
    current = re.findall(r'\?window=(\w+)"\s+aria-current="true"', response.content.decode())
    assert current == [shown]


def test_nothing_of_another_tenant() -> None:
    tenant, stranger = make_tenant(), make_tenant()
    make_endpoint(stranger, "https://theirs.example.com")
    publish(stranger)

    page = browser(tenant).get(f"/portal/{tenant.slug}/")

    assert b"theirs.example.com" not in page.content
    assert not page.context["was_anything_sent"]


MOST_BYTES = 150_000
"""Of the page and everything that it loads."""


def test_the_page_and_what_it_loads_is_light() -> None:
    tenant = make_tenant()
    for number in range(12):
        row = make_endpoint(tenant, f"https://{number}.example.com")
        disable_endpoint(actor=COMMAND, endpoint=row, reason=row.DisabledReason.GONE)
    make_endpoint(tenant, "https://a.example.com")
    publish(tenant)
    page = browser(tenant).get(f"/portal/{tenant.slug}/").content

    loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="/static/([^"?]*)"', page.decode())

    sizes = {name: Path(str(finders.find(name))).stat().st_size for name in set(loaded)}
    assert {"portal/portal.css", "portal/portal.js", "django_htmx/htmx-2.min.js"} <= sizes.keys()
    assert len(page) + sum(sizes.values()) < MOST_BYTES, sizes
