"""A tenant's look: what is uploaded is drawn anew, colours and origins are checked, everything is written down."""

import io
import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from PIL import Image

from tenants.models import AuditEntry, PortalLook, Tenant
from tenants.services import portal_looks
from tenants.services.audit import COMMAND
from tenants.services.portal_looks import NotALogo, draw
from tests.support.api import make_tenant
from tests.support.portal import browser, text_of

pytestmark = pytest.mark.usefixtures("database")

FORM = {"accent": "", "origins": ""}


def picture(kind: str = "PNG", size: tuple[int, int] = (800, 200), **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(out, kind, **options)
    return out.getvalue()


def send(client: Client, tenant: Tenant, **changed: Any) -> Any:
    return client.post(f"/portal/{tenant.slug}/settings/look", FORM | changed)


def look_of(tenant: Tenant) -> PortalLook:
    return portal_looks.look_of(Tenant.objects.select_related("look").get(id=tenant.id))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_logo_is_made_small_and_drawn_anew(kind: str) -> None:
    comment = b"<script>alert(1)</script>"
    options = {"comment": comment} if kind == "JPEG" else {"pnginfo": None}
    upload = picture(kind, **options) + comment

    drawn = draw(upload)

    with Image.open(io.BytesIO(drawn)) as shown:
        assert (shown.format, shown.size) == ("PNG", (360, 90))
    assert comment not in drawn


@pytest.mark.parametrize(
    "upload",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>",
        picture()[:60],
        picture("GIF"),
        picture("BMP"),
        picture(size=(5000, 5000)),
        picture() + bytes(1024 * 1024),
    ],
    ids=["nothing", "svg", "cut off", "gif", "bmp", "too many pixels", "too many bytes"],
)
def test_what_is_no_logo_is_refused(upload: bytes) -> None:
    with pytest.raises(NotALogo):
        draw(upload)


def test_the_page_takes_it_pages_show_it_and_it_goes_again() -> None:
    tenant = make_tenant(name="Acme")
    client = browser(tenant, "admin")

    sent = send(client, tenant, logo=SimpleUploadedFile("a.png", picture()), accent="#AA3300")

    assert sent.status_code == 302
    page = client.get(f"/portal/{tenant.slug}/endpoints").content.decode()
    (logo,) = re.findall(r'src="(/portal/look/[0-9a-f]{16}\.png)"', page)
    (style,) = re.findall(r'href="(/portal/look/aa3300\.css)"', page)
    assert 'alt="Acme"' in page
    shown = Client().get(logo)
    assert (shown["Content-Type"], shown.content[:4]) == ("image/png", b"\x89PNG")
    assert shown["X-Content-Type-Options"] == "nosniff"
    assert "--accent: #aa3300;" in Client().get(style).content.decode()

    client.post(f"/portal/{tenant.slug}/settings/look/remove-logo")

    assert Client().get(logo).status_code == 404
    assert ".png" not in client.get(f"/portal/{tenant.slug}/endpoints").content.decode()
    assert AuditEntry.objects.filter(tenant=tenant, action="portal_look.changed").count() == 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"accent": "red"}, "Must be a colour such as #1f5fd0."),
        ({"accent": "#12345"}, "Must be a colour such as #1f5fd0."),
        ({"origins": "https://app.example.com/path"}, "is no origin."),
        ({"origins": "http://app.example.com"}, "is no origin."),
        ({"origins": "https://app.example.com; script-src *"}, "is no origin."),
        ({"origins": "*"}, "is no origin."),
        ({"origins": "https://*.example.com"}, "is no origin."),
        ({"origins": "'self'"}, "is no origin."),
        (
            {"origins": "\n".join(f"https://a{number}.example.com" for number in range(11))},
            "At most 10 of them.",
        ),
        ({"logo": SimpleUploadedFile("a.svg", b"<svg/>")}, "This is no PNG or JPEG that can be read."),
    ],
)
def test_a_form_that_is_wrong_says_so_and_changes_nothing(changed: dict[str, Any], says: str) -> None:
    tenant = make_tenant()

    answer = send(browser(tenant, "admin"), tenant, **changed)

    assert (answer.status_code, says in text_of(answer)) == (422, True)
    assert not PortalLook.objects.for_tenant(tenant).exists()


def test_origins_are_kept_as_browsers_write_them() -> None:
    tenant = make_tenant()

    send(browser(tenant, "admin"), tenant, origins="HTTPS://App.Example.com/\n\nhttp://localhost:3000\n")

    assert look_of(tenant).origins == ["https://app.example.com", "http://localhost:3000"]


def test_a_tenant_without_a_look_costs_no_row() -> None:
    tenant = make_tenant()
    portal_looks.change_look(actor=COMMAND, tenant=tenant, accent="")

    assert look_of(tenant).origins == []
    assert not AuditEntry.objects.filter(tenant=tenant, action="portal_look.changed").exists()
