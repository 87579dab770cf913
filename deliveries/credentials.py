"""What an endpoint shows to its receiver so that it is let in: rules for `auth`, `client_certificate` and
`ca_certificates`. Pure.

The values go to the services with their secrets in them; `services/credentials.py` seals those before they are stored.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from deliveries.validation import MASK, Collector, Invalid, choice, matching, shown, text
from tenants.said import said

MAX_PEM_BYTES: Final = 64 * 1024
MAX_CERTIFICATES: Final = 20
MAX_TOKEN_LENGTH: Final = 4096
SECRET_OF: Final[Mapping[str, str]] = {"basic": "password", "bearer": "token", "oauth2": "client_secret"}
"""Which field of each type is secret."""

CLIENT_AUTHENTICATIONS: Final = ("basic", "body")
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "basic": ("type", "username", "password"),
    "bearer": ("type", "token"),
    "oauth2": ("type", "token_url", "client_id", "client_secret", "scope", "client_authentication"),
}
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "basic": ("username", "password"),
    "bearer": ("token",),
    "oauth2": ("token_url", "client_id", "client_secret"),
}
_VISIBLE = re.compile("[!-~]+")
_SCOPE = re.compile(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*")

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

# --- auth -------------------------------------------------------------------------------------------------------------


def auth(value: object, url: Callable[[object], str]) -> dict[str, Any]:
    """All of it, defaults filled in; `url` is the rule for addresses that requests may be sent to."""
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be an object.")
    wrong = Collector()
    if "type" not in value:
        raise Invalid("required", "Must be given.", at="type")
    kind = wrong.check("type", lambda given: choice(given, SECRET_OF), value["type"])
    if kind is None:
        raise Invalid.of_parts(wrong.errors)
    rules = _rules(url)
    cleaned: dict[str, Any] = {"type": kind}
    for field in value:
        if field not in FIELDS[kind]:
            wrong.add(shown(field), "unknown_field", said("There is no such field with %(kind)s.", kind=kind))
    for field in _REQUIRED[kind]:
        if value.get(field) is None:
            wrong.add(field, "required", "Must be given.")
        else:
            cleaned[field] = wrong.check(field, rules[field], value[field])
    if kind == "oauth2":
        scope = value.get("scope")
        cleaned["scope"] = None if scope is None else wrong.check("scope", rules["scope"], scope)
        cleaned["client_authentication"] = wrong.check(
            "client_authentication",
            lambda given: choice(given, CLIENT_AUTHENTICATIONS),
            value.get("client_authentication", "basic"),
        )
    if wrong.errors:
        raise Invalid.of_parts(wrong.errors)
    return cleaned


def _rules(url: Callable[[object], str]) -> Mapping[str, Callable[[object], str]]:
    return {
        "username": _username,
        "password": lambda value: text(value, low=1, high=255),
        "token": lambda value: matching(
            value, _VISIBLE, high=MAX_TOKEN_LENGTH, says="Must be visible ASCII, without blanks."
        ),
        "token_url": url,
        "client_id": lambda value: text(value, low=1, high=255),
        "client_secret": lambda value: text(value, low=1, high=MAX_TOKEN_LENGTH),
        "scope": lambda value: matching(
            value, _SCOPE, high=1024, says="Must be scopes of visible ASCII, with single blanks between."
        ),
    }


def _username(value: object) -> str:
    cleaned = text(value, low=1, high=255)
    if ":" in cleaned:
        raise Invalid("invalid_characters", "Must not contain a colon: it ends the name.")
    return cleaned


# --- certificates -----------------------------------------------------------------------------------------------------


def client_certificate(value: object) -> dict[str, str]:
    """`{"certificate", "private_key"}` in PEM: the certificate, then those between it and its authority; and its key.

    The key may be `***`: then the services see whether the one that is there belongs to the certificate.
    """
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be an object.")
    wrong = Collector()
    for field in value:
        if field not in ("certificate", "private_key"):
            wrong.add(shown(field), "unknown_field", "There is no such field.")
    cleaned: dict[str, str] = {}
    for field, rule in (("certificate", _with_a_key), ("private_key", _private_key)):
        if value.get(field) is None:
            wrong.add(field, "required", "Must be given: one is of no use without the other.")
            continue
        checked = wrong.check(field, rule, value[field])
        if checked is not None:
            cleaned[field] = checked
    if wrong.errors:
        raise Invalid.of_parts(wrong.errors)
    if cleaned["private_key"] != MASK and not belong_together(cleaned["certificate"], cleaned["private_key"]):
        raise Invalid("mismatch", "Is not the key of the certificate.", at="private_key")
    return cleaned


def _with_a_key(value: object) -> str:
    """Certificates, the first with a public key that can be compared. Read lazily, a key of another kind shows only then."""
    pem = certificates(value)
    try:
        x509.load_pem_x509_certificate(pem.encode()).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid(
            "invalid_certificate",
            "Must have a public key of RSA, an elliptic curve, Ed25519 or Ed448.",
        ) from None
    return pem


def certificates(value: object) -> str:
    """One or more certificates in PEM, and nothing else: what was around them is gone."""
    pem = text(value, low=1, high=MAX_PEM_BYTES, is_multiline=True)
    if "PRIVATE KEY" in pem:
        raise Invalid("invalid_certificate", "Must hold certificates alone, no private key.")
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise Invalid("invalid_certificate", "Must be certificates in PEM.") from None
    if len(found) > MAX_CERTIFICATES:
        raise Invalid("too_many", said("Must be at most %(most)s certificates.", most=MAX_CERTIFICATES))
    cleaned = "".join(each.public_bytes(Encoding.PEM).decode() for each in found)
    try:
        # Stricter than what reads them above, of names for instance; and what will have to use them.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=cleaned)
    except ssl.SSLError:
        raise Invalid("invalid_certificate", "Must be certificates in PEM.") from None
    return cleaned


def _private_key(value: object) -> str:
    if value == MASK:
        return MASK
    pem = text(value, low=1, high=MAX_PEM_BYTES, is_multiline=True)
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise Invalid("invalid_key", "Must not be protected by a password.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid("invalid_key", "Must be a private key in PEM.") from None
    if not isinstance(key, Key):
        raise Invalid("invalid_key", "Must be a key of RSA, an elliptic curve, Ed25519 or Ed448.")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def belong_together(certificate: str, private_key: str) -> bool:
    key = load_pem_private_key(private_key.encode(), password=None)
    of_certificate = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    as_info = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*as_info) == of_certificate.public_bytes(*as_info)


def expires_at(certificate: str) -> datetime:
    """Of the first certificate."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc


@dataclass(frozen=True, slots=True)
class About:
    """What people tell a certificate by."""

    subject: str
    """Empty: it has none that can be read."""
    fingerprint: str
    """SHA-256, in hexadecimal with colons."""
    expires_at: datetime


def about(pem: str) -> list[About]:
    """Of each certificate, in their order. `pem` as `certificates` gives it."""
    return [
        About(_subject(each), each.fingerprint(SHA256()).hex(":").upper(), each.not_valid_after_utc)
        for each in x509.load_pem_x509_certificates(pem.encode())
    ]


def _subject(certificate: x509.Certificate) -> str:
    try:
        return certificate.subject.rfc4514_string()
    except ValueError:
        # Names are parsed when they are asked for.
        return ""
