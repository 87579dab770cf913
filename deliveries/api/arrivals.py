"""What came to a source: `/tenants/{tenant}/sources/{source}/requests`. It is as good as events, so their scopes hold."""

from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries.api.source_shapes import SOURCE_ID
from deliveries.api.sources import SourceAPIView
from deliveries.inbound.requests import Reason, Verdict
from deliveries.models import IncomingRequest
from deliveries.services import arrivals
from deliveries.services.arrivals import NotAgain, PayloadErased
from deliveries.services.history import created_between
from deliveries.texts import header_map, readable
from deliveries.validation import mask_query
from tenants import ids
from tenants.api import fields, problems
from tenants.api.fields import NoBody, Output, Shown
from tenants.api.idempotency import idempotent
from tenants.api.pagination import page
from tenants.api.query import PAGE, SINCE, UNTIL, Parameter, check_window, choice
from tenants.api.rendering import optional_time_text, time_text
from tenants.api.schema import example, page_of
from tenants.models import ApiKey

READ_REQUESTS, WRITE_REQUESTS = ApiKey.Scope.EVENTS_READ, ApiKey.Scope.EVENTS_WRITE

REQUEST_ID = fields.id_text(ids.INCOMING)

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


@example(REQUEST_EXAMPLE)
class IncomingOut(Output):
    id = Shown(REQUEST_ID)
    source = Shown(SOURCE_ID)  # type: ignore[assignment] # a field of ours, which DRF takes out of the class
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
