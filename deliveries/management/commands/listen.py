"""`manage.py listen --api URL --key K --forward URL [--types order.*]`: webhooks on a laptop, without a public URL."""

import signal
import sys
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from deliveries import listen


class Command(BaseCommand):
    help = "Forwards what happens at a platform to a local port, signed."
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        listen.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        code = listen.run(options, say=self._say, stop=stop)
        if code:
            sys.exit(code)

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
