"""Notices to people: by e-mail to the members who want them and to operators, and to Slack-compatible webhooks.

Of transitions only, in digests: what happens first is told within a minute, what follows in the next minutes waits for
one notice together. So nobody gets more than one per tenant and period, whatever happens.

Two steps, each a task's, both on rows of the database: `gather` makes of what was announced one notice for each reader,
and `send_waiting` sends them. A crash after sending and before writing that down sends one again, none is lost.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, QuerySet
from django.utils import translation
from django.utils.translation import gettext as _

from deliveries.models import Announcement, Endpoint, Notice, SlackHook
from deliveries.pipeline.announce import Kind
from deliveries.pipeline.transport import Destination, OutgoingRequest, Transport
from deliveries.sealed import open_slack_url
from deliveries.services.announcements import facts_of
from tenants import mail
from tenants.encryption import DecryptionFailed
from tenants.models import Tenant, User
from tenants.services import notifications
from tenants.services.notifications import About

logger = logging.getLogger(__name__)

PERIOD: Final = timedelta(minutes=15)
"""Between two notices of one tenant, and between two to operators."""

MOST_ROWS: Final = 5_000
"""Transitions in one notice. Those beyond go into the next."""

MOST_LINES: Final = 20
"""Endpoints that a notice names; of the others it says how many there are."""

WAITS: Final = (60, 300, 1_800, 7_200)
"""Seconds until a notice that could not be sent is tried again."""

LEASE: Final = timedelta(minutes=5)
"""Who takes a notice sends it within this time, or somebody else does."""

SEND_SECONDS: Final = 30.0
"""A run sends for so long: the queue has other tasks, too."""

SLACK_SECONDS: Final = 10.0

KEPT: Final = timedelta(days=30)

GATHERING: Final = 0x5748_4E4F
"""Advisory lock: one gathers at a time, or a tenant gets two notices in a period."""

ABOUT: Final = {
    Kind.ENDPOINT_FAILING: About.FAILING,
    Kind.ENDPOINT_DISABLING: About.FAILING,
    Kind.ENDPOINT_RECOVERED: About.FAILING,
    Kind.ENDPOINT_DISABLED: About.DISABLED,
}
"""What people are told of. Of what somebody did by hand they know."""


# --- gather -----------------------------------------------------------------------------------------------------------


def gather(*, now: datetime) -> int:
    """Make notices of what was announced, of tenants whose last one is a period old. Returns how many."""
    made = 0
    waiting = Announcement.unscoped.filter(notified_at__isnull=True)
    told_lately = _told(now).filter(tenant__isnull=False)
    tenants = (
        Tenant.objects.filter(id__in=waiting.values("tenant_id"))
        .exclude(id__in=told_lately.values("tenant_id"))
        .order_by("id")
    )
    for tenant in tenants:
        with transaction.atomic():
            if _is_alone() and not _was_told(now, tenant=tenant):
                made += _gather_for(tenant, now)
    with transaction.atomic():
        if _is_alone() and not _was_told(now, tenant=None):
            made += _gather_for_operators(now)
    return made


def _is_alone() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [GATHERING])
        row = cursor.fetchone()
    return bool(row and row[0])


def _was_told(now: datetime, *, tenant: Tenant | None) -> bool:
    return _told(now).filter(tenant=tenant).exists()


def _told(now: datetime) -> "QuerySet[Notice]":
    """In the last period. Summaries come beside it."""
    return Notice.objects.filter(created_at__gt=now - PERIOD, summary_on__isnull=True)


def _gather_for(tenant: Tenant, now: datetime) -> int:
    waiting = Announcement.objects.for_tenant(tenant).filter(notified_at__isnull=True)
    rows = list(waiting.order_by("id")[:MOST_ROWS])
    facts = _facts(rows)
    notices: list[Notice] = []
    if facts and tenant.deleted_at is None:
        readers: dict[User, set[str]] = {}
        for about in About:
            for user in notifications.people_to_tell(tenant=tenant, about=about):
                readers.setdefault(user, set()).add(about.value)
        notices = [
            Notice(
                tenant=tenant,
                channel=Notice.Channel.EMAIL,
                recipient=user.email,
                language=user.language,
                facts=[fact for fact in facts if fact["about"] in wanted],
            )
            for user, wanted in readers.items()
        ]
        if SlackHook.objects.for_tenant(tenant).exists():
            notices.append(Notice(tenant=tenant, channel=Notice.Channel.SLACK, facts=facts))
    kept = _keep([notice for notice in notices if notice.facts], now)
    waiting.filter(id__in=[row.id for row in rows]).update(notified_at=now)
    return kept


def _gather_for_operators(now: datetime) -> int:
    waiting = Announcement.unscoped.filter(reported_at__isnull=True)
    rows = list(waiting.order_by("id")[:MOST_ROWS])
    facts = _facts(rows, is_for_operators=True)
    notices: list[Notice] = []
    if facts:
        notices = [
            Notice(channel=Notice.Channel.EMAIL, recipient=email, facts=facts)
            for email in settings.WEBHOOKS_OPERATOR_EMAILS
        ]
        if settings.WEBHOOKS_OPERATOR_SLACK_URL:
            notices.append(Notice(channel=Notice.Channel.SLACK, facts=facts))
    kept = _keep(notices, now)
    waiting.filter(id__in=[row.id for row in rows]).update(reported_at=now)
    return kept


def _keep(notices: Sequence[Notice], now: datetime) -> int:
    for notice in notices:
        notice.created_at = notice.next_try_at = now
    return len(Notice.objects.bulk_create(notices))


def _facts(rows: Sequence[Announcement], *, is_for_operators: bool = False) -> list[dict[str, Any]]:
    """The last state of each endpoint, the latest last. What failed and recovered in between is one line."""
    told = [row for row in rows if _is_news(row)]
    slugs = (
        dict(Tenant.objects.filter(id__in={row.tenant_id for row in told}).values_list("id", "slug"))
        if is_for_operators
        else {}
    )
    last: dict[UUID, dict[str, Any]] = {}
    for row, facts in zip(told, facts_of(told), strict=True):
        assert facts is not None
        assert row.endpoint_id is not None
        changes = last.pop(row.endpoint_id, {"changes": 0})["changes"] + 1
        last[row.endpoint_id] = {
            "about": ABOUT[Kind(row.kind)].value,
            "kind": row.kind,
            "tenant": slugs.get(row.tenant_id, ""),
            "changes": changes,
            **facts,
        }
    return list(last.values())


def _is_news(row: Announcement) -> bool:
    if row.kind not in {kind.value for kind in ABOUT} or row.endpoint_id is None:
        return False
    return bool(row.data.get("disabled_reason") != Endpoint.DisabledReason.MANUAL)


# --- send -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NotSent:
    """Why, for operators. Never what a receiver or mail server said."""

    reason: str
    may_work_later: bool = True


def send_waiting(*, now: datetime, open_transport: Callable[[int], Transport]) -> int:
    """Send what is due. Returns how many were sent. `open_transport`: as dispatchers have it, with the address guard."""
    until = time.monotonic() + SEND_SECONDS
    sent = 0
    while time.monotonic() < until:
        notice = _take(now)
        if notice is None:
            break
        failure = _send(notice, open_transport)
        rows = Notice.objects.filter(id=notice.id)
        if failure is None:
            sent += 1
            rows.update(sent_at=now, error="")
        elif failure.may_work_later and notice.tries <= len(WAITS):
            wait = timedelta(seconds=WAITS[notice.tries - 1])
            rows.update(next_try_at=now + wait, error=failure.reason)
        else:
            rows.update(failed_at=now, error=failure.reason)
            logger.warning(
                "a notice could not be sent",
                extra={"tenant_id": notice.tenant_id and str(notice.tenant_id), "error": failure.reason},
            )
    return sent


def forget_old(*, now: datetime) -> int:
    """Drop notices of long ago. Returns how many."""
    return Notice.objects.filter(created_at__lt=now - KEPT).delete()[0]


def _due(now: datetime) -> "QuerySet[Notice]":
    return Notice.objects.filter(sent_at__isnull=True, failed_at__isnull=True, next_try_at__lte=now)


def _take(now: datetime) -> Notice | None:
    """The one that is due longest, for this process alone; nothing is locked while it is sent."""
    with transaction.atomic():
        notice = _due(now).select_for_update(skip_locked=True).order_by("next_try_at", "id").first()
        if notice is None:
            return None
        Notice.objects.filter(id=notice.id).update(next_try_at=now + LEASE, tries=F("tries") + 1)
    notice.tries += 1
    return notice


def _send(notice: Notice, open_transport: Callable[[int], Transport]) -> NotSent | None:
    subject, lines = text_of(notice)
    if notice.channel == Notice.Channel.SLACK:
        return _send_to_slack(notice, [subject, *lines], open_transport)
    try:
        mail.send(
            to=notice.recipient, template="notice", language=notice.language, subject=subject, lines=lines
        )
    except OSError as error:
        return NotSent(f"mail: {type(error).__name__}")
    return None


def _send_to_slack(
    notice: Notice, lines: list[str], open_transport: Callable[[int], Transport]
) -> NotSent | None:
    url = settings.WEBHOOKS_OPERATOR_SLACK_URL
    if notice.tenant_id is not None:
        hook = SlackHook.objects.for_tenant(notice.tenant_id).first()
        if hook is None:
            return NotSent("slack: the address was removed", may_work_later=False)
        try:
            url = open_slack_url(tenant_id=notice.tenant_id, sealed=bytes(hook.encrypted))
        except DecryptionFailed:
            return NotSent("slack: the address cannot be decrypted")
    if not url:
        return NotSent("slack: the address was removed", may_work_later=False)
    return _post(url, msgspec.json.encode({"text": "\n".join(map(escaped, lines))}), notice, open_transport)


def _post(
    url: str, body: bytes, notice: Notice, open_transport: Callable[[int], Transport]
) -> NotSent | None:
    """Through the transport of deliveries: what it promises of addresses, time and size holds here, too."""
    parts = urlsplit(url)
    destination = Destination(
        url=url,
        scheme=parts.scheme,
        host=parts.hostname or "",
        port=parts.port or (443 if parts.scheme == "https" else 80),
        tenant_id=notice.tenant_id or notice.id,
        timeout_seconds=SLACK_SECONDS,
    )
    headers = ["content-type: application/json", f"user-agent: {settings.WEBHOOKS_USER_AGENT}"]
    transport = open_transport(1)
    try:
        transport.start(OutgoingRequest(destination, "POST", None, headers, body, notice.id))
        until = time.monotonic() + 2 * SLACK_SECONDS
        while time.monotonic() < until:
            for answer in transport.poll(0.5):
                if answer.failure is not None:
                    return NotSent(f"slack: {answer.failure.value}")
                code = answer.status_code or 0
                # As Slack says it: 404 and 410 mean that the address is gone for good.
                return (
                    None
                    if 200 <= code < 300
                    else NotSent(f"slack: status {code}", may_work_later=code not in {404, 410})
                )
        return NotSent("slack: no answer")
    finally:
        transport.close()


# --- words ------------------------------------------------------------------------------------------------------------


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
    when = since if since == until else f"{since} to {until}"
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
