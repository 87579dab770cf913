"""The ways in which a request can fail to get an answer, each with its outcome and our words for it.

Shared by both transports, so that a customer reads the same whichever is in use. Never a library's or a receiver's text.
"""

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass

from deliveries.pipeline.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Failure:
    outcome: Outcome
    detail: str
    is_platform_fault: bool = False


OUT_OF_RESOURCES = Failure(
    Outcome.INTERNAL_ERROR, "The platform ran out of descriptors, ports or memory.", is_platform_fault=True
)
BROKEN_INSIDE = Failure(Outcome.INTERNAL_ERROR, "The platform could not make this request.")

UNREACHABLE = Failure(Outcome.CONNECTION_FAILED, "The host could not be reached.")
REFUSED = Failure(Outcome.CONNECTION_FAILED, "The connection was refused.")
CLOSED_EMPTY = Failure(Outcome.CONNECTION_FAILED, "The connection was closed without an answer.")
CLOSED_MIDWAY = Failure(Outcome.CONNECTION_FAILED, "The connection was closed in the middle of the answer.")
RESET = Failure(Outcome.CONNECTION_FAILED, "The connection was reset.")

PROXY_UNREACHABLE = Failure(
    Outcome.PROXY_FAILED, "The platform's egress proxy could not be reached.", is_platform_fault=True
)
PROXY_BROKE_OFF = Failure(
    Outcome.PROXY_FAILED, "The platform's egress proxy ended the connection.", is_platform_fault=True
)
PROXY_COULD_NOT_REACH = Failure(
    Outcome.CONNECTION_FAILED, "The host could not be reached from the platform's egress proxy."
)

LATE_CONNECTION = Failure(Outcome.TIMEOUT, "No connection was made in time.")
LATE_ANSWER = Failure(Outcome.TIMEOUT, "No answer came in time.")
LATE_REST = Failure(Outcome.TIMEOUT, "The answer was not complete in time.")

NOT_HTTP = Failure(Outcome.PROTOCOL_ERROR, "What came back is not HTTP.")
UNINTELLIGIBLE = Failure(Outcome.PROTOCOL_ERROR, "The answer could not be understood.")
HEADERS_TOO_LARGE = Failure(Outcome.PROTOCOL_ERROR, "The headers of the answer are too large.")

BAD_HANDSHAKE = Failure(Outcome.TLS_FAILED, "The TLS handshake failed.")
WRONG_HOST = Failure(Outcome.TLS_FAILED, "The certificate is not valid for this host name.")

REFUSED_OURS = Failure(Outcome.CREDENTIALS_FAILED, "The receiver refused the client certificate.")
PROBABLY_REFUSED_OURS = Failure(
    Outcome.CREDENTIALS_FAILED,
    "The receiver ended the connection right after the TLS handshake: it probably refused the client certificate.",
)
"""With TLS 1.3 a client hears of it only after it sent its request, and often the connection's end is all it hears."""
WANTS_OURS = Failure(
    Outcome.TLS_FAILED, "The receiver asks for a client certificate, and the endpoint has none."
)

UNUSABLE_OWN = Failure(Outcome.TLS_FAILED, "The endpoint's own certificates cannot be used.")
"""OpenSSL does not read what was taken for certificates."""

# What OpenSSL says of an alert by which the other side ends the connection because of our certificate.
_ABOUT_OURS = re.compile("alert.*(certificate|unknown ca|access denied)", re.IGNORECASE)


def of_our_certificate(message: str, *, has_one: bool) -> Failure | None:
    """What a library's text says of our certificate: the receiver did not take it, or misses one. None: nothing."""
    if _ABOUT_OURS.search(message.replace("_", " ")) is None:
        return None
    return REFUSED_OURS if has_one else WANTS_OURS


# OpenSSL's verdicts on a certificate (x509_vfy.h) that a customer can act upon.
_UNKNOWN_ISSUER = Failure(
    Outcome.TLS_FAILED, "The certificate's issuer is not trusted, or an intermediate certificate is missing."
)
_CERTIFICATE_FAULTS = {
    9: Failure(Outcome.TLS_FAILED, "The certificate is not valid yet."),
    10: Failure(Outcome.TLS_FAILED, "The certificate has expired."),
    18: Failure(Outcome.TLS_FAILED, "The certificate is signed by itself."),
    19: Failure(Outcome.TLS_FAILED, "The certificate chain ends in an authority that is not trusted."),
    20: _UNKNOWN_ISSUER,
    21: _UNKNOWN_ISSUER,
    62: WRONG_HOST,
    64: WRONG_HOST,
}

# What the system says when it is our machine that has nothing left.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


def certificate_fault(verdict: int) -> Failure | None:
    """What OpenSSL's number means; None for a number that says nothing useful."""
    return _CERTIFICATE_FAULTS.get(verdict)


def is_exhausted(number: int | None) -> bool:
    """Whether an errno says that descriptors, ports or memory have run out."""
    return number in _EXHAUSTED


def connect_failure(number: int | None, *, has_family: Callable[[], bool]) -> Failure:
    """What an errno of `connect` means. `has_family`: whether this machine has an address to connect from."""
    if number == errno.EADDRNOTAVAIL and not has_family():
        return UNREACHABLE
    if is_exhausted(number):
        return OUT_OF_RESOURCES
    return REFUSED if number == errno.ECONNREFUSED else UNREACHABLE
