"""What must be secret and stay the same from start to start, made once and kept in one file for its owner alone."""

import base64
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path

FILE_NAME = "secrets.json"


def load_secrets(folder: Path) -> dict[str, str]:
    """The secrets of this checkout; those that are missing are made now."""
    path = folder / FILE_NAME
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    made: dict[str, Callable[[], str]] = {
        "SECRET_KEY": lambda: secrets.token_urlsafe(50),
        "WEBHOOKS_ENCRYPTION_KEYS": lambda: "k1:" + base64.b64encode(os.urandom(32)).decode(),
        "database_password": lambda: secrets.token_hex(24),
        "admin_password": lambda: secrets.token_hex(24),
        "broker_password": lambda: secrets.token_hex(24),
    }
    missing = {name: make() for name, make in made.items() if name not in kept}
    if missing:
        kept |= missing
        write_private(path, json.dumps(kept, indent=2))
    return kept


def remember_secret(folder: Path, name: str, value: str) -> None:
    write_private(folder / FILE_NAME, json.dumps(load_secrets(folder) | {name: value}, indent=2))


def write_private(path: Path, text: str) -> None:
    """For the owner's eyes from the first byte on, and never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
