"""From the invitation to a recovered delivery; what a viewer is refused; links; two tenants; the keyboard alone."""

import re
import time
from collections.abc import Callable
from email.message import EmailMessage

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from deliveries.models import Delivery, Endpoint
from deliveries.pipeline.signing import parse_secret
from deliveries.services.deliveries import retry_delivery
from deliveries.services.endpoints import create_endpoint, update_endpoint
from tenants.services import portal_looks
from tenants.services.audit import COMMAND
from tests.browser.conftest import NewWindow, Platform, path_in
from tests.browser.steps import link_to, make_place, shop, sign_in
from tests.support.api import make_key
from tests.support.builders import SECRET
from tests.support.portal import PASSWORD

pytestmark = pytest.mark.timeout(300)


def wait_for_mail(platform: Platform, address: str) -> EmailMessage:
    deadline = time.monotonic() + 40
    while (mail := platform.mail_to(address)) is None:
        assert time.monotonic() < deadline, f"no mail to {address}"
        time.sleep(0.1)
    return mail


def publish(page: Page, slug: str, key: str, event_type: str = "order.created") -> None:
    answer = page.request.post(
        f"/api/v1/tenants/{slug}/events",
        headers={"Authorization": f"Bearer {key}"},
        data={"type": event_type, "data": {"order": "A-17"}},
    )
    assert answer.status == 202, answer.text()


def add_endpoint(page: Page, url: str) -> None:
    page.get_by_label("URL", exact=True).fill(url)
    page.get_by_label("All events, also of types that come later").check()
    page.get_by_role("button", name="Add endpoint").click()


def test_from_the_invitation_to_a_recovered_delivery(platform: Platform, window: NewWindow) -> None:
    tenant, admin = make_place()
    key = make_key(tenant)
    address = f"ada-{tenant.slug}@example.com"

    # An admin invites Ada.
    page = window()
    sign_in(page, admin)
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("E-mail address").fill(address)
    page.get_by_label("Role", exact=True).select_option("developer")
    page.get_by_role("button", name="Send the invitation").click()
    expect(page.get_by_role("status")).to_contain_text(f"{address} gets an e-mail")

    # Ada follows the e-mail, chooses a password, and is in.
    ada = window()
    ada.goto(path_in(wait_for_mail(platform, address)))
    ada.get_by_label("Your name").fill("Ada")
    ada.get_by_label("New password").fill(PASSWORD)
    ada.get_by_role("button", name="Accept the invitation").click()
    expect(ada.get_by_role("status")).to_contain_text("Welcome to Acme. You are developer here.")

    with shop() as receiver:
        # She adds an endpoint, and gives her program the secret.
        ada.goto(f"/portal/{tenant.slug}/endpoints/new")
        add_endpoint(ada, receiver.url)
        receiver.secret = read_secret(ada)
        # When it breaks, nobody tries again by itself before she does.
        update_endpoint(
            actor=COMMAND, endpoint=Endpoint.objects.for_tenant(tenant).get(), retry_schedule=[3_600]
        )
        endpoint_page = ada.url.partition("/secret")[0]

        # A test arrives on the page by itself, and was verified.
        ada.get_by_role("link", name="Send a test").first.click()
        ada.get_by_role("button", name="Send", exact=True).click()
        expect(ada.locator(".badge.succeeded, .badge.delivered").first).to_be_visible()
        assert len(receiver.verified) == 1

        # The program breaks. The page says what it answered.
        receiver.status = 500
        publish(ada, tenant.slug, key)
        failed = open_latest_delivery(ada, endpoint_page)
        expect(failed.locator("#progress")).to_contain_text("500")

        # It is mended; she tries again at once, and the delivery recovers.
        receiver.status = 200
        failed.get_by_role("button", name="Try again now").click()
        expect(failed.locator(".badge.succeeded, .badge.delivered").first).to_be_visible()
        assert len(receiver.verified) == 2

        # And the event is replayed.
        failed.get_by_role("link", name="The event and who else got it").click()
        replay(failed)
        wait_until(lambda: len(receiver.verified) == 3)
        assert receiver.refused == 0


def read_secret(page: Page) -> str:
    page.get_by_role("button", name=re.compile("Show the secret")).first.click()
    text = page.locator("#secret-text")
    expect(text).to_contain_text("whsec_")
    return text.inner_text()


def open_latest_delivery(page: Page, endpoint_page: str) -> Page:
    page.goto(endpoint_page)
    page.locator("a[href*='/deliveries/dlv_']").first.click()
    return page


def replay(page: Page) -> None:
    page.get_by_text("Send again…").click()
    page.get_by_role("button", name="Send again to all that match").click()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_live_tail_fills_by_itself(platform: Platform, window: NewWindow) -> None:
    """Quiet at first, then an event and how it ended, then what came of trying it again."""
    tenant, viewer = make_place("viewer")
    page = window()
    sign_in(page, viewer)
    page.goto(f"/portal/{tenant.slug}/live")
    quiet = page.get_by_text("Quiet: nothing happened in the last day.")
    expect(quiet).to_be_visible()

    with shop() as receiver:
        receiver.secret, receiver.status = SECRET, 500
        create_endpoint(
            actor=COMMAND,
            tenant=tenant,
            url=receiver.url,
            secret=parse_secret(SECRET),
            retry_schedule=[],
        )
        publish(page, tenant.slug, make_key(tenant))
        rows = page.locator("#live-rows > li")
        expect(rows).to_have_count(1)
        expect(rows.first).to_contain_text(re.compile(r"500\s+failed"))
        expect(quiet).to_be_hidden()

        delivery = Delivery.objects.for_tenant(tenant).get()
        retry_delivery(actor=COMMAND, delivery=delivery, now=timezone.now())
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text(re.compile(r"Attempt 2\s+500\s+failed"))


def test_a_viewer_sees_and_changes_nothing(platform: Platform, window: NewWindow) -> None:
    tenant, viewer = make_place("viewer")
    create_endpoint(actor=COMMAND, tenant=tenant, url="https://a.example.com/hook")
    page = window()
    sign_in(page, viewer)

    page.get_by_role("link", name="Endpoints").first.click()
    page.get_by_role("link", name="https://a.example.com/hook").first.click()

    for name in ("Edit", "Send a test", "Enable", "Disable…", "Delete…", "Show the secret", "Rotate…"):
        assert page.get_by_text(name, exact=True).count() == 0, name
    for path in ("endpoints/new", "settings/members", "settings/keys"):
        answer = page.goto(f"/portal/{tenant.slug}/{path}")
        assert answer is not None
        assert answer.status == 403
        expect(page.locator("h1")).to_have_text("Your role may not do this")


def test_a_link_opens_once(platform: Platform, window: NewWindow) -> None:
    tenant, _ = make_place()
    path = link_to(tenant)
    first, second = window(), window()

    first.goto(path)
    second.goto(path)
    first.get_by_role("button", name="Open the portal").click()
    first.wait_for_url(f"**/portal/{tenant.slug}/")
    second.get_by_role("button", name="Open the portal").click()

    expect(second.locator("h1")).to_have_text("This link does not work")
    assert "enter" not in first.url


def test_two_tenants_in_two_windows(platform: Platform, window: NewWindow) -> None:
    one, _ = make_place(name="First Company")
    two, _ = make_place(name="Second Company")
    left = window()
    right = window(left.context)

    for page, tenant in ((left, one), (right, two)):
        page.goto(link_to(tenant))
        page.get_by_role("button", name="Open the portal").click()
        page.wait_for_url(f"**/portal/{tenant.slug}/")

    for page, tenant in ((left, one), (right, two)):
        page.get_by_role("link", name="Endpoints").first.click()
        expect(page.locator(".menu summary")).to_have_text(tenant.name)
        assert f"/portal/{tenant.slug}/" in page.url


def test_the_keyboard_alone_is_enough(platform: Platform, window: NewWindow) -> None:
    """Signed in → endpoint → secret → test event received and verified, without a mouse."""
    tenant, user = make_place("developer")
    page = window()
    page.goto("/portal/sign-in")
    # The first field has the focus.
    page.keyboard.type(user.email)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/portal/{tenant.slug}/")

    with shop() as receiver:
        tab_to(page, "link", "Endpoints")
        page.keyboard.press("Enter")
        page.wait_for_url("**/endpoints")
        tab_to(page, "link", "Add the first endpoint")
        page.keyboard.press("Enter")
        page.wait_for_url("**/endpoints/new")
        tab_to(page, "textbox", "URL")
        page.keyboard.type(receiver.url)
        tab_to(page, "checkbox", "* All events, also of types that come later")
        page.keyboard.press("Space")
        tab_to(page, "button", "Add endpoint")
        page.keyboard.press("Enter")
        page.wait_for_url("**/endpoints/ep_**")

        tab_to(page, "button", "Show the secret")
        page.keyboard.press("Enter")
        expect(page.locator("#secret-text")).to_contain_text("whsec_")
        receiver.secret = page.locator("#secret-text").inner_text()

        page.keyboard.press("Control+Home")
        page.reload()
        tab_to(page, "link", "Send a test")
        page.keyboard.press("Enter")
        page.wait_for_url("**/test")
        tab_to(page, "button", "Send")
        page.keyboard.press("Enter")
        expect(page.locator(".badge.succeeded, .badge.delivered").first).to_be_visible()
        assert len(receiver.verified) == 1


def tab_to(page: Page, role: str, name: str) -> None:
    """As many times as it takes, and no more than a person would."""
    wanted = page.get_by_role(role, name=name, exact=True).first  # type: ignore[arg-type] # one of its roles
    for _ in range(60):
        if wanted.count() and wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{role} {name} was not reached")


def test_the_portal_in_a_frame_of_another_site(platform: Platform, window: NewWindow) -> None:
    """Its cookies come along although they are a third party's, and a form works."""
    tenant, _ = make_place()
    with shop() as host:
        # `localhost` is another site than `127.0.0.1`.
        origin = f"http://localhost:{host.server.server_port}"
        portal_looks.change_look(actor=COMMAND, tenant=tenant, origins=[origin])
        page = window()
        src = f"{platform.url}/embed{link_to(tenant)}"
        host.page = f'<iframe src="{src}" width="1000" height="700"></iframe>'
        page.goto(origin)
        frame = page.frame_locator("iframe")
        frame.get_by_role("button", name="Open the portal").click()
        frame.get_by_role("link", name="Endpoints").first.click()
        expect(frame.locator("h1")).to_have_text("Endpoints")
