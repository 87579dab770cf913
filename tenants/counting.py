"""How often somebody did something: requests of keys and sources, unknown keys, tries at something secret.

One counter for all processes; who is over a limit hears how long to wait. Called by `access`, by the doors of sources,
and by every page that takes a password or a code.
"""

import hashlib
from typing import Final
from uuid import UUID

from django.db import connection

UNKNOWN_KEYS_PER_MINUTE: Final = 60
"""Unknown keys that one address may try."""

SIGN_IN_SECONDS: Final = 15 * 60
"""Sign-ins are counted over a quarter of an hour: by account from one address, by account, and by address."""

SIGN_INS_PER_PAIR: Final = 10
SIGN_INS_PER_ACCOUNT: Final = 50
"""From all addresses: above what its owner needs, so that a stranger has to work at locking the owner out."""
SIGN_INS_PER_ADDRESS: Final = 100
"""For all accounts: many people may share an address."""


INVITATION_SECONDS: Final = 60 * 60
INVITATIONS_PER_TENANT: Final = 100
"""E-mails of invitations in an hour, to all addresses: who makes a tenant shall not write to the world."""
INVITATIONS_PER_ADDRESS: Final = 5
"""From one tenant: sent again, or ended and made anew. Not over all tenants, or one would learn of the others'."""


class TooManyUnknownKeys(Exception):
    """This address tried more unknown keys than a person would."""

    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__("Too many unknown keys from this address.")


class TooManyInvitations(Exception):
    """Of this tenant, or to this address."""

    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__("Too many invitations.")


class TooManySignIns(Exception):
    """Of this account, or from this address."""

    def __init__(self, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__("Too many sign-ins.")


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


def count_incoming(source_id: UUID, *, limit: int) -> int | None:
    """Count a request to a source; over its limit a minute, the seconds until it may be sent again."""
    count, reset_seconds = add_one(f"source:{source_id}")
    return max(reset_seconds, 1) if count > limit else None


def count_unknown_key(remote_ip: str) -> None:
    """Raises TooManyUnknownKeys."""
    count, reset_seconds = add_one(f"unknown:{remote_ip}")
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
    if wait := _count(counters, seconds=SIGN_IN_SECONDS):
        raise TooManySignIns(wait)


def check_invitation(*, tenant_id: UUID, email: str) -> None:
    """Count an e-mail that is about to be asked for. Raises TooManyInvitations."""
    counters = {
        f"invite:{tenant_id}:{_account(email)}": INVITATIONS_PER_ADDRESS,
        f"invite:{tenant_id}": INVITATIONS_PER_TENANT,
    }
    if wait := _count(counters, seconds=INVITATION_SECONDS):
        raise TooManyInvitations(wait)


def _count(counters: dict[str, int], *, seconds: int) -> int | None:
    """One more of each. Over the limit of any, the seconds until it may be tried again."""
    waits = []
    for key, most in counters.items():
        count, reset_seconds = add_one(key, seconds=seconds)
        if count > most:
            waits.append(max(reset_seconds, 1))
    return max(waits, default=None)


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


def add_one(key: str, *, seconds: int = 60) -> tuple[int, int]:
    """How many there were since the first of this time, and after how many seconds the time is over."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT, {"key": key, "seconds": seconds})
        count, reset_seconds = cursor.fetchone()
    return count, reset_seconds


def forget_counters() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM tenants_ratecounter WHERE started_at < now() - interval '1 hour'")
