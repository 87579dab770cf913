"""Where tenants receive from others: sources, their URLs, and what came."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Index, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from tenants.ids import new_id
from tenants.models import Tenant
from tenants.scoping import TenantOwned


class Source(TenantOwned):
    """A URL at which a tenant receives from others; what comes is verified, kept, and made an event.

    With `kind` inspector: a throw-away URL that only shows what reaches it.
    """

    class Kind(models.TextChoices):
        SOURCE = "source", _("source")
        INSPECTOR = "inspector", _("inspector")

    class Status(models.TextChoices):
        ENABLED = "enabled", _("enabled")
        DISABLED = "disabled", _("disabled")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    kind = models.CharField(max_length=9, choices=Kind.choices, default=Kind.SOURCE)
    name = models.CharField(max_length=200)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.ENABLED)
    preset = models.CharField(max_length=32, blank=True, default="")
    """Whose settings it began with."""
    verification = models.JSONField(default=dict)
    """The fields of `inbound.verification.Verification`."""
    secrets_encrypted = models.BinaryField(null=True, editable=False)
    """{"secrets": […], "verify_token": "…"}. Context: tenant, source."""
    secret_count = models.PositiveSmallIntegerField(default=0)
    has_verify_token = models.BooleanField(default=False)
    allowed_networks = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    event_type = models.CharField(max_length=1024, blank=True, default="")
    """CEL. Empty for inspectors."""
    data = models.CharField(max_length=1024, null=True, blank=True)
    """CEL; empty: the body."""
    dedup_header = models.CharField(max_length=128, blank=True, default="")
    dedup_path = models.CharField(max_length=255, blank=True, default="")
    dedup_seconds = models.PositiveIntegerField(default=86_400)
    handshake = models.CharField(max_length=8, null=True, blank=True)
    response_status = models.PositiveSmallIntegerField(default=200)
    response_body = models.CharField(max_length=1024, blank=True, default="")
    rate_limit = models.PositiveIntegerField(null=True, blank=True)
    """Requests per minute; empty means the platform's."""
    expires_at = models.DateTimeField(null=True, blank=True)
    """Of inspectors."""
    version = models.BigIntegerField(default=1)
    """Raised by every change: a process that compiled an older one reads the row again."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)

    class Meta(TenantOwned.Meta):
        constraints = [
            # What the composite foreign key of tokens refers to.
            models.UniqueConstraint(fields=["id", "tenant"], name="source_id_with_tenant"),
        ]
        indexes = [
            # A tenant's list, newest first.
            Index(fields=["tenant", "id"], name="source_by_tenant"),
            # The hourly task that ends inspectors.
            Index(
                fields=["expires_at"],
                condition=Q(expires_at__isnull=False, deleted_at__isnull=True),
                name="source_expiring",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class SourceToken(TenantOwned):
    """The secret part of a source's URL. Several are live while a rotation overlaps."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    source = models.ForeignKey(Source, on_delete=models.CASCADE, related_name="tokens")
    hash = models.BinaryField(max_length=32, unique=True)
    """SHA-256. Unique: the one look-up of a request."""
    prefix = models.CharField(max_length=8)
    """What people see of it."""
    expires_at = models.DateTimeField(null=True)
    """End of the overlap; empty for the current one."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        pass

    def __str__(self) -> str:
        return self.prefix


class IncomingRequest(TenantOwned):
    """A request as it came to a source, and what became of it. What is refused is kept, too.

    Written with the event that it made, in one transaction (`pipeline/origins.py`), or alone.
    """

    class Verdict(models.TextChoices):
        ACCEPTED = "accepted", _("accepted")
        DUPLICATE = "duplicate", _("duplicate")
        HANDSHAKE = "handshake", _("handshake")
        IGNORED = "ignored", _("ignored")
        UNMAPPED = "unmapped", _("not mapped")
        REFUSED = "refused", _("refused")
        INSPECTED = "inspected", _("inspected")

    id = models.UUIDField(primary_key=True, editable=False)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    source = models.ForeignKey(
        Source, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    verdict = models.CharField(max_length=9, choices=Verdict.choices)
    reason = models.CharField(max_length=32, blank=True, default="")
    """A code of `inbound.requests.Reason`."""
    detail = models.CharField(max_length=500, blank=True, default="")
    """The reason in words of our own."""
    method = models.CharField(max_length=7)
    query = models.BinaryField()
    headers = models.BinaryField()
    """Lines joined by LF, sensitive values masked."""
    content_type = models.CharField(max_length=128, blank=True, default="")
    body = models.BinaryField()
    size = models.PositiveIntegerField()
    """Bytes of the body as it came; of one that was too large, as far as was said."""
    remote_ip = models.GenericIPAddressField(null=True)
    dedup_id = models.CharField(max_length=255, blank=True, default="")
    """The provider's."""
    hops = models.PositiveSmallIntegerField(default=0)
    event_id = models.UUIDField(null=True)
    status_code = models.PositiveSmallIntegerField()
    """What was answered."""
    created_at = models.DateTimeField()
    erased_at = models.DateTimeField(null=True)

    class Meta(TenantOwned.Meta):
        indexes = [
            # A source's requests, newest first.
            Index(fields=["tenant", "source", "id"], name="incoming_by_source"),
            # Those that wait for a mended mapping.
            Index(
                fields=["tenant", "source", "id"],
                condition=Q(verdict="unmapped"),
                name="incoming_unmapped",
            ),
            # Erasing an event's payload.
            Index(fields=["event_id"], condition=Q(event_id__isnull=False), name="incoming_by_event"),
        ]
