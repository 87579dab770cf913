"""The one entry check: whose key is this, which tenant may it touch, what may it do there.

Called by the API's base view and by the publish views. A known key costs no query: what was looked up holds for a few
seconds, short enough for a revoked key or a suspended tenant to be felt everywhere within five.
"""

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import connection
from django.db.models import Model, Q, QuerySet

from tenants import ids
from tenants.models import DEFAULT_LIMITS, ApiKey, Tenant

logger = logging.getLogger(__name__)

KNOWN_KEY_SECONDS: Final = 3.0
"""How long a key is believed without asking again. With a request's own duration it must stay below 5 s."""

UNKNOWN_KEY_SECONDS: Final = 2.0
"""How long a key that was not found is refused without asking again: a key just made is refused this long at most."""

TENANT_SECONDS: Final = 3.0

REMEMBERED: Final = 20_000
"""Entries of each cache. Beyond it the one used longest ago goes."""

UNKNOWN_KEYS_PER_MINUTE: Final = 60
"""Unknown keys that one address may try."""

SIGN_IN_SECONDS: Final = 15 * 60
"""Sign-ins are counted over a quarter of an hour: by account from one address, by account, and by address."""

SIGN_INS_PER_PAIR: Final = 10
SIGN_INS_PER_ACCOUNT: Final = 50
"""From all addresses: above what its owner needs, so that a stranger has to work at locking the owner out."""
SIGN_INS_PER_ADDRESS: Final = 100

Row = TypeVar("Row", bound=Model)

ALL_SCOPES: Final = frozenset(ApiKey.Scope.values)


class Unauthenticated(Exception):
    """No key, or one that is unknown, revoked or expired. Which of these is not said."""


class TooManyUnknownKeys(Exception):
    """This address tried more unknown keys than a person would."""

    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__("Too many unknown keys from this address.")


class TooManyRequests(Exception):
    """The key's rate limit is used up."""

    def __init__(self, rate: "Rate") -> None:
        self.rate = rate
        super().__init__("The rate limit of this key is used up.")


class TooManySignIns(Exception):
    """Of this account, or from this address."""

    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__("Too many sign-ins.")


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


# --- what is remembered -----------------------------------------------------------------------------------------------

Key = TypeVar("Key")
Value = TypeVar("Value")


class ShortMemory(Generic[Key, Value]):
    """A bounded cache of this process, whose entries end after seconds. Safe between threads."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, tuple[float, Value]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        entry = self._entries.get(key)
        if entry is None or entry[0] <= time.monotonic():
            return None
        return entry[1]

    def put(self, key: Key, value: Value, *, seconds: float) -> None:
        with self._lock:
            self._entries[key] = (time.monotonic() + seconds, value)
            self._entries.move_to_end(key)
            if len(self._entries) > REMEMBERED:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()


_callers: ShortMemory[bytes, Caller] = ShortMemory()
_unknown: ShortMemory[bytes, bool] = ShortMemory()
_tenants: ShortMemory[str, TenantFacts] = ShortMemory()


def forget() -> None:
    """Drop what this process remembers. The process that makes a change sees it at once."""
    _callers.clear()
    _unknown.clear()
    _tenants.clear()


# --- whose key --------------------------------------------------------------------------------------------------------


def hash_of(key: str) -> bytes:
    """Keys are 256 random bits, so one fast hash is enough: there is nothing to guess."""
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
            _count_unknown_key(remote_ip)
            raise Unauthenticated
        _callers.put(digest, caller, seconds=KNOWN_KEY_SECONDS)
    if caller.expires_at is not None and caller.expires_at <= datetime.now(UTC):
        raise Unauthenticated
    _last_used.note(caller.key_id)
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
    )


def require(caller: Caller, scope: str) -> None:
    """Raises Forbidden unless the key carries the scope. Operator keys carry all."""
    if scope not in caller.scopes:
        raise Forbidden(scope)


def require_operator(caller: Caller) -> None:
    if not caller.is_operator:
        raise Forbidden(None)


# --- which tenant -----------------------------------------------------------------------------------------------------


def resolve_tenant(caller: Caller, reference: str) -> TenantFacts:
    """The tenant by id or slug, as it was within the last three seconds. Raises NotFound. For the publish path."""
    facts = _tenants.get(reference)
    if facts is None:
        facts = _facts(_find(caller, reference))
        _tenants.put(reference, facts, seconds=TENANT_SECONDS)
    if not caller.is_operator and facts.id != caller.tenant_id:
        raise NotFound
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

# One row a counter, one statement a request: the time begins with its first request and is the same in all processes.
# The table is unlogged: a count costs no flush of the disk, and a crash of the database forgets no more than that time.
COUNT = """
INSERT INTO tenants_ratecounter AS c (key, started_at, count) VALUES (%(key)s, now(), 1)
ON CONFLICT (key) DO UPDATE SET
    started_at = CASE WHEN c.started_at <= now() - make_interval(secs => %(seconds)s) THEN now() ELSE c.started_at END,
    count = CASE WHEN c.started_at <= now() - make_interval(secs => %(seconds)s) THEN 1
                 ELSE LEAST(c.count, 1000000000) + 1 END
RETURNING count, %(seconds)s - floor(extract(epoch FROM now() - started_at))::int
"""


def check_rate(caller: Caller) -> Rate | None:
    """Count this request against the key's limit, if it has one. Raises TooManyRequests."""
    if caller.rate_limit is None:
        return None
    count, reset_seconds = _count(f"key:{caller.key_id}")
    rate = Rate(caller.rate_limit, max(caller.rate_limit - count, 0), max(reset_seconds, 1))
    if count > caller.rate_limit:
        raise TooManyRequests(rate)
    return rate


def count_incoming(source_id: UUID, *, limit: int) -> int | None:
    """Count a request to a source; over its limit a minute, the seconds until it may be sent again."""
    count, reset_seconds = _count(f"source:{source_id}")
    return max(reset_seconds, 1) if count > limit else None


def _count_unknown_key(remote_ip: str) -> None:
    count, reset_seconds = _count(f"unknown:{remote_ip}")
    if count > UNKNOWN_KEYS_PER_MINUTE:
        raise TooManyUnknownKeys(max(reset_seconds, 1))


def check_tries(kind: str, *, account: str, remote_ip: str, per_account: int = SIGN_INS_PER_ACCOUNT) -> None:
    """Count a try at something secret before it is looked at, so that many at once help nobody. Raises TooManySignIns.

    Counted alike whether there is such an account or not. `kind`: sign-in, reset, second-factor, invitation.
    """
    name = _account(account)
    counters = {
        f"{kind}:{name}:{remote_ip}": SIGN_INS_PER_PAIR,
        f"{kind}:{name}": per_account,
        f"{kind}:{remote_ip}": SIGN_INS_PER_ADDRESS,
    }
    waits = []
    for key, most in counters.items():
        count, reset_seconds = _count(key, seconds=SIGN_IN_SECONDS)
        if count > most:
            waits.append(max(reset_seconds, 1))
    if waits:
        raise TooManySignIns(max(waits))


def check_sign_in(*, email: str, remote_ip: str) -> None:
    check_tries("sign-in", account=email, remote_ip=remote_ip)


def forget_sign_ins(*, email: str, remote_ip: str) -> None:
    """It was the right password: who mistyped it before begins anew."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM tenants_ratecounter WHERE key = %s", [f"sign-in:{_account(email)}:{remote_ip}"]
        )


def _account(email: str) -> str:
    """As short as a key of a counter may be, whatever was typed."""
    return hashlib.sha256(email.strip().lower().encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _count(key: str, *, seconds: int = 60) -> tuple[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(COUNT, {"key": key, "seconds": seconds})
        count, reset_seconds = cursor.fetchone()
    return count, reset_seconds


def forget_counters() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM tenants_ratecounter WHERE started_at < now() - interval '1 hour'")


# --- when last --------------------------------------------------------------------------------------------------------


class _LastUsed:
    """Writes `last_used_at` from a thread of its own, at most once a minute a key, so that no request waits for it."""

    EVERY_SECONDS: Final = 60.0
    GATHERED_SECONDS: Final = 0.2
    """Keys used at nearly the same time share a statement."""

    def __init__(self) -> None:
        self._noted: ShortMemory[UUID, bool] = ShortMemory()
        self._waiting: dict[UUID, datetime] = {}
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, key_id: UUID) -> None:
        if self._noted.get(key_id):
            return
        self._noted.put(key_id, True, seconds=self.EVERY_SECONDS)
        with self._lock:
            self._waiting[key_id] = datetime.now(UTC)
            # A fork leaves the thread behind and the object here.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="last-used", daemon=True)
                self._thread.start()
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            time.sleep(self.GATHERED_SECONDS)
            self._wanted.clear()
            with self._lock:
                waiting, self._waiting = self._waiting, {}
            if not waiting:
                continue
            try:
                write_last_used(waiting.items())
            except Exception:  # the loop of a thread: whatever it is must not end it
                logger.exception("last use of keys not written", extra={"keys": len(waiting)})
            finally:
                connection.close()


def write_last_used(uses: Iterable[tuple[UUID, datetime]]) -> None:
    """Keys locked in order; a key that another process wrote within the minute is left as it is."""
    uses = sorted(uses)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH k AS MATERIALIZED (
                SELECT id, used_at FROM unnest(%s::uuid[], %s::timestamptz[]) AS u(id, used_at)
                JOIN tenants_apikey USING (id)
                WHERE last_used_at IS NULL OR last_used_at < used_at - interval '59 seconds'
                ORDER BY id FOR NO KEY UPDATE OF tenants_apikey
            )
            UPDATE tenants_apikey SET last_used_at = k.used_at FROM k WHERE tenants_apikey.id = k.id
            """,
            [[key_id for key_id, _ in uses], [used_at for _, used_at in uses]],
        )


_last_used = _LastUsed()
