"""Loaded into a worker or web server under test: stops it at a named step, so that the product has no code for faults.

`WEBHOOKS_FAULT_AT` names the step. The process goes through it as if nothing were until the test puts a file `armed`
into the fault folder. Who gets there first takes that file away, says `reached`, waits for `go` and is killed.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deliveries.pipeline import dispatch, ingest, lanes
from deliveries.pipeline.hub import outside
from tests.support.platform import FOLDER_VARIABLE, STEP_VARIABLE

FOLDER = Path(os.environ[FOLDER_VARIABLE])

GO_SECONDS = 60


def is_here() -> bool:
    """Whether this process is the one. It waits for the test's word."""
    try:
        (FOLDER / "armed").unlink()
    except FileNotFoundError:
        return False
    (FOLDER / "reached").write_text(str(os.getpid()))
    deadline = time.monotonic() + GO_SECONDS
    while not (FOLDER / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return True


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before(module: object, name: str) -> None:
    step: Callable[..., Any] = getattr(module, name)

    def stepped(*arguments: Any, **named: Any) -> Any:
        if outside(is_here):
            die()
        return step(*arguments, **named)

    setattr(module, name, stepped)


def die_in_release() -> None:
    """Waits before the first step, so that the test can make work for the lane; dies between the two."""
    release = lanes.release

    def stepped(connection: Any, *, me: Any, lanes: Any, until: Any) -> int:
        # A dispatcher's loop goes on meanwhile, as it does beside a slow database.
        if outside(is_here):
            clear(connection, me=me, lanes=lanes)
            die()
        return release(connection, me=me, lanes=lanes, until=until)

    clear = lanes.clear
    lanes.release = stepped


match os.environ[STEP_VARIABLE]:
    case "between the two steps of a release":
        die_in_release()
    case "between send and record":
        die_before(dispatch, "record")
    case "between commit and wake":
        die_before(ingest, "_wake")
    case unknown:
        raise ValueError(unknown)
