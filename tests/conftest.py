"""Fixtures for all tests. Tests commit: the pipeline has connections of its own, which see no open transaction.

So every test makes a tenant of its own and looks at that tenant alone.
"""

from collections.abc import Iterator

import pytest
from django.db import connection, connections
from pytest_django import DjangoDbBlocker


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    with django_db_blocker.unblock():
        assert connection.vendor == "postgresql"
        yield
        for each in connections.all(initialized_only=True):
            each.close()
