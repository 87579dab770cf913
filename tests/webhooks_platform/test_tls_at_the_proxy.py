"""TLS ends at a proxy in front. What it says of the client's connection counts if it is a trusted one."""

import re
from ipaddress import ip_network
from typing import Any

import pytest
from django.test import Client

from tests.support.portal import PASSWORD, make_user

pytestmark = pytest.mark.usefixtures("database")

PROXY, OTHER = "10.1.2.3", "192.0.2.9"


@pytest.fixture(autouse=True)
def production(settings: Any) -> None:
    settings.WEBHOOKS_TRUSTED_PROXIES = [ip_network("10.0.0.0/8")]
    settings.SECURE_HSTS_SECONDS = 60


def signed_in(*, proxy: str, said: str) -> tuple[int, str | None]:
    """The status of a sign-in from an https page, and whether the browser is told to stay with https."""
    client = Client(
        enforce_csrf_checks=True, REMOTE_ADDR=proxy, HTTP_X_FORWARDED_PROTO=said, HTTP_HOST="testserver"
    )
    page = client.get("/portal/sign-in")
    token, *_ = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())
    form = {"csrfmiddlewaretoken": token, "username": make_user().email, "password": PASSWORD}
    answer = client.post("/portal/sign-in", form, headers={"origin": "https://testserver"})
    return answer.status_code, answer.get("Strict-Transport-Security")


@pytest.mark.parametrize(
    ("proxy", "said", "expected"),
    [
        (PROXY, "https", (302, "max-age=60")),
        (PROXY, "HTTPS", (302, "max-age=60")),
        (PROXY, "https, http", (302, "max-age=60")),  # a second proxy behind the one that ended it
        (f"::ffff:{PROXY}", "https", (302, "max-age=60")),
        (PROXY, "http", (403, None)),
        (PROXY, "http, https", (403, None)),
        (PROXY, "", (403, None)),
        (OTHER, "https", (403, None)),
        ("", "https", (403, None)),
    ],
)
def test_a_form_of_an_https_page_is_taken_as_far_as_a_trusted_proxy_says_https(
    proxy: str, said: str, expected: tuple[int, str | None]
) -> None:
    assert signed_in(proxy=proxy, said=said) == expected


def test_the_public_origin_is_trusted_whatever_the_proxy_says(settings: Any) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://testserver"]

    assert signed_in(proxy=OTHER, said="") == (302, None)


def test_another_origin_is_refused_behind_a_trusted_proxy_too(settings: Any) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://elsewhere.example"]

    assert signed_in(proxy=PROXY, said="http") == (403, None)
