"""Sending notices, by e-mail and to Slack-compatible webhooks. Called by a task.

Each is a row that one process takes for a while and sends without holding any lock. A crash after sending and before
writing that down sends it again; none is lost.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

import msgspec
from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet

from deliveries.models import Notice, SlackHook
from deliveries.pipeline.hops import LAST_HOP
from deliveries.pipeline.transport import Destination, OutgoingRequest, Transport
from deliveries.sealed import open_slack_url
from deliveries.services.notice_texts import escaped, text_of
from tenants import mail
from tenants.encryption import DecryptionFailed

logger = logging.getLogger(__name__)

WAITS: Final = (60, 300, 1_800, 7_200)
"""Seconds until a notice that could not be sent is tried again."""

LEASE: Final = timedelta(minutes=5)
"""Who takes a notice sends it within this time, or somebody else does."""

SEND_SECONDS: Final = 30.0
"""A run sends for so long: the queue has other tasks, too."""

SLACK_SECONDS: Final = 10.0
"""For one request, from connecting to the last byte of its answer."""


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
    headers = ["content-type: application/json", f"user-agent: {settings.WEBHOOKS_USER_AGENT}", LAST_HOP]
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
