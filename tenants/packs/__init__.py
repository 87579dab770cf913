"""Packs: the event types of a trade, ready to install. Pure; `services/packs.py` installs them.

A pack is a file of this folder: `<name>.yaml` says title, version and description, and describes each of its types by
name as the API does. Who changes a type raises the version: installing again then shows what is different.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tenants import yaml_strict
from tenants.openapi_catalogue import Described

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Pack:
    name: str
    version: int
    title: str
    description: str
    types: tuple[Described, ...]


@cache
def all_packs() -> Mapping[str, Pack]:
    """By name, in the order of their titles. Read once in a process."""
    packs = [read_pack(path) for path in FOLDER.glob("*.yaml")]
    return {pack.name: pack for pack in sorted(packs, key=lambda pack: pack.title)}


def read_pack(path: Path) -> Pack:
    content = yaml_strict.loads(path.read_bytes())
    return Pack(
        name=path.stem,
        version=content["version"],
        title=content["title"],
        description=content["description"],
        types=tuple(Described(name=name, **fields) for name, fields in content["types"].items()),
    )
