import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliveries.pipeline.outcome import (
    Outcome,
    SuccessStatuses,
    Wish,
    explain,
    is_final,
    judge,
    retry_after_seconds,
    wish_of,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def test_the_values_are_those_of_the_api() -> None:
    assert [outcome.value for outcome in Outcome] == [
        "succeeded",
        "http_error",
        "timeout",
        "dns_failed",
        "connection_failed",
        "tls_failed",
        "address_blocked",
        "protocol_error",
        "request_too_large",
        "transformation_failed",
        "credentials_failed",
        "proxy_failed",
        "internal_error",
    ]


def test_success_statuses_are_classes_and_single_codes() -> None:
    assert SuccessStatuses.parse(["2xx", "302"]).codes == frozenset(range(200, 300)) | {302}


@pytest.mark.parametrize(
    "entry", ["", "1xx", "6xx", "2XX", "2x", "20", "2000", "199", "600", " 200", "200\n", "\u0662xx"]
)
def test_other_success_statuses_are_refused_by_name(entry: str) -> None:
    with pytest.raises(ValueError, match="is neither a class such as 2xx"):
        SuccessStatuses.parse(["2xx", entry])


@pytest.mark.parametrize(
    ("status_code", "expected"),
    [
        (200, Outcome.SUCCEEDED),
        (204, Outcome.SUCCEEDED),
        (302, Outcome.SUCCEEDED),
        (199, Outcome.HTTP_ERROR),
        (301, Outcome.HTTP_ERROR),
        (410, Outcome.HTTP_ERROR),
        (500, Outcome.HTTP_ERROR),
        (999, Outcome.HTTP_ERROR),
    ],
)
def test_an_answer_is_judged_by_the_endpoints_statuses(status_code: int, expected: Outcome) -> None:
    assert judge(status_code, SuccessStatuses.parse(["2xx", "302"])) is expected


def test_what_is_final_at_once() -> None:
    final = {outcome for outcome in Outcome if is_final(outcome, None, is_literal_address=False)}
    assert final == {Outcome.SUCCEEDED, Outcome.TRANSFORMATION_FAILED, Outcome.REQUEST_TOO_LARGE}

    final_for_a_literal_address = {
        outcome for outcome in Outcome if is_final(outcome, None, is_literal_address=True)
    }
    assert final_for_a_literal_address == final | {Outcome.ADDRESS_BLOCKED}


def test_of_the_statuses_only_410_is_final() -> None:
    final = [code for code in range(100, 1000) if is_final(Outcome.HTTP_ERROR, code, is_literal_address=True)]

    assert final == [410]


@pytest.mark.parametrize(
    ("case", "headers", "expected"),
    [
        ("seconds", b"HTTP/1.1 503 Nope\r\nRetry-After: 120\r\n\r\n", 120),
        ("no space, lower case", b"retry-after:7\r\n", 7),
        ("bare line feeds", b"a: b\nRetry-After: 7\nc: d\n", 7),
        ("zero", b"Retry-After: 0\r\n", 0),
        ("a day is the most", b"Retry-After: 86401\r\n", 86_400),
        ("absurdly many digits", b"Retry-After: " + b"9" * 90 + b"\r\n", 86_400),
        ("leading zeros", b"Retry-After: 0000000005\r\n", 5),
        ("date", b"Retry-After: Sun, 01 Mar 2026 12:00:10 GMT\r\n", 10),
        ("date of RFC 850", b"Retry-After: Sunday, 01-Mar-26 12:00:10 GMT\r\n", 10),
        ("date of asctime", b"Retry-After: Sun Mar  1 12:00:10 2026\r\n", 10),
        ("date that is past", b"Retry-After: Sun, 01 Mar 2020 12:00:10 GMT\r\n", 0),
        ("date far ahead", b"Retry-After: Sun, 01 Mar 2999 12:00:10 GMT\r\n", 86_400),
        ("first of two", b"Retry-After: 1\r\nRetry-After: 2\r\n", 1),
        ("none", b"HTTP/1.1 503 Nope\r\nX-Retry-After: 5\r\n", None),
        ("empty", b"Retry-After:\r\nX: 5\r\n", None),
        ("negative", b"Retry-After: -5\r\n", None),
        ("fraction", b"Retry-After: 1.5\r\n", None),
        ("words", b"Retry-After: tomorrow\r\n", None),
        ("impossible date", b"Retry-After: Sun, 41 Mar 2026 12:00:10 GMT\r\n", None),
        ("impossible zone", b"Retry-After: Sun, 01 Mar 2026 12:00:10 +9999\r\n", None),
        ("not ASCII", b"Retry-After: \xff\xb2\r\n", None),
        ("unicode digits in latin-1", b"Retry-After: \xb2\r\n", None),
        ("too long", b"Retry-After: " + b"1" * 101 + b"\r\n", None),
    ],
)
def test_retry_after(case: str, headers: bytes, expected: int | None) -> None:
    assert retry_after_seconds(503, headers, NOW) == expected, case
    assert retry_after_seconds(429, headers, NOW) == expected, case


@pytest.mark.parametrize(
    "value",
    [b" " * 60_000 + b"x" * 101, b"1" + b" \t" * 30_000 + b"x", b"\t" * 60_000, b"x" * 60_000],
    ids=["blanks first", "blanks between", "blanks alone", "no blanks"],
)
def test_a_header_of_any_length_is_read_in_no_time(value: bytes) -> None:
    """The loop that sends for everybody reads it, and nothing else can happen meanwhile."""
    block = b"HTTP/1.1 503 Nope\r\nRetry-After:" + value + b"\r\n\r\n"
    block += b"webhook-delivery:" + value[:3_000] + b"\r\n"
    began = time.thread_time()

    assert retry_after_seconds(503, block, NOW) is None
    assert wish_of(block) is None
    assert time.thread_time() - began < 0.1


@pytest.mark.parametrize("status_code", [200, 301, 404, 410, 500, 502, 504])
def test_retry_after_counts_with_429_and_503_alone(status_code: int) -> None:
    assert retry_after_seconds(status_code, b"Retry-After: 5\r\n", NOW) is None


@given(st.binary(max_size=120))
def test_no_retry_after_can_raise_or_leave_its_bounds(value: bytes) -> None:
    seconds = retry_after_seconds(429, b"a: b\r\nRetry-After: " + value + b"\r\n", NOW)

    assert seconds is None or 0 <= seconds <= 86_400


@given(
    st.from_regex(
        r"\A[A-Z][a-z]{2}, [0-9]{1,9} (Jan|Feb|Xxx) [0-9]{1,12} "
        r"[0-9]{1,5}:[0-9]{1,3}:[0-9]{1,3} (GMT|[+-][0-9]{1,9})\Z"
    )
)
def test_no_date_can_raise(text: str) -> None:
    retry_after_seconds(429, f"Retry-After: {text}\r\n".encode(), NOW)


def test_every_outcome_has_a_sentence_of_its_own() -> None:
    sentences = [explain(outcome, 503, "") for outcome in Outcome]

    assert len(set(sentences)) == len(Outcome)
    assert all(sentence.endswith(".") for sentence in sentences)


@pytest.mark.parametrize(
    ("outcome", "status_code", "detail", "expected"),
    [
        (Outcome.SUCCEEDED, 204, "", "The endpoint accepted the request with status 204."),
        (
            Outcome.HTTP_ERROR,
            301,
            "",
            (
                "The endpoint answered with status 301; redirects are not followed: "
                "set the endpoint's URL to where it redirects."
            ),
        ),
        (
            Outcome.HTTP_ERROR,
            410,
            "",
            "The endpoint answered with status 410, gone: it wants no more webhooks, so the endpoint was disabled.",
        ),
        (
            Outcome.HTTP_ERROR,
            204,
            "",
            "The endpoint answered with status 204, which does not count as success for this endpoint.",
        ),
        (
            Outcome.TIMEOUT,
            200,
            "",
            (
                "The endpoint sent status 200 but did not finish its answer in time; "
                "answer first and do the work afterwards."
            ),
        ),
        (
            Outcome.ADDRESS_BLOCKED,
            None,
            "10.0.0.1 is a private address.",
            (
                "The endpoint's address is not on the public internet, so nothing was sent; use a public address."
                " (10.0.0.1 is a private address)"
            ),
        ),
    ],
)
def test_the_sentence_says_what_happened_and_what_to_do(
    outcome: Outcome, status_code: int | None, detail: str, expected: str
) -> None:
    assert explain(outcome, status_code, detail) == expected


@pytest.mark.parametrize(
    ("headers", "wish"),
    [
        (b"HTTP/1.1 500 X\r\nwebhook-delivery: disable\r\n\r\n", Wish.DISABLE),
        (b"HTTP/1.1 500 X\r\nWebhook-Delivery:abort \r\nx: y\r\n\r\n", Wish.ABORT),
        (b"HTTP/1.1 500 X\nWEBHOOK-DELIVERY: Abort-Message\n\n", Wish.ABORT),
        (b"HTTP/1.1 500 X\r\nwebhook-delivery: disabled\r\n\r\n", None),
        (b"HTTP/1.1 500 X\r\nx-webhook-delivery: disable\r\n\r\n", None),
        (b"HTTP/1.1 500 X\r\nx: webhook-delivery: disable\r\n\r\n", None),
        (b"", None),
    ],
)
def test_a_receiver_says_in_a_header_what_it_wants(headers: bytes, wish: Wish | None) -> None:
    assert wish_of(headers) is wish
