"""`listen`: what happens at the platform is forwarded to a local port, signed, and nothing is lost while it is away."""

import ast
import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from deliveries import listen
from deliveries.models import Endpoint
from deliveries.services import endpoint_changes, secrets
from tenants.models import EventType, Tenant
from tenants.services.audit import COMMAND
from tests.support.api import make_key, make_tenant
from tests.support.builders import deliveries_of, publish
from tests.support.live import live_platform
from tests.support.running import Reply, Webhooks, until
from webhooks_platform.embedded.servers import free_port

pytestmark = pytest.mark.usefixtures("quiet_lanes")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def platform(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    with django_db_blocker.unblock(), live_platform() as url:
        yield url


def new_tenant() -> tuple[Tenant, str]:
    tenant = make_tenant()
    for name in ("order.created", "invoice.paid"):
        EventType.objects.create(tenant=tenant, name=name)
    return tenant, make_key(tenant, "endpoints:write", "events:read")


@contextmanager
def listening(platform: str, key: str, forward: str, **more: Any) -> Iterator[list[str]]:
    """Its lines. It is stopped at the end."""
    lines: list[str] = []
    stop = threading.Event()
    options = {
        "api": platform, "key": key, "forward": forward, "types": "*", "tenant": "", "name": "listen",
        "forget": False,
    } | more  # fmt: skip
    thread = threading.Thread(target=listen.run, args=(options,), kwargs={"say": lines.append, "stop": stop})
    thread.start()
    try:
        until(lambda: any(line.startswith("Signing secret") for line in lines))
        yield lines
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def ids_at(webhooks: Webhooks, path: str = "/hook") -> list[str]:
    return [request.id for request in webhooks.to(path)]


def test_each_event_is_forwarded_signed_and_gets_a_line(platform: str) -> None:
    tenant, key = new_tenant()
    with (
        Webhooks(secret=None) as webhooks,
        listening(platform, key, webhooks.url("/hook"), types="order.*") as lines,
    ):
        publish(tenant, b'{"n": 1}')
        publish(tenant, b'{"n": 2}', type="invoice.paid")
        publish(tenant, b'{"n": 3}')
        webhooks.wait_for(2, "/hook")

        secret = lines[1].removeprefix("Signing secret: ")
        events = [Webhook(secret).verify(request.body, request.headers) for request in webhooks.to("/hook")]
        until(lambda: len(lines) == 4)

    assert [event["data"] for event in events] == [{"n": 1}, {"n": 3}]
    assert [line.split()[1:4] for line in lines[2:]] == [
        ["order.created", identifier, "200"] for identifier in ids_at(webhooks)
    ]
    assert [each.status for each in deliveries_of(tenant)] == ["succeeded", "succeeded"]
    endpoint: Endpoint = Endpoint.objects.for_tenant(tenant).get()
    assert secrets.read_secret(actor=COMMAND, endpoint=endpoint).secret == secret


def test_what_happens_while_it_is_away_waits_for_it(platform: str) -> None:
    tenant, key = new_tenant()
    with Webhooks(secret=None) as webhooks:
        with listening(platform, key, webhooks.url("/hook")):
            publish(tenant, b'{"n": 0}')
            webhooks.wait_for(1, "/hook")
        for n in range(1, 60):
            publish(tenant, b'{"n": %d}' % n)
        with listening(platform, key, webhooks.url("/hook")):
            webhooks.wait_for(60, "/hook")

    assert len(set(ids_at(webhooks))) == len(ids_at(webhooks)) == 60
    assert len(endpoint_changes.endpoints_of(tenant)) == 1


def test_it_waits_for_the_local_port_and_passes_over_what_that_refuses(platform: str) -> None:
    tenant, key = new_tenant()
    with Webhooks() as gone:
        nobody = gone.url("/hook")
    with listening(platform, key, nobody) as lines:
        publish(tenant, b'{"n": 0}')
        until(lambda: any("does not answer" in line for line in lines))
    assert [each.status for each in deliveries_of(tenant)] == ["pending"]

    with (
        Webhooks(secret=None, hook=Reply(500)) as webhooks,
        listening(platform, key, webhooks.url("/hook")) as lines,
    ):
        publish(tenant, b'{"n": 1}')
        webhooks.wait_for(2, "/hook")
        until(lambda: sum(" 500 " in line for line in lines) == 2)

    assert len(ids_at(webhooks)) == 2


def test_it_goes_on_when_the_platform_is_back() -> None:
    tenant, key = new_tenant()
    with Webhooks(secret=None) as webhooks, contextlib.ExitStack() as stack:
        # Of those that no client is given for its own end: it is to be free again.
        port = free_port()
        with live_platform(port=port) as url:
            lines = stack.enter_context(listening(url, key, webhooks.url("/hook")))
        until(lambda: any("The platform does not answer" in line for line in lines))
        publish(tenant, b'{"n": 0}')
        stack.enter_context(live_platform(port=port))

        webhooks.wait_for(1, "/hook")
        until(lambda: "Connected again" in lines)
        stack.close()


@pytest.mark.timeout(90)
def test_killed_it_forwards_the_rest_when_it_is_started_again(platform: str, tmp_path: Path) -> None:
    """The real command, killed without a word: what it had not acknowledged comes once more, nothing is missing."""
    tenant, key = new_tenant()
    with Webhooks(secret=None) as webhooks:
        command = [
            *(sys.executable, str(ROOT / "deliveries/listen.py"), "--api", platform, "--key", key),
            *("--forward", webhooks.url("/hook"), "--types", "order.*"),
        ]
        events = []
        first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            until(lambda: Endpoint.objects.for_tenant(tenant).exists())
            events += [publish(tenant, b'{"n": %d}' % n).event_id for n in range(30)]
            webhooks.wait_for(5, "/hook")
        finally:
            first.kill()
            first.communicate()
        events += [publish(tenant, b'{"n": %d}' % n).event_id for n in range(30, 40)]
        second = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            until(lambda: len(set(ids_at(webhooks))) == 40)
        finally:
            second.terminate()
            said = second.communicate()[0].decode()

    assert f"forwarding to {webhooks.url('/hook')}" in said
    assert len(ids_at(webhooks)) <= 40 + listen.BATCH


def test_forgetting_leaves_nothing_behind(platform: str) -> None:
    tenant, key = new_tenant()
    with Webhooks(secret=None) as webhooks, listening(platform, key, webhooks.url("/hook"), forget=True):
        assert len(endpoint_changes.endpoints_of(tenant)) == 1

    assert len(endpoint_changes.endpoints_of(tenant)) == 0


@pytest.mark.parametrize(
    ("scopes", "words"),
    [((), "No valid API key"), (("events:read",), "endpoints:write")],
)
def test_a_key_that_may_not_is_told_so(platform: str, scopes: tuple[str, ...], words: str) -> None:
    tenant = make_tenant()
    key = make_key(tenant, *scopes) if scopes else "whk_unknown"
    lines: list[str] = []
    options = {
        "api": platform, "key": key, "forward": "http://127.0.0.1:9/", "types": "*", "tenant": "",
        "name": "listen", "forget": False,
    }  # fmt: skip

    code = listen.run(options, say=lines.append, stop=threading.Event())

    assert code == 1
    assert words.lower() in lines[-1].lower()
    assert key not in "".join(lines)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"api": "webhooks.example.com"}, "--api webhooks.example.com is no address"),
        ({"forward": "localhost:3000/hook"}, "--forward localhost:3000/hook is no address"),
        ({"forward": "http://[local/hook"}, "--forward http://[local/hook is no address"),
        ({"key": "whk_…"}, "--key is no API key"),
        ({"key": "whk_1\n"}, "--key is no API key"),
    ],
)
def test_what_can_never_work_is_not_tried_again_and_again(changed: dict[str, str], words: str) -> None:
    lines: list[str] = []
    options = {
        "api": "http://127.0.0.1:9", "key": "whk_1", "forward": "http://127.0.0.1:9/", "types": "*",
        "tenant": "", "name": "listen", "forget": False,
    } | changed  # fmt: skip

    code = listen.run(options, say=lines.append, stop=threading.Event())

    assert code == 1
    assert len(lines) == 1
    assert words in lines[0]


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"[]", b"{}"])
def test_somebody_else_who_answers_is_not_taken_for_the_platform(body: bytes) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    lines: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = {
            "api": f"http://127.0.0.1:{server.server_port}", "key": "whk_1", "forward": "http://127.0.0.1:9/",
            "types": "*", "tenant": "", "name": "listen", "forget": False,
        }  # fmt: skip

        code = listen.run(options, say=lines.append, stop=threading.Event())
        server.shutdown()

    assert code == 1
    assert len(lines) == 1
    assert "platform" in lines[0]


def test_the_file_needs_only_requests() -> None:
    tree = ast.parse((ROOT / "deliveries/listen.py").read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
        )
    }

    assert imported - set(sys.stdlib_module_names) == {"requests"}


def test_manage_py_has_it() -> None:
    said = subprocess.run(
        [sys.executable, "manage.py", "listen", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "--forward" in said
