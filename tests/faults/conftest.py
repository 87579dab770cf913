"""Every fault of the design's table, really done to real processes, one at a time. `size` says how large."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.platform import OwnServers, Place


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker of xdist does them all, so that no two go on at the same time. Others' tests run meanwhile."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("faults"))


@pytest.fixture(scope="session")
def own_servers(django_db_blocker: DjangoDbBlocker) -> Iterator[OwnServers]:
    servers = OwnServers()
    yield servers
    servers.stop()


@pytest.fixture
def place(own_servers: OwnServers, tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[Place]:
    with django_db_blocker.unblock(), Place(own_servers, tmp_path) as place:
        yield place
