"""What came of an attempt: the verdict, whether it ends the delivery, and the sentence that tells the customer.

Called by `dispatch` for every answer, and by the API and the pages for the words. Pure: no clock, no database.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Self, assert_never

from deliveries.recorded import said_again
from tenants.said import said, with_remark


class Outcome(StrEnum):
    """The closed list. The value is what the API shows and what metrics are labelled with."""

    SUCCEEDED = "succeeded"
    HTTP_ERROR = "http_error"
    TIMEOUT = "timeout"
    DNS_FAILED = "dns_failed"
    CONNECTION_FAILED = "connection_failed"
    TLS_FAILED = "tls_failed"
    ADDRESS_BLOCKED = "address_blocked"
    PROTOCOL_ERROR = "protocol_error"
    REQUEST_TOO_LARGE = "request_too_large"
    TRANSFORMATION_FAILED = "transformation_failed"
    CREDENTIALS_FAILED = "credentials_failed"
    PROXY_FAILED = "proxy_failed"
    INTERNAL_ERROR = "internal_error"
    """The platform's own fault: never charged to the endpoint, its circuit or its schedule."""


@dataclass(frozen=True, slots=True)
class SuccessStatuses:
    """The status codes that an endpoint counts as success."""

    codes: frozenset[int]

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Compile entries such as `2xx` and `302`. Raises ValueError, which names the entry that is neither."""
        codes: set[int] = set()
        for entry in entries:
            if re.fullmatch(r"[2-5]xx", entry, re.ASCII):
                first = int(entry[0]) * 100
                codes.update(range(first, first + 100))
            elif re.fullmatch(r"[2-5][0-9]{2}", entry, re.ASCII):
                codes.add(int(entry))
            else:
                raise ValueError(
                    f"{entry!r} is neither a class such as 2xx nor a status code from 200 to 599"
                )
        return cls(frozenset(codes))


def judge(status_code: int, success: SuccessStatuses) -> Outcome:
    """The verdict on an HTTP answer. A body that was cut at the cap does not change it."""
    return Outcome.SUCCEEDED if status_code in success.codes else Outcome.HTTP_ERROR


GONE = 410
"""The receiver says that it will never want this again: the delivery ends, and the endpoint is disabled."""


def is_final(outcome: Outcome, status_code: int | None, *, is_literal_address: bool) -> bool:
    """Whether no automatic attempt follows, whatever the schedule still has.

    `is_literal_address`: the URL names an IP address, not a host name. A name may resolve elsewhere tomorrow.
    """
    match outcome:
        case Outcome.SUCCEEDED | Outcome.TRANSFORMATION_FAILED | Outcome.REQUEST_TOO_LARGE:
            return True
        case Outcome.HTTP_ERROR:
            return status_code == GONE
        case Outcome.ADDRESS_BLOCKED:
            return is_literal_address
        case (
            Outcome.TIMEOUT
            | Outcome.DNS_FAILED
            | Outcome.CONNECTION_FAILED
            | Outcome.TLS_FAILED
            | Outcome.PROTOCOL_ERROR
            | Outcome.CREDENTIALS_FAILED
            | Outcome.PROXY_FAILED
            | Outcome.INTERNAL_ERROR
        ):
            return False
        case _:
            assert_never(outcome)


class Wish(StrEnum):
    """What a receiver can ask for with the response header `webhook-delivery`."""

    DISABLE = "disable"
    """Send nothing more to this endpoint."""
    ABORT = "abort"
    """Do not try this delivery again."""


_WISH = re.compile(
    rb"^webhook-delivery:[ \t]*(disable|abort)(?:-message)?[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)


def wish_of(headers: bytes) -> Wish | None:
    """The proposal for Standard Webhooks calls the second one `abort-message`; both spellings are heard."""
    if b"webhook-delivery:" not in headers.lower():
        return None
    found = _WISH.search(headers)
    return None if found is None else Wish(found[1].decode().lower())


MAX_RETRY_AFTER_SECONDS = 86_400
"""A receiver may ask for a day at most; more than that is heard as a day."""

MAX_RETRY_AFTER_LENGTH = 100
"""Characters of the header's value; a date has thirty."""

# Blanks are taken off afterwards: an expression that does so, too, tries every way to share them out between its parts,
# which takes an hour over a header full of them.
_RETRY_AFTER = re.compile(rb"^retry-after:([^\n]*)", re.IGNORECASE | re.MULTILINE)


def retry_after_seconds(status_code: int, headers: bytes, now: datetime) -> int | None:
    """How long a 429 or 503 asks us to wait, 0 to 86,400 seconds. None when it does not ask, or not intelligibly."""
    if status_code not in (429, 503):
        return None
    found = _RETRY_AFTER.search(headers)
    if found is None:
        return None

    value = found[1].strip(b" \t\r")
    if len(value) > MAX_RETRY_AFTER_LENGTH:
        return None
    text = value.decode("latin-1")
    if re.fullmatch(r"[0-9]+", text, re.ASCII):
        digits = text.lstrip("0")
        # More digits than the cap has need no arithmetic.
        return (
            MAX_RETRY_AFTER_SECONDS if len(digits) > 5 else min(int(digits or "0"), MAX_RETRY_AFTER_SECONDS)
        )
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:
        # asctime dates, and "-0000", carry no zone; HTTP says that dates are in GMT.
        at = at.replace(tzinfo=UTC)
    wait = at - now
    seconds = wait.days * 86_400 + wait.seconds + (1 if wait.microseconds else 0)
    return max(0, min(seconds, MAX_RETRY_AFTER_SECONDS))


def explain(outcome: Outcome, status_code: int | None, detail: str) -> str:
    """What happened and what to do about it, for the customer. `detail`: words of our own, never the receiver's."""
    sentence = _sentence(outcome, status_code)
    return with_remark(sentence, said_again(detail)) if detail else sentence


def _sentence(outcome: Outcome, status_code: int | None) -> str:
    match outcome:
        case Outcome.SUCCEEDED:
            return said("The endpoint accepted the request with status %(status)s.", status=status_code)
        case Outcome.HTTP_ERROR:
            return _answered(status_code)
        case Outcome.TIMEOUT if status_code is not None:
            return said(
                "The endpoint sent status %(status)s but did not finish its answer in time; answer first and do the work afterwards.",
                status=status_code,
            )
        case Outcome.TIMEOUT:
            return said("The endpoint did not answer in time; answer first and do the work afterwards.")
        case Outcome.DNS_FAILED:
            return said(
                "The endpoint's host name could not be resolved; check the URL and its domain's DNS records."
            )
        case Outcome.CONNECTION_FAILED:
            return said(
                "No connection to the endpoint could be made or kept; check that it runs and its firewall lets us in."
            )
        case Outcome.TLS_FAILED:
            return said(
                "The secure connection to the endpoint failed; check that its certificate is valid for the host name, has not expired and comes with its intermediate certificates."
            )
        case Outcome.ADDRESS_BLOCKED:
            return said(
                "The endpoint's address is not on the public internet, so nothing was sent; use a public address."
            )
        case Outcome.PROTOCOL_ERROR:
            return said(
                "What came back is no valid HTTP answer, or its headers are too large; check what listens at the URL."
            )
        case Outcome.REQUEST_TOO_LARGE:
            return said(
                "The payload does not fit into the query string of a GET request; use POST for this endpoint."
            )
        case Outcome.TRANSFORMATION_FAILED:
            return said(
                "The subscription's transformation failed on this event, so nothing was sent; correct it and replay."
            )
        case Outcome.CREDENTIALS_FAILED if status_code is not None:
            return said(
                "The endpoint refused its credentials with status %(status)s; check its authentication.",
                status=status_code,
            )
        case Outcome.CREDENTIALS_FAILED:
            return said(
                "The endpoint's credentials do not work, so nothing was delivered; check its authentication."
            )
        case Outcome.PROXY_FAILED:
            return said("The proxy on the way to the endpoint failed or refused; check the proxy settings.")
        case Outcome.INTERNAL_ERROR:
            return said(
                "The platform itself failed here; this does not count against the endpoint and is tried again."
            )
        case _:
            assert_never(outcome)


def _answered(status: int | None) -> str:
    match status:
        case None:
            return said("The endpoint answered with status %(status)s.", status=status)
        case 401 | 403 | 407:
            return said(
                "The endpoint answered with status %(status)s; it refuses us: check its authentication, or the secret with which it verifies signatures.",
                status=status,
            )
        case 404 | 405:
            return said(
                "The endpoint answered with status %(status)s; check the URL and the method of the endpoint.",
                status=status,
            )
        case 410:
            return said(
                "The endpoint answered with status %(status)s, gone: it wants no more webhooks, so the endpoint was disabled.",
                status=status,
            )
        case 413:
            return said(
                "The endpoint answered with status %(status)s; it takes no body of this size: raise its limit.",
                status=status,
            )
        case 429:
            return said(
                "The endpoint answered with status %(status)s; it is receiving more than it can take: set a rate limit for the endpoint.",
                status=status,
            )
        case code if 300 <= code < 400:
            return said(
                "The endpoint answered with status %(status)s; redirects are not followed: set the endpoint's URL to where it redirects.",
                status=status,
            )
        case code if 400 <= code < 500:
            return said(
                "The endpoint answered with status %(status)s; it does not accept the request: its logs should say why.",
                status=status,
            )
        case code if code >= 500:
            return said(
                "The endpoint answered with status %(status)s; it failed on its side: its logs should say why.",
                status=status,
            )
        case _:
            return said(
                "The endpoint answered with status %(status)s, which does not count as success for this endpoint.",
                status=status,
            )
