"""The receivers of examples/receivers/, run against the platform: verified, kept and answered, done once.

The one in Express needs Node.js and its two packages: from npm, or where that is missing Debian's.
"""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from django.conf import settings
from psycopg import sql
from standardwebhooks import Webhook

from tenants.ids import new_id
from webhooks_platform.demo.api import Api, post
from webhooks_platform.demo.place import Place
from webhooks_platform.embedded.servers import free_port

pytestmark = pytest.mark.timeout(300)

KIT = Path(__file__).parents[2] / "examples" / "receivers"
DEBIAN_MODULES = Path("/usr/share/nodejs")
PATIENCE_SECONDS = 60

CREATED: dict[str, Any] = {
    "product": "prod-88",
    "title": "Blue mug",
    "changed": ["price"],
    "updated_at": "2026-03-01T08:15:00Z",
}


class Receiver:
    """An endpoint of the platform's, and the program behind it."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.api = api
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/webhooks"
        api.send("PUT", "/endpoints/kit", {"url": self.url, "retry_schedule": [1, 1, 1, 1, 1, 1]})
        self.secret: str = api.send("GET", "/endpoints/kit/secret")["secret"]
        self.environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "WEBHOOK_SECRET": self.secret,
            "PORT": str(self.port),
            "INBOX": str(folder / "inbox.sqlite"),
        }
        self.programs: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self, name: str, *command: str, folder: Path) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.programs[name] = subprocess.Popen(
                command,
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> None:
        for program in self.programs.values():
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()
        self.programs.clear()

    def words(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def wait(self, what: str, found: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (answer := found()):
            assert time.monotonic() < deadline, f"{what} did not happen: {self.words()}"
            for name, program in self.programs.items():
                assert program.poll() is None, f"{name} ended: {self.words()}"
            time.sleep(0.05)
        return answer

    def wait_until_it_listens(self) -> None:
        def listens() -> bool:
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                client.request("GET", "/")
                return client.getresponse().status > 0
            except OSError:
                return False
            finally:
                client.close()

        self.wait("listening", listens)

    # --- what it is asked ---------------------------------------------------------------------------------------------

    def acts(self) -> int:
        return self.words().count("acting on product.updated")

    def publish(self, count: int) -> list[str]:
        return [
            self.api.publish(
                "product.updated", CREATED | {"product": f"prod-{number}"}, idempotency_key=f"{number}"
            )
            for number in range(count)
        ]

    def answers(self, event_id: str) -> list[int]:
        """Statuses that the platform got for an event."""
        (delivery,) = self.api.send("GET", f"/events/{event_id}/deliveries")["data"]
        attempts = self.api.send("GET", f"/deliveries/{delivery['id']}/attempts")["data"]
        return [each["status_code"] for each in sorted(attempts, key=lambda each: each["number"])]

    def send_again(self, event_id: str) -> None:
        (delivery,) = self.api.send("GET", f"/events/{event_id}/deliveries")["data"]
        self.api.send("POST", f"/deliveries/{delivery['id']}/retry")

    def signed(self, body: bytes, *, message_id: str, at: datetime) -> dict[str, str]:
        return {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(self.secret).sign(message_id, at, body.decode()),
        }


@pytest.fixture
def receiver(place: Place, tmp_path: Path) -> Iterator[Receiver]:
    api = place.make_tenant(f"kit-{new_id().hex[-8:]}")
    api.send("POST", "/packs/commerce/install")
    receiver = Receiver(api, tmp_path)
    yield receiver
    receiver.end()


def begin_fastapi(receiver: Receiver) -> None:
    uvicorn = (sys.executable, "-m", "uvicorn", "receiver:app", "--port", str(receiver.port))
    receiver.begin("web", *uvicorn, "--log-level", "warning", folder=KIT / "fastapi")


def begin_django(receiver: Receiver) -> None:
    manage = (sys.executable, "receiver.py")
    del receiver.environment["DJANGO_SETTINGS_MODULE"]
    subprocess.run(
        [*manage, "migrate", "--verbosity", "0"], cwd=KIT / "django", env=receiver.environment, check=True
    )
    web = (*manage, "runserver", "--noreload", str(receiver.port))
    receiver.begin("web", *web, folder=KIT / "django")


def begin_acting(receiver: Receiver) -> None:
    receiver.begin("act", sys.executable, "receiver.py", "act_on_webhooks", folder=KIT / "django")


# --- Express ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def express(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The example with its packages: where it is, and what its environment has in addition."""
    folder = tmp_path_factory.mktemp("express")
    for name in ("receiver.js", "package.json", "package-lock.json"):
        shutil.copy(KIT / "express" / name, folder)
    assert shutil.which("node"), "Node.js is needed: `.ci/run` installs it"
    said = "npm is not here"
    if shutil.which("npm"):
        install = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            done = subprocess.run(
                install, cwd=folder, capture_output=True, text=True, timeout=100, check=False
            )
        except subprocess.TimeoutExpired:
            said = "npm did not end"
        else:
            if done.returncode == 0:
                return folder, {}
            said = done.stderr
    debian = [DEBIAN_MODULES / "express", DEBIAN_MODULES / "pg"]
    assert all(module.is_dir() for module in debian), f"Express is needed: `.ci/run` installs it. {said}"
    return folder, {"NODE_PATH": str(DEBIAN_MODULES)}


@pytest.fixture
def own_database() -> Iterator[str]:
    """URL of an empty one on the servers of the tests."""
    name = f"kit_{new_id().hex[-8:]}"
    with psycopg.connect(settings.DATABASE_URL, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield urlsplit(settings.DATABASE_URL)._replace(path=f"/{name}").geturl()
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def begin_express(receiver: Receiver, express: tuple[Path, dict[str, str]], database: str) -> None:
    folder, environment = express
    receiver.environment |= environment | {"DATABASE_URL": database}
    receiver.begin("web", "node", "receiver.js", folder=folder)


# --- what all three must do -------------------------------------------------------------------------------------------


def check_once(receiver: Receiver) -> list[str]:
    """Each event is kept, answered 204 and acted on; what comes again is answered 200, and done no second time."""
    receiver.wait_until_it_listens()

    events = receiver.publish(3)
    receiver.wait("acting", lambda: receiver.acts() == 3)
    receiver.send_again(events[0])
    receiver.wait("a second answer", lambda: len(receiver.answers(events[0])) == 2)
    # Acting may have been quicker than answering.
    receiver.wait("answers", lambda: all(receiver.answers(event) for event in events))

    assert [receiver.answers(event) for event in events] == [[204, 200], [204], [204]]
    assert receiver.acts() == 3
    return events


def check_refusals(receiver: Receiver, *, reads: int = 0) -> None:
    """`reads`: of a body that is too large, before it is refused."""
    now = datetime.now(UTC)
    body = b'{"type": "product.updated", "timestamp": "2026-03-01T12:00:00Z", "data": {}}'
    good = receiver.signed(body, message_id="evt_1", at=now)
    old = receiver.signed(body, message_id="evt_1", at=now - timedelta(seconds=400))

    assert post(receiver.url, body + b" ", good) == 401
    assert post(receiver.url, body, good | {"webhook-id": "evt_2"}) == 401
    assert post(receiver.url, body, old) == 401
    assert post(receiver.url, body, {"content-type": "application/json"}) == 401
    assert post(receiver.url, body, good | {"webhook-signature": "v1,Zm9yZ2Vk"}) == 401
    assert post(receiver.url, body, good | {"webhook-signature": "v1,\xe9"}) == 401
    assert post(receiver.url, body, good | {"webhook-timestamp": "1" * 5000}) == 401
    assert announce(receiver, good, size=1_100_000, sent=reads) in {400, 413}
    assert receiver.acts() == 3


def announce(receiver: Receiver, headers: dict[str, str], *, size: int, sent: int) -> int:
    """The status of a body of which no more is sent than is read: with what is left over, an answer may be lost."""
    client = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=10)
    with closing(client):
        client.putrequest("POST", "/webhooks")
        for name, value in (headers | {"content-length": str(size)}).items():
            client.putheader(name, value)
        client.endheaders()
        client.send(b"x" * sent)
        return client.getresponse().status


def check_restart(receiver: Receiver, events: list[str]) -> None:
    """What was done stays done, as the inbox is kept."""
    receiver.wait_until_it_listens()

    receiver.send_again(events[1])
    receiver.wait("an answer after the restart", lambda: len(receiver.answers(events[1])) == 2)

    assert receiver.answers(events[1]) == [204, 200]
    assert receiver.acts() == 3


def test_fastapi(receiver: Receiver) -> None:
    begin_fastapi(receiver)

    events = check_once(receiver)
    check_refusals(receiver, reads=1_000_001)
    receiver.end()
    begin_fastapi(receiver)
    check_restart(receiver, events)


def test_django(receiver: Receiver) -> None:
    begin_django(receiver)
    begin_acting(receiver)

    check_once(receiver)
    check_refusals(receiver)


def test_django_answers_before_it_acts(receiver: Receiver) -> None:
    """With nobody there to act, the platform has its answers all the same."""
    begin_django(receiver)
    receiver.wait_until_it_listens()

    events = receiver.publish(2)
    receiver.wait("answers", lambda: [receiver.answers(event) for event in events] == [[204], [204]])
    assert receiver.acts() == 0

    begin_acting(receiver)
    receiver.wait("acting", lambda: receiver.acts() == 2)


def test_express(receiver: Receiver, express: tuple[Path, dict[str, str]], own_database: str) -> None:
    begin_express(receiver, express, own_database)

    events = check_once(receiver)
    check_refusals(receiver, reads=1_100_000)
    receiver.end()
    begin_express(receiver, express, own_database)
    check_restart(receiver, events)
