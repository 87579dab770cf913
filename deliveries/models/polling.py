"""The line of an endpoint of kind poll, and those who read it."""

from django.db import models
from django.db.models import Index, Q
from django.db.models.functions import Now

from deliveries.models.endpoints import Endpoint
from tenants.models import Tenant
from tenants.scoping import TenantOwned


class PollItem(TenantOwned):
    """A delivery in the line of an endpoint of kind poll. Its key is what cursors count by.

    Numbered under a lock of the endpoint, after the delivery was committed: what a reader has not seen comes later in
    the line, whatever order publishers committed in.
    """

    id = models.BigAutoField(primary_key=True)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="+", db_index=False)
    delivery_id = models.UUIDField()
    event_id = models.UUIDField()
    acknowledged_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta(TenantOwned.Meta):
        indexes = [
            # Reading on from a cursor.
            Index(fields=["endpoint", "id"], name="poll_item_line"),
            # What a cursor acknowledges.
            Index(
                fields=["endpoint", "id"],
                condition=Q(acknowledged_at__isnull=True),
                name="poll_item_unread",
            ),
            # Forgetting.
            Index(fields=["created_at"], name="poll_item_age"),
        ]


class PollConsumer(TenantOwned):
    """One of those who read an endpoint of kind poll, and how far it is."""

    id = models.BigAutoField(primary_key=True)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="+", db_index=False)
    name = models.CharField(max_length=64)
    position = models.BigIntegerField(default=0)
    """Key of the last item that it acknowledged."""
    seen_at = models.DateTimeField(db_default=Now())

    class Meta(TenantOwned.Meta):
        constraints = [models.UniqueConstraint(fields=["endpoint", "name"], name="poll_consumer_once")]

    def __str__(self) -> str:
        return self.name
