"""A backup, restored with the very commands of docs/operations.md, goes on where it was made."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from django.db import connection
from django.utils import timezone
from psycopg import sql

from deliveries.pipeline import partitions
from tenants.ids import new_id
from tenants.services import platform
from tenants.services.audit import COMMAND
from tests.support.builders import attempts_of, deliveries_of, make_endpoint, make_tenant, publish
from tests.support.platform import django_on
from tests.support.running import Webhooks, run_until_dry
from tests.webhooks_platform.test_key_rotation import forget_what_other_tests_left
from webhooks_platform.embedded import Account
from webhooks_platform.embedded.programs import find_programs

ROOT = Path(__file__).resolve().parent.parent.parent


def commands(heading: str) -> list[str]:
    """Those of the first block of commands below the heading."""
    text = (ROOT / "docs" / "operations.md").read_text().partition(f"#### {heading}\n")[2]
    found = re.search(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1].strip().splitlines()


def run(lines: list[str], *, url: str, folder: Path) -> str:
    """As an operator would, in a folder of theirs."""
    myself = Account(os.geteuid(), os.getegid(), is_other=False)
    programs = find_programs(myself, copies=folder / "copies").postgres.parent
    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join(lines).replace("manage.py", str(ROOT / "manage.py"))],
        env=os.environ
        | {
            "DATABASE_URL": url,
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def without_coming_weeks() -> Iterator[None]:
    """As if the backup were older than the tables that are made ahead."""
    # Also when a week began after the tables were made.
    partitions.ensure_partitions(now=timezone.now())
    week = partitions.Week.of(timezone.now()).next()
    with connection.cursor() as cursor:
        for _ in range(partitions.WEEKS_AHEAD):
            cursor.execute("DROP TABLE " + ", ".join(week.table(parent) for parent in partitions.TABLES))
            week = week.next()
    try:
        yield
    finally:
        partitions.ensure_partitions(now=timezone.now())


@contextmanager
def empty_database(url: str) -> Iterator[None]:
    name = sql.Identifier(urlsplit(url).path.lstrip("/"))
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as own:
        own.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            yield
        finally:
            own.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.mark.usefixtures("quiet_lanes")
def test_what_waited_when_the_backup_was_made_is_delivered_after_it_was_restored(tmp_path: Path) -> None:
    url = os.environ["DATABASE_URL"]
    restored = urlsplit(url)._replace(path=f"/restored_{new_id().hex}").geturl()
    forget_what_other_tests_left()
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/"))
        publish(tenant, b'{"n":1}')
        run_until_dry()
        waiting = publish(tenant, b'{"n":2}')
        with without_coming_weeks():
            run(commands("Backing up"), url=url, folder=tmp_path)
        run_until_dry()
        with empty_database(restored):
            said = run(commands("Restoring"), url=restored, folder=tmp_path)
            with django_on(restored):
                weeks = partitions.weeks_ready(now=timezone.now())
                was_stopped = platform.resume_sending(actor=COMMAND, reason="checked")
                run_until_dry()
                deliveries = deliveries_of(tenant)
                attempts = [len(attempts_of(each)) for each in deliveries]

    assert (weeks, was_stopped) == (partitions.WEEKS_AHEAD, True)
    assert "By other keys: none" in said
    _, before, after = webhooks.requests
    assert (after.id, after.body) == (before.id, before.body)
    assert [each.status for each in deliveries] == ["succeeded", "succeeded"]
    assert deliveries[1].id.bytes in waiting.delivery_ids
    assert attempts == [1, 1]
