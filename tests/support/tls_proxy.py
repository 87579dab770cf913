"""A proxy as stands in front of the platform in production: it ends TLS, and says so (or does not)."""

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import trustme

from tests.support.http_thread import serving

AUTHORITY = trustme.CA()


@contextmanager
def tls_proxy(port: int, *, says_so: bool = True) -> Iterator[int]:
    """Gives its own port. Its certificate is of `AUTHORITY`, for 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = dict(self.headers.items()) | {"X-Forwarded-For": "192.0.2.7", "Connection": "close"}
            if says_so:
                headers["X-Forwarded-Proto"] = "https"
            there = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            there.request(self.command, self.path, body, headers)
            answer = there.getresponse()
            content = answer.read()
            there.close()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"connection", "content-length", "transfer-encoding"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _pass_on  # noqa: N815 - names of the library

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    with serving(Handler, tls=context) as own:
        yield own
