"""The children of `serve`, as real processes."""

import os
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from webhooks_platform.embedded.servers import is_alive
from webhooks_platform.processes import Supervisor

SLEEPER = "import time; print('ready'); time.sleep(60)"

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(60)"
)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor(os.environ | {"PYTHONUNBUFFERED": "1"})
    yield supervisor
    supervisor.stop_requests = 2
    supervisor.stop([child.name for child in supervisor.children])


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_until(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pid_of(supervisor: Supervisor, name: str) -> int:
    process = next(child.process for child in supervisor.children if child.name == name)
    assert process is not None
    return process.pid


def test_lines_are_merged_with_the_name_of_who_said_them(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.start("web", python("print('one'); print(); print('two')"), grace_seconds=5)
    wait_until(lambda: not supervisor.children[0].is_running)
    supervisor.stop(["web"])

    assert capsys.readouterr().out.splitlines() == ["web      │ one", "web      │ two"]


def test_a_child_that_dies_is_reported_and_started_again(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.start("beat", python("raise SystemExit(3)"), grace_seconds=5)
    wait_until(lambda: not supervisor.children[0].is_running)
    first = pid_of(supervisor, "beat")

    supervisor.check_children()
    supervisor.check_children()
    assert pid_of(supervisor, "beat") == first
    assert capsys.readouterr().out == "serve    │ beat died (with exit code 3); starting it again in 1 s\n"

    wait_until(lambda: (supervisor.check_children(), pid_of(supervisor, "beat") != first)[1])
    wait_until(lambda: not supervisor.children[0].is_running)
    supervisor.check_children()
    assert capsys.readouterr().out == "serve    │ beat died (with exit code 3); starting it again in 2 s\n"


def test_a_child_that_does_not_end_in_its_time_is_killed(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.start("worker", python(STUBBORN), grace_seconds=0.5)
    wait_until(lambda: "ready" in capsys.readouterr().out)
    pid = pid_of(supervisor, "worker")

    supervisor.stop(["worker"])

    assert not is_alive(pid)
    assert "worker did not end within 0.5 s; killing it" in capsys.readouterr().out


def test_a_second_request_to_stop_kills_at_once(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.start("worker", python(STUBBORN), grace_seconds=60)
    wait_until(lambda: "ready" in capsys.readouterr().out)
    supervisor.stop_requests = 2
    began = time.monotonic()

    supervisor.stop(["worker"])

    assert time.monotonic() - began < 2
    assert not supervisor.children[0].is_running


def test_grandchildren_do_not_outlive_the_stop(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    spawn = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); print(p.pid); p.wait()"
    supervisor.start("web", python(spawn), grace_seconds=5)
    seen: list[str] = []
    wait_until(lambda: (seen.append(capsys.readouterr().out), "ready" in "".join(seen))[1])
    grandchild = int("".join(seen).splitlines()[0].rpartition(" ")[2])

    supervisor.stop(["web"])

    wait_until(lambda: not is_alive(grandchild))
