"""A test event from the portal, sent by a real dispatcher to a real endpoint, and watched on the page."""

import pytest

from deliveries.models import Delivery, Event
from deliveries.pipeline.signing import parse_secret
from deliveries.services.stopping import disable_endpoint
from tenants.models import EventType
from tenants.services.audit import COMMAND
from tests.deliveries.portal.test_endpoints import make_endpoint
from tests.support.api import make_tenant
from tests.support.builders import SECRET
from tests.support.portal import actions_of, browser, text_of
from tests.support.running import Reply, Webhooks, run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")


def test_sent_watched_and_explained() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="order.created", example={"id": "A-17"})
    with Webhooks() as receiver:
        receiver.replies["/hook"] = Reply(
            status=401, body=b"<script>alert(1)</script>", headers=("x-auth-token: s3cret",)
        )
        _, path = make_endpoint(
            tenant, url=receiver.url("/hook"), event_types=[], retry_schedule=[], secret=parse_secret(SECRET)
        )
        client = browser(tenant)

        sent = client.post(
            f"{path}/test", {"event_type": "order.created", "payload": '{"id": "<b>", "n": 1.50}'}
        )
        waiting = client.get(sent["Location"])
        run_until_dry()
        arrived = client.get(f"{sent['Location']}/progress")

        (request,) = receiver.requests
    assert b'"data":{"id": "<b>", "n": 1.50}' in request.body
    assert sent.status_code == 302
    assert 'hx-trigger="every 300ms"' in waiting.content.decode()
    page = arrived.content.decode()
    assert "hx-trigger" not in page
    assert "<html" not in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "s3cret" not in page
    text = text_of(arrived)
    assert "The endpoint answered with status 401" in text
    assert "A whole answer came in time yes Its status counts as success no" in text
    assert "Verify the signature over the body as it came" in text
    assert actions_of(tenant)[-1] == "endpoint.tested"


def test_without_a_payload_the_example_goes() -> None:
    tenant = make_tenant()
    EventType.objects.create(tenant=tenant, name="order.created", example={"id": "A-17"})
    _, path = make_endpoint(tenant)
    client = browser(tenant)

    offered = client.get(f"{path}/test?event_type=order.created")
    client.post(f"{path}/test", {"event_type": "order.created", "payload": " "})

    assert offered.context["form"]["payload"].value() == '{\n  "id": "A-17"\n}'
    assert bytes(Event.objects.for_tenant(tenant).get().data) == b'{"id":"A-17"}'


@pytest.mark.parametrize("payload", ["{", "[1]", '{"a":1}{"b":2}', '{"a": NaN}'])
def test_a_payload_that_is_no_object_is_refused_beside_the_field(payload: str) -> None:
    tenant = make_tenant()
    _, path = make_endpoint(tenant)

    response = browser(tenant).post(f"{path}/test", {"event_type": "webhook.test", "payload": payload})

    assert response.status_code == 422
    assert list(response.context["form"].errors) == ["payload"]
    assert response.context["form"]["payload"].value() == payload
    assert Delivery.objects.for_tenant(tenant).count() == 0


def test_a_disabled_endpoint_says_so() -> None:
    tenant = make_tenant()
    endpoint, path = make_endpoint(tenant)
    disable_endpoint(actor=COMMAND, endpoint=endpoint)
    client = browser(tenant)

    response = client.post(f"{path}/test", {"event_type": "webhook.test", "payload": ""})

    assert response["Location"] == path
    assert "The endpoint is disabled. Enable it first." in text_of(client.get(path))
    assert Delivery.objects.for_tenant(tenant).count() == 0
