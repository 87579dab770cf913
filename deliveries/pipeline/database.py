"""Connections of the pipeline's own, beside Django's: autocommit, custom plans, binary, reconnected by their users.

Django's connections are for pages and the API; a dispatcher's loop and the publish path must not wait for their pool,
and their statements want other settings (`plan_cache_mode`, see engine.md: a prepared UPDATE kept the plan of an empty
partition).
"""

from typing import Any, cast

import psycopg
from django.db import connection as django_connection

from deliveries.pipeline import arrays

Row = tuple[Any, ...]


def connect(*, application_name: str, statement_timeout_seconds: int) -> psycopg.Connection[Row]:
    """A new autocommit connection to the database that Django uses. Raises psycopg.OperationalError."""
    parameters = cast(dict[str, Any], dict(django_connection.get_connection_params()))
    for theirs in (
        "context",
        "cursor_factory",
        "prepare_threshold",
        "pool",
        "server_side_binding",
        "isolation_level",
    ):
        parameters.pop(theirs, None)
    parameters |= {
        "application_name": application_name,
        "connect_timeout": 5,
        "options": (
            f"-c statement_timeout={statement_timeout_seconds}s -c plan_cache_mode=force_custom_plan -c jit=off "
            "-c idle_in_transaction_session_timeout=20s -c timezone=UTC -c tcp_user_timeout=10000"
        ),
    }
    connection: psycopg.Connection[Row] = psycopg.Connection.connect(**parameters, autocommit=True)
    # Prepared from the first use: parsing is a good part of the cost of these statements. Plans stay custom.
    connection.prepare_threshold = 1
    arrays.register(connection)
    return connection
