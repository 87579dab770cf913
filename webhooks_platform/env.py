"""Readers of the environment. Each refuses an odd value at start, and says what would be right."""

import base64
import binascii
import ipaddress
import os
import re
from email.utils import parseaddr
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import dj_database_url
import psycopg
from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off"}

CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


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
    text = os.environ.get(name, "")
    if not text.strip():
        # As of all the others. What is on by default protects something.
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
        raise ImproperlyConfigured(
            f"{name}={text!r} is not a whole number. Set it between {low} and {high}."
        ) from None
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


def env_sender(name: str, default: str) -> str:
    """`ops@example.com`, or `Webhooks <ops@example.com>`."""
    text = env_str(name).strip() or default
    local, _, host = parseaddr(text)[1].rpartition("@")
    if not local or not host:
        raise ImproperlyConfigured(
            f"{name}={text!r} is no sender. Set it to one such as Webhooks <webhooks@example.com>."
        )
    return text


def env_url(name: str) -> str:
    """http or https, or nothing. Its value is not repeated: it may open something."""
    text = env_str(name)
    if text and not (_split(text).scheme in {"http", "https"} and _split(text).hostname):
        raise ImproperlyConfigured(
            f"{name} is no URL. Set it to one such as https://hooks.slack.com/services/…"
        )
    return text


def origin_of(url: str) -> str:
    """As browsers send it: small letters, no port that goes without saying. Empty for what is no address."""
    parts = _split(url.lower())
    if not _is_web(parts) or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_usual = parts.port in {None, 443 if parts.scheme == "https" else 80}
    return f"{parts.scheme}://{host}" + ("" if is_usual else f":{parts.port}")


def env_public_url(name: str) -> str:
    """What people type to come here, without a slash at its end; or nothing."""
    text = env_str(name).strip()
    parts = _split(text)
    # `https://https://…` is an address, too: of a host that is called https.
    is_odd = set("?#") & set(text) or "//" in parts.path or any(character.isspace() for character in text)
    if text and (not _is_web(parts) or is_odd):
        raise ImproperlyConfigured(
            f"{name}={text!r} is no address of this platform. "
            "Set it to what people type, such as https://webhooks.example.com."
        )
    return text.rstrip("/")


def env_origins(name: str) -> list[str]:
    """As browsers send them: a scheme, a host, perhaps a port, and nothing else."""
    origins = env_list(name)
    for origin in origins:
        if origin != origin_of(origin):
            raise ImproperlyConfigured(
                f"{name}: {origin!r} is no origin. "
                "List them as browsers send them, such as https://app.example.com, without a path."
            )
    return origins


def env_hosts(name: str) -> list[str]:
    """Names as they come in a request's `Host`, without a port; `.example.com` for all below it, `*` for any."""
    hosts = env_list(name)
    for host in hosts:
        is_address = host.startswith("[") and host.endswith("]") and _is_address(host[1:-1])
        if host != "*" and not is_address and not HOST.fullmatch(host.lower().removeprefix(".")):
            raise ImproperlyConfigured(
                f"{name}: {host!r} is no host. List names alone, such as webhooks.example.com, "
                "without https:// and without a port."
            )
    return hosts


def env_host(name: str) -> str:
    """One name, or nothing."""
    text = env_str(name).strip().lower()
    if text and not HOST.fullmatch(text):
        raise ImproperlyConfigured(
            f"{name}={text!r} is no host. Set it to a name alone, such as in.example.com, "
            "without https:// and without a port."
        )
    return text


def env_name_servers(name: str) -> list[str]:
    """`9.9.9.9`, `9.9.9.9:53` or `[2620:fe::fe]:53`; several with commas between."""
    servers = env_list(name)
    for server in servers:
        if not _is_address(server):
            parts = _split(f"//{server}")
            is_whole = parts.netloc == server and (parts.port or server.endswith("]"))
            if not is_whole or not _is_address(parts.hostname or "") or parts.username is not None:
                raise ImproperlyConfigured(
                    f"{name}: {server!r} is no address of a name server. Write 9.9.9.9 or 9.9.9.9:53."
                )
    return servers


def env_authorities(name: str) -> str:
    """The path of a PEM file with certificates, or nothing."""
    path = env_str(name).strip()
    if path:
        try:
            found = CERTIFICATE.findall(Path(path).read_bytes())
            if not found:
                raise ValueError("it holds none")
            if not all(_is_whole(base64.b64decode(b"".join(each.split()), validate=True)) for each in found):
                raise ValueError("one of them is damaged")
        except (OSError, ValueError) as error:
            raise ImproperlyConfigured(
                f"{name}={path!r} cannot be read as certificates ({error}). "
                "Set it to a PEM file that this process may read, or leave it empty for the usual authorities."
            ) from None
    return path


def _is_whole(certificate: bytes) -> bool:
    """Its DER says at its beginning how long it is. One that is not, and nothing can be sent by TLS."""
    size = {b"\x30\x81": 1, b"\x30\x82": 2, b"\x30\x83": 3}.get(certificate[:2], 0)
    return size > 0 and int.from_bytes(certificate[2 : 2 + size], "big") == len(certificate) - 2 - size


def env_database(name: str) -> dict[str, Any] | None:
    """As Django takes it; None if nothing is set. Its value is not repeated: it may hold a password."""
    text = env_str(name).strip()
    if not text:
        return None
    parts = _split(text)
    if parts.scheme not in {"postgres", "postgresql"} or len(parts.path) < 2:
        raise ImproperlyConfigured(
            f"{name} must begin with postgresql:// and name a database: no other kind is supported. "
            "Set it to postgresql://user:password@host:5432/webhooks."
        )
    found: dict[str, Any] = dict(dj_database_url.parse(text))
    _refuse_options(name, found.get("OPTIONS", {}))
    return found


def _refuse_options(name: str, options: dict[str, Any]) -> None:
    """What stands behind the `?`: libpq's own words, except the one in which the platform says its own."""
    if "options" in options:
        raise ImproperlyConfigured(
            f"{name}: settings of the server cannot be given in it. "
            "Set them for the account: ALTER ROLE webhooks SET search_path = app."
        )
    try:
        psycopg.conninfo.make_conninfo(**options)
    except psycopg.ProgrammingError as error:
        raise ImproperlyConfigured(
            f"{name}: {str(error).strip()}. Set what PostgreSQL knows alone, such as ?sslmode=verify-full."
        ) from None


def env_broker(name: str) -> str:
    """A Redis or Valkey, or nothing. Its value is not repeated: it may hold a password."""
    text = env_str(name).strip()
    parts = _split(text)
    number = parts.path.removeprefix("/")
    is_number = not number or (number.isascii() and number.isdecimal())
    if text and not (parts.scheme in {"redis", "rediss"} and parts.hostname and is_number):
        raise ImproperlyConfigured(f"{name} is no Redis or Valkey. Set it to redis://host:6379/0.")
    return text


def _split(text: str) -> SplitResult:
    """Of what cannot be split, nothing: it has neither scheme nor host."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - which is looked at only when it is asked for
    except ValueError:
        return urlsplit("")
    is_odd = any(character.isspace() for character in parts.hostname or "")
    return urlsplit("") if is_odd else parts


def _is_web(parts: SplitResult) -> bool:
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def env_choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    text = os.environ.get(name, "").strip() or default
    if text not in choices:
        raise ImproperlyConfigured(f"{name}={text!r} is not known. Set it to one of: {', '.join(choices)}.")
    return text


def env_allowed_networks(name: str) -> list[AllowedNetwork]:
    """`127.0.0.0/8` or, for one port alone, `127.0.0.1/32@9000`; several with commas between."""
    allowed = []
    for part in env_list(name):
        text, at, port = part.partition("@")
        try:
            network = ipaddress.ip_network(text)
            # An `@` without a port is a port forgotten, and must not open all of them.
            number = int(port) if at else None
            if number is not None and not 1 <= number <= 65535:
                raise ValueError(f"{number} is no port")
        except ValueError as error:
            raise ImproperlyConfigured(
                f"{name}: {part!r} is no network ({error}). Write CIDRs such as 10.0.0.0/8, or 127.0.0.1/32@9000."
            ) from None
        allowed.append(AllowedNetwork(network, number))
    return allowed


def env_networks(name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """`10.0.0.0/8`; several with commas between."""
    networks = []
    for part in env_list(name):
        try:
            networks.append(ipaddress.ip_network(part))
        except ValueError as error:
            raise ImproperlyConfigured(
                f"{name}: {part!r} is no network ({error}). Write CIDRs such as 10.0.0.0/8, without a port."
            ) from None
    return networks


def env_proxy(name: str) -> str:
    """`http://[user:password@]host:port`, or nothing."""
    text = os.environ.get(name, "").strip()
    if not text:
        return ""
    parts = _split(text)
    is_right = parts.scheme == "http" and bool(parts.hostname) and bool(parts.port)
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
    parts = _split(text)
    port = parts.port
    match parts.scheme:
        case "" if not text:
            return Email(f"{backends}.dummy.EmailBackend")
        case "console":
            return Email(f"{backends}.console.EmailBackend")
        case "file" if parts.path and not parts.netloc:
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
                # Not shown: it may hold a password.
                f"{name} is no address of a mail server. Set it to smtp://user:password@host:587, "
                "or to file:///folder."
            )
