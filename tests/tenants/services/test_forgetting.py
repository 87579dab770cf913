"""Links, invitations and sessions are forgotten a month after their end."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.sessions.models import Session

from tenants.ids import new_id
from tenants.models import Invitation, PortalLink, SupportSession
from tenants.services import forgetting
from tests.support.builders import make_tenant
from tests.support.portal import make_user

pytestmark = pytest.mark.usefixtures("database")


def test_a_month_after_their_end() -> None:
    now = datetime.now(UTC)
    tenant, user = make_tenant(), make_user()
    for days in (31, 29):
        over = {"tenant": tenant, "expires_at": now - timedelta(days=days)}
        PortalLink.unscoped.create(**over, hash=new_id().bytes * 2, role="viewer")
        Invitation.unscoped.create(
            **over, email=f"{days}@example.com", role="viewer", language="en", invited_by="x"
        )
        SupportSession.unscoped.create(**over, user=user)
    keys = [new_id().hex for _ in range(2)]
    for key, hours in zip(keys, (-1, 1), strict=True):
        Session.objects.create(session_key=key, session_data="", expire_date=now + timedelta(hours=hours))

    forgetting.forget_old(now=now)

    for model in (PortalLink, Invitation, SupportSession):
        (left,) = model.unscoped.filter(tenant=tenant)
        assert left.expires_at == now - timedelta(days=29)
    assert (
        list(Session.objects.filter(session_key__in=keys).values_list("session_key", flat=True)) == keys[1:]
    )
