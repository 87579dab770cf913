"""Codes of an authenticator app (TOTP, RFC 6238) as the second factor of a person's sign-in, and recovery codes.

A code is good for its half minute and the one before and after, and once: the step of the last one is kept, and
written by a condition that only one of two requests at the same time meets.
"""

import base64
import hashlib
import hmac
import secrets
import struct
from typing import Final
from urllib.parse import quote, urlencode

from django.db import transaction
from django.db.models.functions import Now

from tenants import ids
from tenants.encryption import decrypt, encrypt
from tenants.models import SecondFactor, User
from tenants.services import audit
from tenants.services.audit import Actor

STEP_SECONDS: Final = 30
DIGITS: Final = 6
SECRET_BYTES: Final = 20
"""As long as the hash, as RFC 4226 wants it."""
RECOVERY_CODES: Final = 10
RECOVERY_BYTES: Final = 10
"""80 random bits each, so one fast hash is enough."""
ISSUER: Final = "Webhooks"


class WrongCode(Exception):
    """Mistyped, too old, or used before."""


def is_on(user: User) -> bool:
    return SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).exists()


def recovery_codes_left(user: User) -> int:
    factor = SecondFactor.objects.filter(user=user).first()
    return 0 if factor is None else len(factor.recovery_hashes)


# --- turning it on and off --------------------------------------------------------------------------------------------


def begin(user: User) -> str:
    """The secret to be put into an app, in base 32. The same one until it is confirmed."""
    factor = SecondFactor.objects.filter(user=user).first()
    if factor is None:
        sealed = encrypt(secrets.token_bytes(SECRET_BYTES), context=_context(user))
        factor, _ = SecondFactor.objects.get_or_create(user=user, defaults={"encrypted": sealed})
    return base64.b32encode(_open(factor, user)).decode()


def address_for_app(user: User, secret: str) -> str:
    """What the app's camera reads."""
    label = quote(f"{ISSUER}:{user.email}")
    return f"otpauth://totp/{label}?{urlencode({'secret': secret, 'issuer': ISSUER})}"


def confirm(*, actor: Actor, user: User, code: str, now: float) -> list[str]:
    """From now on it is asked for. Returns the recovery codes, which are kept as hashes. Raises WrongCode."""
    with transaction.atomic():
        factor = SecondFactor.objects.select_for_update().filter(user=user, confirmed_at__isnull=True).first()
        step = None if factor is None else _step_of(_open(factor, user), code, now=now)
        if factor is None or step is None:
            raise WrongCode
        codes = [_new_recovery_code() for _ in range(RECOVERY_CODES)]
        factor.confirmed_at = Now()
        factor.last_step = step
        factor.recovery_hashes = [_hash(each) for each in codes]
        factor.save(update_fields=["confirmed_at", "last_step", "recovery_hashes"])
        _record(actor, user, "account.second_factor_on")
    return codes


def turn_off(*, actor: Actor, user: User) -> None:
    """By its owner, after a code, or by an operator for somebody who lost the app and the recovery codes."""
    with transaction.atomic():
        deleted, _ = SecondFactor.objects.filter(user=user).delete()
        if deleted:
            _record(actor, user, "account.second_factor_off")


# --- signing in -------------------------------------------------------------------------------------------------------


def check(*, user: User, code: str, now: float) -> None:
    """A code of the app, or a recovery code, which is used up. Raises WrongCode."""
    factor = SecondFactor.objects.filter(user=user, confirmed_at__isnull=False).first()
    if factor is None:
        raise WrongCode
    step = _step_of(_open(factor, user), code, now=now)
    if step is not None:
        if SecondFactor.objects.filter(user=user, last_step__lt=step).update(last_step=step):
            return
        raise WrongCode
    _use_recovery_code(user, code)


def _use_recovery_code(user: User, code: str) -> None:
    digest = _hash(code.strip().lower())
    with transaction.atomic():
        factor = SecondFactor.objects.select_for_update().get(user=user)
        left = [bytes(each) for each in factor.recovery_hashes]
        if digest not in left:
            raise WrongCode
        factor.recovery_hashes = [each for each in left if each != digest]
        factor.save(update_fields=["recovery_hashes"])


def _step_of(secret: bytes, code: str, *, now: float) -> int | None:
    """The half minute whose code this is, if it is one of the three that are good now."""
    typed = code.replace(" ", "")
    current = int(now) // STEP_SECONDS
    found = None
    for step in (current - 1, current, current + 1):
        if hmac.compare_digest(code_at(secret, step).encode(), typed.encode("utf-8", "replace")):
            found = step
    return found


def code_at(secret: bytes, step: int) -> str:
    """RFC 4226."""
    digest = hmac.new(secret, struct.pack(">Q", step), hashlib.sha1).digest()
    offset = digest[-1] & 15
    number = struct.unpack(">I", digest[offset : offset + 4])[0] & 0x7FFF_FFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


# --- parts ------------------------------------------------------------------------------------------------------------


def _open(factor: SecondFactor, user: User) -> bytes:
    return decrypt(bytes(factor.encrypted), context=_context(user))


def _context(user: User) -> bytes:
    return b"|".join([user.id.bytes, b"second-factor"])


def _new_recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "replace")).digest()


def _record(actor: Actor, user: User, action: str) -> None:
    audit.record(actor=actor, tenant=None, action=action, target=ids.to_text(ids.USER, user.id))
