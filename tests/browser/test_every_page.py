"""Every page that the resolver knows, in light and in dark: nothing of it is hard to read or to use, nothing comes from elsewhere.

A new route of the portal is looked at without being named here; one whose sample is missing fails.
"""

import base64
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from deliveries.pipeline import ingest
from tenants.ids import new_id
from tenants.models import User
from tenants.services import invitations, portal_looks, two_factor
from tenants.services.audit import COMMAND
from tests.architecture.test_strangers import (
    ACCOUNT,
    ADMIN,
    ENTRANCES,
    PUBLIC,
    ROUTES,
    Route,
    World,
    make_world,
)
from tests.browser.conftest import NewWindow, Platform, windows
from tests.browser.steps import link_to, sign_in
from tests.support.everything import make_everything
from tests.support.portal import PASSWORD, make_member

pytestmark = pytest.mark.timeout(300)

SERIOUS = {"serious", "critical"}

Scheme = Literal["light", "dark"]
RULES: Final[dict[Scheme, dict[str, Any]]] = {
    "light": {"resultTypes": ["violations"]},
    "dark": {"resultTypes": ["violations"], "runOnly": ["color-contrast"]},
}
"""What axe looks for in each: all rules once, and those of colours, which alone change with it."""
WIDTHS: Final[dict[Scheme, int]] = {"light": 1280, "dark": 390}
"""Each is looked at in one of them."""

MAY_HAVE_NOTHING = ("/export", "/file", "/act/")
"""Without a period, a file that was written, or something to act on, a page says so."""

AXE: Final[str] = Axe().axe_script

SHOTS = os.environ.get("BROWSER_SHOTS")

TENANTS_PAGES = [route for route in ROUTES if route.path.startswith("portal/") and "tenant" in route.names]
OTHERS = ("django_celery_beat", "/auth/", "jsi18n", "autocomplete")
"""Of the admin, pages that are Django's or a package's."""

ADMINS_PAGES = [
    route
    for route in ROUTES
    if route.path.startswith(ADMIN)
    and "<" not in route.path
    and not route.path.endswith("/logout/")
    and not any(other in route.path for other in OTHERS)
]


@dataclass(frozen=True)
class Seen:
    world: World
    admin: Page
    operator: Page
    """Windows of who is signed in. One each for all pages: a new one takes as long as looking at a page."""


@pytest.fixture(scope="module")
def seen(platform: Platform, browser: Browser) -> Iterator[Seen]:
    """One of everything, with a look of its own."""
    ingest._publisher.drop()
    world = make_world()
    make_everything(world.owner)
    world.sample["name"] = "order.created"
    portal_looks.change_look(
        actor=COMMAND, tenant=world.owner, accent="#c2185b", is_catalogue_public=True, origins=[]
    )
    operator = User.objects.create_superuser(f"{new_id().hex}@example.com", PASSWORD)
    secret = base64.b32decode(two_factor.begin(operator))
    now = time.time()
    code = two_factor.code_at(secret, int(now) // two_factor.STEP_SECONDS)
    codes = two_factor.confirm(actor=COMMAND, user=operator, code=code, now=now)
    with windows(browser, platform) as window:
        admin, operators = window(), window()
        sign_in(admin, make_member(world.owner, "admin"))
        sign_in(operators, operator)
        operators.get_by_label("Code").fill(codes[0])
        operators.get_by_role("button", name="Sign in").click()
        operators.wait_for_url(lambda url: "/sign-in" not in url)
        yield Seen(world, admin, operators)
    ingest._publisher.drop()


def look(page: Page, path: str, findings: list[str]) -> None:
    """What axe finds in both schemes goes to the findings."""
    first = page.request.get(path)
    if first.status == 405 or "text/html" not in first.headers["content-type"] or "<html" not in first.text():
        # A form without a page, a file, or a part that htmx puts into one.
        return
    if first.status != 200 and not path.endswith(MAY_HAVE_NOTHING):
        findings.append(f"{path}: {first.status}")
    page.goto(path)
    examine(page, path, findings)


def look_at_any(page: Page, path: str, findings: list[str]) -> None:
    """Whatever it answers: pages that refuse are pages, too."""
    page.goto(path)
    examine(page, path, findings)


# Two frames later: the window has its new size by then. What reaches out of it; what scrolls within it may be wider.
WIDER = """() => new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(() => {
    const width = document.documentElement.clientWidth
    if (document.documentElement.scrollWidth <= width) { resolve(null); return }
    resolve([...document.querySelectorAll("body *")]
        .filter(each => each.getBoundingClientRect().right > width)
        .slice(-5).map(each => each.outerHTML.slice(0, 150)))
})))"""


def examine(page: Page, path: str, findings: list[str]) -> None:
    """What is hard to read or to use in both schemes, and what is wider than the window, a phone's too."""
    for scheme, width in WIDTHS.items():
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        findings += faults(page, path, scheme)
        if wide := page.evaluate(WIDER):
            findings.append(f"{path} is wider than {width}: {wide}")
        if SHOTS:
            take_pictures(page, path, scheme)


def faults(page: Page, path: str, scheme: Scheme) -> list[str]:
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    return [
        f"{path} {scheme}: {violation['id']} {[node['html'][:200] for node in violation['nodes'][:3]]}"
        for violation in page.evaluate("options => axe.run(document, options)", RULES[scheme])["violations"]
        if violation["impact"] in SERIOUS
    ]


def take_pictures(page: Page, path: str, scheme: str) -> None:
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        name = path.strip("/").replace("/", "_")[-80:]
        page.screenshot(path=Path(SHOTS or ".") / f"{name}.{width}.{scheme}.png", full_page=True)


@pytest.mark.parametrize("route", TENANTS_PAGES, ids=lambda route: route.path)
def test_a_page_of_a_tenant(route: Route, seen: Seen) -> None:
    findings: list[str] = []

    look(seen.admin, route.at(seen.world.sample), findings)

    assert findings == []


@pytest.mark.parametrize("route", ADMINS_PAGES, ids=lambda route: route.path)
def test_a_page_of_operators(route: Route, seen: Seen) -> None:
    findings: list[str] = []

    look(seen.operator, f"/{route.path}", findings)

    assert findings == []


def test_the_pages_around_them(seen: Seen, window: NewWindow) -> None:
    """Getting in, the account, the public catalogue, and what is said when something is not there."""
    findings: list[str] = []
    nobody, person = window(), seen.admin
    invitation = invitations.SIGNER.sign("x" * 43)
    walked = set()
    for route in sorted(ENTRANCES - {"portal/sign-out", "portal/language", "portal/sign-in/code"}):
        path = "/" + route.replace("<portal_token:token>", link_to(seen.world.owner).rpartition("/")[2])
        path = path.replace("<signed_token:token>", invitation).replace("<user_id:user>", f"usr_{'0' * 26}")
        if "<" in path.replace("<str:token>", "x") or path.endswith((".png", ".css")):
            continue
        walked.add(route)
        look_at_any(nobody, path.replace("<str:token>", "x"), findings)
    assert walked >= {"portal/sign-in", "portal/reset", "portal/enter/<portal_token:token>"}
    for route in sorted(ACCOUNT):
        look_at_any(person, f"/{route}", findings)
    for each in (route for route in ROUTES if route.path.startswith(PUBLIC)):
        look(nobody, each.at(seen.world.sample), findings)
    look_at_any(nobody, "/portal/no/such/page", findings)

    assert findings == []
