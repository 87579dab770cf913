"""One who publishes in a story: says what happens, and tells the platform."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from webhooks_platform.demo.api import Api

AGAIN_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Voice:
    api: Api
    tell: Callable[[str], None]

    def publish(self, event_type: str, data: dict[str, Any], *, key: str) -> str:
        """Until it is accepted; returns its id. Trying again is safe: what the key names happens once."""
        while True:
            try:
                event_id = self.api.publish(event_type, data, idempotency_key=key)
            except OSError as error:  # an error status, or no answer
                self.tell(f"{event_type} was not accepted ({error}); trying again in {AGAIN_SECONDS:g} s")
                time.sleep(AGAIN_SECONDS)
            else:
                self.tell(f"  → published {event_type}; the platform says 202 and keeps it as {event_id}")
                return event_id


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
