"""Readers of the environment. Each refuses an odd value at start, and says what would be right."""

import base64
import binascii
import ipaddress
import os
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


class Email(NamedTuple):
    """How e-mails leave, as Django's settings name it."""

    backend: str
    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    starts_tls: bool = False
    is_tls: bool = False
    folder: str | None = None


class AllowedNetwork(NamedTuple):
    """A network that the address guard lets through, at one port or (`None`) at all that are not blocked."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    port: int | None


def env_str(name: str, default: str = "") -> str:
    return os.environ.get(name, default)


def env_bool(name: str, default: bool) -> bool:
    text = os.environ.get(name)
    if text is None:
        return default
    if text.strip().lower() in TRUE:
        return True
    if text.strip().lower() in FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={text!r} is neither yes nor no. Set it to 'true' or 'false'.")


def env_int(name: str, default: int, *, low: int, high: int) -> int:
    text = os.environ.get(name)
    if text is None or not text.strip():
        return default
    try:
        number = int(text)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={text!r} is not a whole number.") from None
    if not low <= number <= high:
        raise ImproperlyConfigured(f"{name}={number} is out of range. Set it between {low} and {high}.")
    return number


def env_list(name: str) -> list[str]:
    return [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]


def env_emails(name: str) -> list[str]:
    """Addresses with commas between."""
    addresses = env_list(name)
    for address in addresses:
        local, _, host = address.rpartition("@")
        if not local or not host or any(character.isspace() for character in address):
            raise ImproperlyConfigured(
                f"{name}: {address!r} is no e-mail address. Write ops@example.com, several with commas."
            )
    return addresses


def env_url(name: str) -> str:
    """http or https, or nothing. Its value is not repeated: it may open something."""
    text = env_str(name)
    if text and not (urlsplit(text).scheme in {"http", "https"} and urlsplit(text).hostname):
        raise ImproperlyConfigured(
            f"{name} is no URL. Set it to one such as https://hooks.slack.com/services/…"
        )
    return text


def origin_of(url: str) -> str:
    """As browsers send it: small letters, no port that goes without saying. Empty for what is no address."""
    try:
        parts = urlsplit(url.lower())
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_usual = port in {None, 443 if parts.scheme == "https" else 80}
    return f"{parts.scheme}://{host}" + ("" if is_usual else f":{port}")


def env_choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    text = os.environ.get(name, default)
    if text not in choices:
        raise ImproperlyConfigured(f"{name}={text!r} is not known. Set it to one of: {', '.join(choices)}.")
    return text


def env_allowed_networks(name: str) -> list[AllowedNetwork]:
    """`127.0.0.0/8` or, for one port alone, `127.0.0.1/32@9000`; several with commas between."""
    allowed = []
    for part in env_list(name):
        text, _, port = part.partition("@")
        try:
            network = ipaddress.ip_network(text)
            number = int(port) if port else None
        except ValueError as error:
            raise ImproperlyConfigured(
                f"{name}: {part!r} is no network ({error}). Write CIDRs such as 10.0.0.0/8, or 127.0.0.1/32@9000."
            ) from None
        allowed.append(AllowedNetwork(network, number))
    return allowed


def env_networks(name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [allowed.network for allowed in env_allowed_networks(name)]


def env_proxy(name: str) -> str:
    """`http://[user:password@]host:port`, or nothing."""
    text = os.environ.get(name, "").strip()
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        is_right = parts.scheme == "http" and bool(parts.hostname) and bool(parts.port)
    except ValueError:
        is_right = False
    if not is_right or parts.path not in {"", "/"} or parts.query or parts.fragment:
        # Not shown: it may hold a password.
        raise ImproperlyConfigured(f"{name} is no proxy. Write it as http://host:3128.")
    return text


def env_encryption_keys(name: str) -> list[tuple[str, bytes]]:
    """`id:base64` with 32 bytes each; the first encrypts, all decrypt."""
    keys: list[tuple[str, bytes]] = []
    for part in env_list(name):
        key_id, _, text = part.partition(":")
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            key = b""
        if not key_id or len(key_id) > 32 or len(key) != 32:
            raise ImproperlyConfigured(
                f"{name}: an entry is not 'id:base64' of 32 bytes. Make one with: "
                "python -c \"import os,base64;print('k1:'+base64.b64encode(os.urandom(32)).decode())\""
            )
        keys.append((key_id, key))
    if len({key_id for key_id, _ in keys}) != len(keys):
        raise ImproperlyConfigured(f"{name}: two entries have the same id. Give each key an id of its own.")
    return keys


def env_email(name: str, default: str) -> Email:
    """`smtp://user:password@host:587`, which starts TLS; `smtps://…`, which is TLS; `console:`; `file:///folder`."""
    text = os.environ.get(name, default)
    backends = "django.core.mail.backends"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is no address of a mail server ({error}).") from None
    match parts.scheme:
        case "":
            if text:
                raise ImproperlyConfigured(f"{name} has no scheme. Set it to smtp://user:password@host:587.")
            return Email(f"{backends}.dummy.EmailBackend")
        case "console":
            return Email(f"{backends}.console.EmailBackend")
        case "file":
            return Email(f"{backends}.filebased.EmailBackend", folder=parts.path)
        case "smtp" | "smtps" if parts.hostname:
            is_tls = parts.scheme == "smtps"
            return Email(
                f"{backends}.smtp.EmailBackend",
                host=parts.hostname,
                port=port or (465 if is_tls else 25),
                user=unquote(parts.username or ""),
                password=unquote(parts.password or ""),
                # A server without TLS is one beside us, at the port for that.
                starts_tls=not is_tls and (port or 25) != 25,
                is_tls=is_tls,
            )
        case _:
            raise ImproperlyConfigured(
                f"{name} is no address of a mail server. Set it to smtp://user:password@host:587."
            )
