"""Receiving webhooks: verify, keep, answer at once, act afterwards and once. Plain Python; shared by its neighbours.

PORT says where to listen (any free port), FOLDER where the inbox is kept (in memory). See also `platform_api.py`.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from inbox import Event, Inbox, path_of
from platform_api import subscribe
from signature import verify

LARGEST_BODY = 1_000_000


def tell(line: str) -> None:
    print(line, flush=True)


def acknowledge(event: Event, is_new: bool) -> int:
    if is_new:
        tell(f"{event.type} came: signature good, kept in my inbox, answered 204")
        return 204
    tell(f"{event.type} came again, with the same webhook-id: it is in my inbox, so there is nothing to do")
    return 200


def receive(
    name: str,
    wants: list[str],
    act: Callable[[Event], None],
    *,
    filters: Mapping[str, str] | None = None,
    answer: Callable[[Event, bool], int] = acknowledge,
    **settings: Any,
) -> None:
    """Ask the platform for events of these patterns and act on each once, for ever.

    `answer` is told what is safe in the inbox, and whether it is new, and says the status. 2xx: we have it.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers.get("content-length", 0))
            self.send_response(self.take(self.rfile.read(size)) if size <= LARGEST_BODY else 413)
            self.send_header("content-length", "0")
            self.end_headers()
            inbox.has_work.set()

        def take(self, body: bytes) -> int:
            headers = {key.lower(): value for key, value in self.headers.items()}
            if not verify(secret, headers, body, time.time()):
                tell("Something came without a good signature: refused with 401, nothing done")
                return 401
            event = Event(headers["webhook-id"], headers.get("webhook-hops", "0"), **json.loads(body))
            return answer(event, inbox.keep(event))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    inbox = Inbox(path_of(f"{name}.inbox"), act)
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "0"))), Handler)
    url = f"http://127.0.0.1:{server.server_port}/"
    secret = subscribe(name, url, wants, filters or {}, **settings)
    tell(f"I listen at {url} and asked for {' and '.join(wants)}")
    server.serve_forever()
