"""The smallest project around the app `inbox`, to try it: `python receiver.py migrate`, `runserver`, `act_on_webhooks`."""

import os
import sys
from pathlib import Path

from django.conf import settings
from django.core.management import execute_from_command_line

FOLDER = Path(__file__).parent

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("INBOX", FOLDER / "inbox.sqlite"),
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},  # SQLite's way of taking rows that no other has
        }
    },
    DATA_UPLOAD_MAX_MEMORY_SIZE=1_000_000,  # of a body; a longer one is refused
    INSTALLED_APPS=["inbox"],
    ROOT_URLCONF="inbox.urls",
    USE_TZ=True,
    WEBHOOK_SECRET=os.environ.get("WEBHOOK_SECRET", ""),
)


if __name__ == "__main__":
    execute_from_command_line(sys.argv)
