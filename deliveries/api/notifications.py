"""Where notices of a tenant's endpoints go: `/tenants/{tenant}/notifications`. Who gets e-mail is set by each member."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries.api.endpoint_shapes import URL
from deliveries.api.endpoints import READ, WRITE
from deliveries.services import endpoint_settings, slack
from tenants.api import fields
from tenants.api.fields import Field, Input, Output, Shown
from tenants.api.schema import example
from tenants.api.views import TenantAPIView


def _rule(value: object) -> str:
    return endpoint_settings.url(value)


@example({"slack_url": "https://hooks.slack.com/services/T0/B0/x"})
class NotificationsIn(Input):
    slack_url = Field(
        _rule,
        URL,
        help_text='A Slack-compatible incoming webhook: it gets `{"text": …}` when an endpoint\'s state changes. '
        "null: none.",
    )


@example({"slack_url": "https://hooks.slack.com/***"})
class NotificationsOut(Output):
    slack_url = Shown(fields.nullable({"type": "string"}), "Its host alone: the rest opens the channel.")


class NotificationsView(TenantAPIView):
    scopes = {"GET": READ, "PATCH": WRITE}

    @extend_schema(
        operation_id="get_notifications",
        summary="Where notices go",
        tags=["Endpoints"],
        responses={200: NotificationsOut},
    )
    def get(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        return Response({"slack_url": slack.shown_url(self.tenant)})

    @extend_schema(
        operation_id="update_notifications",
        summary="Change where notices go",
        tags=["Endpoints"],
        request=NotificationsIn,
        responses={200: NotificationsOut},
    )
    def patch(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """At most one notice in 15 minutes, with everything that changed meanwhile."""
        given = NotificationsIn.read(request, is_partial=True)
        if "slack_url" in given:
            slack.set_url(actor=self.actor, tenant=self.tenant, url=given["slack_url"])
        return Response({"slack_url": slack.shown_url(self.tenant)})
