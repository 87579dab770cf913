"""Notices to people: to the members who want them, to tenants' Slack-compatible webhooks, and to operators. Called by a task.

Of transitions only, in digests: what happens first is told within a minute, what follows in the next minutes waits for
one notice together. So nobody gets more than one per tenant and period, whatever happens.

`gather` makes of what was announced one notice for each reader, rows which `notice_sending` sends.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet

from deliveries.models import Announcement, Endpoint, Notice, SlackHook
from deliveries.pipeline.announce import Kind
from deliveries.services.announcements import facts_of
from tenants.models import Tenant, User
from tenants.services import notifications
from tenants.services.notifications import About

PERIOD: Final = timedelta(minutes=15)
"""Between two notices of one tenant, and between two to operators."""

MOST_ROWS: Final = 5_000
"""Transitions in one notice. Those beyond go into the next."""

KEPT: Final = timedelta(days=30)
"""Of notices, sent or not, for people."""

GATHERING: Final = 0x5748_4E4F
"""Advisory lock: one gathers at a time, or a tenant gets two notices in a period."""

ABOUT: Final = {
    Kind.ENDPOINT_FAILING: About.FAILING,
    Kind.ENDPOINT_DISABLING: About.FAILING,
    Kind.ENDPOINT_RECOVERED: About.FAILING,
    Kind.ENDPOINT_DISABLED: About.DISABLED,
}
"""What people are told of. Of what somebody did by hand they know."""


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


def forget_old(*, now: datetime) -> int:
    """Drop notices of long ago. Returns how many."""
    return Notice.objects.filter(created_at__lt=now - KEPT).delete()[0]
