"""What people do in the portal, as the tests of this folder say it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from playwright.sync_api import Page
from standardwebhooks import Webhook, WebhookVerificationError

from tenants.ids import new_id
from tenants.models import EventType, Tenant, User
from tenants.services import portal_links
from tenants.services.audit import COMMAND
from tests.support.api import make_tenant
from tests.support.portal import PASSWORD, make_member


def make_place(role: str = "admin", **fields: Any) -> tuple[Tenant, User]:
    """A tenant with a readable address, and a member."""
    tenant = make_tenant(slug=f"acme-{new_id().hex[-8:]}", name=fields.pop("name", "Acme"), **fields)
    EventType.objects.create(tenant=tenant, name="order.created", example={"order": "A-17"})
    return tenant, make_member(tenant, role)


def sign_in(page: Page, user: User) -> None:
    page.goto("/portal/sign-in")
    page.get_by_label("E-mail address").fill(user.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: not url.endswith("/portal/sign-in"))


def link_to(tenant: Tenant, role: str = "developer") -> str:
    _, token = portal_links.create_link(
        actor=COMMAND, tenant=tenant, role=role, expires_in=timedelta(hours=1)
    )
    return f"/portal/enter/{token}"


class Shop:
    """A receiver as a customer writes one: verifies, and answers what it is told to."""

    def __init__(self) -> None:
        self.secret = ""
        self.page = ""
        self.status = 200
        self.verified: list[Any] = []
        self.refused = 0
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = shop.receive(body, dict(self.headers.items()))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                """A page of the customer's own."""
                body = shop.page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def receive(self, body: bytes, headers: dict[str, str]) -> int:
        try:
            event = Webhook(self.secret).verify(body, headers)
        except (WebhookVerificationError, ValueError, RuntimeError):
            self.refused += 1
            return 401
        if self.status == 200:
            self.verified.append(event)
        return self.status


@contextmanager
def shop() -> Iterator[Shop]:
    made = Shop()
    threading.Thread(target=made.server.serve_forever, args=[0.02], daemon=True).start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
