"""Every fault of the design's table, really done to real processes, `size` says how large.

Each file is of the group `faults`, for one worker of xdist. xdist 3.8 does not find groups under pytest 9.2, so with `-n`
two of them may go on at once, each on servers of its own; what is measured in turn allows for that. At full size they run
alone, with `-n0`.
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
