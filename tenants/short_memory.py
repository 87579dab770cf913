"""What a process remembers for a few seconds, so that it need not ask the database again. Pure."""

import threading
import time
from collections import OrderedDict
from typing import Final, Generic, TypeVar

REMEMBERED: Final = 20_000
"""Entries of each cache. Beyond it the one used longest ago goes."""

Key = TypeVar("Key")
Value = TypeVar("Value")


class ShortMemory(Generic[Key, Value]):
    """A bounded cache of this process, whose entries end after seconds. Safe between threads."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, tuple[float, Value]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        entry = self._entries.get(key)
        if entry is None or entry[0] <= time.monotonic():
            return None
        return entry[1]

    def put(self, key: Key, value: Value, *, seconds: float) -> None:
        with self._lock:
            self._entries[key] = (time.monotonic() + seconds, value)
            self._entries.move_to_end(key)
            if len(self._entries) > REMEMBERED:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
