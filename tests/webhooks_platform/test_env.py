"""Settings that make no sense are refused at start, with what would be right."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from webhooks_platform.env import env_emails, env_url, origin_of


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (env_emails, "", []),
        (env_emails, "ops@example.com, a@b.example", ["ops@example.com", "a@b.example"]),
        (env_url, "", ""),
        (env_url, "https://hooks.slack.com/services/T0", "https://hooks.slack.com/services/T0"),
    ],
)
def test_what_makes_sense(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], Any], text: str, expected: Any
) -> None:
    monkeypatch.setenv("WEBHOOKS_X", text)

    assert read("WEBHOOKS_X") == expected


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (env_emails, "ops", "'ops' is no e-mail address"),
        (env_emails, "ops@example.com,@x", "'@x' is no e-mail address"),
        (env_emails, "two words@example.com", "is no e-mail address"),
        (env_url, "hooks.slack.com/secret", "is no URL"),
        (env_url, "ftp://hooks.slack.com/secret", "is no URL"),
    ],
)
def test_what_makes_none(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], Any], text: str, says: str
) -> None:
    monkeypatch.setenv("WEBHOOKS_X", text)

    with pytest.raises(ImproperlyConfigured, match=says) as refused:
        read("WEBHOOKS_X")

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hooks.example.com", "https://hooks.example.com"),
        ("https://Hooks.Example.com:443/webhooks", "https://hooks.example.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443"),
        ("", ""),
        ("hooks.example.com", ""),
        ("https://[hooks", ""),
        ("https://hooks.example.com:port", ""),
    ],
)
def test_an_origin_is_written_as_browsers_send_it(url: str, expected: str) -> None:
    assert origin_of(url) == expected
