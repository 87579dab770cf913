"""Callers that publish at the same time share a transaction. Called by `ingest`."""

import threading
from collections.abc import Callable, Sequence

from deliveries.pipeline.publication import NewEvent, Result

GROUP_EVENTS = 2_000
"""Events that share a transaction at most: more only makes the first wait for the last."""


class _Ticket:
    __slots__ = ("error", "events", "results", "wakeup")

    def __init__(self, events: Sequence[NewEvent]) -> None:
        self.events = events
        self.results: list[Result] | None = None
        self.error: BaseException | None = None
        self.wakeup = threading.Lock()
        self.wakeup.acquire()


class GroupCommit:
    """Callers that arrive while a transaction is under way share the next one. One leads at a time, on one connection."""

    def __init__(self, work: Callable[[Sequence[NewEvent]], list[Result]]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._waiting: list[_Ticket] = []
        self._is_led = False

    def submit(self, events: Sequence[NewEvent]) -> list[Result]:
        ticket = _Ticket(events)
        with self._lock:
            self._waiting.append(ticket)
            leads = not self._is_led
            self._is_led = True
        if not leads:
            # Woken with a result, or to lead.
            ticket.wakeup.acquire()
        if ticket.results is None and ticket.error is None:
            self._lead()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.results is not None
        return ticket.results

    def _lead(self) -> None:
        """One transaction for those who wait (the leader is among them), then hand over to whoever came meanwhile."""
        with self._lock:
            group = self._take()
        try:
            results = self._work([event for ticket in group for event in ticket.events])
            start = 0
            for ticket in group:
                ticket.results = results[start : start + len(ticket.events)]
                start += len(ticket.events)
        except BaseException as error:  # noqa: BLE001 - every waiter must be told, whatever it was, a panic in Rust too
            for ticket in group:
                ticket.error = error
        with self._lock:
            heir = self._waiting[0] if self._waiting else None
            self._is_led = heir is not None
        for ticket in group:
            ticket.wakeup.release()
        if heir is not None:
            heir.wakeup.release()

    def _take(self) -> list[_Ticket]:
        size = count = 0
        for ticket in self._waiting:
            count += 1
            size += len(ticket.events)
            if size >= GROUP_EVENTS:
                break
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group
