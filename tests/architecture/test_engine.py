"""One database engine; see docs/adr/0001-postgresql-is-the-only-database.md."""

import os

from django.db import connection


def test_tests_run_on_postgresql(database: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int")
        ((version,),) = cursor.fetchall()

    assert connection.vendor == "postgresql"
    assert version >= 150_000


def test_tests_and_what_they_start_share_a_database_of_their_own(database: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_database(), count(*) FROM django_migrations GROUP BY 1")
        ((name, migrations),) = cursor.fetchall()

    assert name.startswith("test_")
    assert migrations > 40
    assert os.environ["DATABASE_URL"].endswith(f"/{name}")
