"""Two publishers nudge at the same moment, and two worker processes begin a dispatcher each.

Each looked, saw none alive, and began: from then on two shared what one was to do, and stood in each other's way.
"""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID

import pytest
from django.db import connection

from deliveries.models import Dispatcher
from deliveries.pipeline import lease, sweeps
from deliveries.pipeline.database import connect
from tenants.ids import new_id

pytestmark = pytest.mark.usefixtures("quiet_lanes")


def test_of_many_that_begin_at_once_only_as_many_as_wanted_are_registered() -> None:
    ids = [new_id() for _ in range(8)]
    together = Barrier(len(ids))

    def begin(me: UUID) -> bool:
        with connect(application_name="test", statement_timeout_seconds=5) as own:
            together.wait()
            return lease.register(own, me=me, process="test", at_most=3)

    with ThreadPoolExecutor(len(ids)) as threads:
        registered = list(threads.map(begin, ids))

    assert registered.count(True) == 3
    assert Dispatcher.objects.count() == 3
    assert sweeps.enough_dispatchers(3)


def test_one_that_is_about_to_end_leaves_its_place_to_the_next() -> None:
    with connect(application_name="test", statement_timeout_seconds=5) as own:
        first = new_id()
        assert lease.register(own, me=first, process="test", at_most=1)
        assert not lease.register(own, me=new_id(), process="test", at_most=1)

        with connection.cursor() as cursor:
            cursor.execute("UPDATE deliveries_dispatcher SET is_draining = true WHERE id = %s", [first])

        assert lease.register(own, me=new_id(), process="test", at_most=1)
