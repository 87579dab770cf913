"""`create_tenant` and `create_operator_key`: with --json, one line alone on stdout."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from tenants import access, ids
from tenants.models import AuditEntry, Tenant
from tests.support.api import Api, make_tenant, new_slug

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def empty_database() -> Iterator[str]:
    """Its address."""
    name = f"empty_{uuid4().hex}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    yield urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def output_of(*arguments: str) -> str:
    stdout = StringIO()
    call_command(*arguments, stdout=stdout)
    return stdout.getvalue()


def test_a_tenant_with_a_key_of_every_scope() -> None:
    slug = new_slug()

    output = output_of("create_tenant", slug, "--name", "Acme", "--json")

    assert output.count("\n") == 1
    made = json.loads(output)
    tenant = Tenant.objects.get(slug=slug)
    assert made.keys() == {"tenant", "slug", "api_key"}
    assert (made["tenant"], made["slug"], tenant.name) == (ids.to_text(ids.TENANT, tenant.id), slug, "Acme")
    who = json.loads(Api(made["api_key"]).get("/whoami").content)
    assert who["tenant"]["slug"] == slug
    assert set(who["scopes"]) == access.ALL_SCOPES
    assert set(AuditEntry.objects.filter(tenant=tenant).values_list("action", "actor")) == {
        ("tenant.created", "manage.py"),
        ("api_key.created", "manage.py"),
    }


def test_for_people_it_is_said_in_words() -> None:
    slug = new_slug()

    assert output_of("create_tenant", slug).startswith(f"Tenant {slug}: tnt_")
    assert output_of("create_operator_key", "ops").startswith("Operator key, shown this once: whk_")


def test_what_is_wrong_is_said_and_nothing_is_made() -> None:
    taken = make_tenant().slug
    before = Tenant.objects.count()

    for slug, says in (("Not A Slug", "Must be 1 to 63"), (taken, "is, or was, another tenant's")):
        with pytest.raises(CommandError, match=says):
            output_of("create_tenant", slug, "--json")
    with pytest.raises(CommandError, match="Must not be empty"):
        output_of("create_operator_key", "", "--json")

    assert Tenant.objects.count() == before


def test_on_a_database_without_tables_the_way_to_them_is_said(empty_database: str) -> None:
    commands = [
        ["create_tenant", "acme"],
        ["sending", "stop", "--reason", "x"],
    ]
    for command in commands:
        ended = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=settings.BASE_DIR,
            env=os.environ | {"DATABASE_URL": empty_database},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == (
            "CommandError: The database is not migrated to this version of the platform. "
            "Run first: manage.py migrate\n"
        )


def test_an_operator_key() -> None:
    made = json.loads(output_of("create_operator_key", "ops", "--json"))

    assert made.keys() == {"api_key"}
    assert json.loads(Api(made["api_key"]).get("/whoami").content)["key"]["is_operator"] is True
