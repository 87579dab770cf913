"""How a tenant's portal looks, and on which pages of its own it may be shown in a frame. Called by the portal and the API.

A logo is uploaded, never fetched, and never served as it came: it is decoded, made small and drawn anew as a PNG.
"""

import hashlib
import io
import re
from typing import Any, Final
from urllib.parse import urlsplit

from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.db.models.functions import Now
from PIL import Image, UnidentifiedImageError

from tenants import access, colours, ids
from tenants.models import PortalLook, Tenant
from tenants.services import audit
from tenants.services.audit import Actor
from tenants.validation import Invalid

MAX_UPLOAD_BYTES: Final = 1024 * 1024
MAX_PIXELS: Final = 16_000_000
"""Of what is uploaded: a small file can claim to be a large picture."""
SIZE: Final = (360, 96)
"""Of what is served: twice what pages show, for fine screens."""

MAX_ORIGINS: Final = 10
ORIGIN: Final = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)*(:[1-9][0-9]{0,4})?")
LOCAL_ORIGIN: Final = re.compile(r"http://(localhost|127\.0\.0\.1)(:[1-9][0-9]{0,4})?")
"""For trying it out: browsers take these for safe without TLS."""


class NotALogo(Exception):
    """Not a PNG or JPEG, damaged, or too large."""


def look_of(tenant: Tenant) -> PortalLook:
    """The tenant's, without a query if it came with the tenant, or the default one."""
    try:
        look: PortalLook = tenant.look
    except ObjectDoesNotExist:
        return PortalLook(tenant=tenant, origins=[])
    return look


def stored_look(tenant: Tenant) -> PortalLook:
    """As it is now, whatever came with the tenant."""
    look: PortalLook | None = PortalLook.objects.for_tenant(tenant).defer("logo").first()
    return look or PortalLook(tenant=tenant, origins=[])


def public_catalogue(slug: str) -> PortalLook:
    """With its tenant, of one that wants everybody to read its catalogue. Raises access.NotFound."""
    look: PortalLook | None = (
        PortalLook.unscoped.filter(
            tenant__slug=slug,
            is_catalogue_public=True,
            tenant__deleted_at__isnull=True,
            tenant__status=Tenant.Status.ACTIVE,
        )
        .select_related("tenant")
        .defer("logo")
        .first()
        if slug.isascii() and "\x00" not in slug
        else None
    )
    if look is None:
        raise access.NotFound
    return look


def find_logo(logo_hash: str) -> bytes | None:
    row = PortalLook.unscoped.filter(logo_hash=logo_hash).values_list("logo", flat=True).first()
    return None if row is None else bytes(row)


def change_look(*, actor: Actor, tenant: Tenant, **fields: Any) -> PortalLook:
    """`accent`, `origins`, `is_catalogue_public`, `logo` (a file as it was uploaded; None: none): what is given.

    Raises NotALogo.
    """
    if "logo" in fields:
        upload: bytes | None = fields.pop("logo")
        drawn = None if upload is None else draw(upload)
        fields["logo"] = drawn
        fields["logo_hash"] = "" if drawn is None else hashlib.sha256(drawn).hexdigest()[:16]
    with transaction.atomic():
        look = _locked(tenant)
        before = _facts(look)
        for name, value in fields.items():
            assert name in _COLUMNS, name
            setattr(look, name, value)
        _save(look, actor, before)
    return look


def draw(upload: bytes) -> bytes:
    """A PNG within SIZE, without anything of the upload but its pixels. Raises NotALogo."""
    if len(upload) > MAX_UPLOAD_BYTES:
        raise NotALogo
    try:
        with Image.open(io.BytesIO(upload), formats=["PNG", "JPEG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise NotALogo
            drawn = picture.convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NotALogo from error
    drawn.thumbnail(SIZE)
    clean = Image.new("RGBA", drawn.size)
    clean.paste(drawn)
    out = io.BytesIO()
    clean.save(out, "PNG", optimize=True)
    return out.getvalue()


# --- rules ------------------------------------------------------------------------------------------------------------


def accent(value: object) -> str:
    text = str(value).strip().lower()
    if text and not colours.HEX.fullmatch(text):
        raise Invalid("invalid", "Must be a colour such as #1f5fd0.")
    return text


def origin(value: object) -> str:
    """As browsers name it, and nothing that a policy could read as more than one."""
    text = str(value).strip().lower().rstrip("/")
    if len(text) > 255 or not (ORIGIN.fullmatch(text) or LOCAL_ORIGIN.fullmatch(text)):
        raise Invalid("invalid", "Must be an origin such as https://app.example.com, without a path.")
    return text


def leads_back(look: PortalLook, url: str) -> bool:
    """Whether a link's `return_url` goes to one of the tenant's own applications."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower() in look.origins


# --- parts ------------------------------------------------------------------------------------------------------------

_COLUMNS: Final = ("accent", "logo", "logo_hash", "origins", "is_catalogue_public")


def _locked(tenant: Tenant) -> PortalLook:
    rows = PortalLook.objects.for_tenant(tenant)
    rows.get_or_create(tenant=tenant)
    look: PortalLook = rows.select_for_update().get()
    return look


def _save(look: PortalLook, actor: Actor, before: dict[str, Any]) -> None:
    old, new = audit.changes(before, _facts(look))
    if not new:
        return
    look.updated_at = Now()
    look.save(update_fields=[*_COLUMNS, "updated_at"])
    audit.record(
        actor=actor,
        tenant=look.tenant_id,
        action="portal_look.changed",
        target=ids.to_text(ids.TENANT, look.tenant_id),
        before=old,
        after=new,
    )


def _facts(look: PortalLook) -> dict[str, Any]:
    return {
        "accent": look.accent,
        "logo": look.logo_hash,
        "origins": list(look.origins),
        "is_catalogue_public": look.is_catalogue_public,
    }
