"""An attempt's page: what was sent and answered, as a command, secrets masked, hostile text escaped."""

import subprocess
from typing import Any

import pytest

from deliveries.pipeline.signing import parse_secret
from deliveries.services import erasing
from deliveries.services.endpoints import update_endpoint
from tenants import ids
from tenants.models import Tenant
from tenants.services.audit import COMMAND
from tests.deliveries.portal.test_endpoints import make_endpoint
from tests.support.api import make_tenant
from tests.support.builders import SECRET
from tests.support.portal import browser, text_of
from tests.support.published import add_attempt, delivery_of, make_type, publish
from tests.support.running import Reply, Webhooks, run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")


@pytest.fixture
def tenant(quiet_lanes: None) -> Tenant:
    made = make_tenant()
    make_type(made)
    return made


def attempt_page(tenant: Tenant, delivery: Any, role: str = "viewer") -> Any:
    """By the link on the delivery's page."""
    client = browser(tenant, role)
    page = client.get(f"/portal/{tenant.slug}/deliveries/{ids.to_text('dlv', delivery.id)}")
    (shown,) = page.context["attempts"]
    link = f"/portal/{tenant.slug}/attempts/{ids.to_text('att', shown.attempt.id)}"
    assert f'href="{link}"' in page.content.decode()
    return client.get(link)


@pytest.mark.parametrize(
    "fields", [{}, {"format": "raw"}, {"format": "form"}, {"method": "PUT"}, {"method": "GET"}]
)
def test_the_command_sends_what_was_sent(tenant: Tenant, fields: dict[str, Any]) -> None:
    with Webhooks() as receiver:
        make_endpoint(
            tenant,
            url=receiver.url("/hook?token=s3cret&a=1"),
            headers={"Authorization": "Bearer s3cret", "X-Team": "a 'quoted' one"},
            secret=parse_secret(SECRET),
            **fields,
        )
        event = publish(tenant, data=b'{"a":"it\'s <b>", "n":1.50,\n "at":"@x"}')
        run_until_dry()
        (request,) = receiver.requests

    response = attempt_page(tenant, delivery_of(event))

    shown = response.context["shown"]
    assert shown.is_as_sent
    command = words(shown.curl)
    assert command[:2] == ["-X", request.method]
    sent = dict(command[place + 1].split(": ", 1) for place, word in enumerate(command) if word == "-H")
    assert sent["webhook-id"] == request.id
    assert sent["X-Team"] == "a 'quoted' one"
    assert sent["webhook-signature"] == request.headers["webhook-signature"]
    assert sent["Authorization"] == "***"
    if request.method == "GET":
        assert command[2].startswith(receiver.url("/hook?token=***&a=1&type=order.created"))
        assert "--data-raw" not in command
    else:
        assert command[command.index("--data-raw") + 1].encode() == request.body
    page = response.content.decode()
    assert "s3cret" not in page
    assert "it's <b>" not in page


def words(command: str) -> list[str]:
    """What a shell makes of it: the arguments of curl."""
    name, _, rest = command.partition(" ")
    assert name == "curl"
    printed = subprocess.run(["sh", "-c", f"printf '%s\\0' {rest}"], capture_output=True, check=True).stdout
    return printed.decode().split("\0")[:-1]


def test_a_format_that_was_changed_since_is_said(tenant: Tenant) -> None:
    with Webhooks() as receiver:
        endpoint, _ = make_endpoint(tenant, url=receiver.url("/hook"), secret=parse_secret(SECRET))
        event = publish(tenant)
        run_until_dry()
    update_endpoint(actor=COMMAND, endpoint=endpoint, format="form")

    response = attempt_page(tenant, delivery_of(event))

    assert "this is the request as it would be sent today" in text_of(response)


def test_what_never_left_has_no_command(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant))
    add_attempt(delivery, outcome="transformation_failed", status_code=None, request_headers=b"")

    response = attempt_page(tenant, delivery)

    assert response.context["shown"].curl is None
    assert "As a curl command" not in text_of(response)


def test_what_was_erased_is_not_made_anew(tenant: Tenant) -> None:
    with Webhooks() as receiver:
        receiver.replies["/hook"] = Reply(body=b"you sent Ada")
        make_endpoint(tenant, url=receiver.url("/hook"), secret=parse_secret(SECRET))
        event = publish(tenant, data=b'{"name":"Ada"}')
        run_until_dry()
    delivery = delivery_of(event)
    assert "Ada" in attempt_page(tenant, delivery).content.decode()

    erasing.erase_data(actor=COMMAND, tenant=tenant, event=event)

    response = attempt_page(tenant, delivery)
    assert "Ada" not in response.content.decode()
    assert "erased with the payload" in text_of(response)


def test_a_long_body_is_shown_in_part_and_makes_no_command(tenant: Tenant) -> None:
    make_endpoint(tenant)
    delivery = delivery_of(publish(tenant, data=b'{"x":"%s"}' % (b"a" * 70_000)))
    add_attempt(delivery)

    response = attempt_page(tenant, delivery)

    assert response.context["shown"].request.is_cut
    assert response.context["shown"].curl is None
    assert "Only the beginning is shown." in text_of(response)
