"""Log lines: what they carry, and what they may not."""

import json
import logging
from typing import Any
from uuid import UUID

import pytest
import structlog
from django.db import DatabaseError, connection
from django.test import Client

from tenants import ids, log_context
from tests.support.api import make_tenant, tenant_api
from webhooks_platform.logs import logging_settings

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def rendered(form: str, level: int = logging.WARNING, message: str = "something", **more: Any) -> str:
    """The line that a handler with our formatter writes."""
    facts = dict(logging_settings(form=form, level="INFO")["formatters"]["line"])
    formatter: structlog.stdlib.ProcessorFormatter = facts.pop("()")(**facts)
    exc_info = more.pop("exc_info", None)
    record = logging.getLogger("the.logger").makeRecord(
        "the.logger", level, __file__, 1, message, (), exc_info, extra=more
    )
    return formatter.format(record)


def line(**more: Any) -> dict[str, Any]:
    text = rendered("json", **more)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(autouse=True)
def outside_of_any_request() -> None:
    log_context.begin_request("")


def test_a_line_is_one_object() -> None:
    found = line(message="two\nlines", attempt_no=3)

    assert found.pop("timestamp").endswith("Z")
    assert found == {"message": "two\nlines", "level": "warning", "logger": "the.logger", "attempt_no": 3}


@pytest.mark.parametrize("value", [ID, ID.hex, str(ID), ID.bytes])
def test_ids_look_as_they_do_in_the_api(value: object) -> None:
    assert line(delivery_id=value)["delivery_id"] == ids.to_text("dlv", ID)


@pytest.mark.parametrize("value", ["dlv_1", "", "none", b"short", None, 7])
def test_what_is_no_id_stays(value: object) -> None:
    found = json.loads(rendered("json", delivery_id=value))

    assert found["delivery_id"] == (str(value) if isinstance(value, bytes) else value)


def test_a_line_names_request_tenant_and_key(database: None) -> None:
    tenant = make_tenant()
    api = tenant_api(tenant)

    assert api.get(f"/tenants/{tenant.slug}/endpoints").status_code == 200
    found = line()
    assert (found["request_id"], found["tenant_id"]) == ("the-request", ids.to_text("tnt", tenant.id))
    assert found["key_id"].startswith("key_")

    assert api.post(f"/tenants/{tenant.slug}/events", {"type": "x", "data": {}}).status_code == 422
    assert line()["tenant_id"] == ids.to_text("tnt", tenant.id)

    Client(headers={"X-Request-Id": "the-next"}).get("/health/live")
    found = line()
    assert (found["request_id"], found.get("tenant_id"), found.get("key_id")) == ("the-next", None, None)


def test_a_line_names_its_task() -> None:
    log_context.task.set("deliveries.sweep")
    try:
        assert line()["task"] == "deliveries.sweep"
    finally:
        log_context.task.set("")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("key whk_abc-DEF_123 was used", "key whk_*** was used"),
        ("secret whsec_AbC+/123=", "secret whsec_***"),
        ("/in/0123456789abcdef/x?y", "/in/***/x?y"),
        ("/portal/enter/0123456789abcdef", "/portal/enter/***"),
        (
            "Internal Server Error: /portal/invitation/0123-_abcdef:0123-_signed",
            "Internal Server Error: /portal/invitation/***",
        ),
        (
            "Internal Server Error: /portal/reset/usr_01h455vb4pex5vsknk084sn02q/cq1x-0123abcd",
            "Internal Server Error: /portal/reset/usr_01h455vb4pex5vsknk084sn02q/***",
        ),
        (
            "/portal/acme/settings/invitations/inv_01h4/again",
            "/portal/acme/settings/invitations/inv_01h4/again",
        ),
        ("POST /in/abcDEF123?x=1 failed", "POST /in/***?x=1 failed"),
        ("Authorization: Bearer 0123", "Authorization: Bearer ***"),
    ],
)
def test_secrets_are_taken_out(said: str, shown: str) -> None:
    assert line(message=said)["message"] == shown
    assert line(path=said)["path"] == shown
    assert shown in rendered("console", message=said)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_trace_shows_neither_values_of_variables_nor_rows(database: None, form: str) -> None:
    row = "in-\n" + "the row".replace(" ", "-")  # not in this file as it is in the table
    try:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE t (a text PRIMARY KEY)")
            cursor.execute("INSERT INTO t VALUES (%s), (%s)", [row, row])
    except DatabaseError as error:
        text = rendered(form, level=logging.ERROR, exc_info=(type(error), error, error.__traceback__))

    assert "UniqueViolation" in text
    assert "test_logs.py" in text
    assert "the-row" not in text


def test_for_people_a_line_is_plain_text() -> None:
    text = rendered("console", attempt_no=3)

    assert text.endswith("[warning  ] something [the.logger] attempt_no=3")
    assert "\x1b" not in text


def test_requests_and_sockets_beside_a_line_are_left_out() -> None:
    assert "request" not in line(request=object(), server_time="now")
