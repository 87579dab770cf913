"""The one entry check: whose key is this, which tenant may it touch, what may it do there.

Called by the API's base view and by the publish views. A known key costs no query: what was looked up holds for a few
seconds, short enough for a revoked key or a suspended tenant to be felt everywhere within five.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar
from uuid import UUID

from django.conf import settings
from django.db.models import Model, Q, QuerySet

from tenants import ids
from tenants.counting import add_one, count_unknown_key
from tenants.last_used import last_used
from tenants.models import DEFAULT_LIMITS, ApiKey, Tenant
from tenants.short_memory import ShortMemory

KNOWN_KEY_SECONDS: Final = 3.0
"""How long a key is believed without asking again. With a request's own duration it must stay below 5 s."""

UNKNOWN_KEY_SECONDS: Final = 2.0
"""How long a key that was not found is refused without asking again: a key just made is refused this long at most."""

TENANT_SECONDS: Final = 3.0
"""How long a tenant is believed to be as it was, for the publish path."""

Row = TypeVar("Row", bound=Model)

ALL_SCOPES: Final = frozenset(ApiKey.Scope.values)


class Unauthenticated(Exception):
    """No key, or one that is unknown, revoked or expired. Which of these is not said."""


class TooManyRequests(Exception):
    """The key's rate limit is used up."""

    def __init__(self, rate: "Rate") -> None:
        self.rate = rate
        super().__init__("The rate limit of this key is used up.")


class Forbidden(Exception):
    """The key is good, but not for this. `scope` is what it lacks; None: only operator keys may."""

    def __init__(self, scope: str | None) -> None:
        self.scope = scope
        super().__init__(
            "Only operator keys may do this." if scope is None else f"The key lacks the scope {scope}."
        )


class NotFound(Exception):
    """It does not exist, or belongs to somebody else: nobody can tell which."""


def id_of(prefix: str, reference: str) -> UUID:
    """Of something that a path names. Raises NotFound."""
    try:
        return ids.from_text(prefix, reference)
    except ids.InvalidId:
        raise NotFound from None


def find(rows: QuerySet[Row], prefix: str, reference: str) -> Row:
    """The one of these rows that has the id. Raises NotFound, without a query for what is no id."""
    row = rows.filter(pk=id_of(prefix, reference)).first()
    if row is None:
        raise NotFound
    return row


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent the request, by its key."""

    key_id: UUID
    tenant_id: UUID | None
    is_operator: bool
    scopes: frozenset[str]
    rate_limit: int | None
    """Requests per minute, the key's own or the platform's."""
    expires_at: datetime | None
    name: str = ""
    has_own_limit: bool = False


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """What the publish path must know of a tenant, up to three seconds old."""

    id: UUID
    slug: str
    status: str
    schema_validation: str
    endpoints: int | None
    subscriptions_per_endpoint: int | None
    payload_bytes: int
    events_per_second: float | None

    @property
    def is_suspended(self) -> bool:
        return self.status == Tenant.Status.SUSPENDED


@dataclass(frozen=True, slots=True)
class Rate:
    """Where a key stands in its minute: for the RateLimit-* headers."""

    limit: int
    remaining: int
    reset_seconds: int


_callers: ShortMemory[bytes, Caller] = ShortMemory()
_unknown: ShortMemory[bytes, bool] = ShortMemory()
_tenants: ShortMemory[tuple[UUID | None, str], TenantFacts] = ShortMemory()
"""By the caller's tenant, too: how fast an answer is shall not tell a stranger that somebody publishes there."""


def forget() -> None:
    """Drop what this process remembers. The process that makes a change sees it at once."""
    _callers.clear()
    _unknown.clear()
    _tenants.clear()


# --- whose key --------------------------------------------------------------------------------------------------------


def hash_of(key: str) -> bytes:
    """Of a key, or of a token in a link. They are 256 random bits, so one fast hash is enough: nothing can be guessed."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def authenticate(authorization: str | None, *, remote_ip: str) -> Caller:
    """The caller behind an Authorization header. Raises Unauthenticated or TooManyUnknownKeys."""
    scheme, _, key = (authorization or "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated
    digest = hash_of(key)
    caller = _callers.get(digest)
    if caller is None:
        caller = None if _unknown.get(digest) else _look_up(digest)
        if caller is None:
            _unknown.put(digest, True, seconds=UNKNOWN_KEY_SECONDS)
            count_unknown_key(remote_ip)
            raise Unauthenticated
        _callers.put(digest, caller, seconds=KNOWN_KEY_SECONDS)
    if caller.expires_at is not None and caller.expires_at <= datetime.now(UTC):
        raise Unauthenticated
    last_used.note(caller.key_id)
    return caller


def _look_up(digest: bytes) -> Caller | None:
    key = (
        ApiKey.objects.filter(Q(tenant__isnull=True) | Q(tenant__deleted_at__isnull=True))
        .filter(hash=digest, revoked_at__isnull=True)
        .first()
    )
    if key is None:
        return None
    is_operator = key.tenant_id is None
    return Caller(
        key_id=key.id,
        tenant_id=key.tenant_id,
        is_operator=is_operator,
        scopes=ALL_SCOPES if is_operator else frozenset(key.scopes),
        rate_limit=key.rate_limit or settings.WEBHOOKS_API_RATE_LIMIT or None,
        expires_at=key.expires_at,
        name=key.name,
        has_own_limit=key.rate_limit is not None,
    )


def require(caller: Caller, scope: str) -> None:
    """Raises Forbidden unless the key carries the scope. Operator keys carry all."""
    if scope not in caller.scopes:
        raise Forbidden(scope)


def require_operator(caller: Caller) -> None:
    """Raises Forbidden."""
    if not caller.is_operator:
        raise Forbidden(None)


# --- which tenant -----------------------------------------------------------------------------------------------------


def resolve_tenant(caller: Caller, reference: str) -> TenantFacts:
    """The tenant by id or slug, as it was within the last three seconds. Raises NotFound. For the publish path."""
    facts = _tenants.get((caller.tenant_id, reference))
    if facts is None:
        facts = _facts(_find(caller, reference))
        _tenants.put((caller.tenant_id, reference), facts, seconds=TENANT_SECONDS)
    return facts


def get_tenant(caller: Caller, reference: str) -> Tenant:
    """The tenant's row by id or slug, as it is now. Raises NotFound, also for a tenant that is not the caller's."""
    return _find(caller, reference)


def _find(caller: Caller, reference: str) -> Tenant:
    tenants = Tenant.objects.filter(deleted_at__isnull=True)
    if caller.tenant_id is not None:
        tenants = tenants.filter(id=caller.tenant_id)
    tenant = tenants.filter(_matches(reference)).first()
    if tenant is None:
        raise NotFound
    return tenant


def _matches(reference: str) -> Q:
    """Slugs have no underscore, so nothing is both. What is neither is not worth a query, and may be hostile."""
    try:
        return Q(id=ids.from_text(ids.TENANT, reference))
    except ids.InvalidId:
        if not 1 <= len(reference) <= 63 or not reference.isascii() or "\x00" in reference:
            raise NotFound from None
        return Q(slug=reference)


def _facts(tenant: Tenant) -> TenantFacts:
    limits = tenant.effective_limits
    return TenantFacts(
        id=tenant.id,
        slug=tenant.slug,
        status=tenant.status,
        schema_validation=tenant.schema_validation,
        endpoints=limits["endpoints"],
        subscriptions_per_endpoint=limits["subscriptions_per_endpoint"],
        payload_bytes=limits["payload_bytes"] or DEFAULT_LIMITS["payload_bytes"] or 0,
        events_per_second=limits["events_per_second"],
    )


# --- how often --------------------------------------------------------------------------------------------------------


def check_rate(caller: Caller) -> Rate | None:
    """Count this request against the key's limit, if it has one. Raises TooManyRequests."""
    if caller.rate_limit is None:
        return None
    count, reset_seconds = add_one(f"key:{caller.key_id}")
    rate = Rate(caller.rate_limit, max(caller.rate_limit - count, 0), max(reset_seconds, 1))
    if count > caller.rate_limit:
        raise TooManyRequests(rate)
    return rate
