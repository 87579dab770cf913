"""Every fault of the design's table, really done to real processes, `size` says how large.

All of them go to one worker of xdist; those that measure have the machine for themselves (`alone`).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.platform import OwnServers, Place


@pytest.fixture(scope="session")
def own_servers(django_db_blocker: DjangoDbBlocker) -> Iterator[OwnServers]:
    servers = OwnServers()
    yield servers
    servers.stop()


@pytest.fixture
def place(own_servers: OwnServers, tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[Place]:
    with django_db_blocker.unblock(), Place(own_servers, tmp_path) as place:
        yield place
