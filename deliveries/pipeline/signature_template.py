"""Signatures of other schemes, beside ours: a company's customers go on verifying what they verify already. Pure.

The API reads a template with `read`; `dispatch` adds `header_lines` to each request. The request keeps
its `webhook-signature`, so that customers can move to it one by one.
"""

import base64
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, assert_never

from deliveries.validation import Collector, Invalid, choice, header_name, shown, text
from tenants.said import said

MAX_TEXT_LENGTH: Final = 255
MAX_EXTRA_HEADERS: Final = 8


class Encoding(StrEnum):
    HEX = "hex"
    BASE64 = "base64"


class Algorithm(StrEnum):
    """Of the HMAC. SHA-1 is for what exists: as an HMAC it still holds, and nobody should begin with it."""

    SHA256 = "sha256"
    SHA512 = "sha512"
    SHA1 = "sha1"


Pieces = tuple[str, ...]
"""A text cut at its placeholders: literal text at even places, names of placeholders at odd ones."""


@dataclass(frozen=True, slots=True)
class SignatureTemplate:
    """How one header is made. Texts hold the placeholders {id}, {timestamp} (Unix seconds) and {type}."""

    header: str
    encoding: Encoding
    algorithm: Algorithm
    prefix: Pieces
    """Before the signature, in the header's value."""
    separator: str | None
    """Between signatures while secrets overlap; None: the receiver reads only one, and the newest key makes it."""
    signed_content: Pieces
    """Knows {body} too: exactly the bytes sent, for a GET the query string."""
    extra_headers: tuple[tuple[str, Pieces], ...]
    """What a receiver needs beside the signature, such as a header with the timestamp that was signed."""


def header_lines(
    template: SignatureTemplate,
    keys: Sequence[bytes],
    *,
    message_id: str,
    timestamp: int,
    event_type: str,
    body: bytes,
) -> list[str]:
    """Complete `name: value` lines. `keys`: newest first, at least one; the schemes use a secret's text as it stands."""
    values = {
        "id": message_id.encode(),
        "timestamp": b"%d" % timestamp,
        "type": event_type.encode(),
        "body": body,
    }
    signed = _filled(template.signed_content, values)
    signing = keys[:1] if template.separator is None else keys
    signatures = [_signature(template, key, signed) for key in signing]
    value = _filled(template.prefix, values).decode() + (template.separator or "").join(signatures)
    return [
        f"{template.header}: {value}",
        *(f"{name}: {_filled(pieces, values).decode()}" for name, pieces in template.extra_headers),
    ]


def _signature(template: SignatureTemplate, key: bytes, signed: bytes) -> str:
    digest = hmac.digest(key, signed, template.algorithm.value)
    match template.encoding:
        case Encoding.HEX:
            return digest.hex()
        case Encoding.BASE64:
            return base64.b64encode(digest).decode()
        case _:
            assert_never(template.encoding)


def _filled(pieces: Pieces, values: Mapping[str, bytes]) -> bytes:
    return b"".join([values[piece] if place % 2 else piece.encode() for place, piece in enumerate(pieces)])


# --- what a client sends ----------------------------------------------------------------------------------------------


def read(value: object) -> dict[str, Any]:
    """The template as it is stored, with its `secret` if one was given: text, or None for the endpoint's own.

    What is not said is not written in: a preset stays one. Raises InvalidContent with every wrong field.
    """
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be an object.")
    wrong = Collector()
    template = {field: entry for field, entry in value.items() if field != "secret"}
    wrong.check("", parse, template)
    if value.get("secret") is not None:
        wrong.check("secret", _secret, value["secret"])
    if wrong.errors:
        raise Invalid.of_parts(wrong.errors)
    return value


def _secret(value: object) -> str:
    return text(value, low=1, high=MAX_TEXT_LENGTH)


def header_names(template: SignatureTemplate) -> list[str]:
    return [template.header, *(name for name, _ in template.extra_headers)]


_FIELDS = ("header", "encoding", "algorithm", "prefix", "separator", "signed_content", "headers")
_PLACEHOLDER = re.compile(r"\{(id|timestamp|type|body)\}")


def parse(value: object) -> SignatureTemplate:
    """`{"preset": "github"}`, or a template of one's own. Raises InvalidContent with every wrong field.

    {"header": "X-Acme-Signature", "encoding": "hex", "algorithm": "sha256", "prefix": "", "separator": null,
     "signed_content": "{body}", "headers": {}}; all but the header can be left out.
    """
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be an object.")
    if "preset" in value:
        return _preset(value)
    wrong = Collector()
    for field in value:
        if field not in _FIELDS:
            wrong.add(shown(field), "unknown_field", "There is no such field.")
    header = None
    if "header" in value:
        header = wrong.check("header", header_name, value["header"])
    else:
        wrong.add("header", "required", "Must be given.")
    encoding = wrong.check("encoding", _encoding, value.get("encoding", Encoding.HEX.value))
    algorithm = wrong.check("algorithm", _algorithm, value.get("algorithm", Algorithm.SHA256.value))
    prefix = wrong.check("prefix", _header_text, value.get("prefix", ""))
    separator = wrong.check("separator", _separator, value.get("separator"))
    signed_content = wrong.check("signed_content", _signed_content, value.get("signed_content", "{body}"))
    extra = wrong.check("headers", _extra_headers(header), value.get("headers", {}))
    wrong.done()
    # `done` raised if any of these was wrong.
    assert header is not None
    assert encoding is not None
    assert algorithm is not None
    assert prefix is not None
    assert signed_content is not None
    assert extra is not None
    return SignatureTemplate(header, encoding, algorithm, prefix, separator, signed_content, extra)


def _preset(value: Mapping[object, object]) -> SignatureTemplate:
    wrong = Collector()
    for field in value:
        if field != "preset":
            wrong.add(shown(field), "unknown_field", "A preset has no further fields.")
    name = wrong.check("preset", lambda given: choice(given, PRESETS), value["preset"])
    wrong.done()
    assert name is not None
    return PRESETS[name]


def _encoding(value: object) -> Encoding:
    return Encoding(choice(value, [encoding.value for encoding in Encoding]))


def _algorithm(value: object) -> Algorithm:
    return Algorithm(choice(value, [algorithm.value for algorithm in Algorithm]))


def _separator(value: object) -> str | None:
    if value is None:
        return None
    separator = _ascii(text(value, low=1, high=MAX_TEXT_LENGTH))
    if "{" in separator or "}" in separator:
        raise Invalid("unknown_placeholder", "The separator takes no placeholders.")
    return separator


def _header_text(value: object) -> Pieces:
    cleaned = _ascii(text(value, high=MAX_TEXT_LENGTH))
    if cleaned != cleaned.lstrip(" "):
        raise Invalid("invalid_characters", "Must not begin with a blank: receivers cut it off.")
    pieces = _pieces(cleaned)
    if "body" in pieces[1::2]:
        raise Invalid("unknown_placeholder", "The body cannot be part of a header.")
    return pieces


def _signed_content(value: object) -> Pieces:
    pieces = _pieces(text(value, low=1, high=MAX_TEXT_LENGTH, is_multiline=True))
    if pieces[1::2].count("body") != 1:
        raise Invalid("body_missing", "Must hold {body} once: what is not signed can be changed on the way.")
    return pieces


def _extra_headers(signature: str | None) -> Callable[[object], tuple[tuple[str, Pieces], ...]]:
    def rule(value: object) -> tuple[tuple[str, Pieces], ...]:
        if not isinstance(value, dict):
            raise Invalid("invalid_type", "Must be an object.")
        if len(value) > MAX_EXTRA_HEADERS:
            raise Invalid("too_long", said("Must have at most %(most)s headers.", most=MAX_EXTRA_HEADERS))
        wrong = Collector()
        taken = set() if signature is None else {signature.lower()}
        cleaned: list[tuple[str, Pieces]] = []
        for key, entry in value.items():
            field = shown(key)
            name = wrong.check(field, header_name, key)
            pieces = wrong.check(field, _full_header_text, entry)
            if name is None or pieces is None:
                continue
            if name.lower() in taken:
                wrong.add(field, "duplicate", said("The header %(name)s is given twice.", name=name))
            taken.add(name.lower())
            cleaned.append((name, pieces))
        wrong.done()
        return tuple(cleaned)

    return rule


def _full_header_text(value: object) -> Pieces:
    pieces = _header_text(value)
    if pieces == ("",):
        raise Invalid("blank", "Must not be empty.")
    return pieces


def _ascii(value: str) -> str:
    if not value.isascii():
        raise Invalid("invalid_characters", "Must be ASCII.")
    return value


def _pieces(value: str) -> Pieces:
    pieces = tuple(_PLACEHOLDER.split(value))
    if any("{" in literal or "}" in literal for literal in pieces[::2]):
        raise Invalid(
            "unknown_placeholder", "Placeholders are {id}, {timestamp}, {type} and {body}; no other braces."
        )
    return pieces


PRESETS: Final[Mapping[str, SignatureTemplate]] = {
    "github": parse({"header": "X-Hub-Signature-256", "prefix": "sha256="}),
    "stripe": parse(
        {
            "header": "Stripe-Signature",
            "prefix": "t={timestamp},v1=",
            "separator": ",v1=",
            "signed_content": "{timestamp}.{body}",
        }
    ),
    "shopify": parse({"header": "X-Shopify-Hmac-Sha256", "encoding": "base64"}),
}
"""The schemes that these companies' libraries verify. The keys are their secrets' texts, Stripe's `whsec_` included."""
