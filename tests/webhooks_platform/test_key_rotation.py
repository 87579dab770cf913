"""Changing the encryption key: everything opens with the new one alone, and nothing is missed."""

import base64
import json
from io import StringIO
from typing import Any

import pytest
from django.apps import apps
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.db import connection, models

from deliveries import sealed
from deliveries.models import Endpoint, EndpointSecret, SlackHook, Source
from deliveries.sealed import Part
from tenants.encryption import encrypt, key_id_of
from tenants.models import SecondFactor, User
from tests.support.api import make_tenant
from tests.support.builders import make_endpoint
from webhooks_platform.key_rotation import SEALED

pytestmark = pytest.mark.usefixtures("database")

NEW = ("new", b"n" * 32)


def make_sealed_rows() -> dict[str, tuple[models.Model, str]]:
    """One of each kind, through the functions that the services use."""
    tenant = make_tenant()
    endpoint = make_endpoint(tenant, "http://127.0.0.1:9/")
    of = {"tenant_id": tenant.id, "endpoint_id": endpoint.id}
    Endpoint.objects.for_tenant(tenant).update(
        sensitive_headers=["X-Key"],
        sensitive_headers_encrypted=sealed.seal_headers(headers={"X-Key": "a"}, **of),
        template_secret_encrypted=sealed.seal_part(Part.TEMPLATE_SECRET, "t", **of),
        auth_encrypted=sealed.seal_part(Part.AUTH, "u", **of),
        client_key_encrypted=sealed.seal_part(Part.CLIENT_KEY, "k", **of),
    )
    source = Source(tenant=tenant, name="s")
    source.secrets_encrypted = sealed.seal_source_secrets(
        tenant_id=tenant.id, source_id=source.id, secrets=["a"], verify_token="v"
    )
    source.save()
    hook = SlackHook.objects.for_tenant(tenant).create(
        tenant=tenant, encrypted=sealed.seal_slack_url("https://x", tenant_id=tenant.id)
    )
    user = User.objects.create_user(f"{tenant.slug}@example.com", "a long pass phrase")
    factor = SecondFactor.objects.create(
        user=user, encrypted=encrypt(b"s" * 20, context=b"|".join([user.id.bytes, b"second-factor"]))
    )
    secret = EndpointSecret.objects.for_tenant(tenant).get(endpoint=endpoint)
    return {
        "deliveries_endpointsecret.encrypted": (secret, "encrypted"),
        "deliveries_endpoint.sensitive_headers_encrypted": (endpoint, "sensitive_headers_encrypted"),
        "deliveries_endpoint.template_secret_encrypted": (endpoint, "template_secret_encrypted"),
        "deliveries_endpoint.auth_encrypted": (endpoint, "auth_encrypted"),
        "deliveries_endpoint.client_key_encrypted": (endpoint, "client_key_encrypted"),
        "deliveries_slackhook.encrypted": (hook, "encrypted"),
        "deliveries_source.secrets_encrypted": (source, "secrets_encrypted"),
        "tenants_secondfactor.encrypted": (factor, "encrypted"),
    }


def tokens(rows: dict[str, tuple[models.Model, str]]) -> dict[str, bytes]:
    found = {}
    for name, (row, column) in rows.items():
        row.refresh_from_db()
        found[name] = bytes(getattr(row, column))
    return found


def rotate(**options: Any) -> Any:
    output = StringIO()
    call_command("rotate_encryption_keys", json=True, stdout=output, **options)
    return json.loads(output.getvalue())


def forget_what_other_tests_left() -> None:
    """Rows that nothing opens, made on purpose by others."""
    with connection.cursor() as cursor:
        for each in SEALED:
            cursor.execute(
                f"DELETE FROM {each.table}"
                if each.column == "encrypted"
                else f"UPDATE {each.table} SET {each.column} = NULL"
            )


def test_every_column_of_tokens_is_known() -> None:
    columns = {
        f"{model._meta.db_table}.{field.column}"
        for model in apps.get_models()
        for field in model._meta.fields
        if isinstance(field, models.BinaryField) and str(field.column).endswith("encrypted")
    }

    assert columns == {f"{each.table}.{each.column}" for each in SEALED}


def test_everything_opens_with_the_new_key_alone(settings: LazySettings) -> None:
    forget_what_other_tests_left()
    old = settings.WEBHOOKS_ENCRYPTION_KEYS[0]
    rows = make_sealed_rows()
    before = tokens(rows)
    settings.WEBHOOKS_ENCRYPTION_KEYS = [NEW, old]

    dry = rotate(dry_run=True)
    untouched = tokens(rows)
    done = rotate()
    again = rotate()

    after = tokens(rows)
    assert set(rows) == {f"{each.table}.{each.column}" for each in SEALED}
    assert (dry["changed"], dry["by_other_keys"]) == (0, {old[0]: len(SEALED)})
    assert untouched == before
    assert (done["changed"], done["failed"]) == (len(SEALED), [])
    assert (again["changed"], again["current"]) == (0, len(SEALED))
    assert {key_id_of(token) for token in after.values()} == {"new"}
    settings.WEBHOOKS_ENCRYPTION_KEYS = [NEW]
    endpoint = rows["deliveries_endpoint.auth_encrypted"][0]
    assert isinstance(endpoint, Endpoint)
    of = {"tenant_id": endpoint.tenant_id, "endpoint_id": endpoint.id}
    assert len(sealed.open_secret(sealed=after["deliveries_endpointsecret.encrypted"], **of)) >= 24
    assert sealed.open_headers(sealed=after["deliveries_endpoint.sensitive_headers_encrypted"], **of) == {
        "X-Key": "a"
    }
    opened = [
        sealed.open_part(part, after[f"deliveries_endpoint.{column}"], **of)
        for part, column in (
            (Part.TEMPLATE_SECRET, "template_secret_encrypted"),
            (Part.AUTH, "auth_encrypted"),
            (Part.CLIENT_KEY, "client_key_encrypted"),
        )
    ]
    assert opened == ["t", "u", "k"]


def test_what_no_key_opens_is_named_and_left_as_it_is(settings: LazySettings) -> None:
    forget_what_other_tests_left()
    rows = make_sealed_rows()
    before = tokens(rows)
    settings.WEBHOOKS_ENCRYPTION_KEYS = [NEW]

    with pytest.raises(CommandError) as failure:
        call_command("rotate_encryption_keys", stdout=StringIO())

    assert str(failure.value).startswith(f"{len(SEALED)} values could not be opened")
    assert all(f"{each.table}.{each.column}" in str(failure.value) for each in SEALED)
    assert base64.b64encode(NEW[1]).decode() not in str(failure.value)
    assert tokens(rows) == before


def test_a_dry_run_opens_what_is_current_too(settings: LazySettings) -> None:
    """After a restore: another key under the same name is no key."""
    forget_what_other_tests_left()
    make_sealed_rows()
    name, _ = settings.WEBHOOKS_ENCRYPTION_KEYS[0]
    sound = rotate(dry_run=True)
    settings.WEBHOOKS_ENCRYPTION_KEYS = [(name, NEW[1])]

    with pytest.raises(CommandError) as failure:
        call_command("rotate_encryption_keys", dry_run=True, stdout=StringIO())

    assert (sound["current"], sound["failed"]) == (len(SEALED), [])
    assert str(failure.value).startswith(f"{len(SEALED)} values could not be opened")
