"""Requests to a source, a fifth of them twice, while the web worker is killed: nothing lost, no event twice."""

import contextlib
import http.client
import itertools
import os
import random
import signal
import threading
import time
from collections import Counter

import pytest
from django.db import connection

from deliveries.services import sources
from tenants.models import EventType, Tenant
from tenants.services.audit import COMMAND
from tests.faults.size import INCOMING, tell
from tests.support.platform import Place

REQUESTS = INCOMING
KILLS = 2
SENDERS = 16
GIVE_UP_SECONDS = 60


class Sender:
    """As providers do: the same again until it is answered with success."""

    def __init__(self, port: int, path: str, ids: list[str]) -> None:
        self.port = port
        self.path = path
        self.waiting = itertools.count()
        self.ids = ids
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []

    def run(self) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(client):
            while (position := next(self.waiting)) < len(self.ids):
                self.send(client, self.ids[position])

    def send(self, client: http.client.HTTPConnection, name: str) -> None:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            began = time.monotonic()
            try:
                client.request(
                    "POST",
                    self.path,
                    b'{"id": "%b"}' % name.encode(),
                    {"Content-Type": "application/json", "X-Id": name},
                )
                answer = client.getresponse()
                answer.read()
                self.statuses[str(answer.status)] += 1
                if answer.status == 200:
                    self.seconds.append(time.monotonic() - began)
                    return
            except (OSError, http.client.HTTPException):
                client.close()
                self.statuses["broken"] += 1
            time.sleep(0.1)
        raise AssertionError(f"{name} was never taken: {self.statuses}")


@pytest.mark.timeout(1200)
def test_killed_web_workers_lose_no_request_and_make_no_event_twice(place: Place) -> None:
    place.begin_web()
    place.wait_until_ready()
    tenant = Tenant.objects.create(slug="in", name="in")
    EventType.objects.create(tenant=tenant, name="order.created")
    source, token = sources.create_source(
        actor=COMMAND, tenant=tenant, name="in", event_type='"order.created"', dedup_header="x-id"
    )
    distinct = REQUESTS * 4 // 5
    names = [f"r{number}" for number in range(distinct)]
    dice = random.Random(1)
    names += dice.sample(names, REQUESTS - distinct)
    dice.shuffle(names)
    sender = Sender(place.port, f"/in/{token}", names)
    threads = [threading.Thread(target=sender.run) for _ in range(SENDERS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()

    for kill in range(KILLS):
        while len(sender.seconds) < REQUESTS * (kill + 1) // (KILLS + 2):
            time.sleep(0.01)
        workers = [pid for pid in place.services["web"].family() if pid != place.pid("web")]
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
    # The web server starts its worker again, but ends itself where it dies again within seconds. What supervises it then
    # starts it again.
    while any(thread.is_alive() for thread in threads):
        if place.services["web"].process.poll() is not None:
            place.begin_web()
        time.sleep(0.1)
    took = time.monotonic() - began

    with connection.cursor() as cursor:
        cursor.execute("SELECT convert_from(data, 'UTF8')::json ->> 'id' FROM deliveries_event")
        events = Counter(row[0] for row in cursor.fetchall())
        cursor.execute(
            "SELECT verdict, count(*) FROM deliveries_incomingrequest WHERE source_id = %s GROUP BY 1",
            [source.id],
        )
        kept = dict(cursor.fetchall())
    ordered = sorted(sender.seconds)
    print(
        f"{REQUESTS} requests in {took:.1f} s ({REQUESTS / took:.0f}/s), {dict(sender.statuses)}, kept {kept}, "
        f"p50 {ordered[len(ordered) // 2] * 1000:.1f} ms, p99 {ordered[len(ordered) * 99 // 100] * 1000:.1f} ms"
    )
    tell(
        f"`kill -9` of the web workers, {KILLS} times, while requests come to a source",
        accepted=distinct,
        in_air=None,
        repeated=sum(events.values()) - len(events),
        lost=distinct - len(events),
        after=f"a fifth was sent twice; {sender.statuses['broken']} requests broken off and sent again",
    )
    assert sender.statuses["broken"] > 0
    assert set(events) == set(names)
    assert set(events.values()) == {1}
    # Each event's request is there: both were written in one transaction.
    assert kept["accepted"] == distinct
    assert kept["duplicate"] >= REQUESTS - distinct - sender.statuses["broken"]
