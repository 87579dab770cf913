"""One measurement, in a process whose environment names its own database and broker. Started by `manage.py bench`.

`python -m deliveries.bench '{"scenario": "deliver", "endpoints": 50}'` prints one line of JSON.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webhooks_platform.settings")


def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal handlers are called
    """So that everything that was started is stopped."""
    sys.exit(128 + number)


def main() -> None:
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    django.setup()
    # Models can be imported only now.
    from deliveries.bench import endpoint_scenarios, scenarios  # noqa: PLC0415
    from deliveries.bench.children import ChildDied  # noqa: PLC0415
    from deliveries.bench.platform import NotReady  # noqa: PLC0415
    from deliveries.bench.report import Line  # noqa: PLC0415
    from deliveries.bench.rig import Lost  # noqa: PLC0415

    options: dict[str, Any] = json.loads(sys.argv[1])
    name = options.pop("scenario")
    try:
        if name == "bench":
            answer: dict[str, Any] = scenarios.bench(**options)
        else:
            measure: Callable[..., list[Line]] = getattr(scenarios, name, None) or getattr(
                endpoint_scenarios, name
            )
            answer = {"lines": [line.as_json() for line in measure(**options)]}
    except (Lost, ChildDied, NotReady) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
