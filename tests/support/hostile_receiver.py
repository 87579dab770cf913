"""A receiver that behaves as badly as its URL asks for. A real server on 127.0.0.0/8, one thread, thousands of clients.

The first segment of the path names the behaviour (see `_BEHAVIOURS`); further segments are its arguments. What came in
is kept in `requests`, in order of arrival.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came. `connection` counts from 1, so that equal numbers mean one connection."""

    connection: int
    method: str
    target: str
    head: bytes
    body: bytes
    server_name: str | None

    def header(self, name: str) -> str | None:
        """The value of the first header of that name; None if there is none."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name.lower().encode():
                return value.strip().decode()
        return None


class HostileReceiver:
    """Listens on `address` (default: every address of 127.0.0.0/8) from `with` to its end. A `greeting` is sent before anything is read, as no HTTP server does."""

    def __init__(
        self,
        *,
        address: str = "0.0.0.0",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        greeting: bytes = b"",
    ) -> None:
        self._greeting = greeting
        self.requests: list[Received] = []
        self.connections = 0
        self.bytes_sent = 0
        self._tls = tls
        self._server_names: dict[ssl.SSLObject | ssl.SSLSocket, str | None] = {}
        if tls is not None:
            tls.sni_callback = self._note_server_name
        # Named in full, or asyncio would not switch off the delay with which small packets are sent.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        self._socket.listen(4096)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._is_serving = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="hostile-receiver", daemon=True)

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        return f"{'http' if self._tls is None else 'https'}://{host}:{self.port}{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_serving.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    def _note_server_name(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext
    ) -> None:
        self._server_names[connection] = name

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._on_connection, sock=self._socket, ssl=self._tls, backlog=4096)
        )
        self._loop.call_soon(self._is_serving.set)
        self._loop.run_forever()
        # Nothing more is accepted; and what was accepted just now begins while its server is open, or asyncio forgets it.
        self._loop.remove_reader(self._socket)
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._server.close()
        # A handshake that ends now begins another task.
        while tasks := asyncio.all_tasks(self._loop):
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        # Sockets are closed in the turn after the one in which their tasks end.
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    def _stop(self) -> None:
        self._loop.stop()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        exchange = _Exchange(self, writer)
        writer.write(self._greeting)
        try:
            while (request := await self._read(connection, reader, writer)) is not None:
                self.requests.append(request)
                name, *arguments = request.target.partition("?")[0].strip("/").split("/")
                exchange.request = request
                await _BEHAVIOURS[name](exchange, *arguments)
                if exchange.is_over:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            # The end of the test. Handing it on would only make asyncio log it.
            exchange.is_over = True
        finally:
            writer.transport.abort()

    async def _read(
        self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Received | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = await reader.readline()
            if not line:
                return None
            head += line
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        received = Received(connection, method, target, head, b"", self._name_of(writer))
        length = int(received.header("content-length") or 0)
        return Received(
            connection, method, target, head, await reader.readexactly(length), received.server_name
        )

    def _name_of(self, writer: asyncio.StreamWriter) -> str | None:
        return self._server_names.get(writer.get_extra_info("ssl_object"))


class _Exchange:
    request: Received

    def __init__(self, receiver: HostileReceiver, writer: asyncio.StreamWriter) -> None:
        self.receiver = receiver
        self.writer = writer
        self.is_over = False

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        self.receiver.bytes_sent += len(data)

    async def answer(self, body: bytes = b"ok", *, status: str = "200 OK", headers: bytes = b"") -> None:
        await self.send(
            b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status.encode(), headers, len(body), body)
        )

    async def finish(self) -> None:
        """Close in good order, once everything has been sent."""
        self.is_over = True
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


async def _ok(exchange: _Exchange) -> None:
    await exchange.answer()


async def _echo(exchange: _Exchange, *rest: str) -> None:
    await exchange.answer(exchange.request.head + exchange.request.body)


async def _status(exchange: _Exchange, code: str) -> None:
    await exchange.answer(b"" if code in ("204", "304") else b"body", status=f"{code} Whatever")


async def _slow(exchange: _Exchange, seconds: str) -> None:
    await asyncio.sleep(float(seconds))
    await exchange.answer()


async def _hang(exchange: _Exchange) -> None:
    await asyncio.sleep(3600)


async def _status_then_hang(exchange: _Exchange, code: str) -> None:
    await exchange.send(b"HTTP/1.1 %s Whatever\r\nContent-Length: 5\r\n\r\nhal" % code.encode())
    await asyncio.sleep(3600)


async def _drip(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        await exchange.send(b".")
        await asyncio.sleep(0.05)


async def _drip_headers(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        await exchange.send(b".")
        await asyncio.sleep(0.05)


async def _endless(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        await exchange.send(b"x" * 8192)


async def _endless_chunk_extension(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=")
    while True:
        await exchange.send(b"x" * 8192)


async def _endless_interim(exchange: _Exchange) -> None:
    while True:
        await exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" * 100)


async def _endless_trailers(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
    while True:
        await exchange.send(b"X-Late: y\r\n" * 100)


async def _body(exchange: _Exchange, size: str) -> None:
    await exchange.answer(b"x" * int(size))


async def _headers(exchange: _Exchange, size: str) -> None:
    """One header field of 1,000 bytes after another, until that many bytes were sent."""
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    for index in range(int(size) // 1000):
        await exchange.send(b"X-%05d: %s\r\n" % (index, b"y" * 989))
    await exchange.send(b"Content-Length: 0\r\n\r\n")


async def _header_count(exchange: _Exchange, count: str) -> None:
    await exchange.answer(headers=b"".join(b"X-%d: y\r\n" % index for index in range(int(count))))


async def _long_header(exchange: _Exchange, size: str) -> None:
    await exchange.answer(headers=b"X-Long: %s\r\n" % (b"y" * int(size)))


async def _not_http(exchange: _Exchange) -> None:
    await exchange.send(b"220 mail.example.test ESMTP\r\n")
    await exchange.finish()


async def _http09(exchange: _Exchange) -> None:
    await exchange.send(b"<html>a page from 1991</html>\n")
    await exchange.finish()


async def _bad_length(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nok")
    await exchange.finish()


async def _bad_chunks(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n")
    await exchange.finish()


async def _chunks(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")


async def _gzip(exchange: _Exchange) -> None:
    await exchange.answer(b"not really gzip", headers=b"Content-Encoding: gzip\r\n")


async def _close_midway(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
    await exchange.finish()


async def _close_in_headers(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    await exchange.finish()


async def _interim_then_close_in_headers(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Le")
    await exchange.finish()


async def _switch_protocols(exchange: _Exchange) -> None:
    await exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\n\r\nhello")
    await exchange.finish()


async def _break_off(exchange: _Exchange, *, after: bytes = b"") -> None:
    """As a process that is killed. TLS is not told that this is the end."""
    await exchange.send(after)
    await asyncio.sleep(0.05)
    exchange.is_over = True
    exchange.writer.transport.abort()


async def _break_off_in_headers(exchange: _Exchange) -> None:
    await _break_off(exchange, after=b"HTTP/1.1 200 OK\r\nContent-Le")


async def _break_off_midway(exchange: _Exchange) -> None:
    await _break_off(exchange, after=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")


async def _close(exchange: _Exchange) -> None:
    await exchange.finish()


async def _answers_too_much(exchange: _Exchange) -> None:
    """A good answer, and a moment later another one that nobody asked for."""
    await exchange.answer()
    await asyncio.sleep(0.1)
    await exchange.answer(b"of somebody else")


async def _close_after(exchange: _Exchange) -> None:
    """A good answer, and then the connection is closed without a word of it."""
    await exchange.answer()
    await exchange.finish()


async def _reset(exchange: _Exchange) -> None:
    connection = exchange.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.is_over = True
    exchange.writer.transport.abort()


async def _odd_bytes(exchange: _Exchange) -> None:
    await exchange.answer(b"\x00\xff\xfe nul and no UTF-8 \xc3", headers=b"X-Odd: caf\xe9\r\n")


async def _redirect(exchange: _Exchange, code: str, *target: str) -> None:
    location = f"Location: http://{'/'.join(target)}\r\nSet-Cookie: seen=yes\r\n".encode()
    await exchange.answer(b"", status=f"{code} Moved", headers=location)


_BEHAVIOURS: dict[str, Callable[..., Awaitable[None]]] = {
    "ok": _ok,
    "echo": _echo,
    "status": _status,
    "slow": _slow,
    "hang": _hang,
    "status-then-hang": _status_then_hang,
    "drip": _drip,
    "drip-headers": _drip_headers,
    "endless": _endless,
    "endless-chunk-extension": _endless_chunk_extension,
    "endless-interim": _endless_interim,
    "endless-trailers": _endless_trailers,
    "body": _body,
    "headers": _headers,
    "header-count": _header_count,
    "long-header": _long_header,
    "not-http": _not_http,
    "http09": _http09,
    "bad-length": _bad_length,
    "bad-chunks": _bad_chunks,
    "chunks": _chunks,
    "gzip": _gzip,
    "close-midway": _close_midway,
    "close-in-headers": _close_in_headers,
    "interim-then-close-in-headers": _interim_then_close_in_headers,
    "switch-protocols": _switch_protocols,
    "break-off": _break_off,
    "break-off-in-headers": _break_off_in_headers,
    "break-off-midway": _break_off_midway,
    "close": _close,
    "answers-too-much": _answers_too_much,
    "close-after": _close_after,
    "reset": _reset,
    "odd-bytes": _odd_bytes,
    "redirect": _redirect,
}
