"""Connections of the pipeline's own, beside Django's: autocommit, binary, reconnected by their users.

Django's connections are for pages and the API; a dispatcher's loop and the publish path must not wait for their pool,
and their statements want other settings (`plan_cache_mode`, see engine.md: a prepared UPDATE kept the plan of an empty
partition. Plans are custom, except where `lanes.OPTIONS` and `ingest.OPTIONS` say otherwise).
"""

import logging
import time
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast

import psycopg
from django.db import connection as django_connection

from deliveries.pipeline import arrays
from deliveries.pipeline.hub import outside

logger = logging.getLogger(__name__)

Row = tuple[Any, ...]

TRIES_AFTER_DEADLOCKS = 3

PAUSE_AFTER_DEADLOCK = 0.1
"""Seconds."""

P = ParamSpec("P")
T = TypeVar("T")


def again_after_deadlock(transaction: Callable[P, T]) -> Callable[P, T]:
    """For a function that is one transaction: when PostgreSQL ended it so that another one can go on, it left nothing
    behind and is done again. To whoever called it, the database was never away.
    """

    @wraps(transaction)
    def tried(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(TRIES_AFTER_DEADLOCKS):
            try:
                return transaction(*args, **kwargs)
            except psycopg.errors.DeadlockDetected:
                logger.warning("again after a deadlock", extra={"transaction": transaction.__qualname__})
                # Whoever waited for it goes first, or both meet again.
                outside(partial(time.sleep, PAUSE_AFTER_DEADLOCK))
        return transaction(*args, **kwargs)

    return tried


def connect(
    *,
    application_name: str,
    statement_timeout_seconds: int,
    options: str = "",
    kind: type[psycopg.Connection[Row]] = psycopg.Connection,
) -> psycopg.Connection[Row]:
    """A new autocommit connection to the database that Django uses. Raises psycopg.OperationalError.

    `options`: settings of the server, as on a command line.
    """
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
            "-c idle_in_transaction_session_timeout=20s -c timezone=UTC -c tcp_user_timeout=10000 "
            f"{options}"
        ),
    }
    connection = kind.connect(**parameters, autocommit=True)
    # Prepared from the first use: parsing is a good part of the cost of these statements. Plans stay custom.
    connection.prepare_threshold = 1
    arrays.register(connection)
    return connection
