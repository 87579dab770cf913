"""The platform as it runs in production, for tests that break it: real processes on servers of the tests' own.

`OwnServers` are a PostgreSQL and a Valkey that nobody else uses. A `Place` is a migrated database on them, with web
server, workers and a counting receiver; Django of the test's own process looks at that database as long as it lasts.
"""

import contextlib
import http.client
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
from django.core.management import call_command
from django.db import connection, connections
from psycopg import sql

from deliveries.bench.children import ROOT, Service, memory_mb, run_publisher
from deliveries.bench.publisher import Plan
from deliveries.bench.world import World, make_world
from tenants import ids
from tests.support.receiver import CountingReceiver
from webhooks_platform.celery import app
from webhooks_platform.embedded import Servers, temporary_servers
from webhooks_platform.embedded.servers import free_port

READY_SECONDS = 90

TEMPLATE = "faults_template"

STEP_VARIABLE = "WEBHOOKS_FAULT_AT"
"""Named in the environment of a process whose hook (`tests/faults/at_step.py`) is to stop at that step."""

FOLDER_VARIABLE = "WEBHOOKS_FAULT_FOLDER"


class OwnServers:
    """Started once for the faults that one process of the test run tries; each of them may do what it likes to them."""

    def __init__(self) -> None:
        self.servers: Servers = temporary_servers()
        self.postgres = self.servers.postgres
        self.valkey = self.servers.valkey
        self.copies = 0
        self.has_template = False

    def database(self) -> str:
        """URL of a fresh migrated database."""
        if not self.has_template:
            self._make_template()
            self.has_template = True
        self.copies += 1
        name = f"faults_{self.copies}"
        with self._connected() as own:
            own.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(TEMPLATE)
                )
            )
        return self.url_of(name)

    def _make_template(self) -> None:
        with self._connected() as own:
            own.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        with django_on(self.url_of(TEMPLATE)):
            call_command("migrate", interactive=False, verbosity=0)

    def drop(self, url: str) -> None:
        name = urlsplit(url).path.lstrip("/")
        # The superuser, as a vacuum worker may be in it, which nobody else may end.
        with psycopg.connect(self.postgres.admin_url, autocommit=True) as own:
            own.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def url_of(self, name: str) -> str:
        return urlsplit(self.postgres.url)._replace(path=f"/{name}").geturl()

    def _connected(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.postgres.url, autocommit=True)

    def recover(self) -> None:
        """Both run again, whatever the last test did to them; the broker is empty."""
        for server in (self.postgres, self.valkey):
            server.resume()
            if not server.is_running():
                server.start()
        self.valkey.restart()

    def stop(self) -> None:
        self.servers.stop("immediate")


@contextlib.contextmanager
def django_on(url: str) -> Iterator[None]:
    """Django of this process looks at that database. The caller has unblocked it."""
    parts = urlsplit(url)
    facts = {
        "NAME": parts.path.lstrip("/"),
        "USER": parts.username,
        "PASSWORD": parts.password,
        "HOST": parts.hostname,
        "PORT": str(parts.port),
    }
    settings = connection.settings_dict
    before = {name: settings[name] for name in facts}
    _let_go()
    settings.update(facts)
    try:
        yield
    finally:
        _let_go()
        settings.update(before)


def _let_go() -> None:
    connections.close_all()
    close_pool = getattr(connection, "close_pool", None)
    if close_pool is not None:
        close_pool()


def any_open(pid: int) -> bool:
    """Whether it still has a file open; one that ended and waits to be collected has none."""
    try:
        return any(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


class Place:
    """One test's platform. Nothing of it is left when the `with` ends, however it ends."""

    def __init__(self, servers: OwnServers, folder: Path, *, number: int = 0) -> None:
        """`number`: of the broker's database. Those above 0 stand beside another place on the same servers."""
        self.servers = servers
        self.folder = folder
        self.number = number
        self.port = free_port()
        self.code = ROOT
        """The checkout that processes are started from; those that run stay what they are."""
        self.services: dict[str, Service] = {}
        self._stack = contextlib.ExitStack()
        self.accepted = 0
        self.worlds: list[World] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            if self.number == 0:
                self.servers.recover()
            self.database_url = self.servers.database()
            stack.callback(self.servers.drop, self.database_url)
            if self.number == 0:
                stack.callback(self.servers.recover)
            stack.enter_context(django_on(self.database_url))
            self.receiver = stack.enter_context(CountingReceiver(verify_every=100))
            stack.callback(self._stop_services)
            self.allow_repair(is_allowed=False)
            self._stack = stack.pop_all()
        self.environment = os.environ | {
            "DATABASE_URL": self.database_url,
            "CELERY_BROKER_URL": urlsplit(self.servers.valkey.url)._replace(path=f"/{self.number}").geturl(),
            "WEBHOOKS_WEB_PORT": str(self.port),
            FOLDER_VARIABLE: str(self.folder),
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _stop_services(self) -> None:
        for name in list(self.services):
            self.stop(name)

    # --- its processes ------------------------------------------------------------------------------------------------

    def start(self, *, processes: int = 1, **environment: str) -> None:
        """All of it; returns when it is ready. The environment is that of the two workers."""
        self.begin_web()
        self.begin_sweeps(**environment)
        self.begin_dispatch(processes=processes, **environment)
        self.wait_until_ready()

    def begin_web(self, *, name: str = "web", at_step: str | None = None) -> None:
        module = "webhooks_platform.wsgi" if at_step is None else "tests.faults.wsgi_at_step"
        command = [sys.executable, "-m", "granian", f"{module}:application", "--interface", "wsgi"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", "--no-ws"]
        command += ["--blocking-threads", "8", "--respawn-failed-workers", "--log-level", "error"]
        self._begin(name, command, **({} if at_step is None else {STEP_VARIABLE: at_step}))

    def begin_dispatch(
        self, *, name: str = "dispatch", processes: int = 1, at_step: str | None = None, **environment: str
    ) -> None:
        command = self._worker("dispatch", name, processes)
        if at_step is not None:
            command += ["--include", "tests.faults.at_step"]
            environment[STEP_VARIABLE] = at_step
        self._begin(name, command, **environment)

    def begin_sweeps(self, *, name: str = "sweeps", **environment: str) -> None:
        """The worker for everything but dispatchers, with the schedule inside."""
        self._begin(name, [*self._worker("celery", name, 1), "--beat"], **environment)

    def _worker(self, queue: str, name: str, processes: int) -> list[str]:
        command = [sys.executable, "-m", "celery", "--quiet", "-A", "webhooks_platform", "worker"]
        command += [
            "--loglevel",
            "info",
            "--prefetch-multiplier",
            "1",
            "--without-gossip",
            "--without-mingle",
        ]
        return [*command, "--without-heartbeat", "-Q", queue, "-n", f"{name}@faults", "-c", str(processes)]

    def _begin(self, name: str, command: list[str], **environment: str) -> None:
        if name in self.services:
            self.stop(name)
        log = self.folder / f"{name}.log"
        if log.exists():
            log.rename(log.with_suffix(f".{time.monotonic_ns()}.log"))
        environment = self.environment | {"PYTHONPATH": str(self.code)} | environment
        self.services[name] = Service(command, environment=environment, log=log, folder=self.code)

    def wait_until_ready(self, *names: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        for name in names or self.services:
            while not self._is_ready(name):
                self.services[name].check()
                if time.monotonic() > deadline:
                    raise AssertionError(f"{name} is not ready: {self.words(name)}")
                time.sleep(0.05)

    def _is_ready(self, name: str) -> bool:
        if not name.startswith("web"):
            return " ready." in self.words(name)
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            client.request("GET", "/health/live")
            return client.getresponse().status == 200
        except OSError:
            return False
        finally:
            client.close()

    def words(self, name: str) -> str:
        """What it said so far."""
        return self.services[name].log.read_text(errors="replace")

    def wait_for_words(self, name: str, words: str, *, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.words(name):
            assert time.monotonic() < deadline, self.words(name)
            time.sleep(0.1)

    def stop(self, name: str) -> None:
        """At once, with all of its processes, stopped ones too. Nothing of it needs to drain."""
        process = self.services.pop(name).process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def pid(self, name: str) -> int:
        return self.services[name].process.pid

    def signal_group(self, name: str, number: signal.Signals) -> None:
        os.killpg(self.pid(name), number)

    def wait_until_ended(self, name: str, *, seconds: float) -> float:
        """How long it took."""
        began = time.monotonic()
        self.services[name].process.wait(seconds)
        return time.monotonic() - began

    def memory_mb(self, name: str) -> float:
        """The most that any process of it ever had."""
        return memory_mb(self.services[name].family(), peak=True)

    def wait_for_step(self) -> int:
        """After `arm`: until a process stands at its step. Returns its id."""
        deadline = time.monotonic() + READY_SECONDS
        while not (said := self.folder / "reached").exists() or not said.read_text():
            if time.monotonic() > deadline:
                raise AssertionError("no process came to the step")
            time.sleep(0.005)
        return int(said.read_text())

    def arm(self) -> None:
        """From now on the hook in `tests/faults/at_step.py` acts, once."""
        (self.folder / "armed").touch()

    def let_die(self, pid: int) -> None:
        """The process that stands at its step."""
        (self.folder / "go").touch()
        self.wait_until_gone(pid, seconds=10)

    def wait_until_gone(self, pid: int, *, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any_open(pid):
            assert time.monotonic() < deadline, f"{pid} lives"
            time.sleep(0.02)

    def nudge(self) -> None:
        """As the platform does it: one message, for one dispatcher if not enough are alive."""
        with app.connection_for_write(self.environment["CELERY_BROKER_URL"]) as broker:
            app.send_task("deliveries.dispatch", queue="dispatch", connection=broker)

    # --- its world ----------------------------------------------------------------------------------------------------

    def make_world(
        self,
        name: str,
        endpoints: int,
        *,
        base_url: Callable[[int], str] | None = None,
        **details: Any,
    ) -> World:
        """Endpoints `/<name>/<number>`, of our receiver unless told otherwise."""
        with django_on(self.database_url):
            world = make_world(
                name=name,
                endpoints=endpoints,
                base_url=base_url or (lambda _: self.receiver.url("")),
                **details,
            )
        self.receiver.keep_secrets(world.secrets)
        self.worlds.append(world)
        return world

    def publish(self, world: World, events: int, *, payload: int = 256) -> None:
        """So many to its endpoints in turn, through the web server. All of them are accepted."""
        batch = min(100, events)
        plan = Plan(
            port=self.port,
            targets=world.targets,
            events=events,
            payload=payload,
            batch=batch,
            connections=2,
        )
        result = run_publisher(plan)
        assert result["accepted"] == events, result
        self.accepted += events

    def deliveries_per_second(self, world: World, *, events: int = 3_000) -> float:
        """How fast its endpoints get what waits for them."""
        self.receiver.forget()
        self.publish(world, events)
        report = self.receiver.wait_for(events, seconds=60)
        assert report["requests"] == events
        return float(events / (report["last_at"] - report["first_at"]))

    @contextlib.contextmanager
    def beside(self) -> Iterator["Place"]:
        """Another one on the same servers, to compare with."""
        folder = self.folder / "beside"
        folder.mkdir()
        with Place(self.servers, folder, number=self.number + 1) as other:
            yield other

    def allow_repair(self, *, is_allowed: bool) -> None:
        """The sweep of each 30 s, which would hide what other ways of recovery miss."""
        ((count,),) = self.query(
            "WITH changed AS (UPDATE django_celery_beat_periodictask SET enabled = %s"
            " WHERE task = 'deliveries.repair' RETURNING 1) SELECT count(*) FROM changed",
            is_allowed,
        )
        self.query("UPDATE django_celery_beat_periodictasks SET last_update = now() RETURNING 1")
        assert count == 1

    # --- what became of it --------------------------------------------------------------------------------------------

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url, autocommit=True) as own:
            return own.execute(statement, parameters).fetchall()

    def count(self, statement: str, *parameters: Any) -> int:
        ((number,),) = self.query(statement, *parameters)
        return int(number)

    def attempts(self) -> int:
        return self.count("SELECT count(*) FROM deliveries_attempt")

    def succeeded(self, world: World) -> int:
        """What the database has as delivered to it."""
        return self.count(
            "SELECT count(*) FROM deliveries_delivery WHERE status = 'succeeded' AND tenant_id = ANY(%s)",
            world.tenants,
        )

    def pending(self) -> int:
        return self.count("SELECT count(*) FROM deliveries_delivery WHERE status = 'pending'")

    def dispatcher_pids(self) -> list[int]:
        """Processes that run a dispatcher now, as far as the database knows."""
        rows = self.query("SELECT process FROM deliveries_dispatcher WHERE alive_until > now() ORDER BY id")
        return [int(process.rpartition(":")[2]) for (process,) in rows]

    def dispatcher_pid(self) -> int:
        (pid,) = self.dispatcher_pids()
        return pid

    def wait_for(self, statement: str, *parameters: Any, seconds: float = 30) -> None:
        """Until it counts none."""
        deadline = time.monotonic() + seconds
        while left := self.count(statement, *parameters):
            assert time.monotonic() < deadline, f"still {left}: {statement}"
            time.sleep(0.2)

    def settled_requests(self) -> int:
        """What the receiver got, once nothing comes any more from processes that are gone."""
        before = -1
        while (requests := self.receiver.count()["requests"]) != before:
            before = requests
            time.sleep(0.25)
        return requests

    def wait_until_delivered(self, *, seconds: float, tenants: Sequence[UUID] | None = None) -> float:
        """Until nothing is pending; returns how long it took."""
        began = time.monotonic()
        statement = "SELECT count(*) FROM deliveries_delivery WHERE status = 'pending'"
        if tenants is not None:
            statement += " AND tenant_id = ANY(%s)"
        while left := self.count(statement, *([] if tenants is None else [list(tenants)])):
            if time.monotonic() - began > seconds:
                raise AssertionError(f"{left} still pending after {seconds} s; {self.receiver.report()}")
            time.sleep(0.2)
        return time.monotonic() - began

    def delivered_ids(self, world: World) -> set[str]:
        """Events that the receiver answered with a success, whichever of the world's endpoints they went to."""
        return {event for path in world.secrets for event in self.receiver.ids(path)}

    def assert_nothing_lost(self, *worlds: World) -> None:
        """Every event that the database has went to the endpoint that it was for, and all is written down."""
        for world in worlds or self.worlds:
            rows = self.query(
                "SELECT e.url, array_agg(d.event_id), bool_and(d.status = 'succeeded') FROM deliveries_delivery d"
                " JOIN deliveries_endpoint e ON e.id = d.endpoint_id WHERE e.id = ANY(%s) GROUP BY e.url",
                world.endpoints,
            )
            for url, events, is_done in rows:
                expected = sorted(ids.to_text(ids.EVENT, event) for event in events)
                assert self.receiver.ids(urlsplit(url).path) == expected, url
                assert is_done, url
        report = self.receiver.report()
        assert report["bad_signatures"] == 0
        assert report["verified"] > 0
