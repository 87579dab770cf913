"""What templates of the portal say of ids, URLs and times."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from deliveries import validation
from tenants import ids

register = template.Library()


@register.filter
def typeid(value: UUID, prefix: str) -> str:
    """As the API spells it: `{{ event.id|typeid:"evt" }}`."""
    return ids.to_text(prefix, value)


@register.filter
def masked(url: str) -> str:
    """Without the credentials that a URL may carry."""
    return validation.mask_url(url)


@register.simple_tag
def when(at: datetime | None) -> SafeString | str:
    """In UTC; `portal.js` shows the viewer's own time, with UTC on hover."""
    if at is None:
        return "-"
    utc = at.astimezone(UTC)
    return format_html(
        '<time datetime="{}">{}</time>',
        utc.isoformat(timespec="milliseconds"),
        f"{utc:%Y-%m-%d %H:%M:%S} UTC",
    )


@register.filter
def as_json(value: Any) -> str:
    """To be read. Escaped by the template, like every text."""
    return json.dumps(value, ensure_ascii=False, default=str)


@register.filter
def milliseconds(value: float | None) -> str:
    """`84 ms`, `1.20 s`; not localised, so that columns line up with what logs say."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"
