"""What notices and summaries say, in their readers' languages. Called by `notice_sending` when one is sent."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext as _

from deliveries.models import Endpoint, Notice
from deliveries.pipeline.announce import Kind

MOST_LINES: Final = 20
"""Endpoints that a notice names; of the others it says how many there are."""


def text_of(notice: Notice) -> tuple[str, list[str]]:
    """Subject and lines, in the reader's language."""
    with translation.override(notice.language or settings.LANGUAGE_CODE):
        facts: list[dict[str, Any]] = notice.facts
        if notice.summary_on is not None:
            counts, *facts = facts
            return _subject_of_summary(notice, counts), [_counted(counts), *_lines(facts)]
        return _subject(notice, facts), _lines(facts)


def _lines(facts: Sequence[dict[str, Any]]) -> list[str]:
    lines = [_sentence(fact) for fact in facts[:MOST_LINES]]
    if len(facts) > MOST_LINES:
        lines.append(_("… and %(count)s more endpoints.") % {"count": len(facts) - MOST_LINES})
    return lines


def _subject_of_summary(notice: Notice, counts: dict[str, Any]) -> str:
    assert notice.tenant is not None
    since, until = counts["since"], counts["until"]
    when = since
    if since != until:
        when = _("%(since)s to %(until)s") % {"since": since, "until": until}
    return _("Webhooks of %(whose)s, %(when)s") % {"whose": notice.tenant.slug, "when": when}


def _counted(counts: dict[str, Any]) -> str:
    return _("Delivered: %(succeeded)s. Failed for good: %(failed)s.") % {
        "succeeded": f"{counts['succeeded']:,}",
        "failed": f"{counts['failed']:,}",
    }


def _subject(notice: Notice, facts: Sequence[dict[str, Any]]) -> str:
    counts = Counter(fact["kind"] for fact in facts)
    parts = [
        text % {"count": counts[kind.value]}
        for kind, text in (
            (Kind.ENDPOINT_DISABLED, _("%(count)s disabled")),
            (Kind.ENDPOINT_DISABLING, _("%(count)s about to be disabled")),
            (Kind.ENDPOINT_FAILING, _("%(count)s failing")),
            (Kind.ENDPOINT_RECOVERED, _("%(count)s well again")),
        )
        if counts[kind.value]
    ]
    whose = notice.tenant.slug if notice.tenant is not None else _("the platform")
    return _("Webhook endpoints of %(whose)s: %(what)s") % {"whose": whose, "what": ", ".join(parts)}


def _sentence(fact: dict[str, Any]) -> str:
    values = {
        "endpoint": fact["uid"] or fact["endpoint"],
        "url": fact["url"],
        "since": fact.get("failing_since") or "",
        "failures": fact.get("failures") or 0,
        "at": fact.get("disables_at") or "",
    }
    match Kind(fact["kind"]):
        case Kind.ENDPOINT_FAILING:
            text = _(
                "%(endpoint)s (%(url)s) has done nothing but fail since %(since)s, %(failures)s times; requests to it wait."
            )
        case Kind.ENDPOINT_DISABLING:
            text = (
                _(
                    "%(endpoint)s (%(url)s) has failed since %(since)s and will be disabled at %(at)s if that goes on."
                )
                if values["at"]
                else _(
                    "%(endpoint)s (%(url)s) has failed since %(since)s and will be disabled if that goes on."
                )
            )
        case Kind.ENDPOINT_RECOVERED:
            text = _("%(endpoint)s (%(url)s) is well again; what waited is on its way.")
        case _ if fact.get("disabled_reason") == Endpoint.DisabledReason.GONE:
            text = _("%(endpoint)s (%(url)s) answered 410 Gone and was disabled.")
        case _:
            text = _(
                "%(endpoint)s (%(url)s) was disabled. When it is mended, enable it and recover what it missed."
            )
    line = text % values
    if fact["changes"] > 2:
        line += " " + _("(changed %(count)s times)") % {"count": fact["changes"]}
    return f"{fact['tenant']}: {line}" if fact["tenant"] else line


def escaped(text: str) -> str:
    """What Slack's own markup would read as a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
