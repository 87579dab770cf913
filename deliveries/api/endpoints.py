"""Endpoints: `/tenants/{tenant}/endpoints`. Their secrets are in `secrets.py`, their subscriptions in `subscriptions.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries import credentials as rules
from deliveries import validation
from deliveries.api import endpoint_credentials
from deliveries.models import Endpoint
from deliveries.pipeline import signature_template
from deliveries.services import (
    credentials,
    endpoint_changes,
    endpoint_deletion,
    endpoint_settings,
    endpoints,
    health,
    ownership,
    secrets,
    stopping,
)
from deliveries.services.endpoint_changes import EndpointLimitReached
from deliveries.services.endpoints import UidTaken
from deliveries.services.secrets import SecretLimitReached
from deliveries.services.subscriptions import SubscriptionLimitReached
from tenants import access, ids
from tenants.api import fields, problems
from tenants.api.fields import Field, Input, NoBody, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.pagination import page
from tenants.api.query import PAGE
from tenants.api.rendering import optional_time_text, time_text
from tenants.api.schema import example, page_of
from tenants.api.tenants import METADATA_CHANGES
from tenants.api.views import TenantAPIView, created
from tenants.models import ApiKey
from tenants.validation import Collector

READ, WRITE = ApiKey.Scope.ENDPOINTS_READ, ApiKey.Scope.ENDPOINTS_WRITE

ENDPOINT_ID = fields.id_text(ids.ENDPOINT)
UID = fields.text(255, 1, pattern="^(?!ep_)(?!\\.{1,2}$)[A-Za-z0-9._:@-]+$")
ENDPOINT_REFERENCE: fields.AnySchema = {
    "type": "string",
    "pattern": "^(ep_[0-7][0-9a-hjkmnp-tv-z]{25}|(?!ep_)(?!\\.{1,2}$)[A-Za-z0-9._:@-]{1,255})$",
}
"""An id or a uid."""
# Its host is judged by more than a pattern can say.
URL = fields.text(validation.MAX_URL_LENGTH, 10, pattern=r"^https?://[^\s/?#@\\]+([/?][^\s#\\]*)?$")
PATTERN = fields.text(128, 1, pattern=r"^(\*|[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(\.\*)?)$")
CHANNEL = fields.text(128, 1, pattern="^[A-Za-z0-9._:-]+$")
STATUS: fields.AnySchema = {"type": "string", "enum": Endpoint.Status.values}
# Canonical base64 of 24 to 64 bytes, and nothing else.
_SIXTH, _END_OF_1, _END_OF_2 = "[A-Za-z0-9+/]", "[AQgw]==", "[AEIMQUYcgkosw048]="
SECRET = fields.text(
    94,
    pattern=f"^whsec_({_SIXTH}{{4}}){{8}}"
    f"(({_SIXTH}{{4}}){{0,12}}({_SIXTH}{{4}}|{_SIXTH}{_END_OF_1}|{_SIXTH}{{2}}{_END_OF_2})?"
    f"|({_SIXTH}{{4}}){{13}}{_SIXTH}{_END_OF_1})$",
)
HEADERS: fields.AnySchema = {
    "type": "object",
    "maxProperties": validation.MAX_HEADERS,
    "propertyNames": fields.text(
        validation.MAX_HEADER_NAME_LENGTH, 1, pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
    ),
    "additionalProperties": fields.nullable(
        fields.text(validation.MAX_HEADER_VALUE_LENGTH, 1, pattern="^[ -~]*[!-~][ -~]*$")
    ),
}

_TIME_OR_NULL: fields.AnySchema = fields.nullable(fields.TIME)
HEALTH: fields.AnySchema = {
    "type": "object",
    "required": [
        "circuit",
        "failures",
        "failing_since",
        "failed_at",
        "held_until",
        "hold_reason",
        "disables_at",
        "missed_since",
    ],
    "properties": {
        "circuit": {
            "type": "string",
            "enum": [state.value for state in health.Circuit],
            "description": "open: it did nothing but fail, and requests wait. half_open: the next one decides.",
        },
        "failures": {"type": "integer", "description": "In a row."},
        "failing_since": _TIME_OR_NULL,
        "failed_at": _TIME_OR_NULL | {"description": "The last of them."},
        "held_until": _TIME_OR_NULL | {"description": "Nothing is sent before."},
        "hold_reason": fields.nullable({"type": "string", "enum": ["rate", "circuit", "answer"]}),
        "disables_at": _TIME_OR_NULL | {"description": "When it is disabled if it goes on failing."},
        "missed_since": _TIME_OR_NULL
        | {"description": "It was disabled and got nothing since: what recover and replay would send."},
    },
}
BATCH: fields.AnySchema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["max_events", "max_wait_ms"],
    "properties": {
        "max_events": fields.whole_number(2, validation.MAX_BATCH_EVENTS),
        "max_wait_ms": fields.whole_number(0, validation.MAX_BATCH_WAIT_MS),
    },
}

EXAMPLE: dict[str, Any] = {
    "id": "ep_01h455vb4pex5vsknk084sn02q",
    "uid": "shop-17",
    "kind": "http",
    "url": "https://shop.example.com/webhooks",
    "description": "Orders of shop 17",
    "status": "enabled",
    "disabled_reason": None,
    "event_types": ["order.*", "invoice.*"],
    "channels": None,
    "method": "POST",
    "format": "standard",
    "headers": {"X-Team": "a"},
    "sensitive_headers": ["Authorization"],
    "signature_scheme": "hmac-sha256",
    "signature_template": None,
    "auth": None,
    "client_certificate": None,
    "ca_certificates": None,
    "success_statuses": ["2xx"],
    "timeout_seconds": 15,
    "rate_limit": None,
    "max_in_flight": 10,
    "ordering": "none",
    "batch": None,
    "retry_schedule": None,
    "metadata": {},
    "health": {
        "circuit": "closed",
        "failures": 0,
        "failing_since": None,
        "failed_at": None,
        "held_until": None,
        "hold_reason": None,
        "disables_at": None,
        "missed_since": None,
    },
    "created_at": "2026-03-01T12:00:00.000000Z",
    "updated_at": "2026-03-01T12:00:00.000000Z",
}


def _rule_of_url(value: object) -> str:
    return endpoint_settings.url(value)


@example({"url": "https://shop.example.com/hooks", "event_types": ["order.*"], "headers": {"X-Team": None}})
class EndpointChange(Input):
    uid = Field(validation.uid, UID, help_text="A name of your own, unique in the tenant.")
    url = Field(
        _rule_of_url,
        URL,
        nullable=False,
        help_text="http or https, on port 80, 443 or one above 1023, with a host on the public internet.",
    )
    description = Field(validation.description, fields.text(2000))
    status = Field(
        lambda value: validation.choice(value, Endpoint.Status.values),
        STATUS,
        help_text="As `/enable` and `/disable` set it.",
    )
    event_types = Field(
        validation.patterns,
        fields.list_of(PATTERN, validation.MAX_PATTERNS),
        help_text='Shorthand: one subscription per pattern. `[]`: none; null, or omitted at creation: `["*"]`.',
    )
    channels = Field(
        validation.endpoint_channels,
        fields.list_of(CHANNEL, validation.MAX_CHANNELS, 1),
        help_text="Only events that carry one of them. null: all events.",
    )
    method = Field(
        validation.method,
        {"type": "string", "enum": list(validation.METHODS)},
        help_text="GET carries the payload in the query string.",
    )
    format = Field(validation.format_, {"type": "string", "enum": list(validation.FORMATS)})
    headers = Field(
        validation.header_changes,
        HEADERS,
        help_text="PATCH merges by name; null removes one. Those that look like credentials are kept encrypted.",
    )
    signature_scheme = Field(
        validation.signature_scheme, {"type": "string", "enum": list(validation.SIGNATURE_SCHEMES)}
    )
    signature_template = Field(
        signature_template.read,
        endpoint_credentials.SIGNATURE_TEMPLATE,
        help_text="A further signature, made the way of another scheme. Its `secret` is shown as `***`, which leaves it "
        "as it is; without one it signs with the endpoint's.",
    )
    auth = Field(
        lambda value: rules.auth(value, endpoint_settings.url),
        endpoint_credentials.AUTH,
        help_text="How it signs in at the receiver. Its secret is shown as `***`, which leaves it as it is.",
    )
    client_certificate = Field(
        rules.client_certificate,
        endpoint_credentials.CLIENT_CERTIFICATE,
        help_text="For mutual TLS, in PEM. The key is shown as `***`, which leaves it as it is.",
    )
    ca_certificates = Field(
        rules.certificates,
        endpoint_credentials.PEM,
        help_text="In PEM: the authorities that the receiver's certificate may come from, instead of the public ones.",
    )
    success_statuses = Field(
        validation.success_statuses,
        fields.list_of(fields.text(3, 3, pattern="^[2-5](xx|[0-9]{2})$"), 20, 1),
        help_text="Classes and codes that count as success.",
    )
    timeout_seconds = Field(
        validation.timeout_seconds,
        fields.whole_number(1, 30),
        help_text="From connecting to the last byte read.",
    )
    rate_limit = Field(
        validation.rate_limit,
        {"type": "number", "minimum": 0.01, "maximum": 10_000},
        help_text="Requests per second. null: none.",
    )
    max_in_flight = Field(
        validation.max_in_flight, fields.whole_number(1, 1000), help_text="Requests at once."
    )
    ordering = Field(validation.ordering, {"type": "string", "enum": list(validation.ORDERINGS)})
    batch = Field(
        validation.batch,
        BATCH,
        help_text="Several events in one request, as soon as `max_events` wait or the first of them has waited "
        "`max_wait_ms`. Not with fifo, GET, xml, form or cloudevents-binary.",
    )
    retry_schedule = Field(
        validation.retry_schedule,
        fields.list_of(fields.whole_number(0, validation.MAX_RETRY_WAIT_SECONDS), validation.MAX_RETRIES),
        help_text="Seconds to wait before each retry. `[]`: one attempt. null: the default schedule.",
    )
    metadata = Field(
        validation.metadata_changes, METADATA_CHANGES, help_text="PATCH merges key by key; null removes one."
    )


@example(
    {
        "url": "https://shop.example.com/webhooks",
        "uid": "shop-17",
        "event_types": ["order.*", "invoice.*"],
        "headers": {"X-Team": "a", "Authorization": "Bearer s3cret"},
    }
)
class EndpointIn(EndpointChange):
    kind = Field(
        lambda value: validation.choice(value, Endpoint.Kind.values),
        {"type": "string", "enum": Endpoint.Kind.values},
        nullable=False,
        help_text="`poll`: nothing is sent; the receiver reads at `/poll`. Stays as it is.",
    )
    url = Field(
        _rule_of_url,
        URL,
        help_text="http or https, on port 80, 443 or one above 1023, with a host on the public internet. "
        "Of kind `poll`: null.",
    )
    secret = Field(
        secrets.secret,
        SECRET,
        help_text="`whsec_` and the base64 of 24 to 64 bytes. Made when omitted; read it at `/secret`.",
    )

    @classmethod
    def documented(cls, schema: fields.AnySchema) -> fields.AnySchema:
        polled = {"required": ["kind"], "properties": {"kind": {"const": "poll"}, "url": {"type": "null"}}}
        called = {
            "required": ["url"],
            "properties": {"kind": {"const": "http"}, "url": {"type": "string"}},
        }
        return schema | {"anyOf": [called, polled]}

    @classmethod
    def read_value(cls, data: Any, wrong: Collector, *, is_partial: bool = False) -> dict[str, Any]:
        """All of what is wrong at once: also that there is no URL."""
        cleaned = super().read_value(data, wrong, is_partial=is_partial)
        if isinstance(data, dict) and data.get("kind") != Endpoint.Kind.POLL and data.get("url") is None:
            if "url" in data:
                wrong.add("url", "null", "Must not be null.")
            else:
                wrong.add("url", "required", "Must be given.")
        cleaned.setdefault("url", None)
        return cleaned


@example(EXAMPLE)
class EndpointOut(Output):
    id = Shown(ENDPOINT_ID)
    uid = Shown(fields.nullable({"type": "string"}))
    kind = Shown({"type": "string", "enum": Endpoint.Kind.values})
    url = Shown(fields.nullable({"type": "string"}), "null for kind `poll`.")
    description = Shown({"type": "string"})
    status = Shown(STATUS)
    disabled_reason = Shown(fields.nullable({"type": "string", "enum": Endpoint.DisabledReason.values}))
    event_types = Shown(fields.list_of({"type": "string"}), "The patterns of its subscriptions.")
    channels = Shown(fields.nullable(fields.list_of({"type": "string"})))
    method = Shown({"type": "string", "enum": list(validation.METHODS)})
    format = Shown({"type": "string", "enum": list(validation.FORMATS)})
    headers = Shown(fields.TEXTS, "The readable ones.")
    sensitive_headers = Shown(fields.list_of({"type": "string"}), "Names only.")
    signature_scheme = Shown({"type": "string", "enum": list(validation.SIGNATURE_SCHEMES)})
    signature_template = Shown(fields.nullable(fields.ANY_OBJECT))
    auth = Shown(fields.nullable(fields.TEXTS | {"additionalProperties": {"type": ["string", "null"]}}))
    client_certificate = Shown(fields.nullable(fields.TEXTS))
    ca_certificates = Shown(fields.nullable({"type": "string"}))
    success_statuses = Shown(fields.list_of({"type": "string"}))
    timeout_seconds = Shown({"type": "integer"})
    rate_limit = Shown(fields.nullable({"type": "number"}))
    max_in_flight = Shown({"type": "integer"})
    ordering = Shown({"type": "string", "enum": list(validation.ORDERINGS)})
    batch = Shown(fields.nullable(BATCH))
    retry_schedule = Shown(fields.nullable(fields.list_of({"type": "integer"})))
    metadata = Shown(fields.TEXTS)
    health = Shown(HEALTH, "How it does; read-only.")
    created_at = Shown(fields.TIME)
    updated_at = Shown(fields.TIME)


def endpoint_json(endpoint: Endpoint) -> dict[str, Any]:
    """Needs the subscriptions prefetched, as the services give it."""
    return {
        "id": ids.to_text(ids.ENDPOINT, endpoint.id),
        "uid": endpoint.uid,
        "kind": endpoint.kind,
        "url": endpoint.url or None,
        "description": endpoint.description,
        "status": endpoint.status,
        "disabled_reason": endpoint.disabled_reason,
        "event_types": endpoint_settings.patterns_of(endpoint),
        "channels": endpoint.channels,
        "method": endpoint.method,
        "format": endpoint.format,
        "headers": endpoint.headers,
        "sensitive_headers": endpoint.sensitive_headers,
        "signature_scheme": endpoint.signature_scheme,
        "signature_template": credentials.shown_template(endpoint),
        "auth": credentials.shown_auth(endpoint),
        "client_certificate": credentials.shown_client_certificate(endpoint),
        "ca_certificates": endpoint.ca_certificates,
        "success_statuses": endpoint.success_statuses,
        "timeout_seconds": endpoint.timeout_seconds,
        "rate_limit": endpoint.rate_limit,
        "max_in_flight": endpoint.max_in_flight,
        "ordering": endpoint.ordering,
        "batch": endpoint.batch,
        "retry_schedule": endpoint.retry_schedule,
        "metadata": endpoint.metadata,
        "health": health_json(endpoint),
        "created_at": time_text(endpoint.created_at),
        "updated_at": time_text(endpoint.updated_at),
    }


def health_json(endpoint: Endpoint) -> dict[str, Any]:
    found = health.of(endpoint, now=datetime.now(UTC))
    return {
        "circuit": found.circuit.value,
        "failures": found.failures,
        "failing_since": optional_time_text(found.failing_since),
        "failed_at": optional_time_text(found.failed_at),
        "held_until": optional_time_text(found.held_until),
        "hold_reason": found.hold_reason,
        "disables_at": optional_time_text(found.disables_at),
        "missed_since": optional_time_text(endpoint.missed_since),
    }


# --- views ------------------------------------------------------------------------------------------------------------


class EndpointAPIView(TenantAPIView):
    """Below `/tenants/{tenant}/endpoints/{endpoint}`."""

    endpoint: Endpoint

    def locate(self, **kwargs: Any) -> None:
        super().locate(**kwargs)
        self.endpoint = endpoints.get_endpoint(tenant=self.tenant, reference=kwargs["endpoint"])
        # The row that was found already, instead of a query for it.
        self.endpoint.tenant = self.tenant


class EndpointsView(TenantAPIView):
    scopes = {"GET": READ, "POST": WRITE}
    parameters = {"GET": PAGE}

    @extend_schema(
        operation_id="list_endpoints",
        summary="List endpoints",
        tags=["Endpoints"],
        responses={200: page_of(EndpointOut)},
    )
    def get(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first."""
        return page(self.query, endpoint_changes.endpoints_of(self.tenant), serialize=endpoint_json)

    @extend_schema(
        operation_id="create_endpoint",
        summary="Create an endpoint",
        tags=["Endpoints"],
        request=EndpointIn,
        responses={201: EndpointOut},
    )
    @idempotent(prepared=True)
    def post(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """`409 uid_taken`, and `409 limit_reached` over the tenant's limits. If the tenant has `verify_endpoints`, a
        challenge is sent first, and `422` names `url` when it is not echoed."""
        given = EndpointIn.read(request)
        with refusing():
            endpoint = endpoints.create_endpoint(
                actor=self.actor, tenant=self.tenant, proof=self.proof, **given
            )
        return created(endpoint_json(endpoint), location_of(endpoint))

    def prepare_post(self, request: Request) -> None:
        """The challenge, before there is any transaction."""
        with refusing():
            self.proof = ownership.prove_new(tenant=self.tenant, **EndpointIn.read(request))


class EndpointView(TenantAPIView):
    scopes = {"GET": READ, "PATCH": WRITE, "PUT": WRITE, "DELETE": WRITE}

    endpoint: Endpoint | None = None

    def locate(self, **kwargs: Any) -> None:
        super().locate(**kwargs)
        try:
            self.endpoint = endpoints.get_endpoint(tenant=self.tenant, reference=kwargs["endpoint"])
        except access.NotFound:
            # PUT on a uid that nobody has makes the endpoint.
            if self.request.method != "PUT" or not endpoint_settings.is_uid(kwargs["endpoint"]):
                raise
        else:
            self.endpoint.tenant = self.tenant

    @extend_schema(
        operation_id="get_endpoint",
        summary="Get an endpoint",
        tags=["Endpoints"],
        responses={200: EndpointOut},
    )
    def get(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        assert self.endpoint is not None
        return Response(endpoint_json(self.endpoint))

    @extend_schema(
        operation_id="update_endpoint",
        summary="Change an endpoint",
        tags=["Endpoints"],
        request=EndpointChange,
        responses={200: EndpointOut},
    )
    def patch(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What is absent stays, null clears or resets to the default, a value sets. `event_types` adds patterns that are
        missing, removes subscriptions whose pattern is not listed, and leaves the others as they are.
        Holds for every event published after the reply, and every attempt begun after it."""
        given = EndpointChange.read(request, is_partial=True)
        assert self.endpoint is not None
        with refusing():
            proof = ownership.prove_change(endpoint=self.endpoint, **given)
            changed = endpoints.update_endpoint(
                actor=self.actor, endpoint=self.endpoint, proof=proof, **given
            )
        return Response(endpoint_json(changed))

    @extend_schema(
        operation_id="put_endpoint",
        summary="Create or change the endpoint with this uid",
        tags=["Endpoints"],
        request=EndpointIn,
        responses={200: EndpointOut, 201: EndpointOut},
    )
    def put(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What is absent stays as it is; `headers` and `metadata` are replaced. `secret` counts at creation alone."""
        given = EndpointIn.read(request)
        if endpoint.startswith(f"{ids.ENDPOINT}_"):
            assert self.endpoint is not None
            with refusing():
                proof = ownership.prove_change(endpoint=self.endpoint, is_merging=False, **given)
                changed = endpoints.update_endpoint(
                    actor=self.actor, endpoint=self.endpoint, is_merging=False, proof=proof, **given
                )
            return Response(endpoint_json(changed))
        if given.pop("uid", endpoint) != endpoint:
            raise problems.invalid([("uid", "mismatch", "Must be the uid in the path, or be left out.")])
        with refusing():
            proof = (
                ownership.prove_new(tenant=self.tenant, **given)
                if self.endpoint is None
                else ownership.prove_change(endpoint=self.endpoint, is_merging=False, **given)
            )
            row, is_new = endpoints.put_endpoint(
                actor=self.actor,
                tenant=self.tenant,
                proof=proof,
                uid=endpoint,
                has_event_types="event_types" in given,
                **given,
            )
        data = endpoint_json(row)
        return created(data, location_of(row)) if is_new else Response(data)

    @extend_schema(
        operation_id="delete_endpoint",
        summary="Delete an endpoint",
        tags=["Endpoints"],
        responses={204: OpenApiResponse(description="Deleted.")},
    )
    def delete(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What is pending ends as `cancelled` (`endpoint_deleted`). Deliveries and explain still name it."""
        assert self.endpoint is not None
        endpoint_deletion.delete_endpoint(actor=self.actor, endpoint=self.endpoint)
        return Response(status=204)


class EnableView(EndpointAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="enable_endpoint",
        summary="Enable an endpoint",
        tags=["Endpoints"],
        request=None,
        responses={200: EndpointOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """It starts afresh; `recover` and `replay` send what was missed."""
        NoBody.read(request)
        changed = stopping.enable_endpoint(actor=self.actor, endpoint=self.endpoint)
        return Response(endpoint_json(changed))


class DisableView(EndpointAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="disable_endpoint",
        summary="Disable an endpoint",
        tags=["Endpoints"],
        request=None,
        responses={200: EndpointOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What is pending ends as `cancelled` (`endpoint_disabled`); events published meanwhile make no delivery."""
        NoBody.read(request)
        changed = stopping.disable_endpoint(actor=self.actor, endpoint=self.endpoint)
        return Response(endpoint_json(changed))


def location_of(endpoint: Endpoint) -> str:
    tenant = ids.to_text(ids.TENANT, endpoint.tenant_id)
    return f"/api/v1/tenants/{tenant}/endpoints/{ids.to_text(ids.ENDPOINT, endpoint.id)}"


@contextmanager
def refusing() -> Iterator[None]:
    """The services' named errors as problems."""
    try:
        yield
    except EndpointLimitReached as error:
        raise problems.limit_reached("endpoints", error.limit) from None
    except SubscriptionLimitReached as error:
        raise problems.limit_reached("subscriptions_per_endpoint", error.limit) from None
    except UidTaken:
        raise problems.conflict("uid_taken", "Another endpoint of the tenant has this uid.") from None
    except SecretLimitReached:
        raise problems.conflict(
            "secret_limit_reached",
            f"At most {secrets.MAX_LIVE} secrets may be live: wait for an overlap to end, or rotate with overlap_seconds 0.",
        ) from None
