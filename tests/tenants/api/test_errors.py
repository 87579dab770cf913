"""What goes wrong on our side: the database is away, or code of ours breaks."""

import json
import logging
from typing import Any

import pytest
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.test import Client, RequestFactory
from psycopg_pool import PoolTimeout

from deliveries.pipeline.ingest import DatabaseUnavailable
from webhooks_platform import api_errors


def answer(error: Exception) -> Any:
    request = RequestFactory().get("/api/v1/whoami")
    request.request_id = "the-request"  # type: ignore[attr-defined] # what the middleware does
    return api_errors.respond(request, error)


@pytest.mark.parametrize(
    "error",
    [OperationalError("gone"), InterfaceError("closed"), PoolTimeout("none free"), DatabaseUnavailable()],
)
def test_a_database_that_is_away_is_503_with_retry_after(error: Exception) -> None:
    response = answer(error)

    assert (response.status_code, response["Retry-After"]) == (503, "1")
    assert json.loads(response.content)["code"] == "unavailable"


def test_values_that_the_database_refuses_are_the_clients() -> None:
    assert answer(DataError("integer out of range")).status_code == 422
    assert answer(IntegrityError("duplicate key")).status_code == 409


def test_a_fault_of_ours_shows_nothing_but_a_request_id(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        response = answer(RuntimeError("the secret is 42"))

    assert json.loads(response.content) == {
        "type": "/errors/internal_error",
        "title": "Internal error",
        "status": 500,
        "detail": "Something broke on our side. The request id finds it in our logs.",
        "code": "internal_error",
        "request_id": "the-request",
    }
    assert [record.exc_info is not None for record in caplog.records] == [True]


@pytest.mark.urls("tests.support.broken_urls")
def test_plain_views_fail_in_the_same_shape() -> None:
    response = Client().get("/api/v1/plain")

    assert (response.status_code, response["Content-Type"]) == (503, "application/problem+json")
