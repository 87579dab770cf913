"""The inbox of a receiver: a table in which the id of each webhook stands once. What is in it is done, once."""

import json
import os
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

AGAIN_SECONDS = 1.0
"""After something could not be done, because another service was away, say."""

TABLE = "CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY, event TEXT, is_done INTEGER DEFAULT 0)"


@dataclass(frozen=True)
class Event:
    id: str
    hops: str
    """How many webhooks led to it; to be sent along with what it brings about."""
    type: str
    timestamp: str
    data: dict[str, Any]


class Inbox:
    def __init__(self, path: str, act: Callable[[Event], None]) -> None:
        self.table = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.table.execute(TABLE)
        self.act = act
        self.lock = threading.Lock()
        self.has_work = threading.Event()
        threading.Thread(target=self.work, daemon=True).start()

    def keep(self, event: Event) -> bool:
        """Whether it is new. From now on it is safe with us, and the sender may forget it."""
        with self.lock:
            row = (event.id, json.dumps(asdict(event)))
            added = self.table.execute("INSERT OR IGNORE INTO inbox (id, event) VALUES (?, ?)", row)
        return added.rowcount == 1

    def work(self) -> None:
        """One after the other, in the order in which they came; what fails is tried again."""
        self.has_work.set()  # what an earlier run left undone
        while self.has_work.wait():
            self.has_work.clear()
            with self.lock:
                rows = self.table.execute("SELECT id, event FROM inbox WHERE NOT is_done ORDER BY rowid")
                undone = rows.fetchall()
            for message_id, event in undone:
                try:
                    self.act(Event(**json.loads(event)))
                except Exception:  # noqa: BLE001 - whatever it was, it is tried again
                    traceback.print_exc()
                    time.sleep(AGAIN_SECONDS)
                    self.has_work.set()
                    break
                with self.lock:
                    self.table.execute("UPDATE inbox SET is_done = 1 WHERE id = ?", [message_id])


def path_of(name: str) -> str:
    """Where the environment wants files kept; in memory without FOLDER."""
    folder = os.environ.get("FOLDER")
    return f"{folder}/{name}" if folder else ":memory:"
