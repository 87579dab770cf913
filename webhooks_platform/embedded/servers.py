"""One PostgreSQL and one Valkey, each with a folder and a port of its own.

Both can be started, stopped, killed, paused and restarted, always on the same port: the tests do all of that to
servers of their own. They listen on the loopback address alone and ask for a password.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import psycopg
from psycopg import sql

from webhooks_platform.embedded.programs import Account, EmbeddedError, Programs

HOST = "127.0.0.1"

PORTS = range(20_000, 27_000)
"""Below the range of outgoing connections: a port that a stopped server will want again must not be given to a
client meanwhile, and a client that knocks at a closed port of that range can end up connected to itself.
Without ports that deliveries are never sent to: receivers get theirs from here, too."""

START_SECONDS = 120
"""How long a server may take to answer. After a crash PostgreSQL first reads its log again, up to 4 GB."""

STOP_SECONDS = 30

ORPHAN_SECONDS = 10
"""How long the children of a killed PostgreSQL may take to notice and end. While one lives, its lock file stays: two
servers on the same data would destroy it."""

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
        self, *, folder: Path, programs: Programs, account: Account, port: int, is_bound: bool
    ) -> None:
        self.folder = folder
        self.programs = programs
        self.account = account
        self.port = port
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


class PostgresServer(Server):
    name = "PostgreSQL"
    role = "webhooks"
    database = "webhooks"

    def __init__(
        self,
        *,
        folder: Path,
        programs: Programs,
        account: Account,
        is_durable: bool,
        password: str,
        admin_password: str,
        port: int | None = None,
        is_bound: bool = False,
    ) -> None:
        super().__init__(
            folder=folder,
            programs=programs,
            account=account,
            port=port or free_port(),
            is_bound=is_bound,
        )
        self.is_durable = is_durable
        self.password = password
        self.admin_password = admin_password

    @property
    def url(self) -> str:
        """For the platform: owner of its database, may make others (for tests), nothing else."""
        return f"postgresql://{self.role}:{self.password}@{HOST}:{self.port}/{self.database}"

    @property
    def admin_url(self) -> str:
        """The superuser, for what the platform itself may not do."""
        return f"postgresql://postgres:{self.admin_password}@{HOST}:{self.port}/postgres"

    def start(self) -> None:
        if not self.folder.exists():
            self.create()
        self._refuse_other_version()
        self._forget_stale_lock_file()
        super().start()
        self._ensure_role_and_database()

    def create(self) -> None:
        """In a folder beside it, renamed when complete: an interrupted start leaves nothing half made."""
        unfinished = self.folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        password_file = unfinished.with_suffix(".password")
        password_file.unlink(missing_ok=True)
        try:
            password_file.touch(mode=0o600)
            password_file.write_text(self.admin_password)
            if self.account.is_other:
                os.chown(password_file, self.account.user_id, self.account.group_id)
            self.account.own(unfinished)
            command: list[str | Path] = [
                self.programs.initdb,
                "--pgdata",
                unfinished,
                "--username",
                "postgres",
            ]
            command += [
                "--pwfile",
                password_file,
                "--auth",
                "scram-sha-256",
                "--encoding",
                "UTF8",
                *self._locale(),
            ]
            if not self.is_durable:
                command.append("--no-sync")
            result = self.account.run(command, cwd=unfinished)
        finally:
            password_file.unlink(missing_ok=True)
        if result.returncode != 0:
            raise EmbeddedError(
                f"PostgreSQL could not make its data folder {unfinished}:\n{result.stdout[-2000:]}"
            )
        unfinished.rename(self.folder)

    def _locale(self) -> list[str]:
        """UTF-8 case rules that sort by code point and need nothing installed, where the version has them."""
        if self.programs.postgres_major >= 17:
            return ["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        return ["--locale", "C.UTF-8"]

    def _refuse_other_version(self) -> None:
        made_by = (self.folder / "PG_VERSION").read_text().strip()
        if made_by != str(self.programs.postgres_major):
            raise EmbeddedError(
                f"The data in {self.folder} was made by PostgreSQL {made_by}, but this is "
                f"{self.programs.postgres_major}. Dump and restore it, or remove the folder to start afresh."
            )

    def _forget_stale_lock_file(self) -> None:
        """After a reboot, or in a copied folder, the number in the lock file may be somebody else's by now; where
        nobody collects orphans, it is for ever that of a process which ended. PostgreSQL would refuse to start.
        """
        lock_file = self.folder / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            pid = int(lock_file.read_text().splitlines()[0])
            if is_alive(pid) and works_in(pid, self.folder) is not False:
                return  # it really runs; the start will fail and say so
            deadline = time.monotonic() + ORPHAN_SECONDS
            while any(works_in(each, self.folder) and is_alive(each) for each in all_process_ids()):
                if time.monotonic() > deadline:
                    return
                time.sleep(0.05)
            lock_file.unlink()

    def command(self) -> Sequence[str | Path]:
        command: list[str | Path] = [self.programs.postgres, "-D", self.folder]
        for name, value in self.settings().items():
            command += ["-c", f"{name}={value}"]
        return command

    def settings(self) -> dict[str, str]:
        """Two cores, many small commits, large tables that are only appended to."""
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",  # their paths have a limit of 107 bytes, and a checkout may lie deep
            "max_connections": "200",
            "shared_buffers": "256MB",
            "effective_cache_size": "2GB",
            "work_mem": "16MB",
            "maintenance_work_mem": "128MB",
            "random_page_cost": "1.1",
            "jit": "off",
            "max_parallel_workers_per_gather": "0",
            "synchronous_commit": "on",  # a 202 means durable
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "wal_buffers": "16MB",
            "wal_compression": "off",
            "max_wal_size": "4GB",
            "min_wal_size": "512MB",
            "checkpoint_timeout": "15min",
            "checkpoint_completion_target": "0.9",
            "autovacuum_naptime": "10s",
            "autovacuum_vacuum_scale_factor": "0.05",
            "autovacuum_vacuum_insert_scale_factor": "0.1",
            "autovacuum_analyze_scale_factor": "0.05",
            "autovacuum_vacuum_cost_limit": "2000",
            "log_min_messages": "warning",
            "log_checkpoints": "off",
            "log_line_prefix": "%m [%p] ",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self.is_durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "max_wal_size": "1GB"}
        return settings

    def is_answering(self) -> bool:
        try:
            # The superuser has connections kept for it, so a full server still counts as answering.
            with psycopg.connect(self.admin_url, connect_timeout=3) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise EmbeddedError(
                    f"The data in {self.folder} belongs to other passwords than those kept for it. "
                    "Restore the file with the secrets, or remove both to start afresh."
                ) from None
            return False

    def stop_signal(self, mode: StopMode) -> signal.Signals:
        return signal.SIGINT if mode == "fast" else signal.SIGQUIT

    def _ensure_role_and_database(self) -> None:
        role, database = sql.Identifier(self.role), sql.Identifier(self.database)
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [self.role]).fetchone() is None:
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(
                        role, sql.Literal(self.password)
                    )
                )
            if (
                connection.execute("SELECT FROM pg_database WHERE datname = %s", [self.database]).fetchone()
                is None
            ):
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))


class ValkeyServer(Server):
    """Keeps nothing on disk: the broker carries hints, the database is the record."""

    name = "Valkey"

    def __init__(
        self,
        *,
        folder: Path,
        programs: Programs,
        account: Account,
        password: str,
        port: int | None = None,
        is_bound: bool = False,
    ) -> None:
        super().__init__(
            folder=folder,
            programs=programs,
            account=account,
            port=port or free_port(),
            is_bound=is_bound,
        )
        self.password = password

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def start(self) -> None:
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            self.account.own(self.folder)
        super().start()

    def command(self) -> Sequence[str | Path]:
        return [self.programs.valkey, "-"]

    def standard_input(self) -> bytes:
        """The configuration comes this way because anybody can read the arguments of a process."""
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f"requirepass {self.password}",
            "databases 64",
            'save ""',
            "appendonly no",
            "daemonize no",
            "maxmemory 256mb",
            "maxmemory-policy noeviction",
            "loglevel warning",
        ]
        return "\n".join([*lines, ""]).encode()

    def is_answering(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=3) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as answers:
                    return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
        except OSError:
            return False

    def stop_signal(self, mode: StopMode) -> signal.Signals:  # noqa: ARG002 - nothing to save, so both are alike
        return signal.SIGTERM


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
