"""What schemathesis is told about the API beyond its document. Named in schemathesis.toml."""

import os
import re
from typing import Any
from uuid import uuid4

import schemathesis
from schemathesis.core.parameters import ParameterLocation

TENANT_PATH = "/api/v1/tenants/{tenant}"
PROTECTED = (os.environ["TENANT"], os.environ["TENANT_ID"])

EVENT_TYPES = ("order.created", "order.paid", "invoice.paid")
"""Made in the tenant before the run."""

NAME = re.compile(r"[a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*")

BEYOND_A_SCHEMA = {
    "does_not_fit",  # settings of an endpoint together
    "duplicate",  # names that differ in their case alone
    "invalid_certificate",  # what is in a certificate, and in a key
    "invalid_key",
    "incomplete",  # what another field of a source makes necessary
    "invalid_cursor",  # a place in a line
    "not_a_logo",  # what is in a picture
    "invalid_network",  # what addresses are
    "invalid_secret",  # what a scheme can use
    "not_allowed",
    "address_blocked",  # what hosts are
    "blocked_port",
    "invalid_host",
    "invalid_port",
    "header_not_allowed",  # lists of names
    "invalid_url",
    "event_type_archived",  # state
    "immutable",
    "mismatch",
    "not_changeable",
    "deliver_at_too_far",  # time
    "in_the_past",
    "invalid",  # of two fields together: since and until
    "too_many",
    "window_too_large",
    "invalid_expression",  # languages of their own
    "invalid_schema",
    "schema_violation",
    "unknown_endpoint",  # references
    "unknown_event_type",
}
"""Codes of errors in requests that are right as far as the document can tell."""

NO_URL = {"field": "url", "code": "required"}
"""Of an endpoint that is called; one that is polled has none."""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A new Idempotency-Key for every POST: two requests with one key are another test's subject.

    And the tenant of the run stays as it is: what is found in a list of tenants may be it.
    """
    is_wrong = case.meta is not None and case.meta.is_negative_at(ParameterLocation.HEADER)
    if case.method == "POST" and not is_wrong:
        case.headers["Idempotency-Key"] = uuid4().hex
    if case.operation.path == TENANT_PATH and case.path_parameters.get("tenant") in PROTECTED:
        case.path_parameters["tenant"] = f"other-{uuid4().hex}"


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Types that are in the catalogue, in the place of most that are not: else nothing would ever be published."""
    match context.operation.definition.raw.get("operationId"), body:
        case ("publish_event", {"type": str()}):
            return _of_the_catalogue(body)
        case ("publish_events", {"events": list(events)}):
            return body | {"events": [_of_the_catalogue(event) for event in events]}
        case _:
            return body


def _of_the_catalogue(event: Any) -> Any:
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        return event
    is_good = NAME.fullmatch(event["type"]) and len(event["type"]) <= 128
    choice = len(event["type"]) % (len(EVENT_TYPES) + 1)
    return event | {"type": EVENT_TYPES[choice]} if is_good and choice < len(EVENT_TYPES) else event


@schemathesis.check
def refused_for_what_a_schema_cannot_say(ctx: Any, response: Any, case: Any) -> None:
    """A request that the document allows is refused only with the codes above."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 422:
        return
    problem = response.json()
    errors = [error for error in problem.get("errors", []) if error | NO_URL != error]
    codes = {error["code"] for error in errors} or {problem["code"]}
    if not codes <= BEYOND_A_SCHEMA:
        raise AssertionError(f"The document allows what is refused: {problem}")
