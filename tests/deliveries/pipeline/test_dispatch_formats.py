"""What each format and each signature scheme looks like to a real endpoint, read by the libraries of others."""

import hashlib
import hmac

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from django.db import connection

from deliveries.sealed import Part, seal_part
from tests.support.builders import (
    SECRET,
    attempts_of,
    change_endpoint,
    delivery_of,
    make_endpoint,
    make_tenant,
    publish,
)
from tests.support.running import Request, Webhooks, run_until_dry

pytestmark = pytest.mark.usefixtures("quiet_lanes")


def delivered(webhooks: Webhooks) -> Request:
    """The one request that comes."""
    run_until_dry()
    (request,) = webhooks.requests
    return request


def test_the_cloudevents_sdk_reads_binary_mode() -> None:
    tenant = make_tenant()
    data = b'{"order":{"total":1.10}}'
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), format="cloudevents-binary")
        event = publish(tenant, data)

        request = delivered(webhooks)

    read = from_http_event(HTTPMessage(request.headers, request.body))
    assert request.body == data
    assert (read.get_id(), read.get_type(), read.get_data()) == (
        request.headers["webhook-id"],
        "order.created",
        {"order": {"total": 1.10}},
    )
    (attempt,) = attempts_of(delivery_of(event))
    assert b"\nce-type: order.created\n" in bytes(attempt.request_headers)


def test_a_template_signs_with_the_text_of_the_endpoints_secret() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        make_endpoint(tenant, webhooks.url("/a"), signature_template={"preset": "stripe"})
        publish(tenant)

        request = delivered(webhooks)

    timestamp = request.headers["webhook-timestamp"]
    expected = hmac.new(SECRET.encode(), timestamp.encode() + b"." + request.body, hashlib.sha256)
    assert request.headers["stripe-signature"] == f"t={timestamp},v1={expected.hexdigest()}"


def test_a_templates_own_secret_signs_alone_and_is_nowhere_to_be_seen() -> None:
    tenant = make_tenant()
    secret = "It's a Secret to Everybody"
    with Webhooks() as webhooks:
        endpoint = make_endpoint(tenant, webhooks.url("/a"), signature_template={"preset": "github"})
        sealed = seal_part(Part.TEMPLATE_SECRET, secret, tenant_id=tenant.id, endpoint_id=endpoint.id)
        change_endpoint(endpoint, template_secret_encrypted=sealed)
        event = publish(tenant)

        request = delivered(webhooks)

    expected = hmac.new(secret.encode(), request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-hub-signature-256"] == f"sha256={expected}"
    (attempt,) = attempts_of(delivery_of(event))
    with connection.cursor() as cursor:
        cursor.execute("SELECT a::text FROM deliveries_attempt a WHERE id = %s", [attempt.id])
        (row,) = cursor.fetchone()
    assert secret.encode().hex() not in row


def test_a_template_covers_the_query_of_a_get() -> None:
    tenant = make_tenant()
    with Webhooks() as webhooks:
        template = {
            "header": "X-Acme",
            "signed_content": "{timestamp}\n{body}",
            "headers": {"X-Acme-Time": "{timestamp}"},
        }
        make_endpoint(tenant, webhooks.url("/a?n=1"), method="GET", signature_template=template)
        publish(tenant)

        request = delivered(webhooks)

    query = request.path.partition("?")[2]
    timestamp = request.headers["webhook-timestamp"]
    expected = hmac.new(SECRET.encode(), f"{timestamp}\n{query}".encode(), hashlib.sha256)
    assert query.startswith("n=1&type=order.created")
    assert (request.headers["x-acme"], request.headers["x-acme-time"]) == (expected.hexdigest(), timestamp)
