"""How a tenant's portal looks and where it may be shown: `/tenants/{tenant}/look`. Operators set it."""

import base64
import binascii
from typing import Any, Final

from django.conf import settings
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from tenants import validation
from tenants.api import fields, problems
from tenants.api.fields import Field, Input, Output, Shown
from tenants.api.permissions import ANY_KEY, OPERATOR
from tenants.api.schema import example
from tenants.api.views import TenantAPIView
from tenants.colours import HEX
from tenants.models import PortalLook
from tenants.services import portal_looks
from tenants.services.portal_looks import MAX_ORIGINS, NotALogo
from tenants.validation import Invalid

MAX_LOGO_TEXT: Final = 1_000_000
"""A body holds no more."""

ACCENT: fields.AnySchema = {"type": "string", "pattern": "^#[0-9a-f]{6}$"}
ORIGIN = fields.text(
    255,
    1,
    pattern=f"^({portal_looks.ORIGIN.pattern}|{portal_looks.LOCAL_ORIGIN.pattern})$",
)
LOGO = fields.text(MAX_LOGO_TEXT, 4, pattern="^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")


def _accent(value: object) -> str:
    return validation.matching(value, HEX, high=7, says="Must be a colour such as #1f5fd0, in lower case.")


def _origin(value: object) -> str:
    """As browsers write it: what differs is not taken for something similar."""
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a text.")
    if portal_looks.origin(value) != value:
        raise Invalid("invalid", "Must be in lower case, without a blank or a slash at the end.")
    return value


def _logo(value: object) -> bytes:
    """The file; what is in it is for the service to judge."""
    if not isinstance(value, str):
        raise Invalid("invalid_type", "Must be a text.")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("invalid", "Must be base64.") from None


@example({"accent": "#1f5fd0", "frame_origins": ["https://app.example.com"]})
class LookIn(Input):
    accent = Field(
        _accent,
        ACCENT,
        help_text="Made darker or lighter on pages where it could not be read. null: ours.",
    )
    logo = Field(
        _logo,
        LOGO,
        help_text="The base64 of a PNG or JPEG. It is drawn anew, 360 by 96 pixels at most. null: none.",
    )
    frame_origins = Field(
        lambda value: validation.list_of(value, _origin, high=MAX_ORIGINS),
        fields.list_of(ORIGIN, MAX_ORIGINS),
        help_text="Whose pages may show the portal in a frame, and where links may lead back to. null: none.",
    )
    public_catalogue = Field(
        validation.boolean, fields.BOOLEAN, help_text="Anybody may read the catalogue of event types."
    )


@example(
    {
        "accent": "#1f5fd0",
        "logo_url": "https://webhooks.example.com/portal/look/0123456789abcdef.png",
        "frame_origins": ["https://app.example.com"],
        "public_catalogue": False,
    }
)
class LookOut(Output):
    accent = Shown(fields.nullable(ACCENT))
    logo_url = Shown(fields.nullable({"type": "string"}), "Of the logo as it is shown; it changes with it.")
    frame_origins = Shown(fields.list_of(ORIGIN))
    public_catalogue = Shown(fields.BOOLEAN)


def look_json(look: PortalLook, request: Request) -> dict[str, Any]:
    host = settings.WEBHOOKS_PUBLIC_URL or f"{request.scheme}://{request.get_host()}"
    return {
        "accent": look.accent or None,
        "logo_url": f"{host}{reverse('portal-logo', args=[look.logo_hash])}" if look.logo_hash else None,
        "frame_origins": list(look.origins),
        "public_catalogue": look.is_catalogue_public,
    }


COLUMNS: Final[dict[str, tuple[str, Any]]] = {
    "accent": ("accent", ""),
    "logo": ("logo", None),
    "frame_origins": ("origins", []),
    "public_catalogue": ("is_catalogue_public", False),
}
"""Where each is kept, and what null resets it to."""


class LookView(TenantAPIView):
    scopes = {"GET": ANY_KEY, "PATCH": OPERATOR}

    @extend_schema(
        operation_id="get_look",
        summary="How the portal looks",
        tags=["Tenants"],
        responses={200: LookOut},
    )
    def get(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """A tenant key may ask for its own tenant. The name on its pages is the tenant's."""
        return Response(look_json(portal_looks.stored_look(self.tenant), request))

    @extend_schema(
        operation_id="update_look",
        summary="Change how the portal looks",
        tags=["Tenants"],
        request=LookIn,
        responses={200: LookOut},
    )
    def patch(self, request: Request, tenant: str) -> Response:  # noqa: ARG002 - DRF's signature
        """What is absent stays, null resets, a value sets. Members of the tenant change the same on the portal's page."""
        given = LookIn.read(request, is_partial=True)
        changed = {}
        for name, value in given.items():
            column, default = COLUMNS[name]
            changed[column] = default if value is None else value
        try:
            look = portal_looks.change_look(actor=self.actor, tenant=self.tenant, **changed)
        except NotALogo:
            raise problems.invalid(
                [("logo", "not_a_logo", "Must be a PNG or JPEG that can be read, of at most 16 megapixels.")]
            ) from None
        return Response(look_json(look, request))
