"""Signatures of Standard Webhooks: `v1` by HMAC-SHA256, `v1a` by Ed25519. Pure.

`dispatch` signs every request with it; the endpoint services make, read and show secrets with it.
"""

import base64
import binascii
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tenants.said import said

SECRET_PREFIX = "whsec_"  # noqa: S105  the published prefix, no secret
PUBLIC_KEY_PREFIX = "whpk_"
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
_NEW_SECRET_BYTES = 32


class InvalidSecret(ValueError):
    """Not `whsec_` followed by the base64 of 24 to 64 bytes. The message never repeats the text."""


@dataclass(frozen=True, slots=True, repr=False)
class HmacKey:
    secret: bytes

    def signature(self, signed: bytes) -> str:
        return "v1," + _base64(hmac.digest(self.secret, signed, "sha256"))


@dataclass(frozen=True, slots=True, repr=False)
class Ed25519Key:
    private: Ed25519PrivateKey

    def signature(self, signed: bytes) -> str:
        return "v1a," + _base64(self.private.sign(signed))


SigningKey = HmacKey | Ed25519Key


def parse_secret(text: str) -> bytes:
    """The key's bytes. Only the spelling that `secret_text` gives is taken: receivers decode strictly, too.

    Raises InvalidSecret.
    """
    if not text.startswith(SECRET_PREFIX):
        raise InvalidSecret(said("must begin with %(prefix)s", prefix=SECRET_PREFIX))
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSecret(said("must be %(prefix)s followed by base64", prefix=SECRET_PREFIX)) from None
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise InvalidSecret(
            said(
                "must hold %(least)s to %(most)s bytes, holds %(number)s",
                least=MIN_SECRET_BYTES,
                most=MAX_SECRET_BYTES,
                number=len(secret),
            )
        )
    if secret_text(secret) != text:
        raise InvalidSecret(said("must be base64 in its canonical form"))
    return secret


def secret_text(secret: bytes) -> str:
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def generate_secret() -> str:
    return secret_text(os.urandom(_NEW_SECRET_BYTES))


def generate_private_key() -> bytes:
    """The 32 bytes of a new Ed25519 private key; they are stored encrypted and never shown."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def ed25519_key(private: bytes) -> Ed25519Key:
    return Ed25519Key(Ed25519PrivateKey.from_private_bytes(private))


def public_key_text(key: Ed25519Key) -> str:
    """What a receiver verifies with."""
    return PUBLIC_KEY_PREFIX + base64.b64encode(key.private.public_key().public_bytes_raw()).decode()


def sign(keys: Sequence[SigningKey], message_id: str, timestamp: int, body: bytes) -> str:
    """The value of the header `webhook-signature`: one signature for each key, separated by spaces.

    `body` is exactly what goes over the wire: the request's body, or the query string of a GET.
    """
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return " ".join([key.signature(signed) for key in keys])


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()
