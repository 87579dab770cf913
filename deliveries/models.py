"""Where events go and how they get there.

Settings (endpoints, secrets, subscriptions) are ordinary tables. Events, deliveries and attempts are partitioned by
time: weekly ranges of their UUIDv7 keys, so that the key stays the only unique column and history leaves by dropping a
table. No foreign key leads from one of these to another (a partition under a foreign key cannot be dropped): the one
writer, `pipeline/ingest.py`, keeps the tenant, and `tests/architecture/test_history_tenants.py` scans for it.
"""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Func, Index, Q
from django.db.models.functions import Greatest, Least, Now
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


class Dispatcher(models.Model):
    """A running dispatcher and its lease on life. A new row, with a new id, for every run."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    alive_until = models.DateTimeField()
    started_at = models.DateTimeField(db_default=Now())
    process = models.CharField(max_length=255, blank=True, default="")
    """Host and process id, for people."""
    has_room = models.BooleanField(default=True)
    is_draining = models.BooleanField(default=False)
    deliveries_done = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return self.process


class Lane(TenantOwned):
    """The queue of one endpoint: one narrow row, made in the same transaction as the endpoint.

    `ready_at`: when to look at it, NULL = nothing to do. `hold_until`: not before when; owned by the holder.
    `is_paused`: stopped by people; owned by services. `dispatcher_id`: who has it; a lane with a holder is written by
    that holder alone, apart from `ready_at` (wake), `is_paused`, and a service that wipes its health (`resets`). `is_ready` marks lanes to be looked at *now*:
    wake sets it, and promotion when a scheduled or held lane falls due, so that the take query never steps over the others.
    """

    endpoint = models.OneToOneField(Endpoint, primary_key=True, on_delete=models.CASCADE, related_name="lane")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    ready_at = models.DateTimeField(null=True)
    is_ready = models.BooleanField(default=False)
    hold_until = models.DateTimeField(null=True)
    hold_reason = models.CharField(max_length=16, null=True)
    """Why it is held, for people: rate, circuit or answer (429, 502, 503, 504)."""
    is_paused = models.BooleanField(default=False)
    dispatcher_id = models.UUIDField(null=True)
    slots = models.FloatField(default=2)
    """Requests at once that its answers have earned, up to the endpoint's max_in_flight."""
    tokens = models.FloatField(db_default=0.0)
    """What was left of its pace (rate_limit) when it was given back. Nothing after a crash."""
    tokens_at = models.DateTimeField(null=True)
    # Health: empty for an endpoint whose last answer was good. Kept by the holder (`pipeline/health.py`).
    failures = models.IntegerField(db_default=0)
    """In a row."""
    failing_since = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True)
    """The last of them."""
    is_own_failing = models.BooleanField(db_default=False)
    """One of them was of an event of the tenant's own, not of the platform's operational ones."""
    pause_seconds = models.FloatField(null=True)
    """The last pause after 429, 502, 503 or 504."""
    circuit_opened_at = models.DateTimeField(null=True)
    circuit_seconds = models.FloatField(null=True)
    """The open circuit's last wait."""
    warned_at = models.DateTimeField(null=True)
    """When its owner was told that it will be disabled; owned by that sweep."""
    resets = models.IntegerField(db_default=0)
    """Raised when a service wipes the health: what a holder counted before is then not written any more."""

    class Meta(TenantOwned.Meta):
        indexes = [
            # Take: tenants in turn, then each tenant's lanes, longest ready first. Served lanes are not in it.
            Index(
                fields=["tenant", "ready_at"],
                condition=Q(is_ready=True, dispatcher_id__isnull=True, is_paused=False),
                name="lane_ready",
            ),
            # Promote: the next scheduled or held lane to fall due.
            Index(
                Greatest("ready_at", "hold_until"),
                condition=Q(
                    is_ready=False, dispatcher_id__isnull=True, is_paused=False, ready_at__isnull=False
                ),
                name="lane_scheduled",
            ),
            # Takeover, renewal and release: the lanes of one dispatcher.
            Index(
                fields=["dispatcher_id"], condition=Q(dispatcher_id__isnull=False), name="lane_by_dispatcher"
            ),
            # Metrics: how many are stopped by people.
            Index(fields=["endpoint"], condition=Q(is_paused=True), name="lane_paused"),
            # The sweep that disables what fails for days, and the pages that show what fails, the longest first.
            Index(
                fields=["failing_since", "endpoint"],
                condition=Q(failing_since__isnull=False),
                name="lane_failing",
            ),
        ]


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
            # Those of one status, newest first. What succeeded, nearly all, is found by walking `delivery_by_tenant`;
            # leaving it out spares every record an index entry, as it does in the next two.
            Index(
                fields=["tenant", "status", "id"], condition=~Q(status="succeeded"), name="delivery_by_status"
            ),
            # Those with one outcome, newest first; as above.
            Index(
                fields=["tenant", "last_outcome", "id"],
                condition=~Q(last_outcome="succeeded") & Q(last_outcome__isnull=False),
                name="delivery_by_outcome",
            ),
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


class SweepState(models.Model):
    """The one row in which the repair sweep remembers how far it came."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    repaired_at = models.DateTimeField()
    """Deliveries created before have been looked at."""
    walked_to = models.UUIDField()
    """The last lane of the walk over all of them."""

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="sweep_state_is_one_row")]

    def __str__(self) -> str:
        return f"{self.repaired_at}"


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


class MetricTotal(models.Model):
    """What all processes have counted so far, for `/metrics`. Written by `pipeline/counters.py`, in bulk."""

    key = models.CharField(max_length=100, primary_key=True)
    """`name` or `name:label`, about a hundred of them."""
    value = models.FloatField()

    def __str__(self) -> str:
        return f"{self.key} {self.value}"


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
    """One of `services/bulk.py`."""
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


class Usage(TenantOwned):
    """What a tenant used on one day (UTC). Written by `pipeline/counters.py`, in bulk; kept as long as the tenant."""

    id = models.BigAutoField(primary_key=True)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    """Without a constraint: one wrong key must not keep the counts of all others from being written."""
    day = models.DateField()
    events = models.BigIntegerField(default=0)
    attempts = models.BigIntegerField(default=0)
    succeeded = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)

    class Meta(TenantOwned.Meta):
        constraints = [
            # A tenant's months, and where the counts of a day are added.
            models.UniqueConstraint(fields=["tenant", "day"], name="usage_once_a_day"),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.day}"


class MetricSample(models.Model):
    """The totals of one minute, kept for a day: what the admin's dashboard tells speeds from."""

    at = models.DateTimeField(primary_key=True)
    totals = models.JSONField()

    def __str__(self) -> str:
        return f"{self.at}"


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
