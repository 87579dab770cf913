"""A small HTTP server in a thread, for as long as a test needs it."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], *, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Gives its port on 127.0.0.1. Connections are used again, and nothing is logged."""
    quiet = {"protocol_version": "HTTP/1.1", "log_message": lambda *_: None}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Quiet", (handler,), quiet))
    server.daemon_threads = True
    if tls is not None:
        # Hands are shaken in the connection's own thread, at its first read.
        # Browsers end those that they open only to try a certificate.
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # it would print
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
