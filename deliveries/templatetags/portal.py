"""What templates of the portal say of ids, URLs and times."""

import json
import math
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from django import template
from django.utils.formats import date_format, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from deliveries import validation
from deliveries.portal.charts import Bar, Ticks, strip
from deliveries.portal.names import ACTORS, OUTCOMES, TRIGGERS
from deliveries.recorded import said_again
from deliveries.services.condition import Condition
from deliveries.services.endpoints import address_of
from tenants import ids
from tenants.portal.words import in_words

register = template.Library()


@register.filter
def typeid(value: UUID, prefix: str) -> str:
    """As the API spells it: `{{ event.id|typeid:"evt" }}`."""
    return ids.to_text(prefix, value)


@register.filter
def masked(url: str) -> str:
    """Without the credentials that a URL may carry. An endpoint that is polled has none."""
    return validation.mask_url(url) if url else _("read by polling")


register.filter("address", address_of)
register.filter("in_words", in_words)


@register.filter
def outcome_name(outcome: str) -> str:
    return str(OUTCOMES.get(outcome, outcome))


@register.filter
def trigger_name(trigger: str) -> str:
    return str(TRIGGERS.get(trigger, trigger))


@register.filter
def actor_name(kind: str) -> str:
    return str(ACTORS.get(kind, kind))


@register.filter
def recorded(text: str) -> str:
    """What was recorded in English, in the viewer's language."""
    return in_words(said_again(text))


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


@register.filter
def amount(number: int, is_estimated: bool = False) -> str:
    """With the language's separators. An estimate has two digits that mean something, and says that it is one."""
    if not is_estimated or number < 100:
        return number_format(number, force_grouping=True)
    unit = 10 ** (len(str(number)) - 2)
    return _("about %(number)s") % {"number": number_format(round(number / unit) * unit, force_grouping=True)}


@register.filter
def percent(share: float) -> str:
    """Cut, not rounded: 100 % is said of what is all of it."""
    return _("%(number)s %%") % {"number": number_format(math.floor(share * 100) / 100, decimal_pos=None)}


@register.simple_tag
def bucket_start(start: datetime, is_daily: bool) -> SafeString | str:
    """Days are those of UTC. Hours are shown in the viewer's own zone by `portal.js`."""
    utc = start.astimezone(UTC)
    if is_daily:
        return date_format(utc, "SHORT_DATE_FORMAT")
    return format_html(
        '<time datetime="{}" data-format="hour">{}</time>',
        utc.isoformat(timespec="seconds"),
        f"{utc:%Y-%m-%d %H:%M} UTC",
    )


@register.simple_tag
def bucket_title(bar: Bar, is_daily: bool) -> str:
    """What a browser shows over a bar: a plain text, so in UTC."""
    utc = bar.start.astimezone(UTC)
    start = date_format(utc, "SHORT_DATE_FORMAT") if is_daily else f"{utc:%Y-%m-%d %H:%M} UTC"
    counts = bar.counts
    words = {
        name: number_format(getattr(counts, name), force_grouping=True)
        for name in ("succeeded", "failed", "pending", "cancelled")
    }
    return _(
        "%(start)s: %(succeeded)s succeeded, %(failed)s failed, %(pending)s pending, %(cancelled)s cancelled"
    ) % (words | {"start": start})


@register.simple_tag
def strip_of(health: Condition | None) -> list[Ticks]:
    return strip(health.latest) if health is not None else []


@register.filter
def duration(seconds: int) -> str:
    """In words, its two largest units: `5 minutes`, `1 day, 2 hours`."""
    parts = []
    for unit, text in _UNITS:
        number, seconds = divmod(seconds, unit)
        if number:
            parts.append(text(number) % {"number": number})
    return ", ".join(parts[:2]) or _("no time")


_UNITS: Final = (
    (86_400, partial(ngettext, "%(number)d day", "%(number)d days")),
    (3_600, partial(ngettext, "%(number)d hour", "%(number)d hours")),
    (60, partial(ngettext, "%(number)d minute", "%(number)d minutes")),
    (1, partial(ngettext, "%(number)d second", "%(number)d seconds")),
)
