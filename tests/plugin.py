"""Starts PostgreSQL and Valkey for the test run, before anything reads the settings, and keeps some tests alone.

pytest-django loads the settings while pytest reads its own configuration, earlier than any conftest.py; hence a
plugin, named in pyproject.toml. With xdist the first process starts the servers, its workers inherit the addresses.
"""

import base64
import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from webhooks_platform.embedded import Servers, temporary_servers

ENVIRONMENT = {
    "SECRET_KEY": "key-of-the-tests",
    "WEBHOOKS_ENCRYPTION_KEYS": "t1:" + base64.b64encode(b"encryption key of the test suite").decode(),
    "WEBHOOKS_ALLOWED_NETWORKS": "127.0.0.0/8",  # where the tests' receivers listen
}

OWN_BROKER = "WEBHOOKS_TESTS_OWN_BROKER"
"""Set for the workers of xdist when the broker is ours: then each worker takes another of its databases."""

FIRST_BROKER_DATABASE = 16
"""The benchmark takes from those below."""

LOCKS = "WEBHOOKS_TESTS_LOCKS"
"""Folder of the two files by which a test of one worker has the machine for itself."""

TOGETHER = (
    "tests/browser/",
    "tests/deliveries/test_bench.py",
    "tests/deliveries/test_seeded.py",
    "tests/faults/",
    "tests/journeys/",
)
"""Each for one worker: what their fixtures start or fill takes longer than most of their tests, or they look at what all
of the server has."""

FUZZ_EXAMPLES = int(os.environ.get("WEBHOOKS_FUZZ_EXAMPLES", "20"))
FUZZ_SEED = int(os.environ.get("WEBHOOKS_FUZZ_SEED", "1"))

servers = pytest.StashKey[Servers]()


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """A wrapper, so that it runs before pytest-django whichever was registered first."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if LOCKS not in os.environ:
        locks = tempfile.TemporaryDirectory()
        os.environ[LOCKS] = locks.name
        early_config.add_cleanup(locks.cleanup)
    # A server named by whoever runs the tests is used instead of one of ours; the workers of xdist see both.
    if "DATABASE_URL" not in os.environ or "CELERY_BROKER_URL" not in os.environ:
        started = temporary_servers()
        early_config.stash[servers] = started
        early_config.add_cleanup(started.stop)
        os.environ.setdefault("DATABASE_URL", started.database_url)
        os.environ.setdefault("CELERY_BROKER_URL", started.broker_url)
        os.environ[OWN_BROKER] = "yes"
    elif OWN_BROKER in os.environ and (worker := os.environ.get("PYTEST_XDIST_WORKER")):
        number = FIRST_BROKER_DATABASE + int(worker.removeprefix("gw"))
        os.environ["CELERY_BROKER_URL"] = (
            urlsplit(os.environ["CELERY_BROKER_URL"])._replace(path=f"/{number}").geturl()
        )
    return (yield)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for a lease to run out or a process to start, one at a time."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_report_header() -> str:
    return f"api_fuzz: WEBHOOKS_FUZZ_SEED={FUZZ_SEED} WEBHOOKS_FUZZ_EXAMPLES={FUZZ_EXAMPLES}"


class Scheduling(LoadScopeScheduling):  # type: ignore[misc] # without types
    """Each test to whichever worker has time. Those that belong together come first, the largest lot before all."""

    def _split_scope(self, nodeid: str) -> str:
        return next((place for place in TOGETHER if nodeid.startswith(place)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """First, so that the wait is not part of the test's time."""
    with _machine(is_alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextlib.contextmanager
def _machine(*, is_alone: bool) -> Iterator[None]:
    """For one test alone, or for as many as there are workers."""
    folder = Path(os.environ[LOCKS])
    with (folder / "gate").open("w") as gate, (folder / "machine").open("w") as machine:
        # Who waits for all others to end keeps new ones out meanwhile.
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
