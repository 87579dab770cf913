"""The code of docs/integrators.md reads what is really sent, and its tables are what the code does.

JavaScript runs in Node, which the machine must have: `.ci/run` installs it.
"""

import ast
import base64
import json
import re
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from django.core.wsgi import get_wsgi_application

from deliveries.api.publish import problem_of
from deliveries.models import Event
from deliveries.pipeline.ingest import Refusal, Refused
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.retry import DEFAULT_SCHEDULE
from deliveries.pipeline.signing import generate_secret, parse_secret
from deliveries.services import endpoints, secrets
from deliveries.services.explain import Verdict
from tenants.services.audit import COMMAND
from tests.support.api import make_key
from tests.support.builders import make_tenant, publish
from tests.support.running import Webhooks, run_until_dry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "integrators.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(f"```{language}\n(.*?)```", PAGE, re.DOTALL)


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.fixture
def python() -> dict[str, Any]:
    """What the page tells people to write in Python."""
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, names)
    return names


@pytest.fixture
def node(tmp_path: Path) -> Callable[[str, Any], Any]:
    """Runs a function body that knows everything the page has in JavaScript, and `input`."""
    exports = []
    for number, block in enumerate(blocks("js")):
        (tmp_path / f"block{number}.mjs").write_text(block)
        exports.append(f'export * from "./block{number}.mjs";')
    (tmp_path / "page.mjs").write_text("\n".join(exports))

    def run(code: str, given: Any) -> Any:
        (tmp_path / "run.mjs").write_text(
            'import * as page from "./page.mjs";\nimport { readFileSync } from "node:fs";\n'
            'const input = JSON.parse(readFileSync(0, "utf8"));\n'
            f"const run = async () => {{ {code} }};\nconsole.log(JSON.stringify(await run()));\n"
        )
        done = subprocess.run(
            ["node", str(tmp_path / "run.mjs")],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


# --- verifying --------------------------------------------------------------------------------------------------------

Case = tuple[str, str, str, dict[str, str], bytes, float, bool]
"""What it is, function, secret or public key, headers, signed bytes, Unix time, and whether it is to be accepted."""

DATA = '{"order":{"id":"ord_7","total":1.10},"text":"Grüße & \\u00e9"}'.encode()


@pytest.fixture
def cases(quiet_lanes: None) -> list[Case]:
    """Requests that a dispatcher sent to endpoints of all kinds, and what an attacker would make of them."""
    tenant = make_tenant()
    with Webhooks(secret=None) as webhooks:
        old, new = generate_secret(), generate_secret()
        keys = {name: [generate_secret()] for name in ("/standard", "/xml", "/form", "/get")}
        fields: dict[str, dict[str, Any]] = {
            "/standard": {},
            "/xml": {"format": "xml"},
            "/form": {"format": "form", "method": "PUT"},
            "/get": {"method": "GET"},
        }
        for path, secret in keys.items():
            url = webhooks.url(path) + ("?token=7" if path == "/get" else "")
            endpoints.create_endpoint(
                actor=COMMAND, tenant=tenant, url=url, secret=parse_secret(secret[0]), **fields[path]
            )
        two = endpoints.create_endpoint(
            actor=COMMAND, tenant=tenant, url=webhooks.url("/two"), secret=parse_secret(old)
        )
        secrets.rotate_secret(
            actor=COMMAND, endpoint=two, secret=parse_secret(new), overlap=timedelta(hours=1)
        )
        keys["/two"] = [old, new]
        asymmetric = endpoints.create_endpoint(
            actor=COMMAND, tenant=tenant, url=webhooks.url("/ed25519"), signature_scheme="ed25519"
        )
        public_key = secrets.read_secret(actor=COMMAND, endpoint=asymmetric).public_key
        assert public_key is not None
        keys["/ed25519"] = [public_key]
        publish(tenant, DATA)
        run_until_dry()
    assert sorted(request.path.partition("?")[0] for request in webhooks.requests) == sorted(keys)
    found: list[Case] = []
    for request in webhooks.requests:
        path, _, query = request.path.partition("?")
        signed = query.encode() if request.method == "GET" else request.body
        function = "verify_ed25519" if path == "/ed25519" else "verify"
        for key in keys[path]:
            found += _tried(path, function, key, request.headers, signed)
    return found


def _tried(path: str, function: str, key: str, headers: dict[str, str], signed: bytes) -> Iterator[Case]:
    """The request as it came, and altered in every way that must be noticed."""
    now = float(headers["webhook-timestamp"])
    stranger = key[:8] + ("B" if key[8] == "A" else "A") + key[9:]
    signature = headers["webhook-signature"]

    def case(what: str, accepted: bool, **changed: Any) -> Case:
        changed_headers = {
            name: value for name, value in (headers | changed.get("headers", {})).items() if value is not None
        }
        return (
            f"{path}: {what}",
            function,
            changed.get("key", key),
            changed_headers,
            changed.get("signed", signed),
            changed.get("now", now),
            accepted,
        )

    yield case("as it came", True)
    yield case("five minutes late", True, now=now + 300)
    yield case(
        "a signature of another kind before ours", True, headers={"webhook-signature": f"v9,x {signature}"}
    )
    yield case("recorded", False, now=now + 301)
    yield case("from the future", False, now=now - 301)
    yield case("a byte more", False, signed=signed + b" ")
    yield case("a byte changed", False, signed=b"[" + signed[1:])
    yield case("another secret", False, key=stranger)
    yield case("another id", False, headers={"webhook-id": headers["webhook-id"][:-1] + "!"})
    yield case("another time", False, headers={"webhook-timestamp": str(int(now) + 1)})
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        yield case(f"no {name}", False, headers={name: None})
    for text in ("", "soon", "-1", "1e9", f" {int(now)}", "9" * 5000, "²"):
        yield case(f"time {text[:10]!r}", False, headers={"webhook-timestamp": text})
    for text in ("", " ", "v1", "v1,", "v1a,", "v1,é", "v1a,é", "v1,!!!!", re.sub("v1a?,", "", signature)):
        yield case(f"signature {text[:10]!r}", False, headers={"webhook-signature": text})


def test_the_python_verifies_what_is_sent_and_nothing_else(cases: list[Case], python: dict[str, Any]) -> None:
    wrong = [
        what
        for what, function, key, headers, signed, now, accepted in cases
        if python[function](key, headers, signed, now=now) is not accepted
    ]

    assert wrong == []


def test_the_javascript_verifies_what_is_sent_and_nothing_else(
    cases: list[Case], node: Callable[[str, Any], Any]
) -> None:
    given = [
        [function, key, headers, base64.b64encode(signed).decode(), now]
        for _, function, key, headers, signed, now, _ in cases
    ]

    verdicts = node(
        """
        const functions = { verify: page.verify, verify_ed25519: page.verifyEd25519 };
        return input.map(([name, key, headers, body, now]) =>
            functions[name](key, headers, Buffer.from(body, "base64"), now));
        """,
        given,
    )

    assert len(verdicts) == len(cases)
    assert [case[0] for case, verdict in zip(cases, verdicts, strict=True) if verdict is not case[-1]] == []


def test_a_secret_that_was_not_set_is_no_key(python: dict[str, Any], node: Callable[[str, Any], Any]) -> None:
    """With an empty key anybody could sign."""
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,x"}

    for secret in ("", "whsec_", "whsec_c2hvcnQ="):
        with pytest.raises(ValueError, match="not the endpoint's secret"):
            python["verify"](secret, headers, b"{}")
        said = node(
            'try { return page.verify(input[0], input[1], Buffer.from("{}")); } catch (e) { return e.message; }',
            [secret, headers],
        )
        assert said == "this is not the endpoint's secret"


@pytest.mark.parametrize("language", ["python", "js", "go", "ruby", "php", "java", "csharp", "rust"])
def test_verifying_takes_at_most_fifteen_lines(language: str) -> None:
    [code] = re.findall(f"```{language}\n(.*?)```", section("Verify"), re.DOTALL)
    lines = [
        line
        for line in code.splitlines()
        if line.strip() and not re.match(r"import |from |require |use ", line)
    ]

    assert len(lines) <= 15


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_the_python_acts_once_on_each_event(python: dict[str, Any]) -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE seen_webhooks (id TEXT PRIMARY KEY)")
    acted: list[int] = []

    def act(event: Any) -> None:
        if event["n"] == 3 and 3 not in failed:
            failed.append(3)
            raise RuntimeError("the work failed")
        acted.append(event["n"])

    failed: list[int] = []
    for n in (1, 2, 1, 1):
        python["act_once"](database, {"webhook-id": f"evt_{n}"}, json.dumps({"n": n}).encode(), act)
    with pytest.raises(RuntimeError):
        python["act_once"](database, {"webhook-id": "evt_3"}, b'{"n": 3}', act)
    python["act_once"](database, {"webhook-id": "evt_3"}, b'{"n": 3}', act)

    assert acted == [1, 2, 3]
    database.close()


# --- publishing -------------------------------------------------------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def bad_network() -> Iterator[str]:
    """The API behind a proxy that refuses each first request, and loses the answer to each second one."""
    application = get_wsgi_application()
    seen = 0
    lock = threading.Lock()

    def proxy(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        nonlocal seen
        with lock:
            seen += 1
            turn = seen
        if turn == 1:
            # A connection that is closed with a part of the request unread may take the answer along.
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            start_response("503 Service Unavailable", [("Retry-After", "0"), ("Content-Type", "text/html")])
            return [b"<p>Too busy"]
        if turn == 2:
            answer = application(environ, lambda *_: lambda _: None)
            list(answer)
            answer.close()
            start_response("502 Bad Gateway", [("Retry-After", "0"), ("Content-Type", "text/html")])
            return [b"<p>No answer"]
        body: Iterable[bytes] = application(environ, start_response)
        return body

    server: HTTPServer = make_server("127.0.0.1", 0, proxy, server_class=_Server, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api/v1/tenants"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.usefixtures("database")
def test_the_python_publishes_once_however_bad_the_network(python: dict[str, Any]) -> None:
    tenant = make_tenant()
    key = make_key(tenant)
    event = {"type": "order.created", "data": {"order": "ord_7"}}

    with bad_network() as tenants:
        made = python["publish"](f"{tenants}/{tenant.slug}", key, event, "order-7-created")
        again = python["publish"](f"{tenants}/{tenant.slug}", key, event, "order-7-created")
        with pytest.raises(ValueError, match="unknown_event_type"):
            python["publish"](f"{tenants}/{tenant.slug}", key, event | {"type": "order.craeted"}, "order-8")

    assert made == again
    assert made.startswith("evt_")
    assert Event.objects.for_tenant(tenant).count() == 1


@pytest.mark.usefixtures("database")
def test_the_javascript_publishes_once_however_bad_the_network(node: Callable[[str, Any], Any]) -> None:
    tenant = make_tenant()
    key = make_key(tenant)

    with bad_network() as tenants:
        made, again, refused = node(
            """
            const event = { type: "order.created", data: { order: "ord_7" } };
            const made = await page.publish(input.api, input.key, event, "order-7-created");
            const again = await page.publish(input.api, input.key, event, "order-7-created");
            const refused = await page.publish(input.api, input.key, { ...event, type: "order.craeted" }, "order-8")
                .catch((error) => error.message);
            return [made, again, refused];
            """,
            {"api": f"{tenants}/{tenant.slug}", "key": key},
        )

    assert made == again
    assert made.startswith("evt_")
    assert refused == "unknown_event_type: This event type is in no catalogue of the tenant."
    assert Event.objects.for_tenant(tenant).count() == 1


# --- tables -----------------------------------------------------------------------------------------------------------


def test_the_table_of_retries_is_the_default_schedule() -> None:
    rows = re.findall(r"^\| ([0-9]+) \| (.*?) \| (.*?) \|$", section("Retries"), re.MULTILINE)
    units = {"s": 1, "seconds": 1, "min": 60, "minutes": 60, "h": 3600, "hours": 3600, "d": 86_400}

    def seconds(text: str) -> int:
        return sum(int(number) * units[unit] for number, unit in re.findall("([0-9]+) ([a-z]+)", text))

    assert [int(number) for number, _, _ in rows] == list(range(1, len(DEFAULT_SCHEDULE) + 2))
    assert tuple(seconds(wait) for _, wait, _ in rows[1:]) == DEFAULT_SCHEDULE
    for number, (_, _, about) in enumerate(rows[1:], start=1):
        # Said to the unit that matters.
        assert abs(sum(DEFAULT_SCHEDULE[:number]) - seconds(about)) <= 5, about


def test_every_outcome_and_every_verdict_is_told() -> None:
    outcomes = re.findall(r"^\| (`[a-z_`, ]+`) \|", section("Retries"), re.MULTILINE)
    verdicts = re.findall(r"^\| (`[a-z_`, ]+`) \|", section("Explain"), re.MULTILINE)

    assert _names(outcomes) == {outcome.value for outcome in Outcome}
    assert _names(verdicts) == {verdict.value for verdict in Verdict}


def _names(cells: Iterable[str]) -> set[str]:
    return {name for cell in cells for name in re.findall("`([a-z_]+)`", cell)}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the code that answers requests, with the name of what is called."""
    for package in ("tenants", "deliveries", "webhooks_platform"):
        for path in (ROOT / package).rglob("*.py"):
            if {"migrations", "bench", "demo", "embedded"}.isdisjoint(path.parts):
                for call in ast.walk(ast.parse(path.read_text())):
                    if isinstance(call, ast.Call):
                        function = call.func
                        name = (
                            function.attr
                            if isinstance(function, ast.Attribute)
                            else getattr(function, "id", "")
                        )
                        yield name, call


def constants(nodes: Iterable[ast.expr]) -> list[Any]:
    return [node.value if isinstance(node, ast.Constant) else None for node in nodes]


def test_every_code_that_the_api_answers_is_told() -> None:
    found = set()
    for name, call in calls():
        match name, constants(call.args):
            case "Problem", [int(status), str(code), *_]:
                found.add((status, code))
            case "conflict", [str(code), *_]:
                found.add((409, code))
            case _:
                pass
    for refusal in Refusal:
        problem = problem_of(Refused(refusal, [("type", "wrong")], limit=1))
        found.add((problem.status, problem.code))

    told = re.findall(r"^\| ([0-9]{3}) \| `([a-z_]+)` \| \S.*\|$", section("Errors"), re.MULTILINE)

    assert sorted((int(status), code) for status, code in told) == sorted(found)


def test_every_code_of_a_field_is_told() -> None:
    found = {
        error.code
        for refusal in Refusal
        for error in problem_of(Refused(refusal, [("type", "wrong")], limit=1)).errors
        if refusal
        in (
            Refusal.UNKNOWN_EVENT_TYPE,
            Refusal.EVENT_TYPE_ARCHIVED,
            Refusal.SCHEMA_VIOLATION,
            Refusal.PAYLOAD_TOO_LARGE,
            Refusal.DELIVER_AT_TOO_FAR,
        )
    }
    for name, call in calls():
        match name, constants(call.args):
            case "Invalid", [str(code), *_] if code:
                found.add(code)
            case "add" | "WrongField" | "_refuse", [_, str(code), _]:
                found.add(code)
            case "invalid" | "Problem" | "InvalidContent", _:
                for inner in ast.walk(call):
                    if isinstance(inner, ast.Tuple) and len(inner.elts) == 3:
                        code = constants(inner.elts)[1]
                        if isinstance(code, str):
                            found.add(code)
            case _:
                pass

    cells = re.findall(r"^\| (`[a-z_`, ]+`) \|", section("Errors"), re.MULTILINE)

    assert sorted(_names(cells)) == sorted(found)
