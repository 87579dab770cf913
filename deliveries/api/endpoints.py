"""Endpoints: `/tenants/{tenant}/endpoints`. Their secrets are in `secrets.py`, their subscriptions in `subscriptions.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries.api.endpoint_shapes import EndpointChange, EndpointIn, EndpointOut, endpoint_json
from deliveries.models import Endpoint
from deliveries.services import (
    endpoint_changes,
    endpoint_deletion,
    endpoint_settings,
    endpoints,
    ownership,
    secrets,
    stopping,
)
from deliveries.services.endpoint_changes import EndpointLimitReached
from deliveries.services.endpoints import UidTaken
from deliveries.services.secrets import SecretLimitReached
from deliveries.services.subscriptions import SubscriptionLimitReached
from tenants import access, ids
from tenants.api import problems
from tenants.api.fields import NoBody
from tenants.api.idempotency import idempotent
from tenants.api.pagination import page
from tenants.api.query import PAGE
from tenants.api.schema import page_of
from tenants.api.views import TenantAPIView, created
from tenants.models import ApiKey

READ, WRITE = ApiKey.Scope.ENDPOINTS_READ, ApiKey.Scope.ENDPOINTS_WRITE


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
