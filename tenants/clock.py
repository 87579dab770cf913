"""The database's clock, which schedules, leases, keys and retention go by, and how far this machine's may be from it.

Whoever decides by the time what is to be sent, ended or deleted asks here: a worker's own clock may be days off.
"""

from datetime import datetime

from django.db import connection

MOST_OFF_SECONDS = 60.0
"""How far this machine's clock may be off the database's. Beyond it receivers refuse our signatures as too old."""

MOST_APART_SECONDS = 120
"""How far two machines' clocks may then be apart. A message that expires sooner is thrown away by a worker that is ahead."""


def database_now() -> datetime:
    """Raises DatabaseError and its like without a database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        row = cursor.fetchone()
    assert row is not None
    now: datetime = row[0]
    return now
