"""A web server in which every publish has a transaction to itself, to compare with. See `endpoint_scenarios.single`.

Each of its threads publishes on a connection of its own, so that transactions go on at the same time, and PostgreSQL
writes several to the disk at once where it can.
"""

import threading
from types import SimpleNamespace
from typing import Any

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

# Models can be imported only now.
from deliveries.pipeline import ingest  # noqa: E402


class _OneAThread(threading.local):
    def __init__(self) -> None:
        self.publisher = ingest._Publisher()  # noqa: SLF001 - the product has no setting for it

    def __getattr__(self, name: str) -> Any:
        return getattr(self.publisher, name)


vars(ingest).update(_publisher=_OneAThread(), _group_commit=SimpleNamespace(submit=ingest._run))  # noqa: SLF001
