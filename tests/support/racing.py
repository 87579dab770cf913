"""Several that do the same thing at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

Result = TypeVar("Result")


def at_once(count: int, run: Callable[[int], Result], *, seconds: float = 60) -> list[Result]:
    """`run` in so many threads, told their number, that begin together. What they returned, or what one raised."""
    start = threading.Barrier(count)

    def one(number: int) -> Result:
        try:
            start.wait(seconds)
            return run(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count), timeout=seconds))
