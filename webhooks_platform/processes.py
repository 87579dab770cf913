"""Child processes of `manage.py serve`: started, watched, restarted when they die, stopped in order.

What they print is merged line by line, each line with the name of who said it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from webhooks_platform.embedded.parent import die_with_parent

FIRST_WAIT_SECONDS = 1.0
"""Before a child that died is started again; doubles with each death, up to `LONGEST_WAIT_SECONDS`."""

LONGEST_WAIT_SECONDS = 30.0

HEALTHY_SECONDS = 60.0
"""A child that ran this long before it died starts with a short wait again."""

COLOURS = (36, 32, 33, 35, 34, 96)


@dataclass
class Child:
    name: str
    command: Sequence[str]
    grace_seconds: float
    """How long it may take to end after SIGTERM, before it is killed."""
    environment: Mapping[str, str]
    colour: int = 0
    process: subprocess.Popen[str] | None = None
    started_at: float = 0.0
    wait_seconds: float = FIRST_WAIT_SECONDS
    restart_at: float | None = None
    readers: list[threading.Thread] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.children: list[Child] = []
        self.stop_requests = 0
        self.woken = threading.Event()
        self.printing = threading.Lock()
        self.uses_colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def listen_to_signals(self) -> None:
        """Once asks to stop in order, twice to stop at once."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._request_stop)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as handlers are called
        self.stop_requests += 1
        self.woken.set()

    @property
    def is_stopping(self) -> bool:
        return self.stop_requests > 0

    def say(self, name: str, line: str, colour: int = 1) -> None:
        prefix = f"{name:<8} │ "
        if self.uses_colour:
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        # Whoever read our output may be gone; that is no reason to stop serving.
        with self.printing, contextlib.suppress(OSError):
            print(prefix + line, flush=True)

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        grace_seconds: float,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        colour = COLOURS[len(self.children) % len(COLOURS)]
        child = Child(name, command, grace_seconds, {**self.environment, **(environment or {})}, colour)
        self.children.append(child)
        self._launch(child)

    def _launch(self, child: Child) -> None:
        """In a session of its own: Ctrl-C reaches us alone, and we stop the children in order."""
        child.process = subprocess.Popen(  # noqa: S603 - our own commands
            child.command,
            env=child.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call
        )
        child.started_at = time.monotonic()
        child.restart_at = None
        reader = threading.Thread(target=self._read, args=(child, child.process), daemon=True)
        reader.start()
        child.readers.append(reader)

    def _read(self, child: Child, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if text := line.rstrip():
                    self.say(child.name, text, child.colour)

    def run_until_stopped(self) -> None:
        while not self.is_stopping:
            self.check_children()
            self.sleep(0.2)

    def sleep(self, seconds: float) -> None:
        """Until the time has passed or a signal came."""
        self.woken.wait(seconds)
        self.woken.clear()

    def check_children(self) -> None:
        """Nothing dies or comes back silently."""
        now = time.monotonic()
        for child in self.children:
            if child.restart_at is not None:
                if now >= child.restart_at:
                    self._launch(child)
            elif not child.is_running:
                if now - child.started_at > HEALTHY_SECONDS:
                    child.wait_seconds = FIRST_WAIT_SECONDS
                self.say(
                    "serve",
                    f"{child.name} died ({describe_end(child)}); starting it again in {child.wait_seconds:g} s",
                )
                child.restart_at = now + child.wait_seconds
                child.wait_seconds = min(child.wait_seconds * 2, LONGEST_WAIT_SECONDS)

    def stop(self, names: Iterable[str]) -> None:
        """All of these at the same time. Returns when they are gone; a second request to stop kills them."""
        group = [child for child in self.children if child.name in set(names)]
        for child in group:
            child.restart_at = None
            if child.is_running:
                assert child.process is not None
                child.process.terminate()
        deadlines = {child.name: time.monotonic() + child.grace_seconds for child in group}
        while running := [child for child in group if child.is_running]:
            for child in running:
                if self.stop_requests > 1:
                    self._kill(child)
                elif time.monotonic() > deadlines[child.name]:
                    self.say(
                        "serve", f"{child.name} did not end within {child.grace_seconds:g} s; killing it"
                    )
                    self._kill(child)
            self.sleep(0.05)
        for child in group:
            self._kill(child)  # what it may have left behind of its own children
            for reader in child.readers:
                reader.join(timeout=1)

    def _kill(self, child: Child) -> None:
        if child.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)


def describe_end(child: Child) -> str:
    assert child.process is not None
    code = child.process.returncode
    if code is not None and code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with exit code {code}"
