"""Providers' questions whether somebody is here, and who: answered with what they ask for, within narrow bounds. Pure."""

import hmac
import re
from enum import StrEnum
from typing import Any, Final
from urllib.parse import parse_qs

from deliveries.inbound.requests import InboundRequest, Reason, Refused


class Handshake(StrEnum):
    SLACK = "slack"
    """`url_verification`: a signed POST whose `challenge` is to be given back."""
    META = "meta"
    """A GET with `hub.challenge` and a token that both sides were told."""


CHALLENGE: Final = re.compile(r"[A-Za-z0-9._-]{1,256}", re.ASCII)
"""Nothing that a browser could take for a page."""

MAX_FIELDS: Final = 20


def is_question(kind: str | None, request: InboundRequest) -> bool:
    """Whether this is Meta's, which comes unsigned and is proved by its token."""
    return kind == Handshake.META and request.method == "GET" and "hub.challenge" in request.query


def answer_of_question(request: InboundRequest, verify_token: str) -> str:
    """Raises Refused."""
    try:
        given = parse_qs(request.query, max_num_fields=MAX_FIELDS)
    except ValueError:
        given = {}
    token = given.get("hub.verify_token", [""])[0]
    is_known = hmac.compare_digest(token.encode("utf-8", "replace"), verify_token.encode())
    if not verify_token or not is_known or given.get("hub.mode") != ["subscribe"]:
        raise Refused(Reason.CHALLENGE_REFUSED, "The verify token is wrong.")
    return _checked(given.get("hub.challenge", [""])[0])


def answer_of_body(kind: str | None, payload: Any) -> str | None:
    """Slack's challenge, if this is its question. Raises Refused."""
    if kind != Handshake.SLACK or not isinstance(payload, dict) or payload.get("type") != "url_verification":
        return None
    return _checked(payload.get("challenge"))


def _checked(challenge: object) -> str:
    if not isinstance(challenge, str) or not CHALLENGE.fullmatch(challenge):
        raise Refused(Reason.CHALLENGE_REFUSED, "The challenge is not one that is answered.")
    return challenge
