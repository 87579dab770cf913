"""What only few files may do: open sockets, write when a delivery is due, publish."""

import ast
from collections.abc import Iterator
from pathlib import Path

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
}
MAY_USE_THE_NETWORK = {
    # Requests to addresses that a customer chose: one transport, one guard.
    "deliveries/pipeline/transport_curl.py",
    "deliveries/pipeline/curl_transfer.py",
    "deliveries/pipeline/transport_requests.py",
    "deliveries/pipeline/requests_connections.py",
    "deliveries/pipeline/requests_exchange.py",
    "deliveries/pipeline/resolver.py",
    "deliveries/pipeline/address_guard.py",  # inet_aton's spellings alone
    # Its own host's name, for people.
    "deliveries/pipeline/dispatch.py",
    "deliveries/pipeline/heart.py",
    # The operator's egress proxy: its name is looked up, the transports connect.
    "deliveries/pipeline/proxy.py",
    # Servers, receivers and clients of the platform's own machine.
    "webhooks_platform/embedded/programs.py",
    "webhooks_platform/embedded/servers.py",
    "webhooks_platform/embedded/valkey.py",
    "webhooks_platform/embedded/shared.py",
    "webhooks_platform/processes.py",
    "webhooks_platform/demo/api.py",
    "webhooks_platform/management/commands/serve.py",
    "webhooks_platform/health.py",
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
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
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

    assert users <= MAY_USE_THE_NETWORK, users - MAY_USE_THE_NETWORK


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


def test_only_the_pipeline_says_when_a_delivery_is_due() -> None:
    """Every door that makes work goes through the pipeline, which wakes the lane: else the delivery is forgotten."""
    writers = set()
    for name, tree in files(*CODE):
        if name.startswith(("deliveries/pipeline/", "deliveries/models/", BENCH)):
            continue
        for node in ast.walk(tree):
            is_keyword = isinstance(node, ast.keyword) and node.arg == "next_attempt_at"
            is_assigned = (
                isinstance(node, ast.Attribute)
                and node.attr == "next_attempt_at"
                and isinstance(node.ctx, ast.Store)
            )
            is_sql = (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and "next_attempt_at =" in node.value
            )
            if is_keyword or is_assigned or is_sql:
                writers.add((name, getattr(node, "lineno", 0)))

    assert writers == set()


def test_only_the_one_writer_makes_events_and_deliveries() -> None:
    """No foreign key keeps the tenant of events, deliveries and attempts: the one writer does."""
    allowed = {
        "deliveries/pipeline/ingest.py",
        "deliveries/pipeline/again.py",
        "deliveries/pipeline/record.py",
    }
    writers = set()
    for name, tree in files(*CODE):
        if name.startswith(BENCH) or name in allowed:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value.upper()
                if any(
                    f"{verb} DELIVERIES_{table}" in text
                    for verb in ("INSERT INTO", "COPY")
                    for table in ("EVENT ", "EVENT(", "DELIVERY ", "DELIVERY(", "ATTEMPT ", "ATTEMPT(")
                ):
                    writers.add(name)

    assert writers == set()
