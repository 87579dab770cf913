"""Access tokens of OAuth 2 client credentials: asked for, kept, and renewed. Called by `dispatch`.

The token's request goes out through the loop's own transport, so it passes the address guard and blocks nobody: who needs
the token waits for its answer like for any other. Tokens are kept by process, in memory alone.
"""

import base64
import hashlib
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode

import msgspec

from deliveries.pipeline.hops import LAST_HOP
from deliveries.pipeline.outcome import Outcome
from deliveries.pipeline.transport import Answer, Destination, OutgoingRequest

TOKEN_SECONDS = 10.0
"""For fetching one."""

SPARE_SECONDS = 30.0
"""A token is given up so long before it expires: it must still be valid when it arrives."""

USUAL_SECONDS = 3600.0
"""How long one is used whose answer does not say."""

FAILURE_SECONDS = 5.0
"""After a failure nobody is asked again for so long."""

MOST_KEPT = 10_000

_TOKEN = re.compile("[!-~]{1,8192}")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TokenClient:
    """With whose name and secret, and from whom, a token is to be had."""

    key: bytes
    """The same for all that get the same tokens; never the same for two tenants."""
    destination: Destination
    headers: list[str]
    body: bytes


def token_client(*, auth: dict[str, Any], secret: str, destination: Destination) -> TokenClient:
    """`auth`: the readable part, of type oauth2. `destination` is that of its token URL."""
    parameters = {"grant_type": "client_credentials"}
    if auth["scope"] is not None:
        parameters["scope"] = auth["scope"]
    headers = ["content-type: application/x-www-form-urlencoded", "accept: application/json"]
    if auth["client_authentication"] == "basic":
        # RFC 6749, 2.3.1: both are form-encoded first.
        pair = f"{quote_plus(auth['client_id'])}:{quote_plus(secret)}"
        headers.append(f"authorization: Basic {base64.b64encode(pair.encode()).decode()}")
    else:
        parameters |= {"client_id": auth["client_id"], "client_secret": secret}
    body = urlencode(parameters).encode()
    said = "\n".join([destination.url, *headers]).encode()
    key = hashlib.sha256(destination.tenant_id.bytes + said + b"\n" + body).digest()
    return TokenClient(key, destination, headers, body)


@dataclass(frozen=True, slots=True)
class TokenFailure:
    outcome: Outcome
    detail: str
    is_platform_fault: bool = False


@dataclass(slots=True, eq=False)
class TokenTag:
    """What the transport hands back with a token's answer."""

    client: TokenClient


@dataclass(slots=True)
class _Kept:
    token: str | None
    failure: TokenFailure | None
    until: float
    """time.monotonic()"""


_kept: dict[bytes, _Kept] = {}
"""By `TokenClient.key`. One dispatcher runs in a process at a time; the next one goes on with these."""


class Tokens:
    """Of one dispatcher: who waits for a token."""

    def __init__(self, *, user_agent_line: str) -> None:
        self._user_agent_line = user_agent_line
        self._waiting: dict[bytes, list[Any]] = {}

    def known(self, client: TokenClient) -> str | TokenFailure | None:
        """The token, or why there is none at the moment. None: it has to be asked for."""
        kept = _kept.get(client.key)
        if kept is None or kept.until <= time.monotonic():
            return None
        return kept.token or kept.failure

    def wait(self, client: TokenClient, waiting: Any) -> OutgoingRequest | None:
        """Until `came`. Returns the request to send, if none is under way."""
        others = self._waiting.setdefault(client.key, [])
        others.append(waiting)
        if len(others) > 1:
            return None
        return OutgoingRequest(
            client.destination,
            "POST",
            None,
            [*client.headers, self._user_agent_line, LAST_HOP],
            client.body,
            TokenTag(client),
        )

    def came(self, client: TokenClient, answer: Answer) -> list[Any]:
        """Those that waited; `known` says what there is for them now."""
        read = _read(answer)
        now = time.monotonic()
        _kept.pop(client.key, None)
        _kept[client.key] = (
            _Kept(None, read, now + FAILURE_SECONDS)
            if isinstance(read, TokenFailure)
            else _Kept(read[0], None, now + read[1])
        )
        if len(_kept) > MOST_KEPT:
            del _kept[next(iter(_kept))]
        return self._waiting.pop(client.key, [])

    def refused(self, client: TokenClient, token: str) -> None:
        """The receiver took it for invalid: the next one is asked for."""
        kept = _kept.get(client.key)
        if kept is not None and kept.token == token:
            del _kept[client.key]


def _read(answer: Answer) -> tuple[str, float] | TokenFailure:
    """Token and seconds that it is used for."""
    if answer.failure is not None:
        outcome = Outcome.CREDENTIALS_FAILED
        if answer.failure is Outcome.PROXY_FAILED:
            outcome = Outcome.PROXY_FAILED
        detail = f"There is no access token, its URL did not answer. {answer.detail}"
        return TokenFailure(outcome, detail, answer.is_platform_fault)
    if answer.status_code != 200:
        return _failed(f"There is no access token: its URL answered {answer.status_code}.")
    try:
        said = msgspec.json.decode(answer.response_body, type=_TokenAnswer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # Bytes that are no UTF-8, and brackets within brackets, are not errors of msgspec's own.
        return _failed("There is no access token: what its URL answered is not a token's JSON.")
    if not _TOKEN.fullmatch(said.access_token):
        return _failed("There is no access token: the one that came cannot stand in a header.")
    seconds = USUAL_SECONDS if said.expires_in is None else float(said.expires_in)
    # Of a short-lived one at least half of its life is used.
    return said.access_token, max(seconds - SPARE_SECONDS, seconds / 2, 1.0)


class _TokenAnswer(msgspec.Struct):
    access_token: str
    expires_in: float | str | None = None

    def __post_init__(self) -> None:
        # Some say it as a text. What is no sensible number says nothing.
        try:
            seconds = None if self.expires_in is None else float(self.expires_in)
        except ValueError:
            seconds = None
        self.expires_in = seconds if seconds is not None and 0 < seconds < 1e9 else None


def _failed(detail: str) -> TokenFailure:
    return TokenFailure(Outcome.CREDENTIALS_FAILED, detail)
