"""schemathesis over the served document, with all of its checks: examples, edges, at random, and along the links.

WEBHOOKS_FUZZ_EXAMPLES: how many an operation and phase. WEBHOOKS_FUZZ_SEED: where to begin; the same in every run
unless said otherwise, so that a red run is the doing of a change. Both stand in the header of the test run.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from deliveries.bench.children import Service
from tenants import ids
from tenants.models import EventType, RateCounter
from tests.plugin import FUZZ_EXAMPLES, FUZZ_SEED
from tests.support.api import make_tenant, operator_api
from webhooks_platform.embedded.servers import free_port

FOLDER = Path(__file__).parent

# Imported late: hooks.py is made for the process of schemathesis, whose environment names a tenant.
EVENT_TYPES = ("order.created", "order.paid", "invoice.paid")

PARTS = {
    "tenants": r"^/api/v1/(whoami|tenants(/\{tenant\}(/(api-keys|portal-links|look|notifications).*)?)?)$",
    "catalogue": r"^/api/v1/(tenants/\{tenant\}/)?(event-types|packs)(/.*)?$",
    "endpoints": r"^/api/v1/tenants/\{tenant\}/endpoints(/\{endpoint\}(/(en|dis)able)?)?$",
    "of endpoints": r"^/api/v1/tenants/\{tenant\}/endpoints/\{endpoint\}/(?!(en|dis)able$).*$",
    "sources": r"^/api/v1/tenants/\{tenant\}/sources(/.*)?$",
    "events": r"^/api/v1/tenants/\{tenant\}/(events|deliveries|jobs)(/.*)?$",
}
"""Each is a test of its own, so that they run beside each other."""


def test_every_operation_is_of_one_part() -> None:
    paths = json.loads(Client().get("/api/v1/openapi.json").content)["paths"]

    parts = [[name for name, part in PARTS.items() if re.search(part, path)] for path in paths]

    assert [path for path, found in zip(paths, parts, strict=True) if len(found) != 1] == []
    assert {found[0] for found in parts} == PARTS.keys()


@pytest.fixture(scope="module")
def web(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server on the database of this worker."""
    port = free_port()
    log = tmp_path_factory.mktemp("fuzz") / "web.log"
    command = [sys.executable, "-m", "granian", "webhooks_platform.wsgi:application", "--interface", "wsgi"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--blocking-threads", "4"]
    service = Service([*command, "--no-ws", "--log-level", "error"], environment=dict(os.environ), log=log)
    try:
        wait_until_live(service, port)
        yield f"http://127.0.0.1:{port}"
        assert "Traceback" not in log.read_text()
    finally:
        service.stop(grace_seconds=5)


def wait_until_live(service: Service, port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            client.request("GET", "/health/live")
            if client.getresponse().status == 200:
                return
        except OSError:
            service.check()
            assert time.monotonic() < deadline, service.last_words()
            time.sleep(0.1)
        finally:
            client.close()


def fuzz(web: str, folder: Path, *arguments: str) -> str:
    """What schemathesis says; it fails the test if that is anything but that all is well."""
    # Unknown keys that other tests tried from this address a moment ago.
    RateCounter.objects.all().delete()
    tenant = make_tenant()
    EventType.objects.bulk_create(EventType(tenant=tenant, name=name) for name in EVENT_TYPES)
    EventType.objects.filter(tenant=tenant, name="order.paid").update(
        schema={"type": "object", "properties": {"amount": {"type": "number"}}}
    )
    environment = os.environ | {
        "KEY": str(operator_api().key),
        "TENANT": tenant.slug,
        "TENANT_ID": ids.to_text(ids.TENANT, tenant.id),
        "PYTHONPATH": str(FOLDER.parent.parent),
    }
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(FOLDER / "schemathesis.toml")]
    command += ["run", f"{web}/api/v1/openapi.json", "--no-color"]
    # One thread: those of Hypothesis get into each other's way in Python 3.11 ("recursion depth mismatch").
    command += ["--workers", "1"]
    command += ["--max-examples", str(FUZZ_EXAMPLES), "--seed", str(FUZZ_SEED), *arguments]
    run = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=900
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    return run.stdout


@pytest.fixture
def _catalogue_cleaned(database: None) -> Iterator[None]:
    """What it makes up in the platform's own catalogue would stand in every tenant's."""
    yield
    EventType.objects.filter(tenant__isnull=True).delete()


@pytest.mark.timeout(960)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.usefixtures("database", "_catalogue_cleaned")
def test_nothing_is_found_in(part: str, web: str, tmp_path: Path) -> None:
    said = fuzz(web, tmp_path, "--phases", "examples,coverage,fuzzing", "--include-path-regex", PARTS[part])

    for phase in ("Examples", "Coverage", "Fuzzing"):
        assert re.search(rf"✅ +{phase} \(in", said), said


@pytest.mark.timeout(960)
@pytest.mark.usefixtures("database", "_catalogue_cleaned")
def test_nothing_is_found_along_the_links(web: str, tmp_path: Path) -> None:
    said = fuzz(web, tmp_path, "--phases", "stateful")

    assert re.search(r"✅ +Stateful \(in", said), said
    walked = re.search(r"API Links: +([0-9]+) covered", said)
    assert walked is not None, said
    assert int(walked[1]) > 0
