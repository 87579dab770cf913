"""What goes wrong around a command is said in words, whichever it is: no trace, and nothing is left running."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.conf import settings

import manage
from tests.deploy.test_start import PRODUCTION
from webhooks_platform.embedded.servers import free_port

COMMANDS = [["create_tenant", "acme"], ["migrate"], ["serve", "--port", str(free_port())]]


def begun(*command: str, **changes: str) -> "subprocess.Popen[str]":
    """As from a terminal: whoever runs the tests in the background ignores Ctrl-C, which children inherit."""
    heard = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", heard, sys.executable, "manage.py", *command],
        cwd=settings.BASE_DIR,
        env=os.environ | PRODUCTION | changes,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each[0])
def test_without_a_database_the_setting_is_named(command: list[str]) -> None:
    url = f"postgresql://webhooks:hidden@127.0.0.1:{free_port()}/webhooks"

    running = begun(*command, DATABASE_URL=url)
    output, words = running.communicate(timeout=60)

    assert (running.returncode, output) == (1, "")
    assert "Traceback" not in words
    assert "hidden" not in words
    assert "The database does not answer" in words
    assert "DATABASE_URL" in words.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each[0])
def test_an_odd_setting_is_one_line(command: list[str]) -> None:
    running = begun(*command, WEBHOOKS_MAX_IN_FLIGHT="many")
    output, words = running.communicate(timeout=60)

    assert (running.returncode, output) == (1, "")
    assert words == "WEBHOOKS_MAX_IN_FLIGHT='many' is not a whole number. Set it between 16 and 20000.\n"


def test_what_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(manage, "VAR", tmp_path)
    for name in ("DATABASE_URL", "CELERY_BROKER_URL", "SECRET_KEY", "WEBHOOKS_ENCRYPTION_KEYS"):
        monkeypatch.setenv(name, " ")

    # It needs no servers; others would get theirs now.
    manage.provide_environment(["help"])

    assert {"DATABASE_URL", "CELERY_BROKER_URL"}.isdisjoint(os.environ)
    assert len(os.environ["SECRET_KEY"]) > 50
    assert os.environ["WEBHOOKS_ENCRYPTION_KEYS"].startswith("k1:")


def test_ctrl_c_ends_a_command_without_a_trace() -> None:
    """It waits for a database that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        running = begun("create_tenant", "acme", DATABASE_URL=f"postgresql://u:p@127.0.0.1:{port}/webhooks")
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            time.sleep(0.5)
            running.send_signal(signal.SIGINT)
            output, words = running.communicate(timeout=30)

    assert (running.returncode, output) == (130, ""), words
    assert "Traceback" not in words


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--port", "0"], "--port must be between 1 and 65535."),
        (["serve", "--port", "70000"], "--port must be between 1 and 65535."),
        (["serve", "--host", "nowhere"], "--host must be 127.0.0.1 or 0.0.0.0"),
        (["demo", "order", "--pace", "-1"], "--pace must be between 0 and 60."),
        (["demo", "order", "--pace", "nan"], "--pace must be between 0 and 60."),
    ],
)
def test_odd_arguments_are_refused_at_once(arguments: list[str], says: str) -> None:
    running = begun(*arguments)
    output, words = running.communicate(timeout=60)

    assert (running.returncode, output) == (1, "")
    assert words.startswith(f"CommandError: {says}")
