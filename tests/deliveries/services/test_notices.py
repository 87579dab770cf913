"""Notices to people: who gets one, how few they are, and that each is sent once, whatever fails on the way."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.utils import timezone

from deliveries.models import Announcement, Endpoint, Lane, Notice
from deliveries.pipeline.announce import Kind
from deliveries.services import (
    endpoint_changes,
    health,
    notice_sending,
    notice_texts,
    notices,
    slack,
    stopping,
)
from deliveries.services.notice_sending import send_waiting
from deliveries.services.notice_texts import text_of
from deliveries.services.notices import PERIOD, gather
from deliveries.services.outgoing import open_configured_transport
from deliveries.services.stopping import disable_endpoint
from tenants.models import Tenant
from tenants.services import notifications
from tenants.services.audit import COMMAND, PLATFORM
from tenants.services.notifications import Digest, Wanted
from tests.support.builders import make_endpoint, make_tenant
from tests.support.http_thread import serving
from tests.support.portal import make_member
from tests.support.racing import at_once

URL = "https://receiver.example/hooks?token=secret"
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def nothing_waits(database: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE deliveries_announcement, deliveries_notice")


@pytest.fixture
def now() -> datetime:
    return timezone.now()


class Channel:
    """A Slack-compatible webhook: answers as it is told, and remembers."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.texts: list[str] = []
        self.headers: list[dict[str, str]] = []


@pytest.fixture
def channel() -> Iterator[tuple[Channel, str]]:
    one = Channel()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            one.texts.append(json.loads(self.rfile.read(int(self.headers["content-length"])))["text"])
            one.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(one.statuses.pop(0) if one.statuses else 200)
            self.send_header("content-length", "0")
            self.end_headers()

    with serving(Handler) as port:
        yield one, f"http://127.0.0.1:{port}/services/T0/secret"


def announce(endpoint: Endpoint, kind: Kind, **data: Any) -> None:
    row = endpoint_changes.endpoints_of(endpoint.tenant).get(id=endpoint.id)
    health.tell(row, kind=kind, **data)


def failing(endpoint: Endpoint) -> None:
    Lane.unscoped.filter(endpoint=endpoint).update(failing_since=timezone.now(), failures=25)
    announce(endpoint, Kind.ENDPOINT_FAILING)


def send(now: datetime) -> int:
    return send_waiting(now=now, open_transport=open_configured_transport)


def lines(notice: Notice) -> list[str]:
    return text_of(notice)[1]


def notices_of(tenant: Tenant | None) -> list[Notice]:
    return list(Notice.objects.filter(tenant=tenant).order_by("id"))


# --- gather -----------------------------------------------------------------------------------------------------------


def test_members_hear_of_a_failing_endpoint_by_e_mail_in_their_language(now: datetime) -> None:
    tenant, other = make_tenant(name="Acme"), make_tenant()
    member, stranger = make_member(tenant), make_member(other)
    endpoint = make_endpoint(tenant, URL, uid="shop")

    failing(endpoint)
    made, sent, again = gather(now=now), send(now), send(now)

    assert (made, sent, again) == (1, 1, 0)
    (message,) = mail.outbox
    assert message.to == [member.email]
    assert stranger.email not in message.to
    assert message.subject == f"Webhook endpoints of {tenant.slug}: 1 failing"
    assert "shop (https://receiver.example/hooks?token=***) has done nothing but fail since" in message.body
    assert "secret" not in message.body


def test_what_follows_waits_for_one_notice_a_period_later(now: datetime) -> None:
    tenant = make_tenant()
    make_member(tenant)
    first, *others = [make_endpoint(tenant, URL, uid=f"e{n}") for n in range(30)]

    failing(first)
    at_once = gather(now=now)
    for endpoint in others:
        failing(endpoint)
        announce(endpoint, Kind.ENDPOINT_RECOVERED)
    too_soon = gather(now=now + PERIOD - SECOND)
    in_time = gather(now=now + PERIOD)
    nothing = gather(now=now + 3 * PERIOD)

    assert (at_once, too_soon, in_time, nothing) == (1, 0, 1, 0)
    digest = notices_of(tenant)[1]
    assert text_of(digest)[0] == f"Webhook endpoints of {tenant.slug}: 29 well again"
    assert len(lines(digest)) == 21
    assert lines(digest)[-1] == "… and 9 more endpoints."


def test_an_endpoint_that_flaps_is_one_line(now: datetime) -> None:
    tenant = make_tenant()
    make_member(tenant)
    endpoint = make_endpoint(tenant, URL, uid="shop")
    for _ in range(20):
        failing(endpoint)
        announce(endpoint, Kind.ENDPOINT_RECOVERED)

    gather(now=now)

    (notice,) = notices_of(tenant)
    assert lines(notice) == [
        "shop (https://receiver.example/hooks?token=***) is well again; what waited is on its way. (changed 40 times)"
    ]


def test_each_member_hears_of_what_it_wants_alone(now: datetime) -> None:
    tenant = make_tenant()
    wants = {"failing": Wanted(True, False, Digest.NEVER), "disabled": Wanted(False, True, Digest.NEVER)}
    wants["neither"] = Wanted(False, False, Digest.NEVER)
    users = {name: make_member(tenant) for name in wants}
    for name, wanted in wants.items():
        notifications.set_wanted(actor=COMMAND, tenant=tenant, user=users[name], wanted=wanted)
    first, second = make_endpoint(tenant, URL, uid="one"), make_endpoint(tenant, URL, uid="two")

    failing(first)
    disable_endpoint(actor=PLATFORM, endpoint=second, reason=Endpoint.DisabledReason.GONE)
    gather(now=now)

    told = {notice.recipient: [fact["uid"] for fact in notice.facts] for notice in notices_of(tenant)}
    assert told == {users["failing"].email: ["one"], users["disabled"].email: ["two"]}


def test_what_somebody_did_by_hand_is_no_news(now: datetime) -> None:
    tenant = make_tenant()
    make_member(tenant)
    endpoint = make_endpoint(tenant, URL)
    disable_endpoint(actor=PLATFORM, endpoint=endpoint)
    stopping.enable_endpoint(actor=PLATFORM, endpoint=endpoint)

    assert gather(now=now) == 0
    assert not Announcement.unscoped.filter(notified_at__isnull=True).exists()


def test_two_that_gather_at_once_make_one_notice(now: datetime) -> None:
    tenant = make_tenant()
    make_member(tenant)
    failing(make_endpoint(tenant, URL))

    made = at_once(4, lambda _: gather(now=now))

    assert sum(made) == 1
    assert len(notices_of(tenant)) == 1


def test_operators_hear_of_all_tenants_in_one_digest(
    now: datetime, settings: Any, channel: tuple[Channel, str]
) -> None:
    slack_channel, url = channel
    settings.WEBHOOKS_OPERATOR_EMAILS = ["ops@example.com", "lead@example.com"]
    settings.WEBHOOKS_OPERATOR_SLACK_URL = url
    tenants = [make_tenant() for _ in range(3)]
    for tenant in tenants:
        failing(make_endpoint(tenant, URL))

    made, sent, later = gather(now=now), send(now), gather(now=now + PERIOD)

    assert (made, sent, later) == (3, 3, 0)
    assert [message.to for message in mail.outbox] == [["ops@example.com"], ["lead@example.com"]]
    assert mail.outbox[0].subject == "Webhook endpoints of the platform: 3 failing"
    assert all(f"{tenant.slug}: ep_" in mail.outbox[0].body for tenant in tenants)
    assert len(slack_channel.texts) == 1


# --- Slack ------------------------------------------------------------------------------------------------------------


def test_a_tenants_slack_channel_gets_the_same_through_the_transport_of_deliveries(
    now: datetime, channel: tuple[Channel, str]
) -> None:
    slack_channel, url = channel
    tenant = make_tenant()
    slack.set_url(actor=COMMAND, tenant=tenant, url=url)
    failing(make_endpoint(tenant, URL, uid="shop"))

    gather(now=now)
    sent = send(now)

    assert sent == 1
    assert slack_channel.texts[0].startswith(f"Webhook endpoints of {tenant.slug}: 1 failing\nshop (https://")
    assert slack_channel.headers[0]["content-type"] == "application/json"
    # A source of the platform's own takes it for the end of a chain.
    assert slack_channel.headers[0]["webhook-hops"] == "5"
    assert slack.shown_url(tenant) == url.partition("/services")[0] + "/***"


def test_what_a_channel_does_not_take_is_tried_again_and_given_up_in_the_end(
    now: datetime, channel: tuple[Channel, str]
) -> None:
    slack_channel, url = channel
    slack_channel.statuses = [500] * 5
    tenant = make_tenant()
    slack.set_url(actor=COMMAND, tenant=tenant, url=url)
    failing(make_endpoint(tenant, URL))
    gather(now=now)

    waits = []
    for _ in range(5):
        send(now)
        (notice,) = notices_of(tenant)
        waits.append((notice.next_try_at - now).total_seconds())
        now = notice.next_try_at

    assert waits[:4] == [60, 300, 1800, 7200]
    assert (notice.sent_at, notice.tries, notice.error) == (None, 5, "slack: status 500")
    assert notice.failed_at is not None
    assert send(now + PERIOD) == 0
    assert len(slack_channel.texts) == 5


def test_a_channel_that_is_gone_is_not_asked_again(now: datetime, channel: tuple[Channel, str]) -> None:
    slack_channel, url = channel
    slack_channel.statuses = [404]
    tenant = make_tenant()
    slack.set_url(actor=COMMAND, tenant=tenant, url=url)
    failing(make_endpoint(tenant, URL))
    gather(now=now)

    assert (send(now), send(now + PERIOD)) == (0, 0)
    assert notices_of(tenant)[0].error == "slack: status 404"


def test_the_address_guard_stands_before_channels_too(now: datetime, settings: Any) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    tenant = make_tenant()
    slack.set_url(actor=COMMAND, tenant=tenant, url="http://169.254.169.254/latest")
    failing(make_endpoint(tenant, URL))
    gather(now=now)

    assert send(now) == 0
    assert notices_of(tenant)[0].error == "slack: address_blocked"


def test_hostile_names_are_text_in_a_channel() -> None:
    assert (
        notice_texts.escaped("<!channel> & <http://evil|x>") == "&lt;!channel&gt; &amp; &lt;http://evil|x&gt;"
    )


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_mail_server_that_is_away_is_asked_again(now: datetime, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    tenant = make_tenant()
    make_member(tenant)
    failing(make_endpoint(tenant, URL))
    gather(now=now)
    refused = send(now)
    error = notices_of(tenant)[0].error
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"

    too_soon, later = send(now + 59 * SECOND), send(now + 60 * SECOND)

    assert (refused, error) == (0, "mail: ConnectionRefusedError")
    assert (too_soon, later) == (0, 1)
    assert len(mail.outbox) == 1


def test_a_notice_that_somebody_sends_is_nobody_elses_until_its_lease_is_over(now: datetime) -> None:
    """A worker took it and died before it sent it, or before it wrote that down."""
    tenant = make_tenant()
    make_member(tenant)
    failing(make_endpoint(tenant, URL))
    gather(now=now)
    taken = notice_sending._take(now)

    meanwhile = send(now + notice_sending.LEASE - SECOND)
    afterwards = send(now + notice_sending.LEASE)

    assert taken is not None
    assert (meanwhile, afterwards) == (0, 1)
    assert len(mail.outbox) == 1


def test_the_task_does_both(now: datetime) -> None:
    from deliveries.health_tasks import notify

    tenant = make_tenant()
    make_member(tenant)
    failing(make_endpoint(tenant, URL))

    notify()

    assert len(mail.outbox) == 1
    assert notices_of(tenant)[0].sent_at is not None


def test_old_notices_go(now: datetime) -> None:
    tenant = make_tenant()
    make_member(tenant)
    failing(make_endpoint(tenant, URL))
    gather(now=now)

    assert notices.forget_old(now=now + notices.KEPT - SECOND) == 0
    assert notices.forget_old(now=now + notices.KEPT + SECOND) == 1
