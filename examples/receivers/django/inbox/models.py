"""The inbox: each webhook stands in it once."""

from django.db import models


class Webhook(models.Model):
    id = models.CharField(primary_key=True, max_length=64)
    """The webhook-id, the same however often it is sent."""
    event = models.JSONField()
    received_at = models.DateTimeField(auto_now_add=True)
    done_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            # Read by `act_on_webhooks`; stays small, whatever is kept.
            models.Index("received_at", name="webhooks_to_act_on", condition=models.Q(done_at=None)),
        ]

    def __str__(self) -> str:
        return self.id
