"""Signing secrets: `/tenants/{tenant}/endpoints/{endpoint}/secret`."""

from datetime import timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries import validation
from deliveries.api.endpoint_shapes import SECRET
from deliveries.api.endpoints import WRITE, EndpointAPIView, refusing
from deliveries.services import secrets
from deliveries.services.secrets import MAX_OVERLAP
from tenants.api import fields
from tenants.api.fields import Field, Input, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.schema import example
from tenants.api.views import no_store

MAX_OVERLAP_SECONDS = int(MAX_OVERLAP.total_seconds())


@example({"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "public_key": None})
class SecretOut(Output):
    secret = Shown(fields.nullable({"type": "string"}), "null for ed25519.")
    public_key = Shown(
        fields.nullable({"type": "string"}), "For ed25519: `whpk_` and the base64 of the 32 bytes."
    )


@example({"overlap_seconds": 86400})
class RotationIn(Input):
    secret = Field(secrets.secret, SECRET, help_text="Made when omitted. None can be brought for ed25519.")
    overlap_seconds = Field(
        lambda value: validation.whole_number(value, low=0, high=MAX_OVERLAP_SECONDS),
        fields.whole_number(0, MAX_OVERLAP_SECONDS, default=86400),
        help_text="Earlier ones sign as well until it ends. 0 ends every earlier one at once.",
    )


def secret_json(shown: secrets.Shown) -> dict[str, Any]:
    return {"secret": shown.secret, "public_key": shown.public_key}


class SecretView(EndpointAPIView):
    scopes = {"GET": WRITE}

    @extend_schema(
        operation_id="get_endpoint_secret",
        summary="Read the signing secret",
        tags=["Endpoints"],
        responses={200: SecretOut},
    )
    def get(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Each reading is written to the audit log."""
        return no_store(Response(secret_json(secrets.read_secret(actor=self.actor, endpoint=self.endpoint))))


class RotateView(EndpointAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="rotate_endpoint_secret",
        summary="Rotate the signing secret",
        tags=["Endpoints"],
        request=RotationIn,
        responses={200: SecretOut},
    )
    @idempotent(holds_secret=True)
    def post(self, request: Request, tenant: str, endpoint: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Both sign until the overlap ends. At most 5 may be live: `409 secret_limit_reached`."""
        given = RotationIn.read(request)
        seconds = given.get("overlap_seconds")
        overlap = secrets.DEFAULT_OVERLAP if seconds is None else timedelta(seconds=seconds)
        with refusing():
            shown = secrets.rotate_secret(
                actor=self.actor, endpoint=self.endpoint, secret=given.get("secret"), overlap=overlap
            )
        return no_store(Response(secret_json(shown)))
