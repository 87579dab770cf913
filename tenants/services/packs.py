"""Packs of event types, seen beside a catalogue and taken over into it. Called by the API, the portal and a command.

`tenant` is the catalogue's owner; None is the platform's own, which every tenant sees.
"""

from dataclasses import dataclass

from tenants import access
from tenants.models import Tenant
from tenants.packs import Pack, all_packs
from tenants.services import catalogue
from tenants.services.audit import Actor
from tenants.services.catalogue import Imported


@dataclass(frozen=True, slots=True)
class PackState:
    """A pack beside a catalogue."""

    pack: Pack
    difference: Imported
    """What installing it now would do."""

    @property
    def status(self) -> str:
        if not self.difference.created and not self.difference.updated:
            return "installed"
        return "available" if len(self.difference.created) == len(self.pack.types) else "different"

    @property
    def type_statuses(self) -> dict[str, str]:
        """Of each type, in the pack's order: as of the whole."""
        found = dict.fromkeys(self.difference.created, "available")
        found |= dict.fromkeys(self.difference.updated, "different")
        return {each.name: found.get(each.name, "installed") for each in self.pack.types}


def get_pack(name: str) -> Pack:
    """Raises access.NotFound."""
    pack = all_packs().get(name)
    if pack is None:
        raise access.NotFound
    return pack


def packs_of(tenant: Tenant | None) -> list[PackState]:
    """Every pack beside the owner's catalogue. One query."""
    packs = all_packs().values()
    existing = catalogue.existing_types(tenant, [each for pack in packs for each in pack.types])
    return [PackState(pack, catalogue.difference(tenant, pack.types, existing)) for pack in packs]


def pack_of(tenant: Tenant | None, name: str) -> PackState:
    """Raises access.NotFound."""
    pack = get_pack(name)
    existing = catalogue.existing_types(tenant, pack.types)
    return PackState(pack, catalogue.difference(tenant, pack.types, existing))


def install_pack(*, actor: Actor, tenant: Tenant | None, name: str, is_dry_run: bool = False) -> Imported:
    """Make its types, and change those that are different; done twice it changes nothing. Raises access.NotFound.

    A type that the owner changed by hand becomes the pack's again: the dry run says which those are.
    """
    pack = get_pack(name)
    return catalogue.take_over(
        actor=actor,
        tenant=tenant,
        described=pack.types,
        action="pack.installed",
        target=f"{pack.name} {pack.version}",
        is_dry_run=is_dry_run,
    )
