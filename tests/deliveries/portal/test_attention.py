"""Which endpoints need somebody, in which order, and what is said of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deliveries.models import Endpoint, Lane
from deliveries.portal.attention import Severity, concern_of, concerns
from deliveries.services.condition import MOST_DUE, Condition
from tenants.models import Tenant

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAILING_SINCE = NOW - timedelta(days=1)


def endpoint(**fields: Any) -> Endpoint:
    """As the services give it, with tenant and lane."""
    row = Endpoint(**({"url": "https://a.example.com", "tenant": Tenant()} | fields))
    row.lane = Lane(failing_since=FAILING_SINCE)
    return row


def disabled(reason: str) -> Endpoint:
    return endpoint(status="disabled", disabled_reason=reason)


FINE: list[tuple[str, Endpoint, Condition]] = [
    ("nothing was sent", endpoint(), Condition()),
    ("everything succeeded", endpoint(), Condition("s" * 40)),
    ("one of twenty failed", endpoint(), Condition("s" * 10 + "f" + "s" * 9)),
    ("the first succeeded after three that failed", endpoint(), Condition("s" * 30 + "fffs")),
    ("nothing was tried yet", endpoint(), Condition("ppp", due=3, due_since=NOW - timedelta(seconds=5))),
    ("what waits is cancelled", endpoint(), Condition("ssccc")),
    ("somebody disabled it", disabled("manual"), Condition("f" * 40)),
    (
        "an operator paused it",
        endpoint(),
        Condition(due=5, due_since=NOW - timedelta(hours=1), is_paused=True),
    ),
]


@pytest.mark.parametrize(("row", "health"), [each[1:] for each in FINE], ids=[each[0] for each in FINE])
def test_no_concern(row: Endpoint, health: Condition) -> None:
    assert concern_of(row, health, now=NOW) is None


LONG_DUE = NOW - timedelta(hours=1)

TROUBLE: list[tuple[Endpoint, Condition, Severity, str, str]] = [
    (disabled("gone"), Condition(), Severity.DISABLED, "Disabled", "410 Gone"),
    (disabled("receiver"), Condition(), Severity.DISABLED, "Disabled", "asked for no more"),
    (
        disabled("failing"),
        Condition("fff", last_outcome="timeout"),
        Severity.DISABLED,
        "Disabled",
        "It failed for too long. The endpoint did not answer in time",
    ),
    (
        endpoint(),
        Condition("ssfrf", last_outcome="http_error", last_status_code=404),
        Severity.FAILING,
        "Failing",
        "status 404; check the URL",
    ),
    (
        endpoint(),
        Condition("r", last_outcome="dns_failed"),
        Severity.FAILING,
        "Failing",
        "could not be resolved",
    ),
    (
        endpoint(),
        Condition("sssss", is_circuit_open=True, last_outcome="connection_failed"),
        Severity.FAILING,
        "Held back: nothing but failures",
        "No connection",
    ),
    (
        endpoint(max_in_flight=3),
        Condition("ssp", due=1, due_since=LONG_DUE),
        Severity.BEHIND,
        "Behind: 1 delivery waits",
        "with 3 requests at once",
    ),
    (
        endpoint(rate_limit=2.5),
        Condition("ss", due=MOST_DUE, due_since=LONG_DUE),
        Severity.BEHIND,
        "Behind: more than 1000 deliveries wait",
        "2.5 requests per second",
    ),
    (
        endpoint(rate_limit=2.5),
        Condition("ss", due=7, due_since=LONG_DUE, hold_reason="answer"),
        Severity.BEHIND,
        "Behind: 7 deliveries wait",
        "asked for a pause",
    ),
    (
        endpoint(),
        Condition("sfsfs", last_outcome="tls_failed"),
        Severity.UNSTEADY,
        "2 of the latest 5 deliveries failed",
        "certificate",
    ),
]


@pytest.mark.parametrize(("row", "health", "severity", "headline", "why"), TROUBLE)
def test_a_concern_says_what_why_and_what_to_do(
    row: Endpoint, health: Condition, severity: Severity, headline: str, why: str
) -> None:
    concern = concern_of(row, health, now=NOW)

    assert concern is not None
    assert (concern.severity, concern.headline) == (severity, headline)
    assert why in concern.why
    assert concern.what_to_do


def test_a_failing_one_says_since_when_and_when_it_will_be_disabled() -> None:
    row = endpoint(tenant=Tenant(limits={"disable_after_days": 5}))

    concern = concern_of(row, Condition("fff", last_outcome="timeout", failing_since=FAILING_SINCE), now=NOW)

    assert concern is not None
    assert (concern.since, concern.disables_at) == (FAILING_SINCE, FAILING_SINCE + timedelta(days=5))


def test_the_most_urgent_come_first() -> None:
    rows = [each[0] for each in TROUBLE]
    health = {row.id: each[1] for row, each in zip(rows, TROUBLE, strict=True)}

    found = concerns(reversed(rows), health, now=NOW)

    assert [concern.severity for concern in found] == sorted(each[2] for each in TROUBLE)
