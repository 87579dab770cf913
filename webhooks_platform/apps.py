"""Loads the Celery app in every process, so that tasks started from the web know their broker."""

from django.apps import AppConfig


class WebhooksPlatformConfig(AppConfig):
    name = "webhooks_platform"
    verbose_name = "Webhooks Platform"

    def ready(self) -> None:
        from webhooks_platform import celery  # noqa: F401, PLC0415 - it reads the settings, complete only now
