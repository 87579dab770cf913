"""Sources in the admin: whose they are and what lately came, without payloads, secrets or URLs."""

import pytest
from django.test import Client

from deliveries.services.sources import create_source
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant
from tests.support.operators import operator
from tests.support.portal import text_of

pytestmark = pytest.mark.usefixtures("database")


def test_an_operator_sees_what_comes_and_nothing_that_is_secret() -> None:
    tenant = make_tenant()
    source, token = create_source(
        actor=COMMAND, tenant=tenant, name="Repositories", preset="github", secrets=["s3cret-of-the-hook"]
    )
    Client().post(f"/in/{token}", b'{"a": "s3cret-payload"}', content_type="application/json")
    client = operator()

    listed = client.get("/admin/deliveries/source/", {"tenant": tenant.slug})
    page = client.get(f"/admin/deliveries/source/{source.id}/")

    assert "Repositories" in text_of(listed)
    assert "signature missing" in text_of(page)
    for response in (listed, page):
        assert response.status_code == 200
        for secret in ("s3cret", token):
            assert secret not in response.content.decode()
