"""Packs taken over into a catalogue: completely, once, and with a diff when they change."""

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tenants import access
from tenants.models import AuditEntry, EventType, Tenant
from tenants.packs import Pack, all_packs
from tenants.services import packs
from tenants.services.audit import COMMAND
from tenants.services.event_types import catalogue_of, create_event_type, update_event_type
from tests.support.api import make_tenant

pytestmark = pytest.mark.usefixtures("database")

MESSAGING = [each.name for each in all_packs()["messaging"].types]


@pytest.fixture
def tenant() -> Tenant:
    EventType.objects.filter(tenant__isnull=True).delete()
    return make_tenant()


def names_of(owner: Tenant | None) -> list[str]:
    return sorted(catalogue_of(owner).values_list("name", flat=True))


def installs(owner: Tenant | None) -> list[tuple[str, Any]]:
    entries = AuditEntry.objects.filter(tenant=owner, action="pack.installed").order_by("id")
    return [(entry.target, entry.after) for entry in entries]


def install(owner: Tenant | None, name: str, **options: Any) -> tuple[list[str], list[str], list[str]]:
    done = packs.install_pack(actor=COMMAND, tenant=owner, name=name, **options)
    return done.created, done.updated, done.unchanged


def version_of(tenant: Tenant) -> int:
    tenant.refresh_from_db()
    return tenant.settings_version


def test_every_pack_installs_as_it_is(tenant: Tenant) -> None:
    for pack in all_packs().values():
        assert install(tenant, pack.name) == ([each.name for each in pack.types], [], [])

    rows = {row.name: row for row in catalogue_of(tenant)}
    assert len(rows) == sum(len(pack.types) for pack in all_packs().values())
    for pack in all_packs().values():
        for each in pack.types:
            row = rows[each.name]
            assert (row.description, row.group, row.schema, row.example, row.tenant_id) == (
                each.description,
                each.group,
                each.schema,
                each.example,
                tenant.id,
            )
    assert {state.status for state in packs.packs_of(tenant)} == {"installed"}


def test_installing_twice_changes_nothing(tenant: Tenant) -> None:
    install(tenant, "messaging")
    before = (list(catalogue_of(tenant).order_by("name").values()), version_of(tenant), installs(tenant))

    assert install(tenant, "messaging") == ([], [], MESSAGING)

    assert (
        list(catalogue_of(tenant).order_by("name").values()),
        version_of(tenant),
        installs(tenant),
    ) == before
    assert before[2] == [("messaging 1", {"created": MESSAGING, "updated": []})]


def test_a_dry_run_says_what_would_happen_and_does_nothing(tenant: Tenant) -> None:
    before = version_of(tenant)

    assert install(tenant, "messaging", is_dry_run=True) == (MESSAGING, [], [])

    assert names_of(tenant) == []
    assert version_of(tenant) == before
    assert installs(tenant) == []


def test_a_pack_of_another_version_shows_what_is_different(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tenant, "accounts")
    monkeypatch.setattr(packs, "all_packs", lambda: {"accounts": next_version(all_packs()["accounts"])})

    state = packs.pack_of(tenant, "accounts")
    done = packs.install_pack(actor=COMMAND, tenant=tenant, name="accounts")

    assert state.status == "different"
    assert state.type_statuses == {"user.registered": "different", "user.email.changed": "installed"}
    assert state.difference == done
    (change,) = done.changes
    assert (change.name, change.fields, change.breaks_consumers) == ("user.registered", ["schema"], True)
    assert [(each.path, each.change, each.breaks_consumers) for each in change.schema] == [
        ("email", "property_optional", True),
        ("plan", "property_added", False),
    ]
    assert installs(tenant)[-1] == ("accounts 2", {"created": [], "updated": ["user.registered"]})
    assert packs.pack_of(tenant, "accounts").status == "installed"


def next_version(pack: Pack) -> Pack:
    registered, *rest = pack.types
    assert registered.schema is not None
    schema = registered.schema | {
        "required": [name for name in registered.schema["required"] if name != "email"],
        "properties": registered.schema["properties"] | {"plan": {"type": "string"}},
    }
    changed = replace(registered, schema=schema)
    return replace(pack, version=pack.version + 1, types=(changed, *rest))


def test_what_was_changed_by_hand_becomes_the_packs_again(tenant: Tenant) -> None:
    install(tenant, "accounts")
    update_event_type(actor=COMMAND, tenant=tenant, name="user.registered", description="Mine.")

    assert packs.pack_of(tenant, "accounts").status == "different"
    assert install(tenant, "accounts") == ([], ["user.registered"], ["user.email.changed"])

    assert catalogue_of(tenant).get(name="user.registered").description == "A person made an account."


def test_a_tenant_has_what_the_shared_catalogue_has(tenant: Tenant) -> None:
    assert install(None, "accounts") == (["user.registered", "user.email.changed"], [], [])

    assert packs.pack_of(tenant, "accounts").status == "installed"
    assert install(tenant, "accounts") == ([], [], ["user.registered", "user.email.changed"])
    assert EventType.objects.filter(tenant=tenant).count() == 0


def test_types_of_other_names_stay(tenant: Tenant) -> None:
    create_event_type(actor=COMMAND, tenant=tenant, name="user.deleted")

    install(tenant, "accounts")

    assert names_of(tenant) == ["user.deleted", "user.email.changed", "user.registered"]


def test_there_is_no_pack_of_an_unknown_name(tenant: Tenant) -> None:
    for call in (
        lambda: packs.pack_of(tenant, "nothing"),
        lambda: packs.install_pack(actor=COMMAND, tenant=tenant, name="nothing"),
    ):
        with pytest.raises(access.NotFound):
            call()


# --- the command ------------------------------------------------------------------------------------------------------


def said(*arguments: str) -> str:
    output = StringIO()
    call_command("install_pack", *arguments, stdout=output)
    return output.getvalue()


def test_the_command_installs_and_says_so(tenant: Tenant) -> None:
    assert said("accounts", "--tenant", tenant.slug, "--dry-run").splitlines() == [
        "+ user.registered",
        "+ user.email.changed",
        f"Would install accounts in the catalogue of {tenant.slug}: 2 new, 0 changed.",
    ]
    assert names_of(tenant) == []

    assert said("accounts", "--tenant", tenant.slug).splitlines()[-1] == (
        f"Installed accounts in the catalogue of {tenant.slug}: 2 new, 0 changed."
    )
    assert said("accounts", "--tenant", tenant.slug) == (
        f"The catalogue of {tenant.slug} has accounts as it is: nothing to change.\n"
    )
    assert names_of(tenant) == ["user.email.changed", "user.registered"]


def test_the_command_shows_the_diff_of_an_upgrade(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tenant, "accounts")
    monkeypatch.setattr(packs, "all_packs", lambda: {"accounts": next_version(all_packs()["accounts"])})

    assert said("accounts", "--tenant", tenant.slug, "--dry-run").splitlines() == [
        "~ user.registered: schema",
        "    breaks receivers: email was always there, and may be missing now.",
        "    plan is new.",
        "= user.email.changed",
        f"Would install accounts in the catalogue of {tenant.slug}: 0 new, 1 changed.",
    ]


def test_the_command_speaks_json(tenant: Tenant) -> None:
    assert json.loads(said("accounts", "--tenant", tenant.slug, "--json")) == {
        "pack": "accounts",
        "dry_run": False,
        "created": ["user.registered", "user.email.changed"],
        "updated": [],
        "unchanged": [],
        "breaks_consumers": False,
    }
    listed = json.loads(said("--tenant", tenant.slug, "--json"))["packs"]
    assert [each["name"] for each in listed] == list(all_packs())
    assert {each["name"]: each["status"] for each in listed}["accounts"] == "installed"


def test_without_a_tenant_it_is_the_shared_catalogue(tenant: Tenant) -> None:
    said("accounts")

    assert names_of(None) == ["user.email.changed", "user.registered"]
    assert "accounts         installed  user.registered, user.email.changed" in said().splitlines()
    EventType.objects.filter(tenant__isnull=True).delete()


def test_the_command_refuses_what_is_not_there(tenant: Tenant) -> None:
    with pytest.raises(CommandError, match="There is no tenant nobody"):
        said("accounts", "--tenant", "nobody")
    with pytest.raises(CommandError, match="invalid choice"):
        said("nothing", "--tenant", tenant.slug)
