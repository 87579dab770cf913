"""A place of its own for each measurement: database and broker beside the configured ones, cleared up afterwards.

So the bench works while `serve` runs, measures the same servers, and neither sees the other's lanes, keys or messages.
"""

import base64
import contextlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import redis
from django.conf import settings
from psycopg import sql

from deliveries.pipeline.database import Row, connect

PREFIX = "webhooks_bench_"

BROKER_DATABASES = range(15, 0, -1)
"""Of a Redis: 0 is what everybody uses, so we look from the other end."""

BROKER_MARK = "webhooks-bench"
BROKER_MARK_SECONDS = 24 * 3600
"""After a killed bench, its numbered database of the broker is free again."""


class StageUnavailable(Exception):
    """The bench cannot be set up here. The message says what to change."""


class Stage:
    """The migrated database of a run, and copies of it for the single measurements."""

    def __init__(self, connection: psycopg.Connection[Row], name: str, broker_url: str) -> None:
        self.connection = connection
        self.name = name
        self.broker_url = broker_url
        self.copies = 0

    def environment(self, database: str) -> dict[str, str]:
        """For all processes of a measurement. Keys of its own: nothing made here can be read elsewhere."""
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        url = urlsplit(settings.DATABASE_URL)._replace(path=f"/{database}").geturl()
        return os.environ | {
            "DATABASE_URL": url,
            "CELERY_BROKER_URL": self.broker_url,
            "SECRET_KEY": secrets.token_urlsafe(50),
            "WEBHOOKS_ENCRYPTION_KEYS": f"bench:{key}",
            "DEBUG": "false",
            "ALLOWED_HOSTS": "127.0.0.1",
            "WEBHOOKS_WEB_PORT": str(free_port()),
            "WEBHOOKS_API_RATE_LIMIT": "0",
            "DJANGO_SETTINGS_MODULE": "webhooks_platform.settings",
        }

    def migrate(self) -> None:
        """Copies of it then need no migrating. Raises StageUnavailable."""
        run_in(
            [str(settings.BASE_DIR / "manage.py"), "migrate", "--verbosity", "0"], self.environment(self.name)
        )

    @contextlib.contextmanager
    def copy(self) -> Iterator[str]:
        """The name of a fresh database."""
        self.copies += 1
        name = f"{self.name}_{self.copies}"
        self.connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(self.name))
        )
        try:
            yield name
        finally:
            drop(self.connection, name)


def run_in(command: list[str], environment: dict[str, str]) -> str:
    """What a Python program of ours prints that prepares a stage. Raises StageUnavailable."""
    result = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, *command],
        env=environment,
        cwd=settings.BASE_DIR,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode != 0:
        raise StageUnavailable(f"The database could not be prepared:\n{result.stdout[-2000:]}")
    return result.stdout


@contextlib.contextmanager
def own_stage() -> Iterator[Stage]:
    """An empty database, not migrated yet. Raises StageUnavailable."""
    try:
        connection = connect(application_name="webhooks-bench", statement_timeout_seconds=600)
    except psycopg.OperationalError as error:
        raise StageUnavailable(f"The database does not answer: {error}") from None
    with connection, _own_broker() as broker_url:
        drop_left_overs(connection)
        name = f"{PREFIX}{secrets.token_hex(4)}"
        # As long as this connection lives, others can tell that we are at work. Not by a lock: those of another database
        # of the server would not see it.
        connection.execute("SELECT set_config('application_name', %s, false)", [name])
        try:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege:
            role = sql.Identifier(connection.info.user).as_string(connection)
            raise StageUnavailable(
                "This needs a database of its own, and this role may not create one. "
                f"As a superuser, run: ALTER ROLE {role} CREATEDB"
            ) from None
        try:
            yield Stage(connection, name, broker_url)
        finally:
            drop(connection, name)


def drop(connection: psycopg.Connection[Row], name: str, *, tries: int = 4) -> None:
    """Not WITH (FORCE): it is refused while an autovacuum works there, which a plain DROP sends away.

    A plain one waits for others for five seconds, and those that were ended may come back once.
    """
    for remaining in range(tries, 0, -1):
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = %s AND usename = current_user",
            [name],
        )
        try:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
        except psycopg.errors.ObjectInUse:
            if remaining == 1:
                raise
        else:
            return


def drop_left_overs(connection: psycopg.Connection[Row]) -> None:
    """Databases of runs that were killed: nobody has the name of the run any more."""
    rows = connection.execute(
        "SELECT d.datname FROM pg_database d WHERE d.datname LIKE %(like)s AND NOT EXISTS ("
        "    SELECT FROM pg_stat_activity a"
        "    WHERE a.application_name LIKE %(like)s AND starts_with(d.datname, a.application_name))",
        {"like": f"{PREFIX}%"},
    ).fetchall()
    for (name,) in rows:
        drop(connection, name)


@contextlib.contextmanager
def _own_broker() -> Iterator[str]:
    """An unused numbered database of the configured broker, emptied afterwards."""
    for number in BROKER_DATABASES:
        url = urlsplit(settings.CELERY_BROKER_URL)._replace(path=f"/{number}").geturl()
        client = redis.Redis.from_url(url, socket_timeout=5)
        try:
            is_ours = client.dbsize() == 0 and client.set(
                BROKER_MARK, os.getpid(), nx=True, ex=BROKER_MARK_SECONDS
            )
        except redis.ResponseError:
            client.close()
            continue  # it has fewer databases
        except redis.RedisError as error:
            raise StageUnavailable(f"The broker does not answer: {error}") from None
        if is_ours:
            try:
                yield url
            finally:
                with contextlib.suppress(redis.RedisError):
                    client.flushdb()
                client.close()
            return
        client.close()
    raise StageUnavailable("The broker has no unused database. This needs one of the numbers 1 to 15.")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
