"""The rules of `tenants/validation.py`, and those for endpoints, events and what they carry. Pure, for all interfaces."""

import re
from collections.abc import Mapping
from functools import partial
from urllib.parse import quote, unquote_plus

import idna

from deliveries.pipeline.address_guard import AddressGuard, literal_host
from deliveries.pipeline.outcome import SuccessStatuses
from deliveries.recorded import said_again
from tenants.said import said
from tenants.validation import (
    CONTROL,
    EVENT_TYPE,
    MAX_EVENT_TYPE_LENGTH,
    OPERATIONAL_PREFIXES,
    SURROGATE,
    Collector,
    Invalid,
    InvalidContent,
    WrongField,
    boolean,
    catalogue_event_type_name,
    choice,
    description,
    each,
    event_type_name,
    idempotency_key,
    join_path,
    list_of,
    matching,
    metadata,
    metadata_changes,
    moment,
    name,
    number,
    shown,
    slug,
    text,
    whole_number,
)

__all__ = [
    "BLOCKED_PORTS",
    "CONTROL",
    "FORMATS",
    "MASK",
    "MAX_BATCH_EVENTS",
    "MAX_BATCH_WAIT_MS",
    "MAX_CHANNELS",
    "MAX_HEADERS",
    "MAX_HEADER_NAME_LENGTH",
    "MAX_HEADER_VALUE_LENGTH",
    "MAX_PATTERNS",
    "MAX_RETRIES",
    "MAX_RETRY_WAIT_SECONDS",
    "MAX_URL_LENGTH",
    "METHODS",
    "OPERATIONAL_PREFIXES",
    "ORDERINGS",
    "SIGNATURE_SCHEMES",
    "Collector",
    "Invalid",
    "InvalidContent",
    "WrongField",
    "batch",
    "boolean",
    "catalogue_event_type_name",
    "channel",
    "choice",
    "description",
    "endpoint_channels",
    "event_channels",
    "event_type_name",
    "format_",
    "header_changes",
    "header_name",
    "headers",
    "idempotency_key",
    "is_sensitive_header",
    "is_wildcard",
    "join_path",
    "list_of",
    "mask_headers",
    "mask_query",
    "mask_response_headers",
    "mask_url",
    "matching",
    "max_in_flight",
    "metadata",
    "metadata_changes",
    "method",
    "moment",
    "name",
    "ordering",
    "ordering_key",
    "pattern",
    "pattern_matches",
    "patterns",
    "rate_limit",
    "retry_schedule",
    "shown",
    "signature_scheme",
    "slug",
    "success_statuses",
    "text",
    "timeout_seconds",
    "uid",
    "url",
    "whole_number",
]

# --- names ------------------------------------------------------------------------------------------------------------

_UID = re.compile(r"[A-Za-z0-9._:@-]{1,255}", re.ASCII)
_CHANNEL = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


def uid(value: object) -> str:
    cleaned = matching(
        value, _UID, high=255, says="Must be 1 to 255 of the characters A-Z, a-z, 0-9, . _ : @ and -."
    )
    if cleaned.startswith("ep_"):
        raise Invalid("reserved", "Must not begin with ep_, as ids do.")
    if cleaned in {".", ".."}:
        # Clients and proxies resolve them away in a path.
        raise Invalid("reserved", "Must not be a dot segment.")
    return cleaned


def channel(value: object) -> str:
    return matching(
        value, _CHANNEL, high=128, says="Must be 1 to 128 of the characters A-Z, a-z, 0-9, . _ : and -."
    )


MAX_CHANNELS = 10


def event_channels(value: object) -> list[str]:
    """The channels of an event; none is fine."""
    return list_of(value, channel, high=MAX_CHANNELS)


def endpoint_channels(value: object) -> list[str] | None:
    """The channels of an endpoint: None means all, and an empty list would mean never."""
    return None if value is None else list_of(value, channel, low=1, high=MAX_CHANNELS)


def pattern(value: object) -> str:
    """What a subscription listens to: an event type, `*`, or `<segments>.*`."""
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a text.")
    if len(value) > MAX_EVENT_TYPE_LENGTH:
        raise Invalid("too_long", said("Must have at most %(most)s characters.", most=MAX_EVENT_TYPE_LENGTH))
    if value != "*" and not EVENT_TYPE.fullmatch(value.removesuffix(".*")):
        raise Invalid(
            "invalid_pattern", "Must be an event type, or * alone or as the last segment, such as order.*."
        )
    return value


MAX_PATTERNS = 1000
"""A bound against nonsense; how many subscriptions an endpoint may have is a limit of its tenant."""


def patterns(value: object) -> list[str]:
    return list_of(value, pattern, high=MAX_PATTERNS)


def is_wildcard(pattern: str) -> bool:
    return pattern == "*" or pattern.endswith(".*")


def pattern_matches(pattern: str, event_type: str) -> bool:
    """`order.*` matches `order.created` and `order.line.added`, neither `order` nor `orders.created`.

    `*` matches all but the platform's own operational types; those reach only patterns that name them.
    """
    if pattern == "*":
        return not event_type.startswith(OPERATIONAL_PREFIXES)
    if pattern.endswith(".*"):
        return event_type.startswith(pattern[:-1])
    return pattern == event_type


UNSEEN = "\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u200b-\\u200f\\u2028-\\u202f\\u2060-\\u206f\\ufeff"
"""Characters that nobody sees: two keys that look alike would not be. For patterns, here and in the API's document."""

_UNSEEN = re.compile(f"[{UNSEEN}]")


def ordering_key(value: object) -> str:
    cleaned = text(value, low=1, high=128)
    if _UNSEEN.search(cleaned):
        raise Invalid("invalid_characters", "Must have visible characters only.")
    return cleaned


# --- settings of an endpoint ------------------------------------------------------------------------------------------

METHODS = ("POST", "PUT", "GET")
FORMATS = ("standard", "raw", "cloudevents", "cloudevents-binary", "xml", "form")
SIGNATURE_SCHEMES = ("hmac-sha256", "ed25519")
ORDERINGS = ("none", "fifo")


def method(value: object) -> str:
    return choice(value, METHODS)


def format_(value: object) -> str:
    return choice(value, FORMATS)


def signature_scheme(value: object) -> str:
    return choice(value, SIGNATURE_SCHEMES)


def ordering(value: object) -> str:
    return choice(value, ORDERINGS)


def success_statuses(value: object) -> list[str]:
    """Classes such as `2xx` and codes such as `302`: at least one, or nothing could ever succeed."""
    return list_of(value, _success_status, low=1, high=20)


def _success_status(value: object) -> str:
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a text, such as 2xx or 302.")
    try:
        SuccessStatuses.parse([value])
    except ValueError:
        raise Invalid(
            "invalid", "Must be a class from 2xx to 5xx, or a status code from 200 to 599."
        ) from None
    return value


def timeout_seconds(value: object) -> int:
    return whole_number(value, low=1, high=30)


def rate_limit(value: object) -> float | None:
    """Requests per second; None for no limit."""
    return None if value is None else number(value, low=0.01, high=10_000)


def max_in_flight(value: object) -> int:
    return whole_number(value, low=1, high=1000)


MAX_BATCH_EVENTS = 250
MAX_BATCH_WAIT_MS = 60_000


def batch(value: object) -> dict[str, int]:
    """`{"max_events", "max_wait_ms"}`: both are needed, for neither has a default that suits everybody."""
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be an object.")
    bounds = {"max_events": (2, MAX_BATCH_EVENTS), "max_wait_ms": (0, MAX_BATCH_WAIT_MS)}
    wrong = Collector()
    for field in value:
        if field not in bounds:
            wrong.add(shown(field), "unknown_field", "There is no such field.")
    cleaned: dict[str, int] = {}
    for field, (low, high) in bounds.items():
        if field not in value:
            wrong.add(field, "required", "Must be given.")
            continue
        number_ = wrong.check(field, partial(whole_number, low=low, high=high), value[field])
        if number_ is not None:
            cleaned[field] = number_
    if wrong.errors:
        raise Invalid.of_parts(wrong.errors)
    return cleaned


MAX_RETRIES = 20
MAX_RETRY_WAIT_SECONDS = 86_400


def retry_schedule(value: object) -> list[int] | None:
    """The waits in seconds, repetitions included; None for the default, an empty list for a single attempt."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise Invalid("invalid_type", "Must be a list of whole numbers.")
    if len(value) > MAX_RETRIES:
        raise Invalid("too_long", said("Must have at most %(most)s entries.", most=MAX_RETRIES))
    return each(value, lambda wait: whole_number(wait, low=0, high=MAX_RETRY_WAIT_SECONDS))


# --- headers ----------------------------------------------------------------------------------------------------------

MAX_HEADERS = 32
MAX_HEADER_NAME_LENGTH = 128
MAX_HEADER_VALUE_LENGTH = 4096

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_SENSITIVE_NAME = re.compile(r"authorization|cookie|key|token|secret|password|signature", re.IGNORECASE)

PLATFORM_HEADERS = frozenset(
    {"content-type", "user-agent", "content-encoding", "accept", "accept-encoding", "expect"}
)
"""Set by the platform, or by its HTTP client on its behalf; and everything that begins with `webhook-`."""

CONNECTION_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""They speak of the connection or frame the message: hop-by-hop, `Host`, `Content-Length`."""


def header_name(value: object) -> str:
    if not isinstance(value, str):
        raise Invalid("invalid_type", "A header's name must be a text.")
    if len(value) > MAX_HEADER_NAME_LENGTH:
        raise Invalid(
            "too_long",
            said("A header's name must have at most %(most)s characters.", most=MAX_HEADER_NAME_LENGTH),
        )
    if not _TOKEN.fullmatch(value):
        raise Invalid(
            "invalid_header_name", "A header's name must be an RFC 9110 token: no spaces, colons or accents."
        )
    lower = value.lower()
    if lower in PLATFORM_HEADERS or lower.startswith("webhook-"):
        raise Invalid(
            "header_not_allowed", said("The platform sets the header %(value)s itself.", value=value)
        )
    if lower in CONNECTION_HEADERS:
        raise Invalid(
            "header_not_allowed",
            said("The header %(value)s belongs to the connection and cannot be set.", value=value),
        )
    return value


def header_value(value: object) -> str:
    """Printable ASCII, without blanks at its ends. An empty value is refused: clients differ on whether to send it."""
    if not isinstance(value, str):
        raise Invalid("invalid_type", "A header's value must be a text.")
    if len(value) > MAX_HEADER_VALUE_LENGTH:
        raise Invalid(
            "too_long",
            said("A header's value must have at most %(most)s characters.", most=MAX_HEADER_VALUE_LENGTH),
        )
    if CONTROL.search(value):
        raise Invalid("invalid_characters", "A header's value must not contain control characters.")
    if not value.isascii():
        raise Invalid("invalid_characters", "A header's value must be ASCII.")
    cleaned = value.strip(" ")
    if not cleaned:
        raise Invalid("blank", "A header's value must not be empty.")
    return cleaned


def headers(value: object) -> dict[str, str]:
    cleaned = header_changes(value)
    removed = [name_ for name_, text_ in cleaned.items() if text_ is None]
    if removed:
        raise Invalid.of_parts(
            [WrongField(name_, "invalid_type", "A header's value must be a text.") for name_ in removed]
        )
    return {name_: text_ for name_, text_ in cleaned.items() if text_ is not None}


def header_changes(value: object) -> dict[str, str | None]:
    """What a PATCH may say: None removes a header. Names that differ in case only are the same header."""
    if not isinstance(value, dict):
        raise Invalid("invalid_type", "Must be an object of texts.")
    if len(value) > MAX_HEADERS:
        raise Invalid("too_long", said("Must have at most %(most)s headers.", most=MAX_HEADERS))
    collector = Collector()
    cleaned: dict[str, str | None] = {}
    seen: set[str] = set()
    for key, entry in value.items():
        if collector.check(shown(key), header_name, key) is None:
            continue
        if key.lower() in seen:
            collector.add(shown(key), "duplicate", said("The header %(name)s is given twice.", name=key))
            continue
        seen.add(key.lower())
        cleaned[key] = None if entry is None else collector.check(shown(key), header_value, entry)
    if collector.errors:
        raise Invalid.of_parts(collector.errors)
    return cleaned


def is_sensitive_header(name: str) -> bool:
    """Whether the header's value is a credential, going by its name: stored encrypted, masked wherever it is shown."""
    return _SENSITIVE_NAME.search(name) is not None


# --- URLs -------------------------------------------------------------------------------------------------------------

MAX_URL_LENGTH = 2048
MAX_HOST_LENGTH = 253

BLOCKED_PORTS = frozenset(range(1, 1024)) - {80, 443} | {
    *(
        1080,
        2049,
        2375,
        2376,
        3306,
        4369,
        5432,
        5672,
        6379,
        6443,
        8086,
        9092,
        9200,
        9300,
        11211,
        15672,
        27017,
    ),
}
"""Where other things than web servers listen: databases, brokers, proxies, cluster managers."""

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<slashes>//)?(?P<authority>[^/?#]*)(?P<rest>[^#]*)(?P<fragment>#.*)?",
    re.ASCII,
)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_LOOKS_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
# What RFC 3986 allows in a path or query. Everything else is percent-encoded; what is encoded already stays.
_URL_SAFE = "/?:@!$&'()*+,;=-._~%[]"


def url(value: object, guard: AddressGuard) -> str:
    """An address that requests may be sent to, as far as one can tell without looking its name up.

    Returned nearly as it came: scheme and host in lower case, the host in IDNA, a literal address in its plain
    spelling, other characters percent-encoded. Names are judged again, by address, whenever they are connected to.
    """
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a text.")
    if not value:
        raise Invalid("blank", "Must not be empty.")
    if len(value) > MAX_URL_LENGTH:
        raise Invalid("too_long", said("Must have at most %(most)s characters.", most=MAX_URL_LENGTH))
    # Parsers disagree about what these mean, and attackers live on the difference.
    if (
        CONTROL.search(value)
        or SURROGATE.search(value)
        or "\\" in value
        or any(char.isspace() for char in value)
    ):
        raise Invalid("invalid_url", "A URL must not contain spaces, control characters or backslashes.")

    parts = _URL.fullmatch(value)
    if parts is None:
        raise Invalid("invalid_url", "Must be a whole URL, such as https://example.com/webhooks.")
    scheme = parts["scheme"].lower()
    if scheme not in {"http", "https"}:
        raise Invalid("invalid_scheme", "Must begin with https:// or http://.")
    if not parts["slashes"]:
        raise Invalid("invalid_url", said("Must have two slashes after %(scheme)s:.", scheme=scheme))
    if "@" in parts["authority"]:
        raise Invalid(
            "userinfo_not_allowed", "Must not contain a user name or password: use a header instead."
        )
    if parts["fragment"] is not None:
        raise Invalid("fragment_not_allowed", "Must not contain a fragment: what follows # is never sent.")

    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None:
        raise Invalid("invalid_host", "Must name a valid host.")
    port = _port(authority["port"])
    host = _host(authority["host"], guard, port or (443 if scheme == "https" else 80))
    cleaned = f"{scheme}://{host}{'' if port is None else f':{port}'}{quote(parts['rest'], safe=_URL_SAFE)}"
    if len(cleaned) > MAX_URL_LENGTH:
        raise Invalid(
            "too_long",
            said("Must have at most %(most)s characters once it is percent-encoded.", most=MAX_URL_LENGTH),
        )
    return cleaned


def _port(digits: str | None) -> int | None:
    if digits is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", digits, re.ASCII) or not 1 <= int(digits) <= 65_535:
        raise Invalid("invalid_port", "The port must be a number from 1 to 65535.")
    if int(digits) in BLOCKED_PORTS:
        raise Invalid(
            "blocked_port",
            said("Port %(port)s is not open to webhooks: use 443, 80 or one above 1023.", port=int(digits)),
        )
    return int(digits)


def _host(raw: str, guard: AddressGuard, port: int) -> str:
    # A percent sign would be an encoded host, which some clients decode, or an interface of ours.
    if not raw or "%" in raw or len(raw) > MAX_HOST_LENGTH + 1:
        raise Invalid("invalid_host", "Must name a valid host.")

    # Asked before and after IDNA, which turns full-width digits and dots into plain ones.
    literal = literal_host(raw)
    if raw.startswith("["):
        if literal is None or ":" not in raw:
            raise Invalid("invalid_host", "Must name a valid IPv6 address between the brackets.")
    elif literal is None:
        host = _ascii_name(raw)
        literal = literal_host(host)
        if literal is None:
            if host == "localhost" or host.endswith(".localhost"):
                _let_through(guard, "127.0.0.1", port)
            return host
    _let_through(guard, literal, port)
    return f"[{literal}]" if ":" in literal else literal


def _ascii_name(raw: str) -> str:
    name = raw.lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True, std3_rules=True).decode()
        except UnicodeError:
            raise Invalid("invalid_host", "Must name a valid host.") from None
    # "example.com." is the same host; certificates are issued without the dot.
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > MAX_HOST_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        raise Invalid("invalid_host", "Must name a valid host.")
    # Only an address ends in a number; some parsers make one of what is none, such as 1.2.3.4.5.
    if literal_host(name) is None and _LOOKS_NUMERIC.fullmatch(labels[-1]):
        raise Invalid("invalid_host", "Must name a valid host or IPv4 address.")
    return name


def _let_through(guard: AddressGuard, address: str, port: int) -> None:
    reason = guard.refusal(address, port)
    if reason is not None:
        raise Invalid("address_blocked", said_again(reason))


# --- masking ----------------------------------------------------------------------------------------------------------

MASK = "***"

_CREDENTIAL_PARAMETER = re.compile(
    r"key|token|secret|passw|pwd|signature|credential|auth(?!or)|session|jwt|(?:^|[^a-z])(?:sig|code|hmac|pass)(?:$|[^a-z])",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(?<=://)[^/?#]*@")


def mask_url(url: str) -> str:
    """The URL as it may be shown: values of parameters that look like credentials are hidden, the rest is as it was."""
    head, question, tail = _USERINFO.sub(f"{MASK}@", url).partition("?")
    if not question:
        return head
    query, hash_, fragment = tail.partition("#")
    return f"{head}?{mask_query(query)}{hash_}{fragment}"


def mask_query(query: str) -> str:
    return "&".join(_masked_parameter(parameter) for parameter in query.split("&"))


def _masked_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if value and _CREDENTIAL_PARAMETER.search(unquote_plus(name)):
        return f"{name}{equals}{MASK}"
    return parameter


def mask_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers as they may be shown: values of sensitive ones are hidden."""
    return {name: MASK if is_sensitive_header(name) else value for name, value in headers.items()}


def mask_response_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of a receiver's answer as they may be shown: credentials in the URLs that they name are hidden, too."""
    return {name: _masked_links(name.lower(), value) for name, value in mask_headers(headers).items()}


# Lines of one name are joined by a comma and a blank. Between the brackets of a link anything may stand, blanks too.
_LINKS = {
    "location": re.compile(r"(?:(?!, ).)+", re.DOTALL),
    "content-location": re.compile(r"(?:(?!, ).)+", re.DOTALL),
    "refresh": re.compile(r"[^\s\"]+"),
    "link": re.compile(r"(?<=<)[^>]+|[^\s<>\"]+"),
}
"""Response headers with URLs in them, and what of their values is masked as one."""


def _masked_links(name: str, value: str) -> str:
    links = _LINKS.get(name)
    return value if links is None else links.sub(lambda link: _masked_link(link[0]), value)


def _masked_link(link: str) -> str:
    """As `mask_url`, and behind the hash, where sign-ins put what they give."""
    url, hash_, fragment = link.partition("#")
    return f"{mask_url(url)}{hash_}{mask_query(fragment)}"
