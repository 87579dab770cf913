"""What pages show of payloads, attempts and their timings. Pure: no database, no clock."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

import msgspec
from django.utils.translation import gettext as _

from deliveries import validation
from deliveries.models import Attempt
from deliveries.pipeline.outcome import Outcome, explain
from deliveries.services.sent import SentRequest
from deliveries.texts import header_map, readable
from tenants.portal.words import in_words

MOST_SHOWN: Final = 64 * 1024
"""Characters of a payload on a page."""


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    is_cut: bool


def payload(raw: bytes | memoryview) -> Text:
    """JSON laid out for people; anything else as it came. Hostile text: the template escapes it."""
    data = bytes(raw)
    with suppress(msgspec.DecodeError):
        data = msgspec.json.format(data, indent=2)
    text = readable(data)
    return Text(text[:MOST_SHOWN], len(text) > MOST_SHOWN)


# --- an attempt -------------------------------------------------------------------------------------------------------


class State(StrEnum):
    DONE = "done"
    FAILED = "failed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the checklist."""

    label: str
    state: State


@dataclass(frozen=True, slots=True)
class Phase:
    """A bar of the waterfall: where it begins and how long it is, in percent, as SVG wants them."""

    name: str
    label: str
    duration_ms: float
    start: str
    width: str


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    attempt: Attempt
    explanation: str
    is_success: bool
    steps: Sequence[Step]
    hints: Sequence[str]
    phases: Sequence[Phase]
    request_headers: dict[str, str]
    request: Text | None
    """The body; None: not known."""
    request_line: str
    is_as_sent: bool
    """Whether the endpoint's method and format are still those of the attempt."""
    curl: str | None
    response_headers: dict[str, str]
    response: Text
    is_erased: bool


def shown_attempt(
    attempt: Attempt, *, is_https: bool, is_erased: bool, sent: SentRequest | None = None
) -> ShownAttempt:
    outcome = Outcome(attempt.outcome)
    headers = header_map(attempt.request_headers)
    if not headers:
        # It failed before there was a request, or was erased.
        sent = None
    return ShownAttempt(
        attempt=attempt,
        explanation=in_words(explain(outcome, attempt.status_code, attempt.detail)),
        is_success=outcome is Outcome.SUCCEEDED,
        steps=checklist(outcome, is_https=is_https),
        hints=hints(outcome, attempt.status_code),
        phases=waterfall(attempt),
        request_headers=headers,
        request=None if sent is None else payload(sent.body),
        request_line="" if sent is None else f"{sent.method} {sent.url}",
        is_as_sent=sent is not None and sent.content_type == _content_type(headers),
        curl=None if sent is None else curl(sent, headers),
        response_headers=validation.mask_response_headers(header_map(attempt.response_headers)),
        response=payload(attempt.response_body),
        is_erased=is_erased,
    )


def _content_type(headers: Mapping[str, str]) -> str | None:
    return next((value for name, value in headers.items() if name.lower() == "content-type"), None)


MOST_COPIED: Final = 64 * 1024
"""Bytes of a body within a command. Shells take little more than twice as much."""


def curl(sent: SentRequest, headers: Mapping[str, str]) -> str | None:
    """The request as a command, with the masks of what is secret. None: its body is too large for a command."""
    if len(sent.body) > MOST_COPIED:
        return None
    parts = [f"curl -X {sent.method} {shlex.quote(sent.url)}"]
    parts += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()]
    if sent.body:
        # Raw: a body that begins with @ names no file.
        parts.append(f"--data-raw {shlex.quote(readable(sent.body))}")
    return " \\\n  ".join(parts)


def checklist(outcome: Outcome, *, is_https: bool) -> list[Step]:
    """How far the request came. What comes after the step that failed was not tried."""
    labels = [
        _("The request was made ready"),
        _("The host name was resolved"),
        _("The address is on the public internet"),
        _("A connection was made"),
        _("The certificate was accepted (TLS)"),
        _("A whole answer came in time"),
        _("Its status counts as success"),
    ]
    failed_at = _failed_at(outcome)
    steps = []
    for index, label in enumerate(labels):
        if index == TLS and not is_https:
            continue
        if failed_at is None or index < failed_at:
            state = State.DONE
        else:
            state = State.FAILED if index == failed_at else State.OPEN
        steps.append(Step(label, state))
    return steps


READY, NAME, ADDRESS, CONNECTION, TLS, ANSWER, STATUS = range(7)


def _failed_at(outcome: Outcome) -> int | None:
    match outcome:
        case Outcome.SUCCEEDED:
            return None
        case (
            Outcome.REQUEST_TOO_LARGE
            | Outcome.TRANSFORMATION_FAILED
            | Outcome.CREDENTIALS_FAILED
            | Outcome.INTERNAL_ERROR
        ):
            return READY
        case Outcome.DNS_FAILED:
            return NAME
        case Outcome.ADDRESS_BLOCKED:
            return ADDRESS
        case Outcome.CONNECTION_FAILED | Outcome.PROXY_FAILED:
            return CONNECTION
        case Outcome.TLS_FAILED:
            return TLS
        case Outcome.TIMEOUT | Outcome.PROTOCOL_ERROR:
            return ANSWER
        case Outcome.HTTP_ERROR:
            return STATUS
        case _:
            assert_never(outcome)


def hints(outcome: Outcome, status_code: int | None) -> list[str]:
    """Beside the explanation: what most often is behind it."""
    match outcome:
        case Outcome.HTTP_ERROR if status_code in {400, 401, 403, 422}:
            return [
                _("Verify the signature over the body as it came, before any parsing."),
                _("Use this endpoint's own secret, with its whsec_ in front, if your library asks for it."),
                _("Compare webhook-timestamp with a correct clock; allow five minutes."),
            ]
        case Outcome.HTTP_ERROR if status_code in {404, 405}:
            return [
                _("Send the request of the curl command below to it yourself, and look which path answers."),
                _("A proxy in front may know another path, or let only GET through."),
            ]
        case Outcome.TIMEOUT:
            return [_("Answer with 200 at once, and do the work in a queue of your own.")]
        case Outcome.DNS_FAILED:
            return [
                _(
                    "Look the name up from outside of your own network: names of an internal DNS are not known here."
                ),
                _("A record that was just made can take until the time to live of its absence is over."),
            ]
        case Outcome.CONNECTION_FAILED:
            return [
                _("The port must be open to the internet, not to your office alone."),
                _("A tunnel to your own machine must be running, with the address that it has today."),
            ]
        case Outcome.TLS_FAILED:
            return [
                _(
                    "Serve the intermediate certificates, too. Browsers find them by themselves, programs do not."
                ),
                _("A certificate that you signed yourself is known to nobody else."),
            ]
        case Outcome.ADDRESS_BLOCKED:
            return [_("To receive on your own machine, use a tunnel that gives it a public address.")]
        case _:
            return []


def waterfall(attempt: Attempt) -> list[Phase]:
    """Phases one after the other; the rest of the whole is the reading of the answer."""
    total = attempt.duration_ms
    if total <= 0:
        return []
    parts = [
        ("dns", _("Name"), attempt.dns_ms),
        ("connect", _("Connect"), attempt.connect_ms),
        ("tls", _("TLS"), attempt.tls_ms),
        ("wait", _("Wait for the first byte"), attempt.first_byte_ms),
    ]
    phases = []
    at = 0.0
    for name, label, measured in parts:
        length = min(measured or 0.0, total - at)
        if length > 0:
            phases.append(_phase(name, label, at, length, total))
            at += length
    if phases and total - at > 0:
        phases.append(_phase("read", _("Rest"), at, total - at, total))
    return phases


def _phase(name: str, label: str, at: float, length: float, total: float) -> Phase:
    return Phase(name, label, length, f"{100 * at / total:.2f}", f"{100 * length / total:.2f}")
