"""The endpoint's form in a real browser: how it signs in and bundles, with and without JavaScript, for all eyes."""

import os
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from deliveries.models import Endpoint
from tenants.models import Tenant
from tests.browser.conftest import NewWindow, Platform
from tests.browser.steps import make_place, sign_in

SHOTS = os.environ.get("BROWSER_SHOTS")


def only(tenant: Tenant) -> Endpoint:
    row: Endpoint = Endpoint.objects.for_tenant(tenant).get()
    return row


def faults(page: Page, name: str) -> list[str]:
    """Serious ones, in both schemes, and what is wider than a phone."""
    found: list[str] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        found += [
            f"{name} {scheme}: {fault['id']} {fault['nodes'][0]['html'][:200]}"
            for fault in Axe().run(page).response["violations"]
            if fault["impact"] in {"serious", "critical"}
        ]
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            if page.evaluate("document.documentElement.scrollWidth") > width:
                found.append(f"{name}: wider than {width}")
            if SHOTS:
                page.screenshot(path=Path(SHOTS) / f"{name}.{width}.{scheme}.png", full_page=True)
    return found


def open_all(page: Page) -> None:
    closed = page.locator("details.further:not([open]) > summary")
    while closed.count():
        closed.first.click()


def test_basic_auth_and_batches_without_javascript(platform: Platform, window: NewWindow) -> None:
    tenant, user = make_place("developer")
    page = window(java_script_enabled=False)
    sign_in(page, user)

    page.goto(f"/portal/{tenant.slug}/endpoints/new")
    page.get_by_label("URL", exact=True).fill("https://shop.example.com/hooks")
    page.get_by_label("All events, also of types that come later").check()
    open_all(page)
    page.get_by_label("Events in one request").fill("50")
    page.get_by_label("Longest wait for more").fill("500")
    # What belongs to another choice is out of the way, and comes with it.
    expect(page.get_by_label("User name", exact=True)).to_be_hidden()
    page.get_by_label("Bearer: a fixed token").check()
    expect(page.get_by_label("Token", exact=True)).to_be_visible()
    page.get_by_label("Basic: user name and password").check()
    expect(page.get_by_label("Token", exact=True)).to_be_hidden()
    page.get_by_label("User name", exact=True).fill("ada")
    page.get_by_role("button", name="Add endpoint").click()

    # The password is missing: it says so there, and the section is open.
    expect(page.get_by_label("Password", exact=True)).to_have_accessible_description("Must be given.")
    expect(page.get_by_label("User name", exact=True)).to_have_value("ada")
    expect(page.get_by_label("Events in one request")).to_have_value("50")
    page.get_by_label("Password", exact=True).fill("p4ss-word")
    page.get_by_role("button", name="Add endpoint").click()
    expect(page.locator("h1")).to_have_text("Endpoint added")

    row = only(tenant)
    assert (row.auth, row.batch) == (
        {"type": "basic", "username": "ada"},
        {"max_events": 50, "max_wait_ms": 500},
    )
    page.locator(".head .url a").click()
    expect(page.locator("main")).to_contain_text("user name and password, as ada")
    expect(page.locator("main")).to_contain_text("up to 50 events in one request, after 500 ms at the latest")
    page.get_by_role("link", name="Edit").click()
    expect(page.get_by_label("Password", exact=True)).to_have_value("")
    expect(page.get_by_label("Password", exact=True)).to_have_accessible_description(
        "One is set. Leave this empty to keep it."
    )


def test_all_of_the_form_can_be_read_by_all(platform: Platform, window: NewWindow) -> None:
    """Also what is folded away when the page opens, the preview that follows the typing, and what is polled."""
    tenant, user = make_place("developer")
    page = window()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    sign_in(page, user)

    page.goto(f"/portal/{tenant.slug}/endpoints/new")
    open_all(page)
    found = faults(page, "form")
    page.get_by_label("OAuth 2: client credentials").check()
    page.get_by_label("Of its own making").check()
    expect(page.locator("#signature-template")).to_contain_text("as soon as nothing is wrong above")
    page.get_by_label("Header", exact=True).fill("X-Acme-Signature")
    expect(page.locator("#signature-template pre")).to_contain_text("X-Acme-Signature: ")
    found += faults(page, "form_filled")

    page.goto(f"/portal/{tenant.slug}/endpoints/new?kind=poll")
    page.get_by_label("Description").fill("the warehouse")
    found += faults(page, "form_polled")
    page.get_by_role("button", name="Add endpoint").click()
    page.get_by_role("link", name="How it is read").click()
    expect(page.get_by_role("region", name="How it is read")).to_contain_text(
        f"{platform.url}/api/v1/tenants/"
    )
    found += faults(page, "polled")

    assert found == []
    assert said == []
