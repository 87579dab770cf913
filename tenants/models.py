"""Who you are and what you may touch: tenants, people, keys, the event catalogue, the audit log."""

from typing import Any, ClassVar

from django.contrib.auth.base_user import BaseUserManager
from django.contrib.auth.models import AbstractBaseUser, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVector
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from tenants.ids import new_id
from tenants.scoping import TenantOwned

DEFAULT_LIMITS: dict[str, int | None] = {
    "endpoints": 50,
    "subscriptions_per_endpoint": 100,
    "payload_bytes": 262_144,
    "events_per_second": None,
    # An endpoint that does nothing but fail is disabled: after so many days (0: never), or so many failures in a row.
    "disable_after_days": 5,
    "disable_after_failures": None,
}
"""What a tenant may have when nothing else was agreed; `Tenant.limits` holds only what differs."""


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """A person. Operators are staff; what a person may do in a tenant stands in `Member`."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    email = models.EmailField(_("e-mail address"), unique=True)
    name = models.CharField(_("name"), max_length=150, blank=True)
    is_staff = models.BooleanField(_("operator"), default=False)
    is_active = models.BooleanField(_("active"), default=True)
    language = models.CharField(max_length=8, blank=True, db_default="")
    """Of the portal's pages and of e-mails, if the person chose one."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"

    def __str__(self) -> str:
        return self.email


class PlatformState(models.Model):
    """The one row of what holds for the whole platform."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    shared_version = models.BigIntegerField(default=1)
    """Raised in the transaction of every change to the shared catalogue."""
    is_sending_stopped = models.BooleanField(default=False)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="platform_state_is_one_row")]

    def __str__(self) -> str:
        return "the platform"


class Tenant(models.Model):
    class Status(models.TextChoices):
        ACTIVE = "active", _("active")
        SUSPENDED = "suspended", _("suspended")

    class SchemaValidation(models.TextChoices):
        ENFORCE = "enforce", _("refuse events that break their schema")
        WARN = "warn", _("accept them and note it")
        OFF = "off", _("do not check")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.CharField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.ACTIVE)
    metadata = models.JSONField(default=dict, blank=True)
    retention_days = models.PositiveSmallIntegerField(default=90)
    """Events, deliveries and attempts are kept so long."""
    payload_retention_days = models.PositiveSmallIntegerField(null=True, blank=True)
    """Payloads, if not as long as their events."""
    attempt_retention_days = models.PositiveSmallIntegerField(null=True, blank=True)
    """Headers and bodies of attempts, if not as long as the attempts."""
    schema_validation = models.CharField(
        max_length=8, choices=SchemaValidation.choices, default=SchemaValidation.ENFORCE
    )
    limits = models.JSONField(default=dict, blank=True)
    weight = models.PositiveSmallIntegerField(db_default=1, default=1)
    """Of its deliveries while tenants compete: with 3 it may have three times what another has."""
    verify_endpoints = models.BooleanField(db_default=False, default=False)
    """A new endpoint, or a new URL of one, has to echo a challenge first."""
    settings_version = models.BigIntegerField(default=1)
    """Raised in the transaction of every change that fan-out can see; each event keeps the one it was fanned out by."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)
    erased_at = models.DateTimeField(null=True, editable=False)
    """When its rows went, 30 days after it was deleted. This one stays, so that its slug is not given again."""

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(retention_days__gte=1, retention_days__lte=365),
                name="tenant_retention_days",
            ),
            models.CheckConstraint(
                condition=models.Q(payload_retention_days__gte=1, payload_retention_days__lte=365)
                | models.Q(payload_retention_days__isnull=True),
                name="tenant_payload_retention_days",
            ),
            models.CheckConstraint(
                condition=models.Q(attempt_retention_days__gte=1, attempt_retention_days__lte=365)
                | models.Q(attempt_retention_days__isnull=True),
                name="tenant_attempt_retention_days",
            ),
            models.CheckConstraint(condition=models.Q(weight__gte=1, weight__lte=100), name="tenant_weight"),
        ]
        indexes = [
            # Dispatchers read the few that differ, every two seconds.
            models.Index(fields=["id"], condition=~models.Q(weight=1), name="tenant_weighted"),
            # Operators: by words of the name and the slug.
            GinIndex(SearchVector("name", "slug", config="simple"), name="tenant_by_words"),
        ]

    def __str__(self) -> str:
        return self.slug

    @property
    def effective_limits(self) -> dict[str, int | None]:
        limits: dict[str, int | None] = self.limits
        return DEFAULT_LIMITS | limits


class Member(TenantOwned):
    """What a person may do in a tenant's portal."""

    class Role(models.TextChoices):
        VIEWER = "viewer", _("viewer")
        DEVELOPER = "developer", _("developer")
        ADMIN = "admin", _("admin")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="member_once_per_tenant")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role}"


class ApiKey(models.Model):
    """A key of the REST API: 256 random bits of which only the SHA-256 is kept. Without a tenant: an operator key."""

    class Scope(models.TextChoices):
        EVENTS_WRITE = "events:write"
        EVENTS_READ = "events:read"
        ENDPOINTS_READ = "endpoints:read"
        ENDPOINTS_WRITE = "endpoints:write"
        CATALOGUE_READ = "catalogue:read"
        CATALOGUE_WRITE = "catalogue:write"
        DELIVERIES_READ = "deliveries:read"
        DELIVERIES_WRITE = "deliveries:write"
        KEYS_WRITE = "keys:write"
        PORTAL_WRITE = "portal:write"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=200)
    prefix = models.CharField(max_length=16)
    """What people see of it: `whk_` and the first letters."""
    hash = models.BinaryField(max_length=32, unique=True)
    scopes = ArrayField(models.CharField(max_length=32, choices=Scope.choices), default=list)
    rate_limit = models.PositiveIntegerField(null=True, blank=True)
    """Requests per minute; empty means the platform's."""
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    """Written at most once a minute."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name_plural = _("API keys")
        indexes = [
            # The list of a tenant's keys, newest first.
            models.Index(fields=["tenant", "-id"], name="api_key_by_tenant"),
        ]

    def __str__(self) -> str:
        return self.prefix


class EventType(models.Model):
    """One kind of event. Without a tenant it is of the platform's own catalogue, which every tenant sees."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=128)
    description = models.TextField(blank=True, default="")
    group = models.CharField(max_length=128, blank=True, default="")
    schema = models.JSONField(null=True, blank=True)
    example = models.JSONField(null=True, blank=True)
    archived_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="event_type_name_per_tenant"),
            models.UniqueConstraint(
                fields=["name"], condition=models.Q(tenant__isnull=True), name="event_type_name_shared"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class AuditEntry(models.Model):
    """Who did what, when, from where. Append-only by a trigger of the database."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.CASCADE, related_name="+")
    actor_kind = models.CharField(max_length=16)
    """person, key, operator, link or platform."""
    actor = models.CharField(max_length=255)
    """The id of the key, person or link, with a label for people behind it."""
    action = models.CharField(max_length=64)
    """`endpoint.created`, `secret.read`, …"""
    target = models.CharField(max_length=64, blank=True, default="")
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    remote_ip = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=128, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name_plural = _("audit entries")
        indexes = [
            # The audit page of a tenant, newest first.
            models.Index(fields=["tenant", "-id"], name="audit_by_tenant"),
        ]

    def __str__(self) -> str:
        return self.action


class IdempotencyRecord(models.Model):
    """The first answer to a POST, kept 24 h. One row per key: the unique key decides, whoever comes second waits or reads.

    `space` is the tenant, or outside a tenant the operator key.
    """

    pk = models.CompositePrimaryKey("space", "key")
    space = models.UUIDField()
    key = models.CharField(max_length=255)
    fingerprint = models.BinaryField(max_length=32)
    """SHA-256 of method, path and body: the same key with another request is refused."""
    status_code = models.PositiveSmallIntegerField()
    body = models.BinaryField()
    is_encrypted = models.BooleanField(default=False)
    location = models.CharField(max_length=255, blank=True, default="")
    event_id = models.UUIDField(null=True)
    """Whose payload the reply echoes, so that erasing finds it."""
    event_ids = ArrayField(models.UUIDField(), null=True)
    """The same of a whole batch's reply."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [
            # The hourly task that drops what is older than 24 h.
            models.Index(fields=["created_at"], name="idempotency_by_age"),
            # Erasing looks for the replies that tell of an event. Only batches under a key of their own are in it.
            GinIndex(
                fields=["event_ids"],
                condition=models.Q(event_ids__isnull=False),
                name="idempotency_by_events",
            ),
        ]

    def __str__(self) -> str:
        return self.key


class RateCounter(models.Model):
    """How often something was done in the minute that began at `started_at`. Unlogged: a crash forgets a minute."""

    key = models.CharField(max_length=255, primary_key=True)
    """`key:<id>` for an API key, `unknown:<address>` for unknown keys."""
    started_at = models.DateTimeField(db_default=Now())
    count = models.PositiveIntegerField()

    def __str__(self) -> str:
        return self.key


class PortalLink(TenantOwned):
    """A one-time way into a tenant's portal. Only the hash of its token is kept."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    hash = models.BinaryField(max_length=32, unique=True)
    role = models.CharField(max_length=16, choices=Member.Role.choices)
    email = models.CharField(max_length=254, blank=True, default="")
    """A label for the audit log, never a sign-in."""
    return_url = models.CharField(max_length=2048, blank=True, default="")
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)
    """Deleted by request: the link and its sessions are over."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        pass

    def __str__(self) -> str:
        return str(self.id)


class SupportSession(TenantOwned):
    """An operator in a tenant's portal: looking alone, unless there is a reason to do more. Over after half an hour."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    reason = models.CharField(max_length=200, blank=True, default="")
    """Empty: read-only."""
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        pass

    def __str__(self) -> str:
        return str(self.id)


class SecondFactor(models.Model):
    """A person's authenticator app, and codes for when it is lost. Asked for at sign-in once it is confirmed."""

    user = models.OneToOneField(
        User, on_delete=models.CASCADE, primary_key=True, related_name="second_factor"
    )
    encrypted = models.BinaryField()
    """The shared secret; its context is the person."""
    last_step = models.BigIntegerField(default=0)
    """The time step of the code used last: a code that was looked over a shoulder opens nothing."""
    recovery_hashes = ArrayField(models.BinaryField(), default=list)
    confirmed_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return str(self.user_id)


class Invitation(TenantOwned):
    """Of a person, by e-mail, to become a member. Only the hash of its token is kept."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    email = models.EmailField(max_length=254)
    role = models.CharField(max_length=16, choices=Member.Role.choices)
    language = models.CharField(max_length=8)
    """In which the e-mail is written: that of whoever invites."""
    invited_by = models.CharField(max_length=255)
    hash = models.BinaryField(max_length=32, null=True, unique=True)
    """Made when the e-mail is: nobody but its receiver has the token."""
    sent_at = models.DateTimeField(null=True, editable=False)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "email"],
                condition=models.Q(accepted_at__isnull=True, ended_at__isnull=True),
                name="invitation_once_per_address",
            )
        ]

    def __str__(self) -> str:
        return self.email


class PortalLook(TenantOwned):
    """How the portal shows itself to the people of a tenant, and where else: whatever differs from the default."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, primary_key=True, related_name="look")
    accent = models.CharField(max_length=7, blank=True, default="")
    """`#1f5fd0`, or empty."""
    logo = models.BinaryField(null=True)
    """A PNG that we drew ourselves from what was uploaded."""
    logo_hash = models.CharField(max_length=16, blank=True, default="", db_index=True)
    """Its address, so that browsers may keep it; the index is for finding it by that."""
    origins = ArrayField(models.CharField(max_length=255), default=list)
    """Of the tenant's own applications: they may show the portal in a frame and be led back to."""
    is_catalogue_public = models.BooleanField(default=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantOwned.Meta):
        pass

    def __str__(self) -> str:
        return str(self.tenant_id)


class NotificationPreference(TenantOwned):
    """What a member wants to be told of by e-mail. Without a row: what `services/notifications.py` says."""

    class Digest(models.TextChoices):
        NEVER = "never", _("never")
        DAILY = "daily", _("every day")
        WEEKLY = "weekly", _("every Monday")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    wants_failing = models.BooleanField()
    wants_disabled = models.BooleanField()
    digest = models.CharField(max_length=8, choices=Digest.choices)

    class Meta(TenantOwned.Meta):
        constraints = [
            models.UniqueConstraint(fields=["tenant", "user"], name="notification_preference_once")
        ]

    def __str__(self) -> str:
        return str(self.user_id)
