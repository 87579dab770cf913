"""What a tenant sets: its endpoints, their secrets, what they subscribe to, and how that was at each version."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Func, Index, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from tenants.ids import new_id
from tenants.models import Tenant
from tenants.scoping import TenantOwned


def default_success_statuses() -> list[str]:
    return ["2xx"]


class ReversedHost(Func):
    """The host of a URL, its letters in reverse: an index of it finds `example.com` and everything below it.

    URLs are kept without user names and with their host in lower case; see `validation.url`.
    """

    # By bytes, so that an index of it serves LIKE 'moc.elpmaxe.%'.
    template = r"""(reverse(substring(%(expressions)s from '^[a-z]+://(\[[^]]*\]|[^/:?]*)')) COLLATE "C")"""
    output_field = models.TextField()


BY_THE_PLATFORM = ("failing", "gone", "receiver")
"""Reasons for which nobody disabled an endpoint by hand."""


class Endpoint(TenantOwned):
    """Where a tenant's events go: a URL that is called, and how it wants to be; or a line that its receiver polls."""

    class Kind(models.TextChoices):
        HTTP = "http"
        POLL = "poll"

    class Status(models.TextChoices):
        ENABLED = "enabled", _("enabled")
        DISABLED = "disabled", _("disabled")

    class DisabledReason(models.TextChoices):
        MANUAL = "manual", _("disabled by hand")
        GONE = "gone", _("the receiver answered 410 Gone")
        FAILING = "failing", _("it failed for too long")
        RECEIVER = "receiver", _("the receiver asked for it")

    class Method(models.TextChoices):
        POST = "POST"
        PUT = "PUT"
        GET = "GET"

    class Format(models.TextChoices):
        STANDARD = "standard"
        RAW = "raw"
        CLOUDEVENTS = "cloudevents"
        CLOUDEVENTS_BINARY = "cloudevents-binary"
        XML = "xml"
        FORM = "form"

    class SignatureScheme(models.TextChoices):
        HMAC_SHA256 = "hmac-sha256"
        ED25519 = "ed25519"

    class Ordering(models.TextChoices):
        NONE = "none"
        FIFO = "fifo"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    uid = models.CharField(max_length=255, null=True, blank=True)
    kind = models.CharField(max_length=4, choices=Kind.choices, default=Kind.HTTP, db_default=Kind.HTTP)
    """Of kind poll: nothing is sent, its lane is held for good, and deliveries wait until they are read."""
    url = models.CharField(max_length=2048, blank=True)
    """Empty for kind poll."""
    description = models.TextField(blank=True, default="")
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.ENABLED)
    disabled_reason = models.CharField(max_length=8, choices=DisabledReason.choices, null=True, blank=True)
    channels = ArrayField(models.CharField(max_length=128), null=True, blank=True)
    method = models.CharField(max_length=4, choices=Method.choices, default=Method.POST)
    format = models.CharField(max_length=20, choices=Format.choices, default=Format.STANDARD)
    headers = models.JSONField(default=dict, blank=True)
    """The readable ones, by name."""
    sensitive_headers = ArrayField(models.CharField(max_length=128), default=list, blank=True)
    """Names alone; the values are in `sensitive_headers_encrypted`."""
    sensitive_headers_encrypted = models.BinaryField(null=True, editable=False)
    signature_scheme = models.CharField(
        max_length=12, choices=SignatureScheme.choices, default=SignatureScheme.HMAC_SHA256
    )
    signature_template = models.JSONField(null=True, blank=True)
    """How the signature of another scheme is made, beside ours; as `pipeline/signature_template.py` reads it."""
    template_secret_encrypted = models.BinaryField(null=True, editable=False)
    """The template's own secret. Empty: it signs with the endpoint's."""
    auth = models.JSONField(null=True, blank=True)
    """What is readable of how it signs in at the receiver: `type`, names and addresses."""
    auth_encrypted = models.BinaryField(null=True, editable=False)
    """Its password, token or client secret."""
    client_certificate = models.TextField(null=True, blank=True)
    """In PEM, shown to the receiver in the TLS handshake."""
    client_key_encrypted = models.BinaryField(null=True, editable=False)
    ca_certificates = models.TextField(null=True, blank=True)
    """In PEM: what is trusted instead of the public authorities."""
    success_statuses = ArrayField(models.CharField(max_length=3), default=default_success_statuses)
    timeout_seconds = models.PositiveSmallIntegerField(default=15)
    rate_limit = models.FloatField(null=True, blank=True)
    """Requests per second."""
    max_in_flight = models.PositiveSmallIntegerField(default=10)
    ordering = models.CharField(max_length=4, choices=Ordering.choices, default=Ordering.NONE)
    batch = models.JSONField(null=True, blank=True)
    """`max_events` and `max_wait_ms`: several events in one request."""
    retry_schedule = ArrayField(models.PositiveIntegerField(), null=True, blank=True)
    """Seconds to wait before each retry; empty means the default schedule."""
    metadata = models.JSONField(default=dict, blank=True)
    is_paused = models.BooleanField(default=False)
    """Held by an operator; a suspended tenant holds its endpoints apart from this."""
    version = models.BigIntegerField(default=1)
    """The tenant's settings_version of the last change: a dispatcher that holds an older one reads the row again."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)
    restorable_until = models.DateTimeField(null=True, editable=False)
    """Deleted in the portal, and until then with all that it needs to come back."""
    missed_since = models.DateTimeField(null=True, editable=False)
    """From when on it got nothing because it was disabled, until somebody sends it that."""

    class Meta(TenantOwned.Meta):
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "uid"],
                condition=Q(deleted_at__isnull=True),
                name="endpoint_uid_once_per_tenant",
            ),
            # What composite foreign keys of secrets, subscriptions and lanes refer to.
            models.UniqueConstraint(fields=["id", "tenant"], name="endpoint_id_with_tenant"),
            models.CheckConstraint(
                condition=Q(status="enabled", disabled_reason__isnull=True)
                | Q(status="disabled", disabled_reason__isnull=False),
                name="endpoint_disabled_has_reason",
            ),
        ]
        indexes = [
            # A tenant's list, and the settings that fan-out loads when its version changed.
            Index(fields=["tenant", "-id"], name="endpoint_by_tenant"),
            # Operators: those of one host, or of all hosts below a domain, whatever tenant they are of.
            Index(
                ReversedHost("url"),
                F("id"),
                condition=Q(deleted_at__isnull=True),
                name="endpoint_by_host",
            ),
            # Operators: those that the platform disabled, the latest first.
            Index(
                fields=["-updated_at", "-id"],
                condition=Q(disabled_reason__in=BY_THE_PLATFORM, deleted_at__isnull=True),
                name="endpoint_disabled_by_us",
            ),
            # Those deleted lately whose secrets are to go.
            Index(
                fields=["restorable_until"],
                condition=Q(restorable_until__isnull=False),
                name="endpoint_restorable",
            ),
        ]

    def __str__(self) -> str:
        return self.uid or str(self.id)


class EndpointSecret(TenantOwned):
    """A signing key of an endpoint, encrypted. Several are live while a rotation overlaps; all of them sign."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="secrets")
    scheme = models.CharField(max_length=12, choices=Endpoint.SignatureScheme.choices)
    encrypted = models.BinaryField()
    """HMAC: the 24 to 64 secret bytes. Ed25519: the 32 bytes of the private key. Context: tenant, endpoint."""
    public_key = models.BinaryField(null=True)
    expires_at = models.DateTimeField(null=True)
    """End of the overlap; empty for the current one."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        pass


class Subscription(TenantOwned):
    """Which events an endpoint gets: a pattern over event types, and optionally a filter and a transformation in CEL."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    endpoint = models.ForeignKey(
        Endpoint, on_delete=models.CASCADE, related_name="subscriptions", db_index=False
    )
    event_type = models.CharField(max_length=130)
    filter = models.CharField(max_length=1024, null=True, blank=True)
    transformation = models.CharField(max_length=1024, null=True, blank=True)
    description = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        indexes = [
            # An endpoint's list, and the settings that fan-out loads; the oldest match decides.
            Index(fields=["endpoint", "id"], name="subscription_by_endpoint"),
            # Whether anybody wants to hear of deliveries that failed for good: asked for each batch of those.
            Index(
                fields=["tenant"],
                condition=Q(event_type__in=["delivery.*", "delivery.exhausted"]),
                name="subscription_exhausted",
            ),
        ]

    def __str__(self) -> str:
        return self.event_type


class EndpointVersion(TenantOwned):
    """An endpoint's routing settings from one settings version of its tenant on: what explain answers from.

    `snapshot`: {"uid", "url" (masked), "status", "disabled_reason", "is_deleted", "channels",
    "subscriptions": [{"id", "event_type", "filter", "has_transformation"}]}. Written in the transaction of the change.
    """

    id = models.BigAutoField(primary_key=True)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="+", db_index=False)
    settings_version = models.BigIntegerField()
    snapshot = models.JSONField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        constraints = [
            # Explain: the newest snapshot of each endpoint at or before an event's version.
            models.UniqueConstraint(
                fields=["tenant", "endpoint", "settings_version"], name="endpoint_version_once"
            ),
        ]
