"""Sources: made, changed, ended; their URLs rotated. Called by the API, the portal and the admin.

What a request to one of them goes through stands in `receiving.py`; `doors.py` reads a source again when its version rose.
"""

import secrets as randomness
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import F, Prefetch, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from deliveries.expressions import compile_naming, compile_transformation
from deliveries.inbound import verification
from deliveries.inbound.handshakes import Handshake
from deliveries.inbound.presets import PRESETS
from deliveries.inbound.verification import Verification
from deliveries.models import Source, SourceToken
from deliveries.sealed import open_source_secrets, seal_source_secrets
from deliveries.services.subscriptions import expression_text
from deliveries.validation import CONTROL, Collector, Invalid, choice, text, whole_number
from tenants import access, ids
from tenants.models import Tenant
from tenants.services import audit
from tenants.services.audit import PLATFORM, Actor

MAX_SOURCES: Final = 100
"""Of one tenant."""

MAX_LIVE_TOKENS: Final = 5
"""URLs of one source at a time."""
DEFAULT_OVERLAP: Final = timedelta(days=1)
"""How long an earlier URL goes on, unless it is said otherwise."""
MAX_OVERLAP: Final = timedelta(days=7)

INSPECTOR_LIFE: Final = timedelta(days=1)
"""How long a throw-away URL is there."""

DEFAULTS: Final[dict[str, Any]] = {
    "status": Source.Status.ENABLED,
    "allowed_networks": [],
    "data": None,
    "dedup_header": "",
    "dedup_path": "",
    "dedup_seconds": 86_400,
    "handshake": None,
    "response_status": 200,
    "response_body": "",
    "rate_limit": None,
}
"""What null resets to. `verification` goes back to none."""


class SourceLimitReached(Exception):
    """The tenant has as many sources as one may have."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"A tenant may have {limit} sources.")


class TokenLimitReached(Exception):
    """As many URLs of the source are live as may be."""


# --- rules ------------------------------------------------------------------------------------------------------------


def event_type_text(value: object) -> str:
    return expression_text(value, compile_naming)


def data_text(value: object) -> str:
    return expression_text(value, compile_transformation)


def preset(value: object) -> str:
    return choice(value, list(PRESETS))


def handshake(value: object) -> str:
    return choice(value, [each.value for each in Handshake])


def dedup_path(value: object) -> str:
    return text(value, high=255)


def dedup_seconds(value: object) -> int:
    return whole_number(value, low=60, high=86_400)


def response_status(value: object) -> int:
    return whole_number(value, low=200, high=299)


def response_body(value: object) -> str:
    cleaned = text(value, high=1024, is_multiline=True)
    if CONTROL.search(cleaned.replace("\n", "").replace("\r", "").replace("\t", "")):
        raise Invalid("invalid_characters", "Must not contain control characters.")
    return cleaned


def verify_token(value: object) -> str:
    return text(value, low=8, high=256)


def rate_limit(value: object) -> int:
    return whole_number(value, low=1, high=1_000_000)


# --- finding ----------------------------------------------------------------------------------------------------------


def sources_of(tenant: Tenant) -> "QuerySet[Source]":
    """Those that were not deleted, with their live URLs."""
    rows: QuerySet[Source] = Source.objects.for_tenant(tenant).filter(deleted_at__isnull=True)
    live = SourceToken.objects.for_tenant(tenant).filter(Q(expires_at__isnull=True) | Q(expires_at__gt=Now()))
    return rows.prefetch_related(Prefetch("tokens", queryset=live.order_by("-id")))


def get_source(*, tenant: Tenant, reference: str) -> Source:
    """Raises access.NotFound."""
    return access.find(sources_of(tenant), ids.SOURCE, reference)


# --- making and changing ----------------------------------------------------------------------------------------------


def create_source(
    *,
    actor: Actor,
    tenant: Tenant,
    name: str,
    kind: str = Source.Kind.SOURCE,
    preset: str | None = None,
    secrets: Sequence[str] | None = None,
    verify_token: str | None = None,
    **fields: Any,
) -> tuple[Source, str]:
    """The source, and the token of its URL, of which only the hash is kept.

    Raises SourceLimitReached, InvalidContent, access.NotFound (the tenant was deleted meanwhile).
    """
    with transaction.atomic():
        # The lock puts the changes of a tenant in a line, so the limit holds.
        locked = Tenant.objects.select_for_update(no_key=True).get(id=tenant.id)
        if locked.deleted_at is not None:
            raise access.NotFound
        if sources_of(tenant).count() >= MAX_SOURCES:
            raise SourceLimitReached(MAX_SOURCES)
        source = Source(id=ids.new_id(), tenant=tenant, name=name, kind=kind)
        if kind == Source.Kind.INSPECTOR:
            source.expires_at = timezone.now() + INSPECTOR_LIFE
        if preset is not None:
            _apply_preset(source, preset)
        else:
            source.verification = asdict(Verification())
        _apply(source, fields)
        _apply_secrets(source, secrets, verify_token)
        _check(source)
        source.save(force_insert=True)
        token = _make_token(source)
        return _done(actor, source, action="source.created", before={}), token


def update_source(
    *,
    actor: Actor,
    source: Source,
    secrets: Sequence[str] | None = None,
    verify_token: str | None = None,
    **fields: Any,
) -> Source:
    """Change what is given; None resets to the default. Holds for every request that comes after the reply.

    Raises access.NotFound (deleted meanwhile), InvalidContent.
    """
    with transaction.atomic():
        row = _under_lock(source)
        before = facts(row)
        _apply(row, fields)
        _apply_secrets(row, secrets, verify_token)
        _check(row)
        row.version = F("version") + 1
        row.updated_at = Now()
        row.save(update_fields=[*_COLUMNS, "secrets_encrypted", "version", "updated_at"])
        return _done(actor, row, action="source.changed", before=before, has_new_secrets=secrets is not None)


def delete_source(*, actor: Actor, source: Source) -> None:
    """Its URLs are unknown at once. What came stays in the history for as long as requests are kept."""
    with transaction.atomic():
        row = _under_lock(source)
        _end(row)
        audit.record(
            actor=actor,
            tenant=row.tenant_id,
            action="source.deleted",
            target=ids.to_text(ids.SOURCE, row.id),
            before=facts(row),
        )


def end_inspectors() -> int:
    """Those whose time is over. Called each hour; until then their URLs are refused already."""
    over = list(Source.unscoped.filter(expires_at__lte=Now(), deleted_at__isnull=True)[:1000])
    for each in over:
        with transaction.atomic():
            _end(each)
            audit.record(
                actor=PLATFORM,
                tenant=each.tenant_id,
                action="source.deleted",
                target=ids.to_text(ids.SOURCE, each.id),
            )
    return len(over)


def _end(row: Source) -> None:
    row.deleted_at = Now()
    row.secrets_encrypted = None
    row.version = F("version") + 1
    row.save(update_fields=["deleted_at", "secrets_encrypted", "version"])
    SourceToken.objects.for_tenant(row.tenant_id).filter(source_id=row.id).delete()


# --- the URL ----------------------------------------------------------------------------------------------------------


def rotate_token(*, actor: Actor, source: Source, overlap: timedelta = DEFAULT_OVERLAP) -> str:
    """A new URL. Those before it go on until the overlap ends, or without one end at once. Raises TokenLimitReached."""
    with transaction.atomic():
        row = _under_lock(source)
        tokens: QuerySet[SourceToken] = SourceToken.objects.for_tenant(row.tenant_id).filter(source_id=row.id)
        if overlap:
            tokens.filter(expires_at__lte=Now()).delete()
            tokens.filter(expires_at__isnull=True).update(expires_at=timezone.now() + overlap)
            if tokens.count() >= MAX_LIVE_TOKENS:
                raise TokenLimitReached
        else:
            tokens.delete()
        token = _make_token(row)
        audit.record(
            actor=actor,
            tenant=row.tenant_id,
            action="source.token_rotated",
            target=ids.to_text(ids.SOURCE, row.id),
            after={"overlap_seconds": int(overlap.total_seconds())},
        )
        return token


def _make_token(source: Source) -> str:
    """256 random bits."""
    token = randomness.token_urlsafe(32)
    SourceToken.objects.for_tenant(source.tenant_id).bulk_create(
        [
            SourceToken(
                id=ids.new_id(),
                tenant_id=source.tenant_id,
                source=source,
                hash=access.hash_of(token),
                prefix=token[:4],
            )
        ]
    )
    return token


def base_url(*, scheme: str, host: str) -> str:
    """Scheme and host of sources' URLs, as senders know them. `scheme` and `host`: of the request that asks."""
    if settings.WEBHOOKS_INBOUND_HOST:
        return f"{scheme if settings.DEBUG else 'https'}://{settings.WEBHOOKS_INBOUND_HOST}"
    public: str = settings.WEBHOOKS_PUBLIC_URL
    return public or f"{scheme}://{host}"


def masked_url(source: Source, *, scheme: str, host: str) -> str:
    """By the beginning of its token. Needs the tokens prefetched, as `sources_of` gives it."""
    tokens = list(source.tokens.all())
    return f"{base_url(scheme=scheme, host=host)}/in/{tokens[0].prefix if tokens else ''}***"


# --- parts ------------------------------------------------------------------------------------------------------------

_COLUMNS: Final = (
    "name",
    "status",
    "verification",
    "secret_count",
    "has_verify_token",
    "allowed_networks",
    "event_type",
    "data",
    "dedup_header",
    "dedup_path",
    "dedup_seconds",
    "handshake",
    "response_status",
    "response_body",
    "rate_limit",
)


def _under_lock(source: Source) -> Source:
    """Raises access.NotFound."""
    row: Source | None = (
        Source.objects.for_tenant(source.tenant_id)
        .select_for_update(no_key=True)
        .filter(id=source.id, deleted_at__isnull=True)
        .first()
    )
    if row is None:
        raise access.NotFound
    return row


def _apply_preset(source: Source, name: str) -> None:
    """What the client gives beside it goes over it."""
    found = PRESETS[name]
    source.preset = name
    source.verification = verification.settings_of(dict(found.verification))
    source.event_type = found.event_type
    source.dedup_header = found.dedup_header
    source.dedup_path = found.dedup_path
    source.handshake = found.handshake


def _apply(source: Source, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        match name:
            case "name" | "event_type":
                setattr(source, name, value)
            case "verification":
                source.verification = asdict(Verification()) if value is None else value
            case _:
                assert name in DEFAULTS, name
                setattr(source, name, DEFAULTS[name] if value is None else value)


def _apply_secrets(source: Source, secrets: Sequence[str] | None, verify_token: str | None) -> None:
    """What is not given stays."""
    old, old_token = secrets_of(source)
    kept = old if secrets is None else list(secrets)
    token = old_token if verify_token is None else verify_token
    source.secret_count = len(kept)
    source.has_verify_token = bool(token)
    source.secrets_encrypted = (
        seal_source_secrets(tenant_id=source.tenant_id, source_id=source.id, secrets=kept, verify_token=token)
        if kept or token
        else None
    )


def secrets_of(source: Source) -> tuple[list[str], str]:
    """Raises DecryptionFailed."""
    if source.secrets_encrypted is None:
        return [], ""
    return open_source_secrets(
        tenant_id=source.tenant_id, source_id=source.id, sealed=bytes(source.secrets_encrypted)
    )


def _check(source: Source) -> None:
    """What fields say together. Raises InvalidContent."""
    secrets, token = secrets_of(source)
    if source.kind == Source.Kind.INSPECTOR:
        # It shows what a verification says, and may have none.
        if secrets:
            verification.check_secrets(Verification(**source.verification), secrets)
        return
    verification.check_secrets(Verification(**source.verification), secrets)
    wrong = Collector()
    if not source.event_type:
        wrong.add("event_type", "incomplete", "Must be given, unless a preset has one.")
    if source.dedup_header and source.dedup_path:
        wrong.add("dedup_path", "invalid", "Must be empty when dedup_header names where the id is.")
    if source.handshake == Handshake.META and not token:
        wrong.add("verify_token", "incomplete", "Meta's handshake needs one.")
    wrong.done()


def facts(source: Source) -> dict[str, Any]:
    """For the audit log, without anything secret."""
    return {name: getattr(source, name) for name in _COLUMNS}


def _done(
    actor: Actor, source: Source, *, action: str, before: dict[str, Any], has_new_secrets: bool = False
) -> Source:
    row = sources_of(source.tenant).get(id=source.id)
    row.tenant = source.tenant
    old, new = audit.changes(before, facts(row))
    if has_new_secrets:
        new["secrets"] = "***"
    audit.record(
        actor=actor,
        tenant=row.tenant_id,
        action=action,
        target=ids.to_text(ids.SOURCE, row.id),
        before=old or None,
        after=new or None,
    )
    return row
