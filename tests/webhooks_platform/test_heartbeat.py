"""The file that probes look at: whose it is, and that a broker which is away does not make it old.

That real workers and beat touch it, and that the probe reads it, is looked at in tests/deploy/test_start.py.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from tests.deploy.test_files import probe
from webhooks_platform import heartbeat
from webhooks_platform.celery import PromptConnection
from webhooks_platform.embedded.servers import free_port


@pytest.fixture
def file(tmp_path: Path, settings: Any) -> Iterator[Path]:
    path = tmp_path / "heartbeat"
    settings.WEBHOOKS_HEARTBEAT_FILE = str(path)
    yield path
    heartbeat._process = None


def make_old(file: Path) -> None:
    long_ago = time.time() - 61
    os.utime(file, (long_ago, long_ago))


def is_alive(file: Path) -> bool:
    return subprocess.run(probe(str(file)), check=False, capture_output=True).returncode == 0


def test_a_probe_sees_whether_the_last_beat_was_within_a_minute(file: Path) -> None:
    before = is_alive(file)
    heartbeat.begin()
    begun = is_alive(file)
    make_old(file)
    hanging = is_alive(file)
    heartbeat.beat()

    assert (before, begun, hanging, is_alive(file)) == (False, True, False, True)


def test_a_child_does_not_beat_for_a_main_process_that_hangs(file: Path) -> None:
    heartbeat.begin()
    make_old(file)

    child = os.fork()
    if child == 0:
        heartbeat.beat()
        os._exit(0)
    os.waitpid(child, 0)

    assert not is_alive(file)


def test_who_is_no_worker_beats_nowhere(file: Path) -> None:
    heartbeat.beat()

    assert not file.exists()


def test_a_worker_whose_broker_is_away_is_alive(file: Path) -> None:
    """Its main loop waits for the broker, and dispatchers in its children go on."""
    heartbeat.begin()
    make_old(file)
    called: list[str] = []

    with PromptConnection(f"redis://127.0.0.1:{free_port()}/0") as broker, pytest.raises(OperationalError):
        broker.ensure_connection(max_retries=1, callback=lambda: called.append("Celery's own"))

    assert is_alive(file)
    assert called


def test_a_file_that_cannot_be_written_stops_the_start(settings: Any) -> None:
    settings.WEBHOOKS_HEARTBEAT_FILE = "/nowhere/heartbeat"

    with pytest.raises(
        SystemExit, match=r"WEBHOOKS_HEARTBEAT_FILE='/nowhere/heartbeat' cannot be written .*such as /tmp"
    ):
        heartbeat.begin()

    heartbeat._process = None
