"""`add_member`: a person into a tenant's portal."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from tenants.ids import new_id
from tenants.models import Member, User
from tests.support.api import make_tenant
from tests.support.portal import actions_of

pytestmark = pytest.mark.usefixtures("database")


def add_member(*arguments: str) -> dict[str, str | None]:
    output = StringIO()
    call_command("add_member", *arguments, "--json", stdout=output)
    line: dict[str, str | None] = json.loads(output.getvalue())
    return line


def test_a_new_person_gets_a_password_and_a_known_one_another_role() -> None:
    tenant = make_tenant()
    email = f"{new_id().hex}@example.com"

    new = add_member(tenant.slug, email.upper(), "--role", "admin")
    known = add_member(tenant.slug, email)

    user = User.objects.get(email=email)
    assert user.check_password(str(new["password"]))
    assert (new["role"], known["role"], known["password"]) == ("admin", "developer", None)
    assert [member.role for member in Member.objects.for_tenant(tenant)] == ["developer"]
    assert actions_of(tenant)[-2:] == ["member.added", "member.changed"]


def test_it_refuses_what_does_not_exist() -> None:
    long = f"{'a' * 250}@example.com"
    for slug, email in (
        ("no-such-tenant", "a@example.com"),
        ("f\udcfcr", "a@example.com"),
        (make_tenant().slug, "nobody"),
        (make_tenant().slug, long),
    ):
        with pytest.raises(CommandError):
            add_member(slug, email)
    with pytest.raises(CommandError, match="There is no tenant"):
        call_command("install_pack", "messaging", "--tenant", "f\udcfcr")
    with pytest.raises(CommandError, match="at most 254"):
        call_command("create_operator", long)
