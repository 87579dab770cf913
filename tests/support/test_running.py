"""The receiver that most tests of deliveries use: what it does not verify fails the test."""

from datetime import UTC, datetime

import pytest
import requests
from standardwebhooks import Webhook

from tests.support.builders import SECRET
from tests.support.running import Webhooks

OTHER = "whsec_YW5vdGhlciBzZWNyZXQgdGhhbiB0aGF0IG9mIHRoZSB0ZXN0cw=="


def send(webhooks: Webhooks, method: str, path: str, *, body: str = "", secret: str = SECRET) -> None:
    signed = path.partition("?")[2] if method == "GET" else body
    at = datetime.now(UTC)
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("evt_1", at, signed),
    }
    answer = requests.request(method, webhooks.url(path), data=body, headers=headers, timeout=10)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", "/a", '{"n":1}'), ("PUT", "/a", "<n>1</n>"), ("GET", "/a?n=1", "")],
    ids=["JSON", "not JSON", "a query string"],
)
def test_what_does_not_verify_fails_the_test(method: str, path: str, body: str) -> None:
    with Webhooks() as webhooks:
        send(webhooks, method, path, body=body)
    with pytest.raises(AssertionError) as failure, Webhooks() as webhooks:
        send(webhooks, method, path, body=body, secret=OTHER)

    assert (
        str(failure.value) == f"Requests that do not verify: ['{method} {path}: No matching signature found']"
    )


def test_secrets_of_their_own_are_not_verified_where_a_test_says_so() -> None:
    with Webhooks(secret=None) as webhooks:
        send(webhooks, "POST", "/a", body="{}", secret=OTHER)

    assert len(webhooks.requests) == 1


def test_what_failed_before_is_not_hidden_by_it() -> None:
    def test() -> None:
        with Webhooks() as webhooks:
            send(webhooks, "POST", "/a", body="{}", secret=OTHER)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        test()
