"""Servers shared by several commands of a checkout, each command a real process."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from webhooks_platform.embedded import Servers, ensure_servers
from webhooks_platform.embedded.servers import is_alive

COMMAND = """
import sys
from pathlib import Path
from webhooks_platform.embedded import ensure_servers

servers = ensure_servers(data_dir=Path(sys.argv[1]))
print(servers.postgres.pid, servers.valkey.pid, servers.is_joined, servers.database_url, flush=True)
sys.stdin.readline()
servers.stop()
"""


class Command:
    """A process that uses the servers until told to end."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        postgres, valkey, is_joined, self.database_url = self.process.stdout.readline().split()
        self.pids = [int(postgres), int(valkey)]
        self.is_joined = is_joined == "True"

    def end(self) -> None:
        self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Below a folder that only its owner may enter, as pytest makes them: run by root, the data go elsewhere."""
    home = tmp_path / "var"

    yield home

    last: Servers = ensure_servers(data_dir=home)
    last.stop("immediate")
    assert not last.postgres.is_running()
    shutil.rmtree(last.folder)


def count_rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
        assert row is not None
        return int(row[0])


def test_the_first_starts_the_second_joins_and_the_last_one_stops(home: Path) -> None:
    first = Command(home)
    second = Command(home)

    assert (first.is_joined, second.is_joined) == (False, True)
    assert first.pids == second.pids

    first.end()
    assert [is_alive(pid) for pid in first.pids] == [True, True]

    second.end()
    assert [is_alive(pid) for pid in first.pids] == [False, False]


def test_what_was_committed_is_there_after_a_restart_and_on_the_same_port(home: Path) -> None:
    first = Command(home)
    with psycopg.connect(first.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    first.end()

    second = Command(home)

    assert second.database_url == first.database_url
    assert count_rows(second.database_url) == 1
    second.end()


def test_servers_outlive_a_killed_command_and_the_next_one_takes_them_over(home: Path) -> None:
    first = Command(home)
    first.kill()

    second = Command(home)

    assert second.is_joined
    second.end()
    assert [is_alive(pid) for pid in first.pids] == [False, False]


def test_everything_killed_at_once_is_started_again_with_its_data(home: Path) -> None:
    first = Command(home)
    with psycopg.connect(first.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    for pid in first.pids:
        os.kill(pid, signal.SIGKILL)
    first.kill()

    second = Command(home)

    assert not second.is_joined
    assert count_rows(second.database_url) == 1
    second.end()


def test_a_lock_file_that_names_somebody_elses_process_does_not_stop_the_start(home: Path) -> None:
    """After a reboot the number of the old server belongs to any process, here to this test."""
    first = Command(home)
    first.end()
    servers = json.loads((home / "secrets.json").read_text())
    data = Path(servers["data"]) if "data" in servers else home
    (data / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{data / 'postgres'}\n0\n0\n\n\n\n")

    second = Command(home)

    assert not second.is_joined
    second.end()


def test_secrets_are_for_their_owner_alone_and_stay_the_same(home: Path) -> None:
    Command(home).end()
    path = home / "secrets.json"
    before = path.read_text()

    Command(home).end()

    assert path.read_text() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "servers.json").stat().st_mode) == 0o600
