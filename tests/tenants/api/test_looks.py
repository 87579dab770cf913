"""The look of a tenant's portal, set by operators: what is given changes, what is wrong is named, nothing is fetched."""

import base64
import io
import json
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from PIL import Image

from tenants.models import PortalLook, Tenant
from tests.support.api import error_codes, make_tenant, operator_api, tenant_api
from tests.support.portal import actions_of

pytestmark = pytest.mark.usefixtures("database")

NOTHING: dict[str, Any] = {"accent": None, "logo_url": None, "frame_origins": [], "public_catalogue": False}


def picture() -> str:
    out = io.BytesIO()
    Image.new("RGB", (800, 200), (200, 30, 30)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def path_of(tenant: Tenant) -> str:
    return f"/tenants/{tenant.slug}/look"


def body_of(response: HttpResponse) -> Any:
    return json.loads(response.content)


def test_it_is_set_read_and_reset() -> None:
    tenant = make_tenant()
    api = operator_api()
    before = body_of(api.get(path_of(tenant)))

    changed = api.patch(
        path_of(tenant),
        {
            "accent": "#1f5fd0",
            "logo": picture(),
            "frame_origins": ["https://app.example.com", "http://localhost:3000"],
            "public_catalogue": True,
        },
    )

    shown = body_of(changed)
    logo = shown.pop("logo_url")
    assert before == NOTHING
    assert changed.status_code == 200
    assert shown == {
        "accent": "#1f5fd0",
        "frame_origins": ["https://app.example.com", "http://localhost:3000"],
        "public_catalogue": True,
    }
    served = Client().get(logo.removeprefix("http://testserver"))
    assert (served["Content-Type"], served.content[:4]) == ("image/png", b"\x89PNG")
    partly = body_of(api.patch(path_of(tenant), {"accent": None}))
    assert partly == shown | {"accent": None, "logo_url": logo}
    assert body_of(api.get(path_of(tenant))) == partly
    cleared = api.patch(path_of(tenant), dict.fromkeys(("logo", "frame_origins", "public_catalogue")))
    assert body_of(cleared) == NOTHING
    assert actions_of(tenant) == ["tenant.created", *["portal_look.changed"] * 3]


@pytest.mark.parametrize(
    ("given", "errors"),
    [
        ({"accent": "red"}, [("accent", "invalid")]),
        ({"accent": "#FFFFFF"}, [("accent", "invalid")]),
        ({"accent": 5}, [("accent", "invalid_type")]),
        ({"frame_origins": ["https://app.example.com/"]}, [("frame_origins.0", "invalid")]),
        ({"frame_origins": ["https://a.example.com", "*"]}, [("frame_origins.1", "invalid")]),
        ({"frame_origins": ["http://app.example.com"]}, [("frame_origins.0", "invalid")]),
        (
            {"frame_origins": [f"https://a{n}.example.com" for n in range(11)]},
            [("frame_origins", "too_long")],
        ),
        ({"logo": "!"}, [("logo", "invalid")]),
        ({"logo": base64.b64encode(b"<svg/>").decode()}, [("logo", "not_a_logo")]),
        ({"public_catalogue": "yes"}, [("public_catalogue", "invalid_type")]),
        ({"logo_url": "https://evil.example.com/a.png"}, [("logo_url", "unknown_field")]),
    ],
)
def test_what_is_wrong_is_named_and_nothing_changes(
    given: dict[str, Any], errors: list[tuple[str, str]]
) -> None:
    tenant = make_tenant()

    refused = operator_api().patch(path_of(tenant), {"accent": "#1f5fd0"} | given)

    assert (refused.status_code, error_codes(refused)) == (422, errors)
    assert not PortalLook.objects.for_tenant(tenant).exists()


def test_a_tenants_key_reads_its_own_and_changes_nothing() -> None:
    tenant, other = make_tenant(), make_tenant()
    api = tenant_api(tenant)

    assert body_of(api.get(path_of(tenant))) == NOTHING
    assert api.patch(path_of(tenant), {"accent": "#1f5fd0"}).status_code == 403
    assert api.get(path_of(other)).status_code == 404
    assert not PortalLook.objects.for_tenant(tenant).exists()
