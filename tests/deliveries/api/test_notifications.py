"""`/tenants/{tenant}/notifications`: where notices go."""

import json
from typing import Any

import pytest

from deliveries.models import SlackHook
from tenants.models import AuditEntry
from tests.support.api import error_codes, make_tenant, tenant_api

pytestmark = pytest.mark.usefixtures("database")


def json_of(response: Any) -> Any:
    assert response.status_code == 200, response.content
    return json.loads(response.content)


URL = "https://hooks.slack.com/services/T0/B0/secret"


def test_a_channel_is_set_shown_by_its_host_and_removed() -> None:
    tenant = make_tenant()
    api = tenant_api(tenant, "endpoints:read", "endpoints:write")
    path = f"/tenants/{tenant.slug}/notifications"

    before = json_of(api.get(path))
    set_to = json_of(api.patch(path, {"slack_url": URL}))
    unchanged = json_of(api.patch(path, {}))
    stored = bytes(SlackHook.objects.for_tenant(tenant).get().encrypted)
    removed = json_of(api.patch(path, {"slack_url": None}))

    assert before == removed == {"slack_url": None}
    assert set_to == unchanged == {"slack_url": "https://hooks.slack.com/***"}
    assert b"secret" not in stored
    assert not SlackHook.objects.for_tenant(tenant).exists()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example.com?token=secret", "https://hooks.example.com/***"),
        ("https://hooks.example.com:8443?token=secret/x", "https://hooks.example.com:8443/***"),
        ("https://hooks.example.com/secret", "https://hooks.example.com/***"),
    ],
)
def test_all_but_its_host_is_hidden_with_or_without_a_path(url: str, shown: str) -> None:
    tenant = make_tenant()
    api = tenant_api(tenant, "endpoints:read", "endpoints:write")

    answer = json_of(api.patch(f"/tenants/{tenant.slug}/notifications", {"slack_url": url}))

    assert answer == {"slack_url": shown}
    (entry,) = AuditEntry.objects.filter(tenant=tenant, action="notifications.slack_changed")
    assert entry.after == {"slack_url": shown}


@pytest.mark.parametrize(
    ("url", "code"),
    [("ftp://example.com/x", "invalid_scheme"), ("https://169.254.169.254/x", "address_blocked")],
)
def test_what_no_endpoint_may_be_no_channel_may_be(url: str, code: str) -> None:
    tenant = make_tenant()
    api = tenant_api(tenant, "endpoints:read", "endpoints:write")

    response = api.patch(f"/tenants/{tenant.slug}/notifications", {"slack_url": url})

    assert response.status_code == 422
    assert error_codes(response) == [("slack_url", code)]
    assert not SlackHook.objects.for_tenant(tenant).exists()
