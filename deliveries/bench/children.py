"""Starts the programs of the bench and talks to them; reads what processes cost from /proc. Needs no Django."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deliveries.bench.publisher import Plan

ROOT = Path(__file__).resolve().parents[2]

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

_TICKS = os.sysconf("SC_CLK_TCK")


class ChildDied(Exception):
    """A program of the bench ended before its time. What it said stands on standard error."""


def end_with_parent() -> None:
    """For `preexec_fn`: a killed bench leaves nothing running."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Talking:
    """A program that answers each line of JSON with one line, and ends when its standard input is closed."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )

    def listen(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ChildDied(f"{self.process.args!r} ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def say(self, line: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def ask(self, what: str, **details: Any) -> dict[str, Any]:
        self.say({"do": what} | details)
        return self.listen()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Receiver(Talking):
    """See `receiver`. `address`: one of loopback, or `127.0.0.0/8` for all of them."""

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        certificate: Path | None = None,
        verify_every: int = 100,
        port: int = 0,
    ) -> None:
        options = {"address": address, "verify_every": verify_every, "port": port}
        if certificate is not None:
            options["certificate"] = str(certificate)
        super().__init__("deliveries.bench.receiver", json.dumps(options))
        self.port: int = self.listen()["port"]

    def keep_secrets(self, secrets: dict[str, str]) -> None:
        self.ask("secrets", secrets=secrets)

    def set_rule(self, path: str, **rule: Any) -> None:
        """How a path, or a group (`/a`), is answered: the fields of `receiver.Rule`; none: at once, 200."""
        self.ask("rule", path=path, **rule)

    def forget(self) -> None:
        self.ask("forget")

    def count(self, group: str | None = None) -> dict[str, int]:
        return self.ask("count", group=group)

    def report(self, group: str | None = None) -> dict[str, Any]:
        return self.ask("report", group=group)

    def ids(self, path: str) -> list[str]:
        """The webhook-ids that this path answered with a success, sorted."""
        ids: list[str] = self.ask("ids", path=path)["ids"]
        return ids


class NameServer(Talking):
    """See `dns`."""

    def __init__(self) -> None:
        super().__init__("deliveries.bench.dns")
        self.port: int = self.listen()["port"]


class Publishing(Talking):
    """A run of the publisher, under way."""

    def __init__(self, plan: Plan) -> None:
        super().__init__("deliveries.bench.publisher")
        self.say(asdict(plan))

    def result(self) -> dict[str, Any]:
        try:
            return self.listen()
        finally:
            self.close()


def run_publisher(plan: Plan) -> dict[str, Any]:
    return Publishing(plan).result()


class Service:
    """A server or worker of the platform. What it says goes to `log`."""

    def __init__(
        self, command: Sequence[str], *, environment: dict[str, str], log: Path, folder: Path = ROOT
    ) -> None:
        """`folder`: the checkout that it runs from."""
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call
            )

    def check(self) -> None:
        if self.process.poll() is not None:
            raise ChildDied(
                f"{self.process.args!r} ended with {self.process.returncode}:\n{self.last_words()}"
            )

    def last_words(self) -> str:
        """A backtrace of the web server's is longer than a hundred lines, and says why in its first."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-200:])

    def family(self) -> list[int]:
        return [self.process.pid, *descendants(self.process.pid)]

    def stop(self, *, grace_seconds: float = 40) -> None:
        """SIGTERM to the main process, as an operator would; what stays is killed, children too."""
        family = self.family()
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 2
        while any(Path(f"/proc/{pid}/cmdline").exists() for pid in family) and time.monotonic() < deadline:
            time.sleep(0.01)


# --- what processes cost ----------------------------------------------------------------------------------------------


def descendants(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from descendants(int(child))


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes, threads included."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def memory_mb(pids: Sequence[int], *, peak: bool) -> float:
    """Resident memory of the largest of these processes, in MB of 10^6 bytes."""
    name = "VmHWM:" if peak else "VmRSS:"
    largest = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(name):
                    largest = max(largest, int(line.split()[1]))
    return largest * 1024 / 1e6
