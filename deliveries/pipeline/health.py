"""How a lane's endpoint does: failures in a row, the pause after an overload, and the circuit breaker.

Counted by the lane's holder (`dispatch`), kept on the lane (`lanes`). Pure: gets the time, says until when to wait.

    closed      requests go out as ever
    open        after minutes of nothing but failures: nothing goes out until a wait is over, longer each time
    half-open   the wait is over: one request goes out, and its answer decides

Waiting is no attempt: what is held keeps its place in its retry schedule, and no delivery ends by it.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from deliveries.pipeline.outcome import Outcome

OVERLOADED: Final = frozenset({429, 502, 503, 504})
"""Statuses that ask for less: a pause follows."""


@dataclass(frozen=True, slots=True)
class Rules:
    open_after_seconds: float = 300.0
    """Of nothing but failures. Part of the API contract, as the next one: a restart of a receiver takes less."""
    open_after_failures: int = 20
    first_wait_seconds: float = 60.0
    """Of a circuit that opens. Each probe that fails doubles it."""
    longest_wait_seconds: float = 900.0
    """So a dead endpoint gets four requests an hour, and one that is back is found within a quarter of an hour."""
    first_pause_seconds: float = 1.0
    """After an answer that says too much. Doubles with each further one in a row."""
    longest_pause_seconds: float = 60.0


RULES: Final = Rules()


class Hold(Enum):
    """Why a lane waits; the values are those of `Lane.hold_reason`."""

    ANSWER = "answer"
    CIRCUIT = "circuit"


@dataclass(slots=True, eq=False)
class Health:
    """Of a lane whose last answer was a failure. One that is well has none. Times: Unix, by the database's clock."""

    failing_since: float
    failed_at: float
    failures: int = 0
    """In a row."""
    is_own: bool = False
    """One of them at least was of an event of the tenant's own, not of the platform's operational ones."""
    pause_seconds: float | None = None
    """The last pause."""
    opened_at: float | None = None
    """When the circuit opened. Empty: closed."""
    wait_seconds: float | None = None
    """The circuit's last wait."""

    def failed(
        self,
        *,
        now: float,
        is_own: bool,
        status_code: int | None,
        retry_after: int | None,
        may_hold: bool,
        jitter: float,
        rules: Rules,
    ) -> tuple[Hold, float] | None:
        """Count a failure. Why and for how many seconds nothing more may start; None: go on.

        `may_hold`: no earlier answer holds the lane already. What was in the air together counts, and lengthens nothing.
        """
        self.failures += 1
        self.failed_at = now
        self.is_own = self.is_own or is_own
        if not may_hold:
            return None
        if self.opened_at is not None or self._is_over_the_line(now, rules):
            return Hold.CIRCUIT, self._open(now, jitter, rules)
        if status_code in OVERLOADED:
            seconds = self._pause(retry_after, rules)
            return (Hold.ANSWER, seconds) if seconds else None
        return None

    def _is_over_the_line(self, now: float, rules: Rules) -> bool:
        return (
            self.failures >= rules.open_after_failures
            and now - self.failing_since >= rules.open_after_seconds
        )

    def _open(self, now: float, jitter: float, rules: Rules) -> float:
        """Open, or open again after a probe that failed."""
        if self.opened_at is None or self.wait_seconds is None:
            self.opened_at = now
            self.wait_seconds = rules.first_wait_seconds
        else:
            self.wait_seconds = min(2 * self.wait_seconds, rules.longest_wait_seconds)
        # Those of one host went down together; they shall not all ask again at once.
        return self.wait_seconds * (1 + 0.1 * jitter)

    def _pause(self, retry_after: int | None, rules: Rules) -> float:
        longer = rules.first_pause_seconds if self.pause_seconds is None else 2 * self.pause_seconds
        self.pause_seconds = min(longer, rules.longest_pause_seconds)
        # What the receiver asks for is known to be enough.
        return self.pause_seconds if retry_after is None else min(self.pause_seconds, retry_after)


def is_charged(outcome: Outcome) -> bool:
    """Whether a failure says something about the endpoint. Faults of the platform, its proxy or the event do not."""
    match outcome:
        case (
            Outcome.HTTP_ERROR
            | Outcome.TIMEOUT
            | Outcome.DNS_FAILED
            | Outcome.CONNECTION_FAILED
            | Outcome.TLS_FAILED
            | Outcome.ADDRESS_BLOCKED
            | Outcome.PROTOCOL_ERROR
            | Outcome.CREDENTIALS_FAILED
        ):
            return True
        case (
            Outcome.SUCCEEDED
            | Outcome.REQUEST_TOO_LARGE
            | Outcome.TRANSFORMATION_FAILED
            | Outcome.PROXY_FAILED
            | Outcome.INTERNAL_ERROR
        ):
            return False
        case _:
            assert_never(outcome)
