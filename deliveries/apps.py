from datetime import UTC, datetime
from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


def make_partitions(**kwargs: Any) -> None:
    """`migrate` leaves a database that can take events."""
    # The models are not loaded yet when this module is.
    from deliveries.pipeline.partitions import ensure_partitions  # noqa: PLC0415

    ensure_partitions(now=datetime.now(UTC))


class DeliveriesConfig(AppConfig):
    name = "deliveries"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        post_migrate.connect(make_partitions, sender=self)
