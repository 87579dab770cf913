"""What an endpoint keeps beside its signing secret: taken, refused, kept, and never given out again."""

from typing import Any

import pytest

from deliveries.models import Endpoint
from deliveries.sealed import Part, open_part
from tenants.models import AuditEntry, Tenant
from tests.support.api import Api, error_codes, make_tenant, tenant_api

pytestmark = pytest.mark.usefixtures("database")

URL = "https://shop.example.com/webhooks"


@pytest.fixture
def tenant() -> Tenant:
    return make_tenant()


@pytest.fixture
def api(tenant: Tenant) -> Api:
    return tenant_api(tenant)


def make(api: Api, tenant: Tenant, **fields: Any) -> Any:
    response = api.post(f"/tenants/{tenant.slug}/endpoints", {"url": URL, "uid": "one"} | fields)
    assert response.status_code == 201, response.content
    return response.json()  # type: ignore[attr-defined] # of Django's test client


def change(api: Api, tenant: Tenant, **fields: Any) -> Any:
    response = api.patch(f"/tenants/{tenant.slug}/endpoints/one", fields)
    assert response.status_code == 200, response.content
    return response.json()  # type: ignore[attr-defined] # of Django's test client


def row_of(tenant: Tenant) -> Endpoint:
    row: Endpoint = Endpoint.objects.for_tenant(tenant).get(uid="one")
    return row


def opened(row: Endpoint, part: Part, column: str) -> str:
    return open_part(part, bytes(getattr(row, column)), tenant_id=row.tenant_id, endpoint_id=row.id)


def audited(tenant: Tenant) -> str:
    return " ".join(
        str(entry.before) + str(entry.after) for entry in AuditEntry.objects.filter(tenant=tenant)
    )


# --- signature templates ----------------------------------------------------------------------------------------------


def test_a_template_is_kept_as_it_was_given_and_null_clears_it(api: Api, tenant: Tenant) -> None:
    given = {"header": "X-Acme", "prefix": "v1="}

    assert make(api, tenant, signature_template=given)["signature_template"] == given
    assert change(api, tenant, description="x")["signature_template"] == given
    assert change(api, tenant, signature_template={"preset": "github"})["signature_template"] == {
        "preset": "github"
    }
    assert change(api, tenant, signature_template=None)["signature_template"] is None


def test_a_templates_secret_is_sealed_and_shown_as_stars_which_leave_it(api: Api, tenant: Tenant) -> None:
    made = make(api, tenant, signature_template={"preset": "github", "secret": "legacy-s3cret"})

    assert made["signature_template"] == {"preset": "github", "secret": "***"}
    sealed = bytes(row_of(tenant).template_secret_encrypted or b"")
    assert b"legacy" not in sealed
    assert opened(row_of(tenant), Part.TEMPLATE_SECRET, "template_secret_encrypted") == "legacy-s3cret"

    change(api, tenant, signature_template={"preset": "shopify", "secret": "***"})
    assert bytes(row_of(tenant).template_secret_encrypted or b"") == sealed

    assert change(api, tenant, signature_template={"preset": "shopify"})["signature_template"] == {
        "preset": "shopify"
    }
    assert row_of(tenant).template_secret_encrypted is None
    assert "legacy" not in audited(tenant)


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"signature_template": {"preset": "gitlab"}}, [("signature_template.preset", "invalid_choice")]),
        ({"signature_template": "github"}, [("signature_template", "invalid_type")]),
        (
            {"signature_template": {"header": "Webhook-Id", "secret": ""}},
            [("signature_template.header", "header_not_allowed"), ("signature_template.secret", "blank")],
        ),
        (
            {"signature_template": {"preset": "github", "secret": "***"}},
            [("signature_template.secret", "required")],
        ),
        (
            {"signature_template": {"preset": "github"}, "signature_scheme": "ed25519"},
            [("signature_template.secret", "required")],
        ),
        (
            {"signature_template": {"header": "X-Acme"}, "headers": {"x-acme": "1"}},
            [("signature_template", "does_not_fit")],
        ),
        ({"method": "GET", "format": "xml"}, [("format", "does_not_fit")]),
        ({"method": "GET", "format": "cloudevents"}, [("format", "does_not_fit")]),
        ({"method": "GET", "format": "cloudevents-binary"}, [("format", "does_not_fit")]),
    ],
)
def test_what_makes_no_sense_is_refused_with_field_and_reason(
    api: Api, tenant: Tenant, fields: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    response = api.post(f"/tenants/{tenant.slug}/endpoints", {"url": URL} | fields)

    assert (response.status_code, error_codes(response)) == (422, errors)
    assert Endpoint.objects.for_tenant(tenant).count() == 0


def test_a_change_is_judged_together_with_what_is_there(api: Api, tenant: Tenant) -> None:
    make(api, tenant, format="xml")

    response = api.patch(f"/tenants/{tenant.slug}/endpoints/one", {"method": "GET"})

    assert (response.status_code, error_codes(response)) == (422, [("format", "does_not_fit")])
    assert row_of(tenant).method == "POST"
