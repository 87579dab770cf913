"""An egress proxy: takes CONNECT requests, and remembers where to."""

import select
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self


@dataclass
class ConnectProxy:
    status: int = 200
    """What it answers; with 200 it makes the tunnel. 0: it ends the connection."""
    heads: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [head.split(" ")[1] for head in self.heads]

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._socket.accept()[0]
                threading.Thread(target=self._connected, args=[connection], daemon=True).start()

    def _connected(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.heads.append(head.decode())
            if self.status != 200:
                if self.status:
                    client.sendall(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.status)
                return
            host, _, port = head.decode().split(" ")[1].rpartition(":")
            with socket.create_connection((host, int(port))) as target:
                client.sendall(b"HTTP/1.1 200 Connection established\r\nx-proxy: 1\r\n\r\n")
                self._pass_on(client, target)

    def _pass_on(self, client: socket.socket, target: socket.socket) -> None:
        other = {client: target, target: client}
        while True:
            for one in select.select([client, target], [], [], 10)[0]:
                data = one.recv(65_536)
                if not data:
                    return
                other[one].sendall(data)
