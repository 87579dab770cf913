"""`/tenants/{tenant}/notifications`: where notices go."""

import json
from typing import Any

import pytest

from deliveries.models import SlackHook
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
