"""Everything that a scenario measures with, up and running: publishers, the platform, a receiver that counts.

Sending is held by pausing lanes, so that publishing and delivering can be timed apart. The clock of a delivery run
starts when the lanes are let go and stops when everything was received *and* recorded.
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from deliveries.bench.certificates import make_certificates
from deliveries.bench.children import NameServer, Receiver, run_publisher
from deliveries.bench.platform import WEB_APPLICATION, Platform
from deliveries.bench.publisher import Plan
from deliveries.bench.world import World, make_world
from deliveries.pipeline.database import Row, connect
from deliveries.pipeline.wake import nudge

STALL_SECONDS = 60.0
"""Nothing more received or recorded for so long: what is missing then is lost."""

# Lanes in key order, as every statement that locks several: dispatchers take and give back meanwhile.
PAUSE = """
WITH l AS MATERIALIZED (
    SELECT endpoint_id FROM deliveries_lane WHERE endpoint_id = ANY(%s) ORDER BY endpoint_id FOR NO KEY UPDATE
)
UPDATE deliveries_lane lane SET is_paused = %s FROM l WHERE lane.endpoint_id = l.endpoint_id
"""


class Lost(Exception):
    """Accepted, received and recorded differ, or a signature was wrong. The message has the numbers."""


@dataclass(slots=True)
class Delivered:
    deliveries: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.deliveries / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / self.deliveries * 1e6


@dataclass(slots=True)
class Counted:
    accepted: int
    received: int
    recorded: int


@dataclass(slots=True)
class Bench:
    """A receiver and the platform, running, and a connection to look into the database."""

    receiver: Receiver
    platform: Platform
    connection: psycopg.Connection[Row]
    folder: Path
    accepted: int = 0
    """Deliveries that publishers were promised."""

    def make_world(self, **details: Any) -> World:
        details.setdefault("base_url", lambda _: f"http://127.0.0.1:{self.receiver.port}")
        world = make_world(**details)
        self.receiver.keep_secrets(world.secrets)
        return world

    # --- publishing ---------------------------------------------------------------------------------------------------

    def plan(self, world: World, events: int, **details: Any) -> Plan:
        return Plan(port=self.platform.port, targets=world.targets, events=events, **details)

    def publish(self, plan: Plan) -> dict[str, Any]:
        if not plan.events:
            return {"accepted": 0, "events_per_second": 0.0}
        result = run_publisher(plan)
        if result["refused"] or result["unanswered"]:
            raise Lost(f"not everything was accepted: {result}")
        self.accepted += result["deliveries"]
        return result

    # --- holding and letting go ---------------------------------------------------------------------------------------

    def hold(self, world: World) -> None:
        self.connection.execute(PAUSE, [world.endpoints, True])

    def let_go(self, world: World) -> float:
        """Returns the time at which the lanes were free: the commit, not the update before it."""
        with self.connection.transaction():
            self.connection.execute(PAUSE, [world.endpoints, False])
            began = time.monotonic()
        nudge()
        return began

    def deliver(self, world: World) -> Delivered:
        """Let go, and wait until all that was accepted so far is received and recorded."""
        cpu = self.platform.dispatch_cpu_seconds()
        before = self.receiver.count()["distinct"]
        began = self.let_go(world)
        self.wait_for_all()
        return Delivered(
            deliveries=self.accepted - before,
            seconds=time.monotonic() - began,
            cpu_seconds=self.platform.dispatch_cpu_seconds() - cpu,
        )

    def wait_for_all(self) -> None:
        """Raises Lost when nothing moves any more."""
        seen = (-1, -1)
        since = time.monotonic()
        while True:
            received = self.receiver.count()["distinct"]
            pending = self.pending() if received >= self.accepted else -1
            if received >= self.accepted and pending == 0:
                return
            if (received, pending) != seen:
                seen, since = (received, pending), time.monotonic()
            elif time.monotonic() - since > STALL_SECONDS:
                raise Lost(self.shortfall())
            self.platform.check()
            time.sleep(0.02)

    def pending(self) -> int:
        """Through the partial index of what is owed: the fewer there are, the cheaper."""
        return self.number("SELECT count(*) FROM deliveries_delivery WHERE status = 'pending'")

    def recorded(self) -> int:
        """Deliveries that succeeded and have their attempt."""
        return self.number(
            "SELECT count(*) FROM deliveries_delivery d WHERE status = 'succeeded'"
            " AND EXISTS (SELECT FROM deliveries_attempt a WHERE a.delivery_id = d.id AND a.outcome = 'succeeded')"
        )

    def number(self, query: str, parameters: Sequence[object] = ()) -> int:
        row = self.connection.execute(query, parameters).fetchone()
        assert row is not None
        return int(row[0])

    def shortfall(self) -> str:
        outcomes = self.connection.execute(
            "SELECT status, last_outcome, count(*) FROM deliveries_delivery GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 8"
        ).fetchall()
        return f"accepted {self.accepted}, received {self.receiver.count()['distinct']}, recorded {self.recorded()}: {outcomes}"

    def check_counts(self, *, recorded_before: int = 0) -> Counted:
        """Accepted, received and recorded, which must be one number. Raises Lost."""
        report = self.receiver.report()
        counted = Counted(self.accepted, report["distinct"], self.recorded() - recorded_before)
        if not counted.accepted == counted.received == counted.recorded:
            raise Lost(self.shortfall())
        check_signatures(report)
        return counted

    def check_counts_of(self, world: World) -> None:
        """As `check_counts`, of one world alone, while others still have something to deliver."""
        accepted = self.number(OF_WORLD, [world.endpoints])
        received = self.receiver.count(world.name)["distinct"]
        deadline = time.monotonic() + STALL_SECONDS
        while self.number(f"{OF_WORLD} AND status = 'succeeded'", [world.endpoints]) < accepted:
            if time.monotonic() > deadline:
                raise Lost(f"of {world.name}: accepted {accepted}, received {received}: {self.shortfall()}")
            time.sleep(0.05)
        if accepted != received:
            raise Lost(f"of {world.name}: accepted {accepted}, received {received}")
        check_signatures(self.receiver.report())


OF_WORLD = "SELECT count(*) FROM deliveries_delivery WHERE endpoint_id = ANY(%s)"


def check_signatures(report: dict[str, Any]) -> None:
    if report["bad_signatures"] or (report["requests"] >= 100 and not report["verified"]):
        raise Lost(f"signatures: {report['verified']} verified, {report['bad_signatures']} wrong")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def running_bench(*, is_tls: bool = False, web: str = WEB_APPLICATION, **more: str) -> Iterator[Bench]:
    """Everything up, with the receiver's port alone let through the guard. `more`: environment of the platform."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="webhooks-bench-")))
        environment = os.environ | more
        names = stack.enter_context(NameServer())
        environment["WEBHOOKS_DNS_SERVERS"] = f"127.0.0.1:{names.port}"
        if is_tls:
            certificates = make_certificates(folder)
            environment["WEBHOOKS_CA_FILE"] = str(certificates.authority)
            receiver = stack.enter_context(Receiver(address="127.0.0.0/8", certificate=certificates.server))
            environment["WEBHOOKS_ALLOWED_NETWORKS"] = f"127.0.0.0/8@{receiver.port}"
        else:
            receiver = stack.enter_context(Receiver())
            environment["WEBHOOKS_ALLOWED_NETWORKS"] = f"127.0.0.1/32@{receiver.port}"
        platform = Platform(environment=environment, folder=folder, web=web)
        stack.callback(platform.stop)
        say("starting web server and workers …")
        platform.start()
        connection = connect(application_name="webhooks-bench", statement_timeout_seconds=0)
        stack.callback(connection.close)
        yield Bench(receiver=receiver, platform=platform, connection=connection, folder=folder)
