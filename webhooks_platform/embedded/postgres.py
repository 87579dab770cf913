"""A PostgreSQL of our own: its folder, its settings, its role and database."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from webhooks_platform.embedded.programs import Account, EmbeddedError, Programs
from webhooks_platform.embedded.servers import (
    HOST,
    Server,
    StopMode,
    all_process_ids,
    is_alive,
    works_in,
)

ORPHAN_SECONDS = 10
"""How long the children of a killed PostgreSQL may take to notice and end. While one lives, its lock file stays: two
servers on the same data would destroy it."""


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
            port=port,
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
