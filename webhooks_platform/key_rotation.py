"""Encrypts again, under the first key of WEBHOOKS_ENCRYPTION_KEYS, what other keys encrypted. Called by the command.

Each value changes from the ciphertext that was read to a new one of the same plain text, row by row, and only while it is
still the one that was read: the platform may go on meanwhile, and a run that was stopped is run again.
"""

from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.db import connection

from tenants.encryption import DecryptionFailed, decrypt, encrypt, is_current, key_id_of

BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Sealed:
    """A column of tokens, and what their context is made of."""

    table: str
    key: str
    column: str
    parts: tuple[str, ...]
    """Columns of ids, in the order of the context."""
    what: str

    def context(self, ids: list[UUID]) -> bytes:
        return b"|".join([*(each.bytes for each in ids), self.what.encode()])


ENDPOINT = ("tenant_id", "id")

SEALED: Final = (
    Sealed("deliveries_endpointsecret", "id", "encrypted", ("tenant_id", "endpoint_id"), "endpoint-secret"),
    Sealed("deliveries_endpoint", "id", "sensitive_headers_encrypted", ENDPOINT, "endpoint-headers"),
    Sealed("deliveries_endpoint", "id", "template_secret_encrypted", ENDPOINT, "endpoint-template"),
    Sealed("deliveries_endpoint", "id", "auth_encrypted", ENDPOINT, "endpoint-auth"),
    Sealed("deliveries_endpoint", "id", "client_key_encrypted", ENDPOINT, "endpoint-client-key"),
    Sealed("deliveries_slackhook", "tenant_id", "encrypted", ("tenant_id",), "slack-url"),
    Sealed("deliveries_source", "id", "secrets_encrypted", ("tenant_id", "id"), "source-secrets"),
    Sealed("tenants_secondfactor", "user_id", "encrypted", ("user_id",), "second-factor"),
)
"""A test holds it against the models. Stored replies that hold a secret are not in it: they are gone after a day."""


@dataclass(slots=True)
class Rotated:
    changed: int = 0
    current: int = 0
    by_other_keys: dict[str, int] = field(default_factory=dict)
    """By key id, what a dry run found."""
    failed: list[str] = field(default_factory=list)
    """Rows that no key of the settings opens: table, id and why, nothing secret."""


def rotate(*, dry_run: bool = False) -> Rotated:
    done = Rotated()
    for sealed in SEALED:
        after: UUID | None = None
        while rows := _read(sealed, after):
            for key, token, *ids in rows:
                _one(sealed, key, bytes(token), ids, done, dry_run=dry_run)
            after = rows[-1][0]
    return done


def _read(sealed: Sealed, after: UUID | None) -> list[tuple[Any, ...]]:
    # Names from the table above, never from people.
    columns = ", ".join([sealed.key, sealed.column, *sealed.parts])
    where = f"{sealed.column} IS NOT NULL" + ("" if after is None else f" AND {sealed.key} > %s")
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM {sealed.table} WHERE {where} ORDER BY {sealed.key} LIMIT {BATCH}",  # noqa: S608
            [] if after is None else [after],
        )
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _one(sealed: Sealed, key: UUID, token: bytes, ids: list[UUID], done: Rotated, *, dry_run: bool) -> None:
    try:
        is_done = is_current(token)
        if is_done and not dry_run:
            done.current += 1
            return
        context = sealed.context(ids)
        plain = decrypt(token, context=context)
    except DecryptionFailed as error:
        done.failed.append(f"{sealed.table}.{sealed.column} {key}: {error}")
        return
    if is_done:
        done.current += 1
        return
    if dry_run:
        name = key_id_of(token)
        done.by_other_keys[name] = done.by_other_keys.get(name, 0) + 1
        return
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {sealed.table} SET {sealed.column} = %s WHERE {sealed.key} = %s AND {sealed.column} = %s",  # noqa: S608
            [encrypt(plain, context=context), key, token],
        )
        done.changed += cursor.rowcount
