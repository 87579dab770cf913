"""An authorization server for client credentials (RFC 6749, 4.4), in a thread; and any other small HTTP server."""

from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Self
from urllib.parse import parse_qs

from tests.support.http_thread import serving


@dataclass(frozen=True)
class Asked:
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass
class TokenServer:
    """`answer` gets the number of the request, from 1, and gives status and body."""

    answer: Callable[[int], tuple[int, bytes]] = lambda number: (
        200,
        b'{"access_token":"token-%d","token_type":"Bearer","expires_in":3600}' % number,
    )
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.asked.append(Asked({name.lower(): value for name, value in self.headers.items()}, body))
                status, said = outer.answer(len(outer.asked))
                self.send_response(status)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

        self._serving = serving(Handler)
        self._port = self._serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.__exit__(None, None, None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/token"
