"""A small HTTP server in a thread, for as long as a test needs it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Gives its port on 127.0.0.1. Connections are used again, and nothing is logged."""
    quiet = {"protocol_version": "HTTP/1.1", "log_message": lambda *_: None}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Quiet", (handler,), quiet))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
