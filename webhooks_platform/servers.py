"""Processes that serve or work need their servers: they end at once, and say what to set, instead of trying for ever.

Called by the web server's entry and by Celery as a worker or beat starts. Commands that need no server do not call it.
"""

import os
import sys

NEEDED = {
    "DATABASE_URL": "postgresql://user:password@host:5432/webhooks",
    "CELERY_BROKER_URL": "redis://host:6379/0",
}


def require_servers() -> None:
    missing = [name for name in NEEDED if not os.environ.get(name, "").strip()]
    if missing:
        # Not an exception: Celery logs those of its signals, and goes on.
        sys.exit("\n".join(f"{name} is not set. Set it to {NEEDED[name]}." for name in missing))
