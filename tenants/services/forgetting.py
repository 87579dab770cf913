"""The end of what let people in, long after it let anybody in. Called by a daily task; the audit log keeps what was done."""

from datetime import datetime, timedelta
from typing import Final

from django.contrib.sessions.models import Session

from tenants.models import Invitation, PortalLink, SupportSession

KEPT: Final = timedelta(days=30)
"""After its end: pages say what became of a link, and lists show the latest."""


def forget_old(*, now: datetime) -> dict[str, int]:
    """Returns how many of each went. Can be run twice."""
    gone = {}
    for name, model in (("links", PortalLink), ("invitations", Invitation), ("support", SupportSession)):
        gone[name] = model.unscoped.filter(expires_at__lt=now - KEPT).delete()[0]
    gone["sessions"] = Session.objects.filter(expire_date__lt=now).delete()[0]
    return gone
