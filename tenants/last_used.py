"""When a key was last used, written beside the requests that use it. Called by `access`."""

import logging
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from django.db import connection

from tenants.short_memory import ShortMemory

logger = logging.getLogger(__name__)


class _LastUsed:
    """Writes `last_used_at` from a thread of its own, at most once a minute a key, so that no request waits for it."""

    EVERY_SECONDS: Final = 60.0
    GATHERED_SECONDS: Final = 0.2
    """Keys used at nearly the same time share a statement."""

    def __init__(self) -> None:
        self._noted: ShortMemory[UUID, bool] = ShortMemory()
        self._waiting: dict[UUID, datetime] = {}
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, key_id: UUID) -> None:
        if self._noted.get(key_id):
            return
        self._noted.put(key_id, True, seconds=self.EVERY_SECONDS)
        with self._lock:
            self._waiting[key_id] = datetime.now(UTC)
            # A fork leaves the thread behind and the object here.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="last-used", daemon=True)
                self._thread.start()
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            time.sleep(self.GATHERED_SECONDS)
            self._wanted.clear()
            with self._lock:
                waiting, self._waiting = self._waiting, {}
            if not waiting:
                continue
            try:
                write_last_used(waiting.items())
            except Exception:  # the loop of a thread: whatever it is must not end it
                logger.exception("last use of keys not written", extra={"keys": len(waiting)})
            finally:
                connection.close()


def write_last_used(uses: Iterable[tuple[UUID, datetime]]) -> None:
    """Keys locked in order; a key that another process wrote within the minute is left as it is."""
    uses = sorted(uses)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH k AS MATERIALIZED (
                SELECT id, used_at FROM unnest(%s::uuid[], %s::timestamptz[]) AS u(id, used_at)
                JOIN tenants_apikey USING (id)
                WHERE last_used_at IS NULL OR last_used_at < used_at - interval '59 seconds'
                ORDER BY id FOR NO KEY UPDATE OF tenants_apikey
            )
            UPDATE tenants_apikey SET last_used_at = k.used_at FROM k WHERE tenants_apikey.id = k.id
            """,
            [[key_id for key_id, _ in uses], [used_at for _, used_at in uses]],
        )


last_used = _LastUsed()
