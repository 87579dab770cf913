"""The counting receiver of the bench, for tests that ask what arrived: a process of its own, cheap under any load.

`/group/name` paths; see `deliveries.bench.receiver` for what a rule can say. In tests every signature is verified
whose secret is known, not one in a hundred.
"""

import time
from typing import Any

from deliveries.bench.children import Receiver


class CountingReceiver(Receiver):
    """`with CountingReceiver() as receiver: …`"""

    def __init__(self, *, address: str = "127.0.0.1", verify_every: int = 1, port: int = 0) -> None:
        super().__init__(address=address, verify_every=verify_every, port=port)
        self.host = "127.0.0.1" if address == "127.0.0.0/8" else address

    def url(self, path: str) -> str:
        return f"http://{self.host}:{self.port}{path}"

    def wait_for(self, count: int, *, group: str | None = None, seconds: float = 30) -> dict[str, Any]:
        """Until so many different deliveries were answered with a success; then the report."""
        return self._wait("distinct", count, group, seconds)

    def wait_for_requests(
        self, count: int, *, group: str | None = None, seconds: float = 30
    ) -> dict[str, Any]:
        return self._wait("requests", count, group, seconds)

    def wait_for_in_air(self, count: int, *, seconds: float = 30) -> dict[str, Any]:
        """Until so many requests wait for their answer at once (under a rule with `seconds`); the counts then."""
        return self._wait_until("in_air", count, None, seconds)

    def _wait(self, what: str, count: int, group: str | None, seconds: float) -> dict[str, Any]:
        self._wait_until(what, count, group, seconds)
        return self.report(group)

    def _wait_until(self, what: str, count: int, group: str | None, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (counted := self.count(group))[what] < count:
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"waited {seconds} s for {what} = {count}: {counted}, {self.report(group)}"
                )
            time.sleep(0.02)
        return counted
