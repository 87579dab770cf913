"""Turns whatever a view raised into a problem document. Called by DRF, and by the middleware for everything outside it.

Nothing that a client sends ends in a 500: what is left for that is a fault of ours, and is logged with its trace.
"""

import logging
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from psycopg_pool import PoolTimeout
from rest_framework import exceptions

from deliveries.pipeline import counters
from deliveries.pipeline.ingest import DatabaseUnavailable
from tenants import access, counting
from tenants.api import problems
from tenants.api.problems import Problem, problem_response
from tenants.api.rendering import MAX_BODY_BYTES
from tenants.api.views import rate_headers, with_rate
from tenants.validation import InvalidContent

logger = logging.getLogger(__name__)


def handle(error: Exception, context: dict[str, Any]) -> HttpResponse:
    """DRF's exception handler."""
    request = context["request"]._request  # noqa: SLF001 - the plain request
    return respond(request, error)


def respond(request: HttpRequest, error: Exception) -> HttpResponse:
    problem = problem_of(error)
    if problem is None:
        logger.error("request failed", exc_info=error, extra={"path": request.path})
        problem = problems.internal_error()
    counters.add(f"api_problems:{problem.code}")
    return with_rate(request, problem_response(request, problem))


def problem_of(error: Exception) -> Problem | None:
    """The problem that says what is wrong; None for a fault of ours."""
    match error:
        case Problem():
            return error
        case access.Unauthenticated():
            return problems.unauthenticated()
        case counting.TooManyUnknownKeys():
            return _too_many("Too many unknown keys from this address.", error.retry_after_seconds)
        case access.TooManyRequests():
            problem = _too_many("This key's requests for the minute are used up.", error.rate.reset_seconds)
            problem.headers |= rate_headers(error.rate)
            return problem
        case access.Forbidden():
            return problems.forbidden(error.scope)
        case access.NotFound() | Http404():
            return problems.not_found()
        case InvalidContent():
            return problems.invalid(error.errors)
        case OperationalError() | InterfaceError() | PoolTimeout():
            counters.add("database_errors:api")
            logger.warning("database unavailable", exc_info=error)
            return problems.unavailable()
        case DatabaseUnavailable():
            # Counted where it was noticed.
            return problems.unavailable()
        case DataError():
            # Rules check lengths and ranges before; what slips through is still the client's value.
            logger.warning("a value that the rules let through was refused by the database", exc_info=error)
            return problems.invalid([("", "invalid", "A value is out of range.")])
        case IntegrityError():
            logger.warning("a conflict that no service expected", exc_info=error)
            return problems.conflict(
                "conflict", "It conflicts with something that exists or was just changed."
            )
        case RequestDataTooBig():
            return problems.too_large(MAX_BODY_BYTES)
        case SuspiciousOperation() | BadRequest() | UnreadablePostError():
            return Problem(400, "bad_request", "Bad request", "The request cannot be read.")
        case PermissionDenied() | exceptions.PermissionDenied():
            return Problem(403, "forbidden", "Forbidden", "This key may not do this.")
        case exceptions.MethodNotAllowed():
            return Problem(
                405, "method_not_allowed", "Method not allowed", "This method is not allowed here."
            )
        case exceptions.UnsupportedMediaType():
            return problems.unsupported_media_type()
        case exceptions.ParseError():
            return problems.malformed_json(str(error.detail))
        case exceptions.APIException() if error.status_code < 500:
            return Problem(error.status_code, "refused", "Refused", str(error.detail))
        case _:
            return None


def _too_many(detail: str, retry_after_seconds: int) -> Problem:
    return Problem(
        429,
        "too_many_requests",
        "Too many requests",
        detail,
        headers={"Retry-After": str(retry_after_seconds)},
    )
