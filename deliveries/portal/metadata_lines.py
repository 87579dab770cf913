"""An endpoint's metadata in its form: `key=value`, one a line. What does not fit on lines is shown, and taken, as JSON."""

import json
from typing import Any, Final

from django.utils.translation import gettext as _

from deliveries.models import Endpoint
from tenants import validation
from tenants.json_strict import MalformedJson, strict
from tenants.said import said
from tenants.validation import Invalid

MOST_DEPTH: Final = 4
"""Of JSON that is looked at at all. An object of texts is one deep."""


def as_text(metadata: dict[str, str]) -> str:
    if all(_fits(key, value) for key, value in metadata.items()):
        return "\n".join(f"{key}={value}" for key, value in metadata.items())
    return json.dumps(metadata, indent=2, ensure_ascii=False)


def _fits(key: str, value: str) -> bool:
    """Reading its line gives the same again."""
    is_one_line = len(value.splitlines()) <= 1 and len(key.splitlines()) == 1
    is_plain = key == key.strip() and value == value.strip()
    return is_one_line and is_plain and "=" not in key and not key.startswith("{")


def as_metadata(text: str) -> dict[str, str]:
    """As the API takes it. Raises InvalidContent."""
    if text.lstrip().startswith("{"):
        try:
            return validation.metadata(strict(text.encode(), max_depth=MOST_DEPTH, path=""))
        except MalformedJson as error:
            raise Invalid("invalid", str(error)) from None
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            raise Invalid("invalid", _("Each line must be a key, an equals sign and a value."))
        if key in found:
            raise Invalid("duplicate", said("The key %(key)s is given twice.", key=validation.shown(key)))
        found[key] = value
    return validation.metadata(found)


def changes(wanted: dict[str, str], endpoint: Endpoint | None) -> dict[str, Any]:
    """What a merge needs: keys that are gone become None."""
    old = {} if endpoint is None else endpoint.metadata
    return {key: None for key in old if key not in wanted} | {
        key: value for key, value in wanted.items() if old.get(key) != value
    }
