"""Sources: `/tenants/{tenant}/sources`. What came to them is in `arrivals.py`.

They are the other end of endpoints, so the scopes of endpoints hold for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries.api.endpoints import READ, WRITE
from deliveries.api.source_shapes import SourceChange, SourceIn, SourceOut, UrlRotationIn, source_json
from deliveries.models import Source
from deliveries.services import sources
from deliveries.services.sources import SourceLimitReached, TokenLimitReached
from tenants import ids
from tenants.api import problems
from tenants.api.idempotency import idempotent
from tenants.api.pagination import page
from tenants.api.query import PAGE
from tenants.api.schema import page_of
from tenants.api.views import TenantAPIView, created, no_store


@contextmanager
def refusing() -> Iterator[None]:
    """What the services refuse, as problems."""
    try:
        yield
    except SourceLimitReached as error:
        raise problems.conflict("limit_reached", f"The tenant's limit of sources is {error.limit}.") from None
    except TokenLimitReached:
        raise problems.conflict(
            "token_limit_reached",
            "As many URLs are live as may be. End the earlier ones with overlap_seconds 0.",
        ) from None


class SourcesBase(TenantAPIView):
    def masked(self, source: Source) -> dict[str, Any]:
        """Needs the tokens prefetched, as the services give it."""
        return source_json(source, sources.masked_url(source, **self.asked_at))

    def whole(self, source: Source, token: str) -> dict[str, Any]:
        return source_json(source, f"{sources.base_url(**self.asked_at)}/in/{token}")

    @property
    def asked_at(self) -> dict[str, str]:
        request = self.request._request  # noqa: SLF001 - the plain request
        return {"scheme": str(request.scheme), "host": request.get_host()}


class SourcesView(SourcesBase):
    scopes = {"GET": READ, "POST": WRITE}
    parameters = {"GET": PAGE}

    @extend_schema(
        operation_id="list_sources",
        summary="List sources",
        tags=["Sources"],
        responses={200: page_of(SourceOut)},
    )
    def get(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first."""
        return page(self.query, sources.sources_of(self.tenant), serialize=self.masked)

    @extend_schema(
        operation_id="create_source",
        summary="Create a source",
        tags=["Sources"],
        request=SourceIn,
        responses={201: SourceOut},
    )
    @idempotent(holds_secret=True)
    def post(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """The reply alone holds the whole `url`. `409 limit_reached` beyond 100 sources."""
        given = SourceIn.read(request)
        with refusing():
            source, token = sources.create_source(actor=self.actor, tenant=self.tenant, **given)
        tenant_id = ids.to_text(ids.TENANT, self.tenant.id)
        location = f"/api/v1/tenants/{tenant_id}/sources/{ids.to_text(ids.SOURCE, source.id)}"
        return no_store(created(self.whole(source, token), location))


class SourceAPIView(SourcesBase):
    """Below `/tenants/{tenant}/sources/{source}`."""

    source: Source

    def locate(self, **kwargs: Any) -> None:
        super().locate(**kwargs)
        self.source = sources.get_source(tenant=self.tenant, reference=kwargs["source"])
        # The row that was found already, instead of a query for it.
        self.source.tenant = self.tenant


class SourceView(SourceAPIView):
    scopes = {"GET": READ, "PATCH": WRITE, "DELETE": WRITE}

    @extend_schema(
        operation_id="get_source", summary="Get a source", tags=["Sources"], responses={200: SourceOut}
    )
    def get(self, request: Request, tenant: str, source: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Without its secrets, and with the beginning of its URL alone."""
        return Response(self.masked(self.source))

    @extend_schema(
        operation_id="update_source",
        summary="Change a source",
        tags=["Sources"],
        request=SourceChange,
        responses={200: SourceOut},
    )
    def patch(self, request: Request, tenant: str, source: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What is absent stays, null resets to the default. Holds for every request that comes after the reply."""
        given = SourceChange.read(request, is_partial=True)
        with refusing():
            changed = sources.update_source(actor=self.actor, source=self.source, **given)
        return Response(self.masked(changed))

    @extend_schema(
        operation_id="delete_source",
        summary="Delete a source",
        tags=["Sources"],
        responses={204: OpenApiResponse(description="Deleted.")},
    )
    def delete(self, request: Request, tenant: str, source: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Its URLs answer 404 at once."""
        sources.delete_source(actor=self.actor, source=self.source)
        return Response(status=204)


class TokenView(SourceAPIView):
    scopes = {"POST": WRITE}

    @extend_schema(
        operation_id="rotate_source_url",
        summary="Rotate the URL",
        tags=["Sources"],
        request=UrlRotationIn,
        responses={200: SourceOut},
    )
    @idempotent(holds_secret=True)
    def post(self, request: Request, tenant: str, source: str) -> Response:  # noqa: ARG002 - DRF's signature
        """The reply alone holds the whole new `url`. At most 5 may be live: `409 token_limit_reached`."""
        seconds = UrlRotationIn.read(request).get("overlap_seconds")
        overlap = sources.DEFAULT_OVERLAP if seconds is None else timedelta(seconds=seconds)
        with refusing():
            token = sources.rotate_token(actor=self.actor, source=self.source, overlap=overlap)
        return no_store(Response(self.whole(self.source, token)))
