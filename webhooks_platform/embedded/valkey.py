"""A Valkey of our own."""

import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from webhooks_platform.embedded.programs import Account, Programs
from webhooks_platform.embedded.servers import HOST, Server, StopMode


class ValkeyServer(Server):
    """Keeps nothing on disk: the broker carries hints, the database is the record."""

    name = "Valkey"

    def __init__(
        self,
        *,
        folder: Path,
        programs: Programs,
        account: Account,
        password: str,
        port: int | None = None,
        is_bound: bool = False,
    ) -> None:
        super().__init__(
            folder=folder,
            programs=programs,
            account=account,
            port=port,
            is_bound=is_bound,
        )
        self.password = password

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def start(self) -> None:
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            self.account.own(self.folder)
        super().start()

    def command(self) -> Sequence[str | Path]:
        return [self.programs.valkey, "-"]

    def standard_input(self) -> bytes:
        """The configuration comes this way because anybody can read the arguments of a process."""
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f"requirepass {self.password}",
            "databases 64",
            'save ""',
            "appendonly no",
            "daemonize no",
            "maxmemory 256mb",
            "maxmemory-policy noeviction",
            "loglevel warning",
        ]
        return "\n".join([*lines, ""]).encode()

    def is_answering(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=3) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as answers:
                    return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
        except OSError:
            return False

    def stop_signal(self, mode: StopMode) -> signal.Signals:  # noqa: ARG002 - nothing to save, so both are alike
        return signal.SIGTERM
