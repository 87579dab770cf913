"""The children of `serve`, as real processes."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from webhooks_platform.embedded.servers import is_alive
from webhooks_platform.processes import Supervisor

STUBBORN = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""

WITH_GRANDCHILD = """
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
child.wait()
"""


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor(os.environ | {"PYTHONUNBUFFERED": "1"})
    yield supervisor
    supervisor.stop_requests = 2
    supervisor.stop([child.name for child in supervisor.children])


def python(code: str, *arguments: Path) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def read_pid(path: Path) -> int:
    """Once the child is so far that it has written it."""
    wait_until(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


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

    time.sleep(1)
    supervisor.check_children()
    assert pid_of(supervisor, "beat") != first
    wait_until(lambda: not supervisor.children[0].is_running)
    supervisor.check_children()
    assert capsys.readouterr().out == "serve    │ beat died (with exit code 3); starting it again in 2 s\n"


def test_a_child_that_does_not_end_in_its_time_is_killed(
    supervisor: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor.start("worker", python(STUBBORN, tmp_path / "pid"), grace_seconds=0.5)
    pid = read_pid(tmp_path / "pid")

    supervisor.stop(["worker"])

    assert not is_alive(pid)
    assert capsys.readouterr().out == "serve    │ worker did not end within 0.5 s; killing it\n"


def test_a_second_request_to_stop_kills_at_once(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start("worker", python(STUBBORN, tmp_path / "pid"), grace_seconds=60)
    pid = read_pid(tmp_path / "pid")
    supervisor.stop_requests = 2
    began = time.monotonic()

    supervisor.stop(["worker"])

    assert time.monotonic() - began < 5
    assert not is_alive(pid)


def test_grandchildren_do_not_outlive_the_stop(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start("web", python(WITH_GRANDCHILD, tmp_path / "pid"), grace_seconds=5)
    grandchild = read_pid(tmp_path / "pid")

    supervisor.stop(["web"])

    wait_until(lambda: not is_alive(grandchild))
