"""Secrets at rest: AES-256-GCM under the keys of `WEBHOOKS_ENCRYPTION_KEYS`.

A token names the key that made it, so keys can be rotated. It is bound to its `context` (tenant, row, purpose), so
that a ciphertext copied to another row does not open there.

Token: 1 byte version, 1 byte length of the key's id, the id, 12 bytes nonce, ciphertext with its 16-byte tag.
"""

import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

_VERSION = 1
_NONCE_BYTES = 12
_TAG_BYTES = 16


class DecryptionFailed(Exception):
    """The token is damaged, belongs to another row, or was made by a key that is not in the settings."""


def encrypt(plain: bytes, *, context: bytes) -> bytes:
    """Encrypt under the first key. `context`, needed again to decrypt: `b"|".join([tenant.bytes, row.bytes, what])`."""
    key_id, key = settings.WEBHOOKS_ENCRYPTION_KEYS[0]
    name = key_id.encode()
    nonce = os.urandom(_NONCE_BYTES)
    return bytes([_VERSION, len(name)]) + name + nonce + _cipher(key).encrypt(nonce, plain, context)


def decrypt(token: bytes, *, context: bytes) -> bytes:
    """Raises DecryptionFailed, whose message names a key's id at most, never anything secret."""
    key_id = key_id_of(token)
    key = dict(settings.WEBHOOKS_ENCRYPTION_KEYS).get(key_id)
    if key is None:
        raise DecryptionFailed(f"no encryption key {key_id!r} in the settings")
    start = 2 + token[1]
    nonce, sealed = token[start : start + _NONCE_BYTES], token[start + _NONCE_BYTES :]
    try:
        return _cipher(key).decrypt(nonce, sealed, context)
    except InvalidTag:
        raise DecryptionFailed("the token is damaged or belongs elsewhere") from None


def key_id_of(token: bytes) -> str:
    """Which key made the token; rotation re-encrypts those whose key is not the first one."""
    if len(token) < 2 or token[0] != _VERSION or len(token) < 2 + token[1] + _NONCE_BYTES + _TAG_BYTES:
        raise DecryptionFailed("not a token of this module")
    try:
        return token[2 : 2 + token[1]].decode()
    except UnicodeDecodeError:
        raise DecryptionFailed("not a token of this module") from None


def is_current(token: bytes) -> bool:
    """Whether the token was made by the key that encrypts now."""
    return key_id_of(token) == settings.WEBHOOKS_ENCRYPTION_KEYS[0][0]


@lru_cache(maxsize=32)
def _cipher(key: bytes) -> AESGCM:
    return AESGCM(key)
