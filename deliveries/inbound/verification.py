"""Whether a request comes from whom it should: signatures, credentials, addresses. Pure.

`settings_of` is the rule for the settings of a source; `verify` judges one request by them and by the source's secrets,
any of which may have signed. Everything secret is compared in constant time.
"""

import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from deliveries.inbound.requests import InboundRequest, Reason, Refused
from deliveries.pipeline.signing import PUBLIC_KEY_PREFIX, SECRET_PREFIX, InvalidSecret, parse_secret
from deliveries.validation import Collector, Invalid, choice, list_of, text, whole_number
from tenants.said import said

MAX_SECRETS: Final = 5
MAX_SECRET_LENGTH: Final = 512
MAX_NETWORKS: Final = 100
MAX_SIGNATURES: Final = 10
"""Looked at in one request: providers send a few while they rotate."""
MAX_FORM_FIELDS: Final = 1000


class Scheme(StrEnum):
    NONE = "none"
    STANDARD = "standard"
    """Standard Webhooks, as this platform sends them."""
    HMAC = "hmac"
    BEARER = "bearer"
    """A secret text in a header."""
    BASIC = "basic"


@dataclass(frozen=True, slots=True)
class Verification:
    """How requests prove themselves. What a scheme does not use stands at its default."""

    scheme: str = "none"
    header: str = ""
    """With the signature, or the bearer's token."""
    algorithm: str = "sha256"
    encoding: str = "hex"
    prefix: str = ""
    """In front of the signature or token."""
    signed: str = "{body}"
    """What is signed: a text with {body}, {timestamp}, {id}, {url} and {form} in it."""
    timestamp_header: str = ""
    id_header: str = ""
    signature_key: str = ""
    """Set when the header holds pairs, `t=…,v1=…`: the name of the signature's."""
    timestamp_key: str = ""
    tolerance_seconds: int = 300
    key_encoding: str = "text"
    """How the secret is written: text, hex or base64."""

    @property
    def credential_header(self) -> str:
        """Whose value is a secret itself, whatever its name; empty if there is none."""
        match self.scheme:
            case Scheme.BEARER:
                return self.header or "authorization"
            case Scheme.BASIC:
                return "authorization"
        return ""


# --- settings ---------------------------------------------------------------------------------------------------------

ALGORITHMS: Final = ("sha1", "sha256", "sha384", "sha512")
ENCODINGS: Final = ("hex", "base64")
KEY_ENCODINGS: Final = ("text", "hex", "base64")

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
PLACEHOLDERS: Final = frozenset({"body", "timestamp", "id", "url", "form"})
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)


def header(value: object) -> str:
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a text.")
    if value and not _HEADER.fullmatch(value):
        raise Invalid("invalid_header_name", "Must be the name of a header.")
    return value.lower()


def _signed(value: object) -> str:
    cleaned = text(value, low=1, high=200)
    names = set(_PLACEHOLDER.findall(cleaned))
    if not names <= PLACEHOLDERS:
        raise Invalid("invalid", "Knows {body}, {timestamp}, {id}, {url} and {form}.")
    if not names & {"body", "form"}:
        raise Invalid("invalid", "Must cover {body} or {form}, or anybody could change it.")
    return cleaned


RULES: Final[dict[str, Any]] = {
    "scheme": lambda value: choice(value, [each.value for each in Scheme]),
    "header": header,
    "algorithm": lambda value: choice(value, ALGORITHMS),
    "encoding": lambda value: choice(value, ENCODINGS),
    "prefix": lambda value: text(value, high=64),
    "signed": _signed,
    "timestamp_header": header,
    "id_header": header,
    "signature_key": lambda value: text(value, high=32),
    "timestamp_key": lambda value: text(value, high=32),
    "tolerance_seconds": lambda value: whole_number(value, low=1, high=86_400),
    "key_encoding": lambda value: choice(value, KEY_ENCODINGS),
}


def settings_of(value: object) -> dict[str, Any]:
    """The rule for `verification`: every field, with defaults for those that are not given."""
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be an object.")
    wrong = Collector()
    given: dict[str, Any] = {}
    for name, entry in value.items():
        if name not in RULES:
            wrong.add(str(name)[:64], "unknown_field", "There is no such field.")
        else:
            given[name] = wrong.check(name, RULES[name], entry)
    if wrong.errors:
        raise Invalid.of_parts(wrong.errors)
    made = Verification(**given)
    if made.scheme == Scheme.HMAC:
        _check_hmac(made, wrong)
    if wrong.errors:
        raise Invalid.of_parts(wrong.errors)
    return asdict(made)


def _check_hmac(made: Verification, wrong: Collector) -> None:
    if not made.header:
        wrong.add("header", "incomplete", "Must name the header with the signature.")
    if "{timestamp}" in made.signed and not (made.timestamp_header or made.timestamp_key):
        wrong.add("timestamp_header", "incomplete", "Must name where the signed timestamp comes.")
    if "{timestamp}" not in made.signed and (made.timestamp_header or made.timestamp_key):
        wrong.add("signed", "invalid", "Must cover {timestamp}, or anybody could renew it.")
    if "{id}" in made.signed and not made.id_header:
        wrong.add("id_header", "incomplete", "Must name the header with the signed id.")
    if made.timestamp_key and not made.signature_key:
        wrong.add("signature_key", "incomplete", "Must name the pair with the signature.")


def secrets(value: object) -> list[str]:
    return list_of(value, lambda each: text(each, low=1, high=MAX_SECRET_LENGTH), low=1, high=MAX_SECRETS)


def check_secrets(settings: Verification, given: Sequence[str]) -> None:
    """Raise Invalid, at `secrets`, unless the scheme can use them."""
    if settings.scheme != Scheme.NONE and not given:
        raise Invalid("incomplete", "This scheme needs a secret.", at="secrets")
    for each in given:
        try:
            if settings.scheme == Scheme.STANDARD:
                _standard_key(each)
            elif settings.scheme == Scheme.HMAC:
                _key(settings, each)
            elif settings.scheme == Scheme.BASIC and ":" not in each:
                raise Invalid("invalid_secret", "Must be a name, a colon and a password.", at="secrets")
        except (ValueError, InvalidSecret):
            says = (
                said(
                    "Must be %(prefix)s or %(other)s and base64.",
                    prefix=SECRET_PREFIX,
                    other=PUBLIC_KEY_PREFIX,
                )
                if settings.scheme == Scheme.STANDARD
                else said("Must be %(encoding)s.", encoding=settings.key_encoding)
            )
            raise Invalid("invalid_secret", says, at="secrets") from None


def networks(value: object) -> list[str]:
    return list_of(value, _network, high=MAX_NETWORKS)


def _network(value: object) -> str:
    try:
        return str(ipaddress.ip_network(text(value, low=1, high=64)))
    except ValueError:
        raise Invalid("invalid_network", "Must be an address or a network, such as 192.0.2.0/24.") from None


# --- judging ----------------------------------------------------------------------------------------------------------


def check_address(request: InboundRequest, allowed: Sequence[str]) -> None:
    """Raises Refused, if any addresses are named and this is none of them."""
    if not allowed:
        return
    try:
        address = ipaddress.ip_address(request.remote_ip)
    except ValueError:
        address = None
    if address is None or not any(address in ipaddress.ip_network(each) for each in allowed):
        raise Refused(Reason.ADDRESS_NOT_ALLOWED, "Requests from this address are not taken.")


def verify(settings: Verification, secrets: Sequence[str], request: InboundRequest, *, now: float) -> None:
    """Raises Refused. `now`: Unix time."""
    match Scheme(settings.scheme):
        case Scheme.NONE:
            return
        case Scheme.STANDARD:
            _verify_standard(settings, secrets, request, now)
        case Scheme.HMAC:
            _verify_hmac(settings, secrets, request, now)
        case Scheme.BEARER:
            prefix = settings.prefix or ("" if settings.header else "Bearer ")
            _compare_credentials(request.headers.get(settings.credential_header, ""), prefix, secrets)
        case Scheme.BASIC:
            wanted = [base64.b64encode(each.encode()).decode() for each in secrets]
            _compare_credentials(request.headers.get(settings.credential_header, ""), "Basic ", wanted)


def _compare_credentials(given: str, prefix: str, wanted: Sequence[str]) -> None:
    """The prefix, such as the name of a scheme, may be in any case."""
    rest = given[len(prefix) :]
    is_right = any([_is_same(rest, each) for each in wanted])  # noqa: C419 - all of them, whichever it is
    if not is_right or given[: len(prefix)].lower() != prefix.lower():
        raise Refused(Reason.CREDENTIALS_WRONG, "The credentials are missing or wrong.")


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def _verify_standard(
    settings: Verification, secrets: Sequence[str], request: InboundRequest, now: float
) -> None:
    message_id = request.headers.get("webhook-id", "")
    signatures = request.headers.get("webhook-signature", "").split(" ")[:MAX_SIGNATURES]
    if not message_id or not signatures[0]:
        raise Refused(Reason.SIGNATURE_MISSING, "webhook-id or webhook-signature is missing.")
    timestamp = request.headers.get("webhook-timestamp", "")
    _check_time(timestamp, settings.tolerance_seconds, now)
    signed = f"{message_id}.{timestamp}.".encode("utf-8", "replace") + request.payload
    found = False
    for secret in secrets:
        version, key = _standard_key(secret)
        for signature in signatures:
            name, _, value = signature.partition(",")
            if name != version:
                continue
            if isinstance(key, bytes):
                wanted = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
                found |= _is_same(value, wanted)
            else:
                found |= _is_signed(key, value, signed)
    if not found:
        raise Refused(Reason.SIGNATURE_WRONG, "The signature is wrong.")


def _standard_key(secret: str) -> tuple[str, bytes | Ed25519PublicKey]:
    """Raises ValueError."""
    if secret.startswith(PUBLIC_KEY_PREFIX):
        raw = base64.b64decode(secret.removeprefix(PUBLIC_KEY_PREFIX), validate=True)
        return "v1a", Ed25519PublicKey.from_public_bytes(raw)
    return "v1", parse_secret(secret)


def _is_signed(key: Ed25519PublicKey, signature: str, signed: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _verify_hmac(settings: Verification, secrets: Sequence[str], request: InboundRequest, now: float) -> None:
    given = request.headers.get(settings.header, "")
    if not given:
        raise Refused(Reason.SIGNATURE_MISSING, f"The header {settings.header} is missing.")
    if settings.signature_key:
        pairs = [part.partition("=") for part in given.split(",")[: 2 * MAX_SIGNATURES]]
        signatures = [value for name, _, value in pairs if name.strip() == settings.signature_key]
        timestamp = next((value for name, _, value in pairs if name.strip() == settings.timestamp_key), "")
        if settings.timestamp_header:
            timestamp = request.headers.get(settings.timestamp_header, "")
    else:
        signatures = [given.strip()]
        timestamp = request.headers.get(settings.timestamp_header, "")
    if "{timestamp}" in settings.signed:
        _check_time(timestamp, settings.tolerance_seconds, now)
    signed = b"".join(_parts(settings, request, timestamp))
    found = False
    for secret in secrets:
        digest = hmac.digest(_key(settings, secret), signed, settings.algorithm)
        wanted = digest.hex() if settings.encoding == "hex" else base64.b64encode(digest).decode()
        for signature in signatures[:MAX_SIGNATURES]:
            value = signature.removeprefix(settings.prefix)
            if not signature.startswith(settings.prefix):
                continue
            found |= _is_same(value.lower() if settings.encoding == "hex" else value, wanted)
    if not found:
        raise Refused(Reason.SIGNATURE_WRONG, "The signature is wrong.")


def _key(settings: Verification, secret: str) -> bytes:
    """Raises ValueError."""
    match settings.key_encoding:
        case "hex":
            return bytes.fromhex(secret)
        case "base64":
            return base64.b64decode(secret, validate=True)
        case _:
            return secret.encode()


def _check_time(timestamp: str, tolerance: int, now: float) -> None:
    """Raises Refused. In seconds, or in milliseconds, which some send."""
    if not timestamp:
        raise Refused(Reason.TIMESTAMP_MISSING, "The timestamp is missing.")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 13):
        raise Refused(Reason.TIMESTAMP_MISSING, "The timestamp is no Unix time.")
    seconds = int(timestamp) / (1000 if len(timestamp) == 13 else 1)
    if abs(now - seconds) > tolerance:
        raise Refused(
            Reason.TIMESTAMP_OLD, f"The timestamp is more than {tolerance} seconds from the platform's clock."
        )


def _parts(settings: Verification, request: InboundRequest, timestamp: str) -> Iterator[bytes]:
    for index, part in enumerate(_PLACEHOLDER.split(settings.signed)):
        if index % 2 == 0:
            yield part.encode()
            continue
        match part:
            case "body":
                yield request.payload
            case "timestamp":
                yield timestamp.encode("utf-8", "replace")
            case "id":
                yield request.headers.get(settings.id_header, "").encode("utf-8", "replace")
            case "url":
                yield request.url.encode("utf-8", "surrogateescape")
            case _ if request.is_query and "{url}" not in settings.signed:
                yield request.payload
            case _:
                yield _form(request)


def _form(request: InboundRequest) -> bytes:
    """The fields of a form sorted by name, each name with its value behind it; what is no form is covered by its hash.

    The hash of such a body stands in the URL, as `bodySHA256`, which is signed. Without it, nothing covers the body.
    """
    if request.content_type == "application/x-www-form-urlencoded":
        try:
            pairs = parse_qsl(
                request.body.decode(), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict"
            )
        except ValueError:
            raise Refused(Reason.MALFORMED_BODY, "The form cannot be read.") from None
        return b"".join(f"{name}{value}".encode() for name, value in sorted(set(pairs)))
    if request.body:
        given = re.findall(r"(?:^|&)bodySHA256=([0-9a-fA-F]{64})(?=&|$)", request.query)
        wanted = hashlib.sha256(request.body).hexdigest()
        if len(given) != 1 or not _is_same(given[0].lower(), wanted):
            raise Refused(Reason.SIGNATURE_WRONG, "The body is no form, and no bodySHA256 covers it.")
    return b""
