"""The channel that notices go to: set, changed and removed in the portal's settings, its address shown nowhere."""

import pytest
from django.test import Client

from deliveries.models import SlackHook
from deliveries.sealed import open_slack_url
from tenants.models import AuditEntry, Tenant
from tests.support.api import make_tenant
from tests.support.portal import actions_of, browser, text_of

pytestmark = pytest.mark.usefixtures("database")

URL = "https://hooks.slack.com/services/T0/B0/s3cret"


def page_of(tenant: Tenant) -> str:
    return f"/portal/{tenant.slug}/settings/channel"


def url_of(tenant: Tenant) -> str | None:
    hook = SlackHook.objects.for_tenant(tenant).first()
    return None if hook is None else open_slack_url(tenant_id=tenant.id, sealed=bytes(hook.encrypted))


def test_it_is_set_changed_and_removed_and_only_its_host_is_shown() -> None:
    tenant = make_tenant()
    client = browser(tenant)

    sent = client.post(page_of(tenant), {"url": URL})
    page = client.get(page_of(tenant))

    assert (sent.status_code, sent["Location"]) == (302, page_of(tenant))
    assert url_of(tenant) == URL
    assert "They go to https://hooks.slack.com/***" in text_of(page)
    assert b"s3cret" not in page.content
    client.post(page_of(tenant), {"url": f"{URL}-2"})
    assert url_of(tenant) == f"{URL}-2"
    gone = client.post(f"{page_of(tenant)}/remove")
    assert (gone["Location"], url_of(tenant)) == (page_of(tenant), None)
    assert actions_of(tenant)[-3:] == ["notifications.slack_changed"] * 3
    assert "s3cret" not in " ".join(
        str((entry.before, entry.after)) for entry in AuditEntry.objects.filter(tenant=tenant)
    )


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "This field is required."),
        ("hooks.slack.com/services/s3cret", "Must be a whole URL, such as https://example.com/webhooks."),
        (
            "https://10.0.0.1/s3cret",
            "10.0.0.1 is a private address; only addresses on the public internet are delivered to.",
        ),
    ],
)
def test_an_address_that_is_none_is_refused_beside_the_field(typed: str, says: str) -> None:
    tenant = make_tenant()

    refused = browser(tenant).post(page_of(tenant), {"url": typed})

    assert refused.status_code == 422
    assert refused.context["form"].errors == {"url": [says]}
    assert b"s3cret" not in refused.content
    assert url_of(tenant) is None


def test_viewers_neither_see_nor_change_it() -> None:
    tenant = make_tenant()
    browser(tenant).post(page_of(tenant), {"url": URL})
    viewer = browser(tenant, "viewer")

    answers = [
        viewer.get(page_of(tenant)),
        viewer.post(page_of(tenant), {"url": "https://evil.example.com"}),
        viewer.post(f"{page_of(tenant)}/remove"),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert all(b"hooks.slack.com" not in answer.content for answer in answers)
    assert url_of(tenant) == URL


def test_whoever_may_change_endpoints_finds_it(client: Client) -> None:
    tenant = make_tenant()

    page = browser(tenant).get(f"/portal/{tenant.slug}/settings/notifications")

    assert f'href="{page_of(tenant)}"' in page.content.decode()
