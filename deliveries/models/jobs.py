"""Work on much, in the background: jobs of tenants, and actions of operators."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Index, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from deliveries.models.endpoints import Endpoint
from tenants.ids import new_id
from tenants.models import Tenant
from tenants.scoping import TenantOwned


class Job(TenantOwned):
    """Work in the background, on much: events to one endpoint again, or everything that a list's filter finds.

    Its place is written with each batch of its work.
    """

    class Kind(models.TextChoices):
        RECOVER = "recover", _("recover what failed")
        REPLAY = "replay", _("replay")
        RETRY = "retry", _("try again")
        CANCEL = "cancel", _("cancel")
        EXPORT = "export", _("export")

    class Status(models.TextChoices):
        RUNNING = "running", _("running")
        DONE = "done", _("done")
        CANCELLED = "cancelled", _("cancelled")
        FAILED = "failed", _("failed")

    class Only(models.TextChoices):
        MISSING = "missing", _("what it never got")
        MISSED = "missed", _("what it never got, and what failed or was cancelled by disabling")
        FAILED = "failed", _("what failed")
        ALL = "all", _("everything")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    endpoint = models.ForeignKey(
        Endpoint, on_delete=models.CASCADE, related_name="+", db_index=False, null=True
    )
    """Of recover and replay."""
    filter = models.JSONField(null=True)
    """Of the others: `services/listing.py: ListFilter`, and the format of an export."""
    kind = models.CharField(max_length=8, choices=Kind.choices)
    only = models.CharField(max_length=8, choices=Only.choices)
    event_types = ArrayField(models.CharField(max_length=130), null=True)
    """Patterns. Empty: every type."""
    since = models.DateTimeField()
    until = models.DateTimeField()
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.RUNNING)
    error = models.CharField(max_length=32, blank=True, default="")
    """Why it failed: a code."""
    total = models.PositiveIntegerField(null=True)
    """Deliveries that it will make. Empty until they are counted."""
    done = models.PositiveIntegerField(default=0)
    """Deliveries that it made."""
    cursor = models.UUIDField(null=True)
    """Key of the last event or delivery that it looked at."""
    heartbeat_at = models.DateTimeField(db_default=Now(), editable=False)
    """When somebody last worked on it. Written at least every few seconds, so an old one says: its worker is gone."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    completed_at = models.DateTimeField(null=True, editable=False)
    expires_at = models.DateTimeField(null=True, editable=False)
    """Of an export that is done: when its file goes."""

    class Meta(TenantOwned.Meta):
        constraints = [
            models.UniqueConstraint(
                fields=["endpoint"], condition=Q(status="running"), name="job_one_running_per_endpoint"
            ),
            models.UniqueConstraint(
                fields=["tenant", "kind"],
                condition=Q(status="running", endpoint__isnull=True),
                name="job_one_running_per_kind",
            ),
            # What the composite foreign key of parts refers to.
            models.UniqueConstraint(fields=["id", "tenant"], name="job_id_with_tenant"),
        ]
        indexes = [
            # A tenant's jobs, newest first.
            Index(fields=["tenant", "id"], name="job_by_tenant"),
            # Those whose worker is gone.
            Index(fields=["heartbeat_at"], condition=Q(status="running"), name="job_running"),
            # Exports: those to expire, and those that an erasure must look into.
            Index(fields=["expires_at"], condition=Q(kind="export"), name="job_export"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class JobPart(TenantOwned):
    """A piece of an export's file, as one batch of the job wrote it. The pieces in their order are the file."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="+", db_index=False)
    number = models.PositiveIntegerField()
    data = models.BinaryField()
    """Compressed by zlib."""

    class Meta(TenantOwned.Meta):
        constraints = [
            # The file is read in this order.
            models.UniqueConstraint(fields=["job", "number"], name="job_part_once"),
        ]


class BulkAction(models.Model):
    """What an operator does to many things at once, in the background. Its place is written with each of them."""

    class Status(models.TextChoices):
        RUNNING = "running", _("running")
        DONE = "done", _("done")
        CANCELLED = "cancelled", _("cancelled")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    action = models.CharField(max_length=32)
    """One of `services/bulk_actions.py`."""
    selection = models.JSONField()
    """What it is done to: {"ids": […]} or the filters of a list."""
    arguments = models.JSONField(default=dict)
    actor_id = models.CharField(max_length=64)
    actor_label = models.CharField(max_length=254)
    remote_ip = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=128, blank=True, default="")
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.RUNNING)
    total = models.PositiveIntegerField()
    """As counted at the beginning, up to a bound."""
    done = models.PositiveIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)
    reasons = models.JSONField(default=dict)
    """Why it could not be done, by how often."""
    problems = models.JSONField(default=list)
    """The first of those that it could not be done to: [id, why]."""
    cursor = models.UUIDField(null=True)
    """Key of the last one."""
    heartbeat_at = models.DateTimeField(db_default=Now(), editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    completed_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        indexes = [
            # Those whose worker is gone.
            Index(fields=["heartbeat_at"], condition=Q(status="running"), name="bulk_action_running"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.id}"
