"""The pages behind a proxy that ends TLS, as in production: the browser speaks https, the web server http."""

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import WAIT_MS, Platform
from tests.browser.steps import make_place, sign_in
from tests.support.tls_proxy import tls_proxy

pytestmark = pytest.mark.timeout(300)


def test_forms_are_taken_from_an_https_page(platform: Platform, browser: Browser) -> None:
    tenant, admin = make_place()

    with tls_proxy(platform.place.port) as port:
        context = browser.new_context(
            base_url=f"https://127.0.0.1:{port}", locale="en-GB", ignore_https_errors=True
        )
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        sign_in(page, admin)
        page.goto(f"/portal/{tenant.slug}/endpoints/new")
        page.get_by_label("URL", exact=True).fill("https://hooks.example.com/in")
        page.get_by_label("All events, also of types that come later").check()
        page.get_by_role("button", name="Add endpoint").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Endpoint added")
        context.close()
