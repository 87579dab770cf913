"""The first command, as a newcomer starts it: a checkout of its own, nothing in the environment.

Mostly that is `serve --demo`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from webhooks_platform.embedded.servers import free_port

ROOT = Path(__file__).resolve().parents[2]

PARTS = (
    "deliveries",
    "examples",
    "locale",
    "static",
    "templates",
    "tenants",
    "webhooks_platform",
    "manage.py",
)

FIRST_WEBHOOK_SECONDS = 120
"""From the command to the first webhook whose signature the receiver found good, on a machine that has the packages."""

OURS = ("DATABASE_URL", "CELERY_BROKER_URL", "SECRET_KEY", "DEBUG", "PYTHONPATH", "DJANGO_SETTINGS_MODULE")


class Checkout:
    """The project's files without anything that earlier runs left behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(
                    ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "var")
                )
            else:
                shutil.copy(ROOT / part, folder / part)
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name not in OURS and not name.startswith(("WEBHOOKS_", "PYTEST"))
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "manage.py", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def processes(self) -> list[str]:
        """What still runs in it, or serves it: command lines."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                where = str((process / "cwd").readlink())
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if where.startswith((str(self.folder), str(self.servers_folder()))):
                found.append(line)
        return found

    def servers_folder(self) -> Path:
        """Where the data of PostgreSQL are: `var`, or, run by root, a folder that it names."""
        secrets = json.loads((self.folder / "var" / "secrets.json").read_text())
        return Path(secrets.get("data", self.folder / "var"))


class Terminal:
    """`serve` in a terminal of its own: what it prints, and Ctrl-C."""

    def __init__(self, checkout: Checkout, port: int) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            checkout.command("serve", "--demo", "--port", str(port)),
            cwd=checkout.folder,
            env=checkout.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line)

    def text(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str, *, seconds: float) -> re.Match[str]:
        found: list[re.Match[str]] = []

        def is_there() -> bool:
            assert self.process.poll() is None, self.text()
            found.extend(re.finditer(pattern, self.text()))
            return bool(found)

        wait_until(is_there, seconds=seconds, explain=self.text)
        return found[0]

    def end(self, number: signal.Signals) -> int:
        """As the terminal does it: to the whole group."""
        os.killpg(self.process.pid, number)
        status = self.process.wait(timeout=90)
        self.reader.join(timeout=10)
        return status


def wait_until(condition: Callable[[], bool], *, seconds: float, explain: Callable[[], object]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.1)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path / "checkout")

    yield checkout

    if checkout.servers_folder() != checkout.folder / "var":
        shutil.rmtree(checkout.servers_folder())


@pytest.fixture
def serve(checkout: Checkout) -> Iterator[Callable[[int], Terminal]]:
    started: list[Terminal] = []

    def start(port: int) -> Terminal:
        started.append(Terminal(checkout, port))
        return started[-1]

    yield start

    for each in started:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()
            each.reader.join()


@pytest.mark.timeout(360)
def test_one_command_shows_verified_webhooks_and_leaves_nothing_running(
    checkout: Checkout, serve: Callable[[int], Terminal]
) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api/v1"
    terminal = serve(port)

    terminal.wait_for(r"signature good", seconds=FIRST_WEBHOOK_SECONDS)
    operator_key = terminal.wait_for(r"Operator key (\S+)", seconds=10)[1]
    demo_key = terminal.wait_for(r"Demo key +(\S+)", seconds=10)[1]
    password = terminal.wait_for(r"Login .* password (\S+)", seconds=10)[1]

    tenants = requests.get(f"{api}/tenants", headers=bearer(operator_key), timeout=10).json()
    assert [tenant["slug"] for tenant in tenants["data"]] == ["demo"]
    deliveries = f"{api}/tenants/demo/deliveries"

    def first() -> str:
        found = requests.get(deliveries, headers=bearer(demo_key), timeout=10).json()["data"]
        return str(found[-1]["status"])

    # The receiver has said so before it answered.
    wait_until(lambda: first() != "pending", seconds=10, explain=terminal.text)
    assert first() == "succeeded"
    sign_in = f"http://127.0.0.1:{port}/portal/sign-in"
    assert requests.get(sign_in, timeout=10).status_code == 200

    # A second terminal beside it.
    made = checkout.run("create_tenant", "acme", "--json")
    assert made.returncode == 0, made.stderr
    (line,) = made.stdout.splitlines()
    acme_key = json.loads(line)["api_key"]
    whoami = requests.get(f"{api}/whoami", headers=bearer(acme_key), timeout=10)
    assert (whoami.status_code, whoami.json()["tenant"]["slug"]) == (200, "acme")

    assert terminal.end(signal.SIGINT) == 0, terminal.text()
    assert terminal.lines[-1].endswith("Stopped.\n")
    assert "Traceback" not in terminal.text()
    assert checkout.processes() == []

    # The next day: the same keys, the same login, and the story goes on.
    terminal = serve(port)
    terminal.wait_for(r"signature good", seconds=FIRST_WEBHOOK_SECONDS)
    assert "The database is up to date" in terminal.text()
    assert terminal.wait_for(r"Operator key (\S+)", seconds=10)[1] == operator_key
    assert terminal.wait_for(r"Login .* password (\S+)", seconds=10)[1] == password
    assert requests.get(f"{api}/whoami", headers=bearer(acme_key), timeout=10).status_code == 200

    assert terminal.end(signal.SIGTERM) == 0, terminal.text()
    assert checkout.processes() == []


def test_the_first_commands_may_be_others_even_two_at_once(checkout: Checkout) -> None:
    with ThreadPoolExecutor(2) as pool:
        tenant, operator = pool.map(
            lambda arguments: checkout.run(*arguments, "--json"),
            [("create_tenant", "acme"), ("create_operator_key", "ops")],
        )
    again = checkout.run("create_tenant", "acme", "--json")

    assert (tenant.returncode, operator.returncode) == (0, 0), tenant.stderr + operator.stderr
    made = [json.loads(each.stdout) for each in (tenant, operator)]
    assert [each.stdout.count("\n") for each in (tenant, operator)] == [1, 1]
    assert [set(each) for each in made] == [{"tenant", "slug", "api_key"}, {"api_key"}]
    # One of them has made the tables, and what both made is kept.
    assert (tenant.stderr + operator.stderr).count("Preparing the database...") == 1
    assert (again.returncode, again.stdout) == (1, "")
    assert "The slug 'acme' is, or was, another tenant's." in again.stderr
    assert checkout.processes() == []


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
