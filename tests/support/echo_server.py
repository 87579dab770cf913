"""A receiver that is asked to prove that it wants webhooks. Echoes the challenge unless a test says otherwise."""

from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Self
from uuid import UUID

from django.db import connection, transaction
from django.db.utils import OperationalError

from tenants.models import Tenant
from tests.support.http_thread import serving


@dataclass(frozen=True)
class Challenged:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def challenge(self) -> str:
        return self.headers["webhook-challenge"]


def echo(asked: Challenged) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, asked.challenge.encode()


@dataclass
class EchoServer:
    answer: Callable[[Challenged], tuple[int, dict[str, str], bytes]] = echo
    """Status, headers and body."""
    asked: list[Challenged] = field(default_factory=list)
    is_free: bool = False

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Challenged(self.command, self.path, headers, body)
                outer.asked.append(asked)
                status, more, said = outer.answer(asked)
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def do_GET(self) -> None:
                self.do_POST()

        self._serving = serving(Handler)
        self._port = self._serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.__exit__(None, None, None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/hook"

    @staticmethod
    def is_tenant_free(tenant_id: UUID) -> bool:
        """Whether nobody has the tenant's row locked. Called in the server's thread, on a connection of its own."""
        try:
            with transaction.atomic():
                Tenant.objects.select_for_update(nowait=True).get(id=tenant_id)
        except OperationalError:
            return False
        finally:
            connection.close()
        return True
