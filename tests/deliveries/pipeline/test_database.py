"""How the platform's connections to the database are made."""

import pytest
from django.db import connection

from deliveries.pipeline.database import connect

pytestmark = pytest.mark.usefixtures("database")


def test_a_database_whose_machine_vanished_is_given_up_after_ten_seconds() -> None:
    """It says nothing, and the server's time-outs are gone with it: only this machine's TCP can end the wait.

    The first is for what was sent and is not acknowledged, keepalives are for a wait for the answer.
    """
    connection.ensure_connection()

    with connect(application_name="webhooks-test", statement_timeout_seconds=5) as own:
        made = [each.info.get_parameters() for each in (connection.connection, own)]

    wanted = {"tcp_user_timeout": "10000", "keepalives_idle": "5", "keepalives_interval": "5"}
    assert [{name: each.get(name) for name in wanted} for each in made] == [wanted, wanted]
