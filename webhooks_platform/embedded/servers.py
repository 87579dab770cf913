"""What the PostgreSQL and the Valkey of our own have in common: a folder, a port, a process. (`postgres`, `valkey`)

Both can be started, stopped, killed, paused and restarted, always on the same port: the tests do all of that to
servers of their own. They listen on the loopback address alone and ask for a password.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from webhooks_platform.embedded.programs import Account, EmbeddedError, Programs

HOST = "127.0.0.1"

PORTS = range(20_000, 27_000)
"""Below the range of outgoing connections: a port that a stopped server will want again must not be given to a
client meanwhile, and a client that knocks at a closed port of that range can end up connected to itself.
Without ports that deliveries are never sent to: receivers get theirs from here, too."""

START_SECONDS = 120
"""How long a server may take to answer. After a crash PostgreSQL first reads its log again, up to 4 GB."""

STOP_SECONDS = 30
"""How long a server may take to go when it is asked to; then it is killed."""

LARGEST_LOG = 10_000_000
"""Bytes; a longer log is emptied at the next start."""

StopMode = Literal["fast", "immediate"]


def free_port() -> int:
    for port in random.sample(PORTS, 200):
        if is_free(port):
            return port
    raise EmbeddedError("No free port found on 127.0.0.1.")


def is_free(port: int, host: str = HOST) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


class Server(ABC):
    """What both servers can do. `process` is set only in the process that started it; others know the pid."""

    name: str

    def __init__(
        self, *, folder: Path, programs: Programs, account: Account, port: int | None, is_bound: bool
    ) -> None:
        self.folder = folder
        self.programs = programs
        self.account = account
        self.port = port or free_port()
        self.is_bound = is_bound
        self.process: subprocess.Popen[bytes] | None = None
        self.pid: int | None = None

    @abstractmethod
    def command(self) -> Sequence[str | Path]: ...

    @abstractmethod
    def is_answering(self) -> bool: ...

    @abstractmethod
    def stop_signal(self, mode: StopMode) -> signal.Signals: ...

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    def start(self) -> None:
        self.launch()
        self.wait_until_answering()

    def launch(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            self.log.write_bytes(b"")
        self.process = self.account.start(
            self.command(), cwd=self.folder, log=self.log, is_bound=self.is_bound
        )
        self.pid = self.process.pid
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
            stdin.write(self.standard_input())

    def standard_input(self) -> bytes:
        return b""

    def has_free_port(self) -> bool:
        return is_free(self.port)

    def choose_port(self) -> None:
        self.port = free_port()

    def adopt(self, pid: int | None) -> None:
        """Take over a server that an earlier command started, if the number is still that server's."""
        if pid is not None and is_alive(pid) and works_in(pid, self.folder):
            self.pid = pid

    def wait_until_answering(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.is_answering():
            if not self.is_running():
                raise EmbeddedError(
                    f"{self.name} did not start. Its last words ({self.log}):\n{self.last_words()}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} did not answer within {START_SECONDS} s. See {self.log}")
            time.sleep(0.02)

    def last_words(self) -> str:
        text = self.log.read_bytes()[-2000:].decode(errors="replace") if self.log.exists() else ""
        return "\n".join(f"  {line}" for line in text.splitlines()[-8:])

    def is_running(self) -> bool:
        if self.process is not None:
            return self.process.poll() is None
        return self.pid is not None and is_alive(self.pid)

    def stop(self, mode: StopMode = "fast") -> None:
        """Returns when it is gone. One that does not go by itself is killed."""
        if self.pid is None or not self.is_running():
            return
        self.resume()
        os.kill(self.pid, self.stop_signal(mode))
        if not self._is_gone_within(STOP_SECONDS):
            self.kill()

    def restart(self, mode: StopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """As a power cut would: every process of it at once, without a word."""
        for pid in self.process_ids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not self._is_gone_within(STOP_SECONDS):
            raise EmbeddedError(f"{self.name} (process {self.pid}) cannot be killed.")

    def pause(self) -> None:
        """It accepts connections, as the kernel does that, and never answers."""
        for pid in self.process_ids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self.process_ids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def process_ids(self) -> list[int]:
        """The server first, so that it starts nothing new while we go through its children."""
        return [] if self.pid is None or not self.is_running() else [self.pid, *children_of(self.pid)]

    def _is_gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


def is_alive(pid: int) -> bool:
    """Whether the process runs. One that ended and was not yet collected by its parent does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _process_state(pid) != "Z"


def works_in(pid: int, folder: Path) -> bool | None:
    """Whether that is the working folder of the process, as it is of our servers. `None` if we cannot tell."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) == folder.resolve()
    except OSError:
        return None


def children_of(pid: int) -> Iterator[int]:
    for each in all_process_ids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                yield each


def all_process_ids() -> Iterator[int]:
    """None where there is no /proc."""
    return (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))


def _process_state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "?"
