"""Requests per minute of a key: counted in the database, the same for all processes."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F

from tenants import access, counting
from tenants.models import ApiKey, RateCounter, Tenant
from tenants.services.audit import COMMAND
from tenants.services.event_types import create_event_type
from tests.support.api import Api, make_key, make_tenant

pytestmark = pytest.mark.usefixtures("database")


def limited(tenant: Tenant, per_minute: int) -> Api:
    key = make_key(tenant)
    ApiKey.objects.filter(hash=access.hash_of(key)).update(rate_limit=per_minute)
    return Api(key)


def rate_headers(response: Any) -> tuple[str | None, str | None]:
    return response.headers.get("RateLimit-Limit"), response.headers.get("RateLimit-Remaining")


def test_the_request_over_the_limit_is_refused() -> None:
    api = limited(make_tenant(), 3)

    answers = [api.get("/whoami") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [rate_headers(answer) for answer in answers] == [
        ("3", "2"),
        ("3", "1"),
        ("3", "0"),
        ("3", "0"),
        ("3", "0"),
    ]
    assert json.loads(answers[3].content)["code"] == "too_many_requests"
    assert 1 <= int(answers[3]["Retry-After"]) <= 60
    assert answers[3]["Retry-After"] == answers[3]["RateLimit-Reset"]


def test_after_a_minute_it_begins_anew() -> None:
    tenant = make_tenant()
    api = limited(tenant, 1)
    assert [api.get("/whoami").status_code for _ in range(2)] == [200, 429]

    key = ApiKey.objects.get(tenant=tenant)
    RateCounter.objects.filter(key=f"key:{key.id}").update(started_at=F("started_at") - timedelta(seconds=61))

    assert [api.get("/whoami").status_code for _ in range(2)] == [200, 429]


def test_refusals_of_other_kinds_count_too() -> None:
    api = limited(make_tenant(), 2)

    answers = [
        api.get("/tenants").status_code,
        api.get("/whoami", nonsense=1).status_code,
        api.get("/whoami").status_code,
    ]

    assert answers == [403, 422, 429]


def test_every_answer_to_a_publisher_says_where_its_key_stands() -> None:
    tenant, other = make_tenant(), make_tenant()
    create_event_type(actor=COMMAND, tenant=tenant, name="order.created")
    api = limited(tenant, 8)
    event, unknown = ({"type": f"order.{name}", "data": {}} for name in ("created", "unknown"))
    path = f"/tenants/{tenant.slug}/events"

    answers = [
        api.post(path, event),
        api.post(path, b"{"),
        api.post(path, unknown),
        api.post(f"/tenants/{other.slug}/events", event),
        api.send("POST", path, b"{}", content_type="text/plain"),
        api.post(f"{path}/batch", {"events": [unknown]}),
        api.post(f"{path}/batch", {"events": []}),
        api.get(f"{path}/batch"),
        api.post(path, event),
    ]

    assert [(answer.status_code, *rate_headers(answer)) for answer in answers] == [
        (202, "8", "7"),
        (400, "8", "6"),
        (422, "8", "5"),
        (404, "8", "4"),
        (415, "8", "3"),
        (202, "8", "2"),
        (422, "8", "1"),
        (405, "8", "0"),
        (429, "8", "0"),
    ]
    assert all(1 <= int(answer["RateLimit-Reset"]) <= 60 for answer in answers)


def test_the_platforms_limit_holds_for_keys_without_their_own(settings: Any) -> None:
    settings.WEBHOOKS_API_RATE_LIMIT = 2
    tenant = make_tenant()
    plain, own = Api(make_key(tenant)), limited(tenant, 3)

    assert [plain.get("/whoami").status_code for _ in range(3)] == [200, 200, 429]
    assert [own.get("/whoami").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_without_a_limit_nothing_is_counted(django_assert_num_queries: Any) -> None:
    caller = access.authenticate(f"Bearer {make_key(make_tenant())}", remote_ip="192.0.2.1")

    with django_assert_num_queries(0):
        rate = access.check_rate(caller)

    assert rate is None


def test_of_many_at_once_exactly_as_many_pass_as_may() -> None:
    # A counter that is read and then written lets two pass where one may: both read the same number.
    api = limited(make_tenant(), 20)
    api.get("/whoami")

    def send(_: int) -> int:
        try:
            return api.get("/whoami").status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(send, range(40)))

    assert answers == {200: 19, 429: 21}


def test_counters_whose_minute_is_long_over_are_forgotten() -> None:
    tenant = make_tenant()
    limited(tenant, 5).get("/whoami")
    counter = RateCounter.objects.filter(key=f"key:{ApiKey.objects.get(tenant=tenant).id}")
    counting.forget_counters()
    assert counter.exists()

    counter.update(started_at=F("started_at") - timedelta(hours=2))
    counting.forget_counters()

    assert not counter.exists()
