"""What happened: events, deliveries, attempts; and how far each tenant's history is gone already.

The first three are partitioned by time: weekly ranges of their UUIDv7 keys, so that the key stays the only unique column
and history leaves by dropping a table. No foreign key leads from one of them to another (a partition under a foreign key
cannot be dropped): the one writer, `pipeline/ingest.py`, keeps the tenant, and
`tests/architecture/test_history_tenants.py` scans for it.
"""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Index, Q
from django.db.models.functions import Least
from django.utils.translation import gettext_lazy as _

from deliveries.models.endpoints import Endpoint
from tenants.models import Tenant
from tenants.scoping import TenantOwned


class Event(TenantOwned):
    """What happened, published once; `data` is the bytes that came."""

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    type = models.CharField(max_length=128)
    occurred_at = models.DateTimeField()
    data = models.BinaryField(null=True)
    channels = ArrayField(models.CharField(max_length=128), null=True)
    ordering_key = models.CharField(max_length=128, null=True)
    sequence = models.BigIntegerField()
    """Drawn from a sequence after validation: what was published after another's reply has a higher one."""
    deliver_at = models.DateTimeField(null=True)
    settings_version = models.BigIntegerField()
    delivery_count = models.PositiveIntegerField()
    schema_warning = models.JSONField(null=True)
    hops = models.PositiveSmallIntegerField(default=0)
    created_at = models.DateTimeField()
    data_erased_at = models.DateTimeField(null=True)
    traceparent = models.CharField(max_length=55, null=True)
    """The span of its publish, if traces are on: attempts are made in its name."""

    class Meta(TenantOwned.Meta):
        indexes = [
            # A tenant's events, newest first.
            Index(fields=["tenant", "id"], name="event_by_tenant"),
            # Those of one type, newest first.
            Index(fields=["tenant", "type", "id"], name="event_by_type"),
            # Those of a rare channel. A frequent one is found by walking `event_by_tenant`; the planner knows which.
            GinIndex(
                fields=["channels"],
                condition=Q(channels__isnull=False),
                name="event_by_channel",
                # Entries not merged yet are read one by one at each look.
                gin_pending_list_limit=256,
            ),
            # Erased lately: what was in the air is looked at once more (`services/erasing.py`).
            Index(fields=["data_erased_at"], condition=Q(data_erased_at__isnull=False), name="event_erased"),
        ]


class Delivery(TenantOwned):
    """One event owed to one endpoint."""

    class Status(models.TextChoices):
        PENDING = "pending", _("pending")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    class Trigger(models.TextChoices):
        AUTOMATIC = "automatic"
        MANUAL = "manual"
        TEST = "test"
        REPLAY = "replay"

    class CancelReason(models.TextChoices):
        REQUESTED = "requested", _("cancelled by request")
        ENDPOINT_DISABLED = "endpoint_disabled", _("the endpoint was disabled")
        ENDPOINT_DELETED = "endpoint_deleted", _("the endpoint was deleted")
        TENANT_DELETED = "tenant_deleted", _("the tenant was deleted")
        PAYLOAD_ERASED = "payload_erased", _("the payload was erased")
        EXPIRED = "expired", _("it waited longer than it is kept")

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    endpoint = models.ForeignKey(
        Endpoint, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    event_id = models.UUIDField()
    event_type = models.CharField(max_length=128)
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.PENDING)
    cancel_reason = models.CharField(max_length=20, choices=CancelReason.choices, null=True)
    trigger = models.CharField(max_length=9, choices=Trigger.choices, default=Trigger.AUTOMATIC)
    subscription_id = models.UUIDField(null=True)
    ordering_key = models.CharField(max_length=128, null=True)
    """Set for FIFO endpoints alone ('' without a key of the event's)."""
    sequence = models.BigIntegerField()
    attempt_count = models.PositiveIntegerField(default=0)
    schedule_step = models.PositiveSmallIntegerField(default=0)
    """Automatic attempts made: where in the retry schedule it stands. Manual ones do not count here."""
    next_attempt_at = models.DateTimeField(null=True)
    """When the next automatic attempt is due. NULL while pending: it waits for the head of its ordering key."""
    manual_requested_at = models.DateTimeField(null=True)
    body = models.BinaryField(null=True)
    """What a transformation made of the event's data; NULL: the data itself."""
    preparation_error = models.TextField(null=True)
    """Why the transformation failed at publish; the delivery fails loudly at its first attempt."""
    size = models.PositiveIntegerField()
    """Bytes of the body to send, so that the loop can keep to its memory before it reads any."""
    last_outcome = models.CharField(max_length=24, null=True)
    last_status_code = models.PositiveSmallIntegerField(null=True)
    created_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True)

    class Meta(TenantOwned.Meta):
        verbose_name_plural = _("deliveries")
        constraints = [
            models.CheckConstraint(
                condition=Q(status="pending") | Q(next_attempt_at__isnull=True),
                name="delivery_ended_is_not_due",
            ),
        ]
        indexes = [
            # Load: what is due on a lane, oldest first. Blocked ones (FIFO) sort last and are never read; the holder
            # also ends what is pending on a stopped endpoint through it.
            Index(
                F("endpoint"),
                Least("next_attempt_at", "manual_requested_at"),
                F("id"),
                condition=Q(status="pending") | Q(manual_requested_at__isnull=False),
                name="delivery_due",
            ),
            # A tenant's deliveries, newest first.
            Index(fields=["tenant", "id"], name="delivery_by_tenant"),
            # An endpoint's deliveries, newest first.
            Index(fields=["endpoint", "id"], name="delivery_by_endpoint"),
            # The deliveries of an event.
            Index(fields=["event_id"], name="delivery_by_event"),
            # A tenant's deliveries of one type, newest first.
            Index(fields=["tenant", "event_type", "id"], name="delivery_by_type"),
            # Those of one status, newest first. What succeeded, nearly all, has an entry once, in the next but one.
            Index(
                fields=["tenant", "status", "id"], condition=~Q(status="succeeded"), name="delivery_by_status"
            ),
            # Those with one outcome, newest first.
            Index(
                fields=["tenant", "last_outcome", "id"],
                condition=~Q(last_outcome="succeeded") & Q(last_outcome__isnull=False),
                name="delivery_by_outcome",
            ),
            # What succeeded, by status or by outcome: few have the one and not the other.
            Index(fields=["tenant", "id"], condition=Q(last_outcome="succeeded"), name="delivery_succeeded"),
            # An endpoint's failed ones: its list, and what recover sends again.
            Index(
                fields=["endpoint", "id"],
                condition=Q(status__in=["failed", "cancelled"]),
                name="delivery_unsuccessful",
            ),
            # FIFO: the successor of an ordering key's head.
            Index(
                fields=["endpoint", "ordering_key", "sequence"],
                condition=Q(status="pending", ordering_key__isnull=False),
                name="delivery_fifo",
            ),
        ]


class Attempt(TenantOwned):
    """One HTTP request made for a delivery, and what came of it. Append-only."""

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    delivery_id = models.UUIDField()
    number = models.PositiveIntegerField()
    trigger = models.CharField(max_length=9, choices=Delivery.Trigger.choices)
    started_at = models.DateTimeField()
    duration_ms = models.FloatField()
    dns_ms = models.FloatField(null=True)
    connect_ms = models.FloatField(null=True)
    tls_ms = models.FloatField(null=True)
    first_byte_ms = models.FloatField(null=True)
    outcome = models.CharField(max_length=24)
    detail = models.TextField(default="")
    """Words of our own about this attempt, beside the sentence of its outcome."""
    status_code = models.PositiveSmallIntegerField(null=True)
    remote_ip = models.GenericIPAddressField(null=True)
    request_headers = models.BinaryField()
    """As sent, sensitive values masked, lines joined by LF."""
    response_headers = models.BinaryField()
    response_body = models.BinaryField()
    is_truncated = models.BooleanField(default=False)

    class Meta(TenantOwned.Meta):
        indexes = [
            # The attempts of a delivery.
            Index(fields=["delivery_id"], name="attempt_by_delivery"),
        ]


class RetentionMark(TenantOwned):
    """How far one kind of a tenant's history is gone already, so that a run begins where the last one ended."""

    class Kind(models.TextChoices):
        ATTEMPTS = "attempts", _("headers and bodies of attempts")
        PAYLOADS = "payloads", _("payloads")
        DELIVERIES = "deliveries", _("deliveries and their attempts")
        EVENTS = "events", _("events")

    id = models.BigAutoField(primary_key=True)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    reached_at = models.DateTimeField()
    """All that was made before has been looked at."""

    class Meta(TenantOwned.Meta):
        constraints = [models.UniqueConstraint(fields=["tenant", "kind"], name="retention_mark_once")]
