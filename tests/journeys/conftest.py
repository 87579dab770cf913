"""The platform on which the stories play: real processes, started once for all of them."""

from collections.abc import Iterator

import pytest

from webhooks_platform.demo.place import Place, own_place


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    with own_place() as place:
        yield place
