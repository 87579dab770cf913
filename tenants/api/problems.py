"""The one shape of an error: RFC 9457 `application/problem+json`. Used by all views, plain ones too, and by middleware."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from tenants.said import plain

CONTENT_TYPE = "application/problem+json"


class FieldError(NamedTuple):
    """What is wrong with one field. `field` is a dotted path in the body, a query parameter or a header."""

    field: str
    code: str
    message: str


class Problem(Exception):
    """An answer that refuses. Codes are stable and documented; words may change."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str = "",
        *,
        errors: Iterable[tuple[str, str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail or title
        self.errors = [FieldError(*error) for error in errors]
        self.headers = dict(headers or {})
        super().__init__(f"{status} {code}: {self.detail}")

    def document(self, request_id: str) -> dict[str, Any]:
        """As it is sent; a batch's refused items carry it too."""
        document: dict[str, Any] = {
            "type": f"{settings.WEBHOOKS_PUBLIC_URL}/errors/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            document["errors"] = [error._asdict() for error in self.errors]
        return document


def problem_response(request: HttpRequest, problem: Problem) -> HttpResponse:
    document = problem.document(getattr(request, "request_id", ""))
    response = HttpResponse(
        msgspec.json.encode(document, enc_hook=plain), status=problem.status, content_type=CONTENT_TYPE
    )
    for name, value in problem.headers.items():
        response[name] = value
    return response


# --- those that many views need ---------------------------------------------------------------------------------------


def unauthenticated() -> Problem:
    return Problem(
        401,
        "unauthenticated",
        "No valid API key",
        "Send a key that is known, not revoked and not expired: Authorization: Bearer whk_…",
        headers={"WWW-Authenticate": "Bearer"},
    )


def forbidden(scope: str | None) -> Problem:
    if scope is None:
        return Problem(403, "operator_only", "Operators only", "Only operator keys may do this.")
    return Problem(403, "missing_scope", "Missing scope", f"This key lacks the scope {scope}.")


def not_found() -> Problem:
    """Constant: it says nothing about whether the thing exists for somebody else."""
    return Problem(404, "not_found", "Not found", "There is no such thing here.")


def invalid(errors: Iterable[tuple[str, str, str]]) -> Problem:
    """Well-formed, with wrong content. Names every wrong field at once."""
    errors = list(errors)
    fields = ", ".join(dict.fromkeys(field or "the body" for field, _, _ in errors[:10]))
    return Problem(422, "invalid", "Invalid content", f"Wrong: {fields}."[:500], errors=errors)


def malformed_json(message: str) -> Problem:
    return Problem(400, "malformed_json", "Malformed JSON", message)


def too_large(limit_bytes: int) -> Problem:
    return Problem(413, "too_large", "Too large", f"The body may have at most {limit_bytes} bytes.")


def unsupported_media_type(wanted: str = "application/json") -> Problem:
    return Problem(415, "unsupported_media_type", "Wrong content type", f"Send the body as {wanted}.")


def method_not_allowed(allowed: Iterable[str]) -> Problem:
    methods = ", ".join(allowed)
    return Problem(
        405,
        "method_not_allowed",
        "Method not allowed",
        f"Allowed here: {methods}.",
        headers={"Allow": methods},
    )


def conflict(code: str, detail: str) -> Problem:
    return Problem(409, code, "Conflict", detail)


def limit_reached(limit: str, value: int) -> Problem:
    """A limit of the tenant, by the name it has in `limits`."""
    return Problem(
        409, "limit_reached", "Limit reached", f"The tenant's limit {limit} is {value}, and it is reached."
    )


def unavailable() -> Problem:
    return Problem(
        503,
        "unavailable",
        "Unavailable",
        "The database cannot be reached. Nothing was changed; try again.",
        headers={"Retry-After": "1"},
    )


def internal_error() -> Problem:
    return Problem(
        500,
        "internal_error",
        "Internal error",
        "Something broke on our side. The request id finds it in our logs.",
    )
