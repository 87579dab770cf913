"""Readers of the environment. Each refuses an odd value at start, and says what would be right."""

import base64
import binascii
import ipaddress
import os
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


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
