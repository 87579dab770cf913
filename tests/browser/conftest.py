"""Whole journeys in a real browser, against the platform's real processes.

Debian's Chromium is what is looked for; without one these tests fail. One platform serves the whole folder, and each
test makes a tenant and a browser context of its own. `BROWSER_SHOTS=folder` leaves pictures there.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from pytest_django import DjangoDbBlocker

from deliveries.pipeline import ingest
from tests.support.platform import OwnServers, Place

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

WAIT_MS = 30_000


class Platform:
    """Where it is, and the e-mails that it wrote."""

    def __init__(self, place: Place, mails: Path) -> None:
        self.place = place
        self.url = f"http://127.0.0.1:{place.port}"
        self.mails = mails

    def mail_to(self, address: str) -> EmailMessage | None:
        """The last one."""
        for path in sorted(self.mails.glob("*"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
            # What follows the last line of hyphens is still being written.
            for raw in reversed(path.read_bytes().split(b"-" * 79)[:-1]):
                mail = message_from_bytes(raw.lstrip(), policy=policy.default)
                if mail["To"] == address:
                    return mail
        return None


@pytest.fixture(scope="package")
def platform(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    mails = folder / "mails"
    mails.mkdir()
    servers = OwnServers()
    # The browser's loop runs in this thread, for which Django would refuse to touch the database.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        with django_db_blocker.unblock():
            ingest._publisher.drop()
            with Place(servers, folder) as place:
                place.environment["WEBHOOKS_EMAIL_URL"] = f"file://{mails}"
                place.environment["WEBHOOKS_PUBLIC_URL"] = f"http://127.0.0.1:{place.port}"
                # For the test with a proxy in front; nobody else says that he came by TLS.
                place.environment["WEBHOOKS_TRUSTED_PROXIES"] = "127.0.0.1/32"
                place.environment["WEBHOOKS_HSTS_SECONDS"] = "60"
                place.start()
                yield Platform(place, mails)
                ingest._publisher.drop()
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
        servers.stop()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    assert program is not None, "No Chromium. On Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        # Root, as which machines of CI often run, may not use its sandbox.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        expect.set_options(timeout=WAIT_MS)
        yield started
        started.close()


NewWindow = Callable[..., Page]


@pytest.fixture
def window(browser: Browser, platform: Platform) -> Iterator[NewWindow]:
    with windows(browser, platform) as make:
        yield make


@contextmanager
def windows(browser: Browser, platform: Platform) -> Iterator[NewWindow]:
    """Opens a window of a browser of its own, or of the `context` given. Loading anything from elsewhere fails the test."""
    contexts: list[BrowserContext] = []
    elsewhere: list[str] = []

    def note(url: str) -> None:
        # A page around ours, where a test has one, is at `localhost`.
        if not url.startswith((platform.url, "data:", "about:", "http://localhost:")):
            elsewhere.append(url)

    def make(context: BrowserContext | None = None, **options: Any) -> Page:
        if context is None:
            context = browser.new_context(base_url=platform.url, locale="en-GB", **options)
            context.set_default_timeout(WAIT_MS)
            contexts.append(context)
            context.on("request", lambda request: note(request.url))
        return context.new_page()

    yield make
    for context in contexts:
        context.close()
    assert elsewhere == []


def path_in(mail: EmailMessage) -> str:
    (path,) = re.findall(r"http://127\.0\.0\.1:\d+(/portal/\S+)", mail.get_content())
    return str(path)
