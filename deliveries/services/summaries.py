"""Summaries by e-mail, each day or week, to members who want one: what was delivered, and which endpoints fail.

They become notices like any other (`notice_sending.py` sends them). Called by a task each hour; a day's or week's summary of a
tenant is made once, whoever runs twice.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from django.db.models import Sum

from deliveries.models import Lane, Notice, Usage
from deliveries.pipeline.announce import Kind
from deliveries.pipeline.json_bytes import format_time
from deliveries.services.notice_texts import MOST_LINES
from deliveries.validation import mask_url
from tenants import ids
from tenants.models import NotificationPreference, Tenant
from tenants.services import notifications
from tenants.services.notifications import Digest

HOUR: Final = 6
"""UTC: from then on yesterday is summed up. Its counts are long complete, and people find it when they begin work."""

MONDAY: Final = 0


def make_summaries(*, now: datetime) -> int:
    """Those that are due and were not made yet. Returns how many."""
    today = (now.astimezone(UTC) - timedelta(hours=HOUR)).date()
    return sum(
        _make(tenant, digest=digest, since=since, until=today, now=now)
        for digest, since in _due(today)
        for tenant in _tenants(digest)
    )


def _due(today: date) -> Iterator[tuple[Digest, date]]:
    yield Digest.DAILY, today - timedelta(days=1)
    if today.weekday() == MONDAY:
        yield Digest.WEEKLY, today - timedelta(days=7)


def _tenants(digest: Digest) -> list[Tenant]:
    wanted = NotificationPreference.unscoped.filter(digest=digest).values("tenant_id")
    return list(Tenant.objects.filter(id__in=wanted, deleted_at__isnull=True).order_by("id"))


def _make(tenant: Tenant, *, digest: Digest, since: date, until: date, now: datetime) -> int:
    readers = notifications.digest_readers(tenant=tenant, digest=digest)
    told = set(Notice.objects.filter(tenant=tenant, summary_on=until).values_list("recipient", flat=True))
    untold = [user for user in readers if user.email not in told]
    if not untold:
        return 0
    facts = _facts(tenant, since, until)
    made = Notice.objects.bulk_create(
        [
            Notice(
                tenant=tenant,
                channel=Notice.Channel.EMAIL,
                recipient=user.email,
                language=user.language,
                facts=facts,
                summary_on=until,
                created_at=now,
                next_try_at=now,
            )
            for user in untold
        ],
        # Who runs at the same time made them.
        ignore_conflicts=True,
    )
    return len(made)


def _facts(tenant: Tenant, since: date, until: date) -> list[dict[str, Any]]:
    """The counts, then each endpoint that fails now, the longest first."""
    used = Usage.objects.for_tenant(tenant).filter(day__gte=since, day__lt=until)
    counts = used.aggregate(succeeded=Sum("succeeded"), failed=Sum("failed"))
    failing = (
        Lane.objects.for_tenant(tenant)
        .filter(
            failing_since__isnull=False, circuit_opened_at__isnull=False, endpoint__deleted_at__isnull=True
        )
        .select_related("endpoint")
        .order_by("failing_since", "endpoint_id")[: MOST_LINES + 1]
    )
    return [
        {
            "since": since.isoformat(),
            "until": (until - timedelta(days=1)).isoformat(),
            "succeeded": counts["succeeded"] or 0,
            "failed": counts["failed"] or 0,
        },
        *(
            {
                "kind": (
                    Kind.ENDPOINT_FAILING if lane.endpoint.status == "enabled" else Kind.ENDPOINT_DISABLED
                ).value,
                "tenant": "",
                "changes": 1,
                "endpoint": ids.to_text(ids.ENDPOINT, lane.endpoint_id),
                "uid": lane.endpoint.uid,
                "url": mask_url(lane.endpoint.url),
                "failing_since": None if lane.failing_since is None else format_time(lane.failing_since),
                "failures": lane.failures,
                "disabled_reason": lane.endpoint.disabled_reason,
            }
            for lane in failing
        ),
    ]
