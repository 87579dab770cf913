"""The commands of `deploy/` start on a bare machine, answer, deliver nothing by themselves, and end when they are told."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.deploy.test_files import PROCESSES, ROOT, probe, procfile
from webhooks_platform.celery import app
from webhooks_platform.embedded.servers import free_port

PRODUCTION = {
    "SECRET_KEY": "fifty-characters-that-nobody-else-has-0123456789-abcdef",
    "WEBHOOKS_ENCRYPTION_KEYS": "k1:" + "QUJD" * 10 + "QUI=",
    "ALLOWED_HOSTS": "webhooks.example.com,127.0.0.1",
    "WEBHOOKS_PUBLIC_URL": "https://webhooks.example.com",
    "WEBHOOKS_TRUSTED_PROXIES": "127.0.0.1/32",
    "WEBHOOKS_EMAIL_URL": "smtp://user:password@mail.example.com:587",
    "WEBHOOKS_EMAIL_FROM": "webhooks@example.com",
    "DEBUG": "false",
}
SECONDS = 60


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("database")
def test_every_process_of_the_procfile_starts_and_ends_in_order(tmp_path: Path) -> None:
    port = free_port()
    environment = os.environ | PRODUCTION | {"PORT": str(port), "WEBHOOKS_WEB_PORT": str(port)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in PROCESSES:
            command = [word.replace("${PORT:-8000}", str(port)) for word in procfile()[name]]
            environment["WEBHOOKS_HEARTBEAT_FILE"] = str(tmp_path / f"{name}-beats")
            with (tmp_path / name).open("wb") as output:
                running[name] = subprocess.Popen(
                    command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
        answer = wait_for(f"http://127.0.0.1:{port}/health/ready")
        wait_for_workers(2)
        hearts = [tmp_path / f"{name}-beats" for name in PROCESSES if name != "web"]
        beating = {heart.name: beats_again(heart) for heart in hearts}
        alive = {name: process.poll() is None for name, process in running.items()}
    finally:
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        codes = {name: process.wait(SECONDS) for name, process in running.items()}

    said = {name: (tmp_path / name).read_text()[-2000:] for name in PROCESSES}
    assert answer == 200, said
    assert alive == dict.fromkeys(PROCESSES, True), said
    assert beating == {heart.name: True for heart in hearts}, said
    assert not (tmp_path / "web-beats").exists()
    assert codes == dict.fromkeys(PROCESSES, 0), said


def beats_again(heart: Path) -> bool:
    """Whether what the probes look at gets younger."""
    before = heart.stat().st_mtime
    deadline = time.monotonic() + SECONDS
    while heart.stat().st_mtime == before and time.monotonic() < deadline:
        time.sleep(0.1)
    age = time.time() - heart.stat().st_mtime
    return age < 5 and subprocess.run(probe(str(heart)), check=False).returncode == 0


def wait_for_workers(number: int) -> None:
    """Until so many answer. Beat, which is ready before them, answers nobody."""
    deadline = time.monotonic() + SECONDS
    while len(app.control.ping(timeout=1) or []) < number and time.monotonic() < deadline:
        pass


def wait_for(url: str) -> int:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return int(response.status)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def checked(**environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        env=os.environ | PRODUCTION | {"WEBHOOKS_ALLOWED_NETWORKS": ""} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_production_with_all_its_settings_passes_djangos_own_checks() -> None:
    code, said = checked()

    assert code == 0, said


def test_a_production_is_told_what_is_missing() -> None:
    code, said = checked(
        WEBHOOKS_PUBLIC_URL="",
        WEBHOOKS_EMAIL_URL="",
        WEBHOOKS_TRUSTED_PROXIES="",
        WEBHOOKS_ALLOWED_NETWORKS="10.0.0.0/8",
    )

    assert code == 1
    assert sorted(set(re.findall(r"webhooks\.W\d+", said))) == [
        f"webhooks.W00{number}" for number in (1, 2, 3, 4)
    ]


def test_a_production_is_told_that_nobody_gets_in_by_its_own_address() -> None:
    code, said = checked(ALLOWED_HOSTS="", WEBHOOKS_PUBLIC_URL="https://hooks.example.com:8443")

    assert code == 1
    assert re.findall(r"webhooks\.W\d+", said) == ["webhooks.W005"]
    assert "ALLOWED_HOSTS refuses hooks.example.com" in said
