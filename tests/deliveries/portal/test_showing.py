"""What pages say of attempts: the checklist, the waterfall, payloads."""

from datetime import UTC, datetime
from typing import Any

import pytest

from deliveries.models import Attempt
from deliveries.pipeline.outcome import Outcome
from deliveries.portal.showing import MOST_SHOWN, State, checklist, payload, shown_attempt, waterfall


@pytest.mark.parametrize(
    ("outcome", "done", "open_"),
    [
        (Outcome.SUCCEEDED, 7, 0),
        (Outcome.TRANSFORMATION_FAILED, 0, 6),
        (Outcome.DNS_FAILED, 1, 5),
        (Outcome.ADDRESS_BLOCKED, 2, 4),
        (Outcome.CONNECTION_FAILED, 3, 3),
        (Outcome.TLS_FAILED, 4, 2),
        (Outcome.TIMEOUT, 5, 1),
        (Outcome.HTTP_ERROR, 6, 0),
    ],
)
def test_the_checklist_says_how_far_it_came(outcome: Outcome, done: int, open_: int) -> None:
    states = [step.state for step in checklist(outcome, is_https=True)]

    failed = 7 - done - open_
    assert states == [State.DONE] * done + [State.FAILED] * failed + [State.OPEN] * open_


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_checklist_and_plain_http_has_no_certificate(outcome: Outcome) -> None:
    assert len(checklist(outcome, is_https=False)) == 6


def attempt(**fields: Any) -> Attempt:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Attempt(**({"number": 1, "started_at": at, "duration_ms": 100.0, "outcome": "succeeded"} | fields))


def test_credentials_in_the_urls_of_an_answer_are_masked() -> None:
    answered = attempt(
        request_headers=b"",
        response_headers=b"HTTP/1.1 302 Found\r\nLocation: /in?token=s3cret\r\n\r\n",
        response_body=b"",
    )

    shown = shown_attempt(answered, is_https=True, is_erased=False)

    assert shown.response_headers == {"Location": "/in?token=***"}


def test_the_waterfall_lays_phases_end_to_end() -> None:
    phases = waterfall(attempt(dns_ms=10.0, connect_ms=20.0, tls_ms=30.0, first_byte_ms=25.0))

    assert [(phase.name, phase.start, phase.width) for phase in phases] == [
        ("dns", "0.00", "10.00"),
        ("connect", "10.00", "20.00"),
        ("tls", "30.00", "30.00"),
        ("wait", "60.00", "25.00"),
        ("read", "85.00", "15.00"),
    ]


@pytest.mark.parametrize(
    "fields",
    [{"duration_ms": 0.0}, {}, {"dns_ms": 500.0, "connect_ms": 500.0}],
    ids=["no time", "nothing measured", "more than the whole"],
)
def test_the_waterfall_never_leaves_its_frame(fields: dict[str, Any]) -> None:
    for phase in waterfall(attempt(**fields)):
        assert float(phase.start) + float(phase.width) <= 100


def test_payloads_are_laid_out_and_bounded() -> None:
    assert payload(b'{"a":1.50}').text == '{\n  "a": 1.50\n}'
    assert payload(b"not json \x00\xff").text == "not json \ufffd\ufffd"
    cut = payload(b"x" * (MOST_SHOWN + 1))
    assert (len(cut.text), cut.is_cut) == (MOST_SHOWN, True)
