"""Sources and what came to them: `/tenants/{tenant}/sources`.

They are the other end of endpoints, so the scopes of endpoints hold for them; what came is as good as events.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries import validation
from deliveries.api.endpoints import READ, WRITE
from deliveries.inbound import verification as verifying
from deliveries.inbound.handshakes import Handshake
from deliveries.inbound.presets import PRESETS
from deliveries.inbound.requests import Reason, Verdict
from deliveries.models import IncomingRequest, Source
from deliveries.services import arrivals, sources
from deliveries.services.arrivals import NotAgain, PayloadErased
from deliveries.services.history import created_between
from deliveries.services.sources import MAX_OVERLAP, SourceLimitReached, TokenLimitReached
from deliveries.texts import header_map, readable
from deliveries.validation import mask_query
from tenants import ids
from tenants.api import fields, problems
from tenants.api.fields import Field, Input, NoBody, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.pagination import page
from tenants.api.query import PAGE, SINCE, UNTIL, Parameter, check_window, choice
from tenants.api.rendering import optional_time_text, time_text
from tenants.api.schema import example, page_of
from tenants.api.views import TenantAPIView, created, no_store
from tenants.models import ApiKey

READ_REQUESTS, WRITE_REQUESTS = ApiKey.Scope.EVENTS_READ, ApiKey.Scope.EVENTS_WRITE

SOURCE_ID = fields.id_text(ids.SOURCE)
REQUEST_ID = fields.id_text(ids.INCOMING)
EXPRESSION = fields.text(1024, 1, pattern="[^\\u0000]")
HEADER = fields.text(128, pattern="^[!#$%&'*+.^_`|~0-9A-Za-z-]*$")
MAX_OVERLAP_SECONDS = int(MAX_OVERLAP.total_seconds())

VERIFICATION: fields.AnySchema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "scheme": {"type": "string", "enum": [each.value for each in verifying.Scheme]},
        "header": HEADER,
        "algorithm": {"type": "string", "enum": list(verifying.ALGORITHMS)},
        "encoding": {"type": "string", "enum": list(verifying.ENCODINGS)},
        "prefix": fields.text(64),
        "signed": fields.text(200, 1),
        "timestamp_header": HEADER,
        "id_header": HEADER,
        "signature_key": fields.text(32),
        "timestamp_key": fields.text(32),
        "tolerance_seconds": fields.whole_number(1, 86_400),
        "key_encoding": {"type": "string", "enum": list(verifying.KEY_ENCODINGS)},
    },
}

EXAMPLE: dict[str, Any] = {
    "id": "src_01h455vb4pex5vsknk084sn02q",
    "kind": "source",
    "name": "Our repositories",
    "status": "enabled",
    "url": "https://webhooks.example.com/in/Xq3e***",
    "preset": "github",
    "verification": verifying.settings_of(dict(PRESETS["github"].verification)),
    "secret_count": 1,
    "has_verify_token": False,
    "allowed_networks": [],
    "event_type": '"github." + data.headers["x-github-event"]',
    "data": None,
    "dedup_header": "x-github-delivery",
    "dedup_path": "",
    "dedup_seconds": 86400,
    "handshake": None,
    "response_status": 200,
    "response_body": "",
    "rate_limit": None,
    "expires_at": None,
    "created_at": "2026-03-01T12:00:00.000000Z",
    "updated_at": "2026-03-01T12:00:00.000000Z",
}

REQUEST_EXAMPLE: dict[str, Any] = {
    "id": "req_01h455vb4pex5vsknk084sn02q",
    "source": "src_01h455vb4pex5vsknk084sn02q",
    "verdict": "accepted",
    "reason": None,
    "detail": "",
    "method": "POST",
    "content_type": "application/json",
    "size": 8102,
    "remote_ip": "192.0.2.7",
    "dedup_id": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    "event": "evt_01h455vb4pex5vsknk084sn02q",
    "status_code": 200,
    "created_at": "2026-03-01T12:00:00.000000Z",
    "erased_at": None,
}


@example({"name": "Repositories", "secrets": ["a new secret", "the old one"]})
class SourceChange(Input):
    name = Field(lambda value: validation.text(value, low=1, high=200), fields.text(200, 1), nullable=False)
    status = Field(
        lambda value: validation.choice(value, Source.Status.values),
        {"type": "string", "enum": Source.Status.values},
        help_text="Of a disabled source: `410`, and nothing is kept.",
    )
    verification = Field(
        verifying.settings_of, VERIFICATION, help_text="How requests prove themselves. null: not at all."
    )
    secrets = Field(
        verifying.secrets,
        fields.list_of(fields.text(verifying.MAX_SECRET_LENGTH, 1), verifying.MAX_SECRETS, 1),
        nullable=False,
        help_text="Any of them may have signed, so that they can be changed one after the other. Never shown.",
    )
    verify_token = Field(
        sources.verify_token,
        fields.text(256, 8),
        nullable=False,
        help_text="Of Meta's handshake. Never shown.",
    )
    allowed_networks = Field(
        verifying.networks,
        fields.list_of(fields.text(64, 1), verifying.MAX_NETWORKS),
        help_text="Addresses and networks that requests may come from. null or `[]`: any.",
    )
    event_type = Field(
        sources.event_type_text,
        EXPRESSION,
        nullable=False,
        help_text="CEL that makes the event type, of `data.body`, `data.headers`, `data.query`, `data.method`. "
        "null or an empty text as its result: no event.",
    )
    data = Field(  # type: ignore[assignment] # a field of ours, which DRF takes out of the class
        sources.data_text, EXPRESSION, help_text="CEL that makes the event's data. null: the body as it came."
    )
    dedup_header = Field(verifying.header, HEADER, help_text="Where the provider's id of a request stands.")
    dedup_path = Field(sources.dedup_path, fields.text(255), help_text="The same in the body: `data.0.id`.")
    dedup_seconds = Field(
        sources.dedup_seconds, fields.whole_number(60, 86_400), help_text="How long an id counts."
    )
    handshake = Field(sources.handshake, {"type": "string", "enum": [each.value for each in Handshake]})
    response_status = Field(sources.response_status, fields.whole_number(200, 299))
    response_body = Field(
        sources.response_body, fields.text(1024, pattern=fields.SEVERAL_LINES), help_text="Text or JSON."
    )
    rate_limit = Field(
        sources.rate_limit,
        fields.whole_number(1, 1_000_000),
        help_text="Requests per minute. null: the platform's.",
    )


@example(
    {"name": "Our repositories", "preset": "github", "secrets": ["the secret of the repository's webhook"]}
)
class SourceIn(SourceChange):
    name = Field(lambda value: validation.text(value, low=1, high=200), fields.text(200, 1), required=True)
    kind = Field(
        lambda value: validation.choice(value, Source.Kind.values),
        {"type": "string", "enum": Source.Kind.values},
        nullable=False,
        help_text="`inspector`: a throw-away URL that shows what reaches it for a day, and makes no events.",
    )
    preset = Field(
        sources.preset,
        {"type": "string", "enum": list(PRESETS)},
        nullable=False,
        help_text="Settings to begin with; what is given beside it goes over it.",
    )


@example({"overlap_seconds": 86400})
class UrlRotationIn(Input):
    overlap_seconds = Field(
        lambda value: validation.whole_number(value, low=0, high=MAX_OVERLAP_SECONDS),
        fields.whole_number(0, MAX_OVERLAP_SECONDS, default=86_400),
        help_text="Earlier URLs go on until it ends. 0 ends every earlier one at once.",
    )


@example(EXAMPLE)
class SourceOut(Output):
    id = Shown(SOURCE_ID)
    kind = Shown({"type": "string", "enum": Source.Kind.values})
    name = Shown({"type": "string"})
    status = Shown({"type": "string", "enum": Source.Status.values})
    url = Shown({"type": "string"}, "Whole when it is made or rotated; else all but its beginning is hidden.")
    preset = Shown(fields.nullable({"type": "string", "enum": list(PRESETS)}))
    verification = Shown(VERIFICATION)
    secret_count = Shown({"type": "integer", "minimum": 0})
    has_verify_token = Shown(fields.BOOLEAN)
    allowed_networks = Shown(fields.list_of({"type": "string"}))
    event_type = Shown({"type": "string"})
    data = Shown(fields.nullable({"type": "string"}))  # type: ignore[assignment] # as above
    dedup_header = Shown({"type": "string"})
    dedup_path = Shown({"type": "string"})
    dedup_seconds = Shown({"type": "integer"})
    handshake = Shown(fields.nullable({"type": "string", "enum": [each.value for each in Handshake]}))
    response_status = Shown({"type": "integer"})
    response_body = Shown({"type": "string"})
    rate_limit = Shown(fields.nullable({"type": "integer"}))
    expires_at = Shown(fields.nullable(fields.TIME), "Of an inspector.")
    created_at = Shown(fields.TIME)
    updated_at = Shown(fields.TIME)


@example(REQUEST_EXAMPLE)
class IncomingOut(Output):
    id = Shown(REQUEST_ID)
    source = Shown(SOURCE_ID)  # type: ignore[assignment] # as above
    verdict = Shown({"type": "string", "enum": [each.value for each in Verdict]})
    reason = Shown(fields.nullable({"type": "string", "enum": [each.value for each in Reason]}))
    detail = Shown({"type": "string"}, "The reason in words.")
    method = Shown({"type": "string"})
    content_type = Shown({"type": "string"})
    size = Shown({"type": "integer"}, "Bytes of the body.")
    remote_ip = Shown(fields.nullable({"type": "string"}))
    dedup_id = Shown(fields.nullable({"type": "string"}), "The provider's.")
    event = Shown(fields.nullable(fields.id_text(ids.EVENT)))
    status_code = Shown({"type": "integer"}, "What was answered.")
    created_at = Shown(fields.TIME)
    erased_at = Shown(fields.nullable(fields.TIME))


@example({**REQUEST_EXAMPLE, "headers": {"x-github-event": "push"}, "query": "", "body": '{"ref": "…"}'})
class IncomingDetailOut(IncomingOut):
    headers = Shown(fields.TEXTS, "Credentials masked.")
    query = Shown({"type": "string"}, "Credentials masked.")
    body = Shown({"type": "string"}, "Bytes that are not UTF-8, and NUL, as U+FFFD.")


@example({"mapped": 12, "unmapped": 0})
class RunAgainOut(Output):
    mapped = Shown({"type": "integer", "minimum": 0}, "Those that are events now.")
    unmapped = Shown({"type": "integer", "minimum": 0}, "Those that still are not.")


def source_json(source: Source, url: str) -> dict[str, Any]:
    return {
        "id": ids.to_text(ids.SOURCE, source.id),
        "kind": source.kind,
        "name": source.name,
        "status": source.status,
        "url": url,
        "preset": source.preset or None,
        "verification": source.verification,
        "secret_count": source.secret_count,
        "has_verify_token": source.has_verify_token,
        "allowed_networks": source.allowed_networks,
        "event_type": source.event_type,
        "data": source.data,
        "dedup_header": source.dedup_header,
        "dedup_path": source.dedup_path,
        "dedup_seconds": source.dedup_seconds,
        "handshake": source.handshake,
        "response_status": source.response_status,
        "response_body": source.response_body,
        "rate_limit": source.rate_limit,
        "expires_at": optional_time_text(source.expires_at),
        "created_at": time_text(source.created_at),
        "updated_at": time_text(source.updated_at),
    }


def incoming_json(row: IncomingRequest) -> dict[str, Any]:
    return {
        "id": ids.to_text(ids.INCOMING, row.id),
        "source": ids.to_text(ids.SOURCE, row.source_id),
        "verdict": row.verdict,
        "reason": row.reason or None,
        "detail": row.detail,
        "method": row.method,
        "content_type": row.content_type,
        "size": row.size,
        "remote_ip": row.remote_ip,
        "dedup_id": row.dedup_id or None,
        "event": None if row.event_id is None else ids.to_text(ids.EVENT, row.event_id),
        "status_code": row.status_code,
        "created_at": time_text(row.created_at),
        "erased_at": optional_time_text(row.erased_at),
    }


def incoming_detail_json(row: IncomingRequest) -> dict[str, Any]:
    return incoming_json(row) | {
        "headers": header_map(row.headers),
        "query": mask_query(readable(row.query)),
        "body": readable(row.body),
    }


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


# --- sources ----------------------------------------------------------------------------------------------------------


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


# --- what came --------------------------------------------------------------------------------------------------------

VERDICT = Parameter(
    "verdict",
    choice(*[each.value for each in Verdict]),
    "Only those with this verdict.",
    {"type": "string", "enum": [each.value for each in Verdict]},
)


class IncomingRequestsView(SourceAPIView):
    scopes = {"GET": READ_REQUESTS}
    parameters = {"GET": (*PAGE, VERDICT, SINCE, UNTIL)}

    @extend_schema(
        operation_id="list_incoming_requests",
        summary="List what came",
        tags=["Sources"],
        responses={200: page_of(IncomingOut)},
    )
    def get(self, request: Request, tenant: str, source: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Newest first. What was refused is here, too; what came to a disabled source or over its limit is not."""
        since, until = check_window(self.query)
        rows: Any = created_between(arrivals.requests_of(self.source), since=since, until=until)  # type: ignore[arg-type] # of our own kind
        if self.query["verdict"]:
            rows = rows.filter(verdict=self.query["verdict"])
        return page(self.query, rows.defer("headers", "query", "body"), serialize=incoming_json)


class RunAllAgainView(SourceAPIView):
    scopes = {"POST": WRITE_REQUESTS}

    @extend_schema(
        operation_id="run_incoming_requests_again",
        summary="Map again what was not mapped",
        tags=["Sources"],
        request=None,
        responses={200: RunAgainOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, source: str) -> Response:  # noqa: ARG002 - DRF's signature
        """After the mapping is mended: up to 500 of verdict `unmapped`, the oldest first. Call again until none is left."""
        NoBody.read(request)
        mapped, unmapped = arrivals.run_all_again(actor=self.actor, source=self.source)
        return Response({"mapped": mapped, "unmapped": unmapped})


class IncomingAPIView(SourceAPIView):
    incoming: IncomingRequest

    def locate(self, **kwargs: Any) -> None:
        super().locate(**kwargs)
        self.incoming = arrivals.get_request(source=self.source, reference=kwargs["incoming"])


class IncomingRequestView(IncomingAPIView):
    scopes = {"GET": READ_REQUESTS}

    @extend_schema(
        operation_id="get_incoming_request",
        summary="Get what came",
        tags=["Sources"],
        responses={200: IncomingDetailOut},
    )
    def get(self, request: Request, tenant: str, source: str, incoming: str) -> Response:  # noqa: ARG002 - DRF's signature
        """As it came: headers, query and body."""
        return Response(incoming_detail_json(self.incoming))


class RunAgainView(IncomingAPIView):
    scopes = {"POST": WRITE_REQUESTS}

    @extend_schema(
        operation_id="run_incoming_request_again",
        summary="Map one again",
        tags=["Sources"],
        request=None,
        responses={200: IncomingOut},
    )
    @idempotent()
    def post(self, request: Request, tenant: str, source: str, incoming: str) -> Response:  # noqa: ARG002 - DRF's signature
        """By the source as it now is. `409 not_unmapped`: it needs none, or was refused; `409 payload_erased`."""
        NoBody.read(request)
        try:
            changed = arrivals.run_again(actor=self.actor, source=self.source, incoming=self.incoming)
        except NotAgain:
            raise problems.conflict(
                "not_unmapped", "Only requests whose mapping failed are run again."
            ) from None
        except PayloadErased:
            raise problems.conflict("payload_erased", "Its payload was erased.") from None
        return Response(incoming_json(changed))


class IncomingDataView(IncomingAPIView):
    scopes = {"DELETE": WRITE_REQUESTS}

    @extend_schema(
        operation_id="erase_incoming_request",
        summary="Erase what came",
        tags=["Sources"],
        responses={204: OpenApiResponse(description="Erased.")},
    )
    def delete(self, request: Request, tenant: str, source: str, incoming: str) -> Response:  # noqa: ARG002 - DRF's signature
        """Headers, query and body of this request. Its event, if it made one, is erased by `…/events/{id}/data`."""
        arrivals.erase_request(actor=self.actor, source=self.source, incoming=self.incoming)
        return Response(status=204)
