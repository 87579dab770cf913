"""The platform in processes of its own, as `serve` runs it, on the database of a measurement."""

import http.client
import sys
import time
from pathlib import Path

from django.conf import settings

from deliveries.bench.children import Service, cpu_seconds, memory_mb

WEB_APPLICATION = "webhooks_platform.wsgi:application"

WEB_WORKERS = 2

READY_SECONDS = 90

GRACE_SECONDS = 5.0
"""The database goes with them, so nobody waits for what endpoints that hang would have answered."""


class NotReady(Exception):
    """A part of the platform did not come up in time."""


class Platform:
    """Web server, dispatch worker, worker for everything else, and the schedule."""

    def __init__(
        self,
        *,
        environment: dict[str, str],
        folder: Path,
        is_small: bool = False,
        web: str = WEB_APPLICATION,
    ) -> None:
        """`is_small`: as few processes as can do it all, where it matters how soon it is there and not how fast."""
        self.is_small = is_small
        self.web = web
        self.environment = environment
        self.folder = folder
        self.port = int(environment["WEBHOOKS_WEB_PORT"])
        self.services: dict[str, Service] = {}

    def start(self) -> None:
        """All of it at once; returns when the web server answers and the dispatch worker is ready."""
        self._start("web", self._granian())
        celery = [sys.executable, "-m", "celery", "--quiet", "-A", "webhooks_platform"]
        worker = [*celery, "worker", "--prefetch-multiplier", "1", "--without-gossip", "--without-mingle"]
        worker += ["--without-heartbeat", "--loglevel", "info"]
        # One process more than dispatchers: it answers the nudges that come while the others are busy for minutes.
        processes = str(settings.WEBHOOKS_DISPATCHERS + 1)
        if self.is_small:
            processes = str(settings.WEBHOOKS_DISPATCHERS + 2)
            everything = ["-Q", "dispatch,celery", "-n", "worker@bench", "-c", processes, "--beat"]
            schedule = ["--schedule", str(self.folder / "beat")]
            self._start("dispatch", [*worker, *everything, *schedule])
        else:
            self._start("dispatch", [*worker, "-Q", "dispatch", "-n", "dispatch@bench", "-c", processes])
            self._start("worker", [*worker, "-Q", "celery", "-n", "worker@bench", "-c", "1"])
            self._start("beat", [*celery, "beat", "--loglevel", "warning", "--pidfile="])
        self._wait_for_web()
        self._wait_for_dispatch()

    def _start(self, name: str, command: list[str]) -> None:
        self.services[name] = Service(command, environment=self.environment, log=self.folder / f"{name}.log")

    def _granian(self) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "granian",
            self.web,
            "--interface",
            "wsgi",
        ]
        workers = "1" if self.is_small else str(WEB_WORKERS)
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", workers, "--no-ws"]
        command += ["--blocking-threads", str(settings.WEBHOOKS_DATABASE_POOL), "--log-level", "error"]
        return [*command, "--workers-kill-timeout", "10"]

    def _wait_for_web(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.check()
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request("GET", "/api/v1/whoami")
                if connection.getresponse().status == 401:
                    return
            except OSError:
                pass
            finally:
                connection.close()
            time.sleep(0.05)
        raise NotReady(f"The web server did not answer:\n{self.services['web'].last_words()}")

    def _wait_for_dispatch(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.check()
            if b" ready." in self.services["dispatch"].log.read_bytes():
                return
            time.sleep(0.05)
        raise NotReady(f"The dispatch worker did not start:\n{self.services['dispatch'].last_words()}")

    def check(self) -> None:
        """Raises ChildDied if a part is gone."""
        for service in self.services.values():
            service.check()

    def dispatch_cpu_seconds(self) -> float:
        return cpu_seconds(self.services["dispatch"].family())

    def dispatch_memory_mb(self, *, peak: bool) -> float:
        return memory_mb(self.services["dispatch"].family(), peak=peak)

    def stop(self) -> None:
        for service in self.services.values():
            service.process.terminate()
        for service in self.services.values():
            service.stop(grace_seconds=GRACE_SECONDS)
        self.services.clear()
