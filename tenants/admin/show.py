"""How values look in the admin: times, states, links. Everything else is text, escaped by the templates."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

NOTHING = "-"

BAD = frozenset({"failed", "disabled", "suspended", "failing", "open", "revoked", "deleted", "stopped"})
GOOD = frozenset({"succeeded", "enabled", "active", "done", "delivered", "closed"})
WAITING = frozenset({"pending", "paused", "held", "running", "half_open", "draining"})


def when(at: datetime | None) -> SafeString | str:
    if at is None:
        return NOTHING
    utc = at.astimezone(UTC)
    return format_html(
        '<time datetime="{}">{}</time>',
        utc.isoformat(timespec="milliseconds"),
        f"{utc:%Y-%m-%d %H:%M:%S}",
    )


def state(text: str | None) -> SafeString | str:
    """A word with the colour of its meaning."""
    if not text:
        return NOTHING
    kind = "bad" if text in BAD else "good" if text in GOOD else "wait" if text in WAITING else "off"
    return format_html('<span class="state {}">{}</span>', kind, text.replace("_", " "))


def beside(first: object, second: object) -> SafeString:
    return format_html("{} {}", first, second)


def link(url: str, text: object) -> SafeString:
    return format_html('<a href="{}">{}</a>', url, text)


def code(text: object) -> SafeString | str:
    return format_html("<code>{}</code>", text) if text not in {None, ""} else NOTHING


def pretty(value: Any) -> SafeString | str:
    """JSON laid out for people."""
    if value in (None, {}, []):
        return NOTHING
    return format_html("<pre>{}</pre>", json.dumps(value, indent=2, ensure_ascii=False, default=str))


def number(value: float | None) -> str:
    """1,234,567."""
    return NOTHING if value is None else f"{value:,.0f}"


def seconds(value: float) -> str:
    """`3 s`, `4 min`, `2 h`, `5 days`: what a person wants to know of an age."""
    if value < 120:
        return f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h" if value < 172_800 else f"{value / 86_400:.0f} days"


# --- where things are -------------------------------------------------------------------------------------------------


def page_url(model: str, key: UUID | int) -> str:
    """`model`: `tenants_tenant`, `deliveries_endpoint`, …"""
    return reverse(f"admin:{model}_change", args=[key])


def list_url(model: str, **filters: object) -> str:
    url = reverse(f"admin:{model}_changelist")
    return f"{url}?{urlencode(filters)}" if filters else url


def act_url(action: str, **selection: object) -> str:
    """The page that asks before an operator's action."""
    return f"{reverse('admin:act', args=[action])}?{urlencode(selection, doseq=True)}"
