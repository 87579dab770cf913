"""Starts PostgreSQL and Valkey for the test run, before anything reads the settings.

pytest-django loads the settings while pytest reads its own configuration, earlier than any conftest.py; hence a
plugin, named in pyproject.toml. With xdist the first process starts the servers, its workers inherit the addresses.
"""

import base64
import os
from collections.abc import Iterator

import pytest

from webhooks_platform.embedded import Servers, temporary_servers

ENVIRONMENT = {
    "SECRET_KEY": "key-of-the-tests",
    "WEBHOOKS_ENCRYPTION_KEYS": "t1:" + base64.b64encode(b"encryption key of the test suite").decode(),
    "WEBHOOKS_ALLOWED_NETWORKS": "127.0.0.0/8",  # where the tests' receivers listen
}

servers = pytest.StashKey[Servers]()


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """A wrapper, so that it runs before pytest-django whichever was registered first."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # A server named by whoever runs the tests is used instead of one of ours; the workers of xdist see both.
    if "DATABASE_URL" not in os.environ or "CELERY_BROKER_URL" not in os.environ:
        started = temporary_servers()
        early_config.stash[servers] = started
        early_config.add_cleanup(started.stop)
        os.environ.setdefault("DATABASE_URL", started.database_url)
        os.environ.setdefault("CELERY_BROKER_URL", started.broker_url)
    return (yield)
