"""Loads the Celery app in every process, so that tasks started from the web know their broker."""

from django.apps import AppConfig


class WebhooksPlatformConfig(AppConfig):
    name = "webhooks_platform"
    verbose_name = "Webhooks Platform"

    def ready(self) -> None:
        from webhooks_platform import celery, checks  # noqa: F401, PLC0415 - they read the settings, complete only now
