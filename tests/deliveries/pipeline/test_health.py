"""When a lane pauses and when its circuit opens: the rules, with numbers for times."""

from typing import Any

import pytest

from deliveries.pipeline.health import RULES, Health, Hold, Rules, is_charged
from deliveries.pipeline.outcome import Outcome


def failed(health: Health, now: float, **fields: Any) -> tuple[Hold, float] | None:
    given: dict[str, Any] = {
        "is_own": True,
        "status_code": 500,
        "retry_after": None,
        "may_hold": True,
        "jitter": 0.0,
        "rules": RULES,
    }
    return health.failed(now=now, **(given | fields))


def test_a_circuit_opens_after_five_minutes_and_twenty_failures_not_before() -> None:
    few, young, both = Health(0.0, 0.0), Health(0.0, 0.0), Health(0.0, 0.0)

    assert [failed(few, 100.0 * n) for n in range(19)] == [None] * 19
    assert [failed(young, 0.01 * n) for n in range(10_000)] == [None] * 10_000
    assert failed(young, 299.9) is None
    assert [failed(both, 15.8 * n) for n in range(19)] == [None] * 19
    assert failed(both, 300.0) == (Hold.CIRCUIT, 60.0)
    assert failed(few, 1900.0) == (Hold.CIRCUIT, 60.0)
    assert (both.opened_at, both.failures, both.failed_at) == (300.0, 20, 300.0)


def test_each_probe_that_fails_doubles_the_wait_up_to_a_quarter_of_an_hour() -> None:
    health = Health(0.0, 0.0, failures=19)

    waits = []
    now = 300.0
    for _ in range(7):
        hold = failed(health, now)
        assert hold is not None
        waits.append(hold[1])
        now += hold[1]

    assert waits == [60, 120, 240, 480, 900, 900, 900]
    assert health.opened_at == 300.0


def test_jitter_only_lengthens_by_a_tenth_at_most() -> None:
    assert failed(Health(0.0, 0.0, failures=19), 300.0, jitter=1.0) == (Hold.CIRCUIT, 66.0)


def test_what_was_in_the_air_together_counts_and_lengthens_nothing() -> None:
    health = Health(0.0, 0.0, failures=19)
    failed(health, 300.0)

    assert [failed(health, 300.1, may_hold=False) for _ in range(9)] == [None] * 9
    assert (health.failures, health.wait_seconds) == (29, 60.0)


@pytest.mark.parametrize("status_code", [429, 502, 503, 504])
def test_an_overload_pauses_a_second_and_doubles_up_to_a_minute(status_code: int) -> None:
    health = Health(0.0, 0.0)

    pauses = [failed(health, float(n), status_code=status_code) for n in range(8)]

    assert pauses == [(Hold.ANSWER, float(n)) for n in (1, 2, 4, 8, 16, 32, 60, 60)]


@pytest.mark.parametrize("status_code", [None, 400, 404, 500, 501])
def test_other_failures_pause_nothing(status_code: int | None) -> None:
    assert failed(Health(0.0, 0.0), 1.0, status_code=status_code) is None


@pytest.mark.parametrize(
    ("last_pause", "retry_after", "expected"),
    [
        (None, 120, (Hold.ANSWER, 1.0)),
        (16.0, 120, (Hold.ANSWER, 32.0)),
        (16.0, 5, (Hold.ANSWER, 5)),
        (None, 0, None),
    ],
    ids=["starts at one second", "doubles below it", "never outlasts it", "not at all"],
)
def test_a_pause_never_outlasts_retry_after(
    last_pause: float | None, retry_after: int, expected: tuple[Hold, float] | None
) -> None:
    health = Health(0.0, 0.0, pause_seconds=last_pause)

    assert failed(health, 1.0, status_code=503, retry_after=retry_after) == expected


def test_an_open_circuit_goes_before_a_pause() -> None:
    health = Health(0.0, 0.0, failures=19)

    assert failed(health, 300.0, status_code=503, retry_after=1) == (Hold.CIRCUIT, 60.0)


def test_it_remembers_whether_an_event_of_the_tenants_own_failed() -> None:
    health = Health(0.0, 0.0)

    failed(health, 1.0, is_own=False)
    only_operational = health.is_own
    failed(health, 2.0, is_own=True)
    failed(health, 3.0, is_own=False)

    assert (only_operational, health.is_own) == (False, True)


def test_rules_can_be_shortened() -> None:
    rules = Rules(open_after_seconds=1.0, open_after_failures=2, first_wait_seconds=0.5)
    health = Health(0.0, 0.0)

    assert [failed(health, 0.5 * n, rules=rules) for n in range(3)] == [None, None, (Hold.CIRCUIT, 0.5)]


def test_only_what_says_something_about_the_endpoint_counts() -> None:
    assert {outcome for outcome in Outcome if is_charged(outcome)} == {
        Outcome.HTTP_ERROR,
        Outcome.TIMEOUT,
        Outcome.DNS_FAILED,
        Outcome.CONNECTION_FAILED,
        Outcome.TLS_FAILED,
        Outcome.ADDRESS_BLOCKED,
        Outcome.PROTOCOL_ERROR,
        Outcome.CREDENTIALS_FAILED,
    }
