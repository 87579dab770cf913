"""What people are told: transitions, and the messages that are made of them."""

from django.db import models
from django.db.models import Index, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from deliveries.models.endpoints import Endpoint
from tenants.ids import new_id
from tenants.models import Tenant
from tenants.scoping import TenantOwned


class Announcement(TenantOwned):
    """A transition that the tenant may want to hear of. Written where it happens (`pipeline/announce.py`), told by tasks.

    Those of deliveries go when they are published; the others are kept for a while, for people.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    endpoint = models.ForeignKey(
        Endpoint, null=True, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    delivery_id = models.UUIDField(null=True)
    kind = models.CharField(max_length=32)
    """As `announce.Kind`."""
    data = models.JSONField(default=dict)
    is_quiet = models.BooleanField(db_default=False)
    """Caused by deliveries of operational events: it makes none itself."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    published_at = models.DateTimeField(null=True, editable=False)
    """As an operational event, if anybody subscribed to it."""
    notified_at = models.DateTimeField(null=True, editable=False)
    """When it became part of notices to the tenant's people, or was found to be no news to them."""
    reported_at = models.DateTimeField(null=True, editable=False)
    """The same, of operators."""

    class Meta(TenantOwned.Meta):
        indexes = [
            # A tenant's, newest first.
            Index(fields=["tenant", "-id"], name="announcement_by_tenant"),
            # What the tasks have not told yet, and what is old enough to go.
            Index(fields=["id"], condition=Q(published_at__isnull=True), name="announcement_unpublished"),
            Index(fields=["id"], condition=Q(notified_at__isnull=True), name="announcement_unnotified"),
            Index(fields=["id"], condition=Q(reported_at__isnull=True), name="announcement_unreported"),
        ]

    def __str__(self) -> str:
        return self.kind


class SlackHook(TenantOwned):
    """A tenant's Slack-compatible incoming webhook, where its notices go."""

    tenant = models.OneToOneField(Tenant, primary_key=True, on_delete=models.CASCADE, related_name="+")
    encrypted = models.BinaryField(editable=False)
    """The URL. Context: tenant."""
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        pass


class Notice(models.Model):
    """A message to one reader about a tenant's endpoints, or to operators about everybody's. Sent by a task."""

    class Channel(models.TextChoices):
        EMAIL = "email", _("e-mail")
        SLACK = "slack", _("Slack")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.CASCADE, related_name="+", db_index=False)
    """Empty: to operators."""
    channel = models.CharField(max_length=8, choices=Channel.choices)
    recipient = models.CharField(max_length=254, blank=True, default="")
    """Of an e-mail. A Slack hook's address is looked up when it is sent."""
    language = models.CharField(max_length=8, blank=True, default="")
    facts = models.JSONField()
    """What it tells, an endpoint each. Of a summary, the first are its counts."""
    summary_on = models.DateField(null=True)
    """Of a daily or weekly summary: the day on which it is due."""
    tries = models.PositiveSmallIntegerField(default=0)
    error = models.CharField(max_length=200, blank=True, default="")
    """Why the last try failed, in words of ours."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    next_try_at = models.DateTimeField(db_default=Now(), editable=False)
    sent_at = models.DateTimeField(null=True, editable=False)
    failed_at = models.DateTimeField(null=True, editable=False)
    """Given up."""

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "recipient", "summary_on"],
                condition=Q(summary_on__isnull=False),
                name="notice_summary_once",
            ),
        ]
        indexes = [
            # Whether a tenant was told lately; what was told, for people.
            Index(fields=["tenant", "-created_at"], name="notice_by_tenant"),
            # What is to be sent.
            Index(
                fields=["next_try_at", "id"],
                condition=Q(sent_at__isnull=True, failed_at__isnull=True),
                name="notice_due",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.channel} {self.id}"
