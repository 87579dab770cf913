"""Acts on what is in the inbox, one after the other. Run as many as you like; each takes what no other has."""

import time
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils import timezone

from inbox.acting import act
from inbox.models import Webhook

IDLE_SECONDS = 0.2


class Command(BaseCommand):
    help = "Act on webhooks as they come. Ctrl-C ends it."

    def handle(self, *args: Any, **options: Any) -> None:
        while True:
            try:
                found = act_on_next()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
                self.stderr.write(f"failed, and tried again: {error}")
                found = False
            if not found:
                time.sleep(IDLE_SECONDS)


def act_on_next() -> bool:
    waiting = Webhook.objects.filter(done_at=None).order_by("received_at")
    if not waiting.exists():
        return False
    with transaction.atomic():
        webhook = waiting.select_for_update(skip_locked=True).first()
        if webhook is None:
            return False
        act(webhook.event)
        webhook.done_at = timezone.now()
        webhook.save(update_fields=["done_at"])
    return True
