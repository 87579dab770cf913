"""Fixtures for all tests. Tests commit: the pipeline has connections of its own, which see no open transaction.

So every test makes a tenant of its own and looks at that tenant alone.
"""

import os
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection, connections
from django.test.utils import setup_databases, teardown_databases
from django.utils import timezone
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pytest_django import DjangoDbBlocker

# Each test makes people of its own; the real number of rounds would cost most of the time of those tests.
settings.PASSWORD_HASHERS = ["tests.support.portal.QuickHasher"]

# Hypothesis judges neither the speed of the machine nor, each time, other examples; new ones are looked for with
# `--hypothesis-profile=default`.
hypothesis_settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("tests")


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None, django_db_modify_db_settings: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """The test database, migrated; each worker of xdist has its own. Processes that tests start find it, too.

    pytest-django's own fixture makes it only for tests that want a transaction rolled back.
    """
    url = os.environ["DATABASE_URL"]
    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False, serialized_aliases=set())
        os.environ["DATABASE_URL"] = (
            urlsplit(url)._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
        )
        from deliveries.pipeline import partitions

        # Tests make history of minutes and days ago, also when a week has just begun.
        partitions.ensure_partitions(now=timezone.now(), weeks_back=1)
    yield
    from deliveries.pipeline import counters, ingest

    ingest._publisher.drop()
    # What is left would be written when the process ends, and then to the settings' own database.
    counters.write()
    os.environ["DATABASE_URL"] = url
    with django_db_blocker.unblock():
        # Its workers would open again what is ended below.
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined] # of the PostgreSQL backend
        with connection.cursor() as cursor:
            # A process that a test killed may have left its connection behind for a moment.
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() "
                # The server's own vacuum makes way by itself, and not everybody may end it.
                "AND backend_type = 'client backend'"
            )
        teardown_databases(made, verbosity=0)


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Access to the database, without a transaction around the test."""
    with django_db_blocker.unblock():
        assert connection.vendor == "postgresql"
        yield
        # Or its thread finds the database closed, and reports that in the middle of another test.
        from tenants.last_used import last_used

        last_used._waiting.clear()
        connections.close_all()


@pytest.fixture
def quiet_lanes(database: None) -> None:
    """For tests that run a dispatcher: nothing of earlier tests is left to deliver, and nobody else delivers.

    A dispatcher takes whatever lane is ready. Each worker of xdist has a database of its own and runs one test at a
    time, so this one is alone with its lanes.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE deliveries_event, deliveries_delivery, deliveries_attempt, deliveries_lane, deliveries_dispatcher"
        )
        cursor.execute("UPDATE tenants_platformstate SET is_sending_stopped = false")


@pytest.fixture
def quiet_nudger(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that count nudges: as in a process that has sent none yet.

    What an earlier test still wanted is not sent any more, or on its way by now.
    """
    from deliveries.pipeline import wake

    wake._nudger._wanted.clear()
    time.sleep(0.2)
    monkeypatch.setattr(wake, "_nudger", wake._Nudger())


@pytest.fixture
def nothing_rolled_up(database: None) -> Iterator[None]:
    """For tests that make history of before: roll-ups, which an earlier test's platform may have made, know none of it.

    And for those that make roll-ups of times to come, which later tests must not find.
    """
    _forget_rollups()
    yield
    _forget_rollups()


def _forget_rollups() -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE deliveries_rollup, deliveries_rollupgone")
        cursor.execute(
            "UPDATE deliveries_rollupstate SET minutes_to = NULL, hours_to = NULL, attempts_to = NULL, seen_at = NULL,"
            " seen_transaction = NULL, settled_at = NULL"
        )
