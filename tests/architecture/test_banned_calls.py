"""What only few files may do: open sockets, write when a delivery is due, publish."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = ("webhooks_platform", "tenants", "deliveries")

NETWORK = {
    "requests",
    "urllib3",
    "http.client",
    "urllib.request",
    "socket",
    "pycurl",
    "httpx",
    "aiohttp",
    "ssl",
    "asyncio",
    "smtplib",
    "socketserver",
    "websockets",
    "pycares",
}
MAY_USE_THE_NETWORK = {
    # Requests to addresses that a customer chose: one transport, one guard.
    "deliveries/pipeline/transport_curl.py",
    "deliveries/pipeline/curl_transfer.py",
    "deliveries/pipeline/transport_requests.py",
    "deliveries/pipeline/requests_connections.py",
    "deliveries/pipeline/requests_exchange.py",
    "deliveries/pipeline/resolver.py",
    # Its own host's name, for people.
    "deliveries/pipeline/dispatch.py",
    # The operator's egress proxy: its name is looked up, the transports connect.
    "deliveries/pipeline/proxy.py",
    # Servers, receivers and clients of the platform's own machine.
    "webhooks_platform/embedded/servers.py",
    "webhooks_platform/embedded/valkey.py",
    "webhooks_platform/demo/api.py",
    "webhooks_platform/management/commands/serve.py",
    # Certificates that people bring are read as those read them who will use them; nothing is connected to.
    "deliveries/credentials.py",
    # A client of the platform: it forwards to a port that its own user names, on the user's own machine.
    "deliveries/listen.py",
}
BENCH = "deliveries/bench/"
STRICT_YAML = "tenants/yaml_strict.py"
"""Loads with the safe loader, narrowed further."""


def files(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if "/migrations/" not in name:
                yield name, ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    """Also what is asked for by its name, and of a package as a whole what a neighbour may have loaded of it."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                yield from (each for each in NETWORK if each.rpartition(".")[0] == alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_network(module: str) -> bool:
    return any(module == each or module.startswith(f"{each}.") for each in NETWORK)


def test_only_the_transports_open_sockets_to_what_customers_chose() -> None:
    users = {
        name
        for name, tree in files(*CODE)
        if not name.startswith(BENCH) and any(is_network(module) for module in imported(tree))
    }

    assert users == MAY_USE_THE_NETWORK


@pytest.mark.parametrize(
    "line",
    [
        "import socket",
        "import asyncio.streams",
        "import os, smtplib as post",
        "from urllib import request",
        "from http.client import HTTPConnection",
        "import urllib; urllib.request.urlopen(url)",
        "importlib.import_module('socket')",
        "__import__('requests').get(url)",
        "from websockets.sync.client import connect",
    ],
)
def test_the_finder_finds_what_opens_sockets(line: str) -> None:
    assert any(is_network(module) for module in imported(ast.parse(line)))


def test_nothing_runs_a_shell_or_unpickles() -> None:
    banned = {"pickle", "marshal", "shelve"}
    users = {
        (name, module) for name, tree in files(*CODE) for module in imported(tree) if module in banned
    } | {
        (name, ast.unparse(node.func))
        for name, tree in files(*CODE)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (
            (
                ast.unparse(node.func) in {"eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load"}
                and name != STRICT_YAML
            )
            or any(
                keyword.arg == "shell" and getattr(keyword.value, "value", None) is True
                for keyword in node.keywords
            )
        )
    }

    assert users == set()


DUE = ("next_attempt_at", "manual_requested_at")

MAY_SAY_WHEN_DUE = {"deliveries/services/erasing.py"}
"""Ends what was asked for, while it holds those deliveries."""


def says_when_due(node: ast.AST) -> bool:
    match node:
        case (
            ast.Call(func=ast.Attribute(attr="bulk_update" | "abulk_update"))
            | ast.keyword(arg="update_fields")
        ):
            return any(isinstance(each, ast.Constant) and each.value in DUE for each in ast.walk(node))
        case ast.Attribute(attr=name, ctx=ast.Store()) | ast.keyword(arg=str(name)):
            return name in DUE
        case ast.keyword(arg=None, value=ast.Dict(keys=keys)):  # f(**{"name": …})
            return any(isinstance(key, ast.Constant) and key.value in DUE for key in keys)
        case ast.Call(func=ast.Name(id="setattr"), args=[_, ast.Constant(value=name), *_]):
            return name in DUE
        case ast.Constant(value=str(text)):
            return any(re.search(rf'\b{name}"?\s*=', text) for name in DUE)
    return False


def test_only_the_pipeline_says_when_a_delivery_is_due() -> None:
    """Every door that makes work goes through the pipeline, which wakes the lane: else the delivery is forgotten."""
    writers = {
        name
        for name, tree in files(*CODE)
        if not name.startswith(("deliveries/pipeline/", "deliveries/models/", BENCH))
        if any(says_when_due(node) for node in ast.walk(tree))
    }

    assert writers == MAY_SAY_WHEN_DUE


@pytest.mark.parametrize(
    "line",
    [
        "delivery.next_attempt_at = now",
        "rows.update(manual_requested_at=now)",
        "rows.update(**{'next_attempt_at': now})",
        "rows.bulk_update(some, ['status', 'next_attempt_at'])",
        "rows.bulk_update(some, fields=('manual_requested_at',))",
        "delivery.save(update_fields=['next_attempt_at'])",
        "setattr(delivery, 'next_attempt_at', now)",
        "cursor.execute('UPDATE deliveries_delivery SET manual_requested_at = now()')",
        "cursor.execute('UPDATE deliveries_delivery SET next_attempt_at=now()')",
        "cursor.execute('UPDATE deliveries_delivery SET \"next_attempt_at\"  = now()')",
    ],
)
def test_the_finder_finds_who_says_when_a_delivery_is_due(line: str) -> None:
    assert any(says_when_due(node) for node in ast.walk(ast.parse(line)))


HISTORY = {"Event", "Delivery", "Attempt"}

MAKES = {"create", "bulk_create", "get_or_create", "update_or_create", "save"}

MAY_MAKE_HISTORY = {
    "deliveries/pipeline/ingest.py",
    "deliveries/pipeline/again.py",
    "deliveries/pipeline/record.py",
}


INTO_HISTORY = re.compile(
    r'\b(INSERT\s+INTO|COPY)\s+("?public"?\.)?"?deliveries_(event|delivery|attempt)(_\d+)?\b', re.IGNORECASE
)


def makes_history(node: ast.AST) -> bool:
    """By SQL, by one of the three models itself, or by a manager or queryset that a chain of calls begins with it.

    Under another name nobody would find them, so they are given none.
    """
    match node:
        case ast.Constant(value=str(text)):
            return bool(INTO_HISTORY.search(text))
        case ast.ImportFrom(module=str(module), names=aliases) if module.startswith("deliveries"):
            return any(each.name in HISTORY and each.asname is not None for each in aliases)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="threading"))):
            return False
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in HISTORY:
            return True
        case ast.Call(func=ast.Attribute(attr=verb, value=chain)) if verb.removeprefix("a") in MAKES:
            names = {each.id for each in ast.walk(chain) if isinstance(each, ast.Name)}
            attributes = {each.attr for each in ast.walk(chain) if isinstance(each, ast.Attribute)}
            return bool(HISTORY & (names | attributes))
    return False


def test_only_the_one_writer_makes_events_and_deliveries() -> None:
    """No foreign key keeps the tenant of events, deliveries and attempts: the one writer does."""
    writers = {
        name
        for name, tree in files(*CODE)
        if not name.startswith(BENCH)
        if any(makes_history(node) for node in ast.walk(tree))
    }

    assert writers == MAY_MAKE_HISTORY


@pytest.mark.parametrize(
    "line",
    [
        "cursor.execute('insert into deliveries_event (id) VALUES (1)')",
        "own.copy('COPY deliveries_attempt (id) FROM STDIN')",
        "Event(tenant=tenant).save()",
        "cursor.execute('INSERT INTO \"deliveries_event\" (id) VALUES (1)')",
        "cursor.execute('INSERT INTO public.deliveries_delivery (id) VALUES (1)')",
        "cursor.execute('INSERT INTO deliveries_attempt\\n(id) VALUES (1)')",
        "cursor.execute('INSERT INTO deliveries_event_20260302 (id) VALUES (1)')",
        "event = models.Event(tenant=tenant)",
        "event = history.Event(tenant=tenant)",
        "event = deliveries.models.Event(tenant=tenant)",
        "from deliveries.models import Delivery as Owed",
        "Delivery.objects.for_tenant(tenant).create(event_id=event.id)",
        "Attempt.objects.for_tenant(tenant).filter(number=1).bulk_create(rows)",
        "await models.Delivery.unscoped.aget_or_create(id=key)",
    ],
)
def test_the_finder_finds_who_makes_history(line: str) -> None:
    assert any(makes_history(node) for node in ast.walk(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    [
        "stop = threading.Event()",
        "from threading import Event as Signal",
        "from deliveries.models import Event",
        "Delivery.objects.for_tenant(tenant).filter(id=key).update(body=None)",
        "EventType.objects.create(name=name)",
        "cursor.execute('SELECT FROM deliveries_event')",
    ],
)
def test_the_finder_leaves_others_alone(line: str) -> None:
    assert not any(makes_history(node) or says_when_due(node) for node in ast.walk(ast.parse(line)))
