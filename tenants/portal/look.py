"""How the portal looks and where it may be shown: accent, logo, origins, public catalogue. For admins."""

from typing import Any

from django import forms
from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from tenants import colours
from tenants.portal import errors
from tenants.portal.entry import PortalRequest, Role, changes, portal_page
from tenants.portal.lists import RuleField
from tenants.services import portal_looks
from tenants.services.portal_looks import MAX_ORIGINS, MAX_UPLOAD_BYTES, NotALogo
from tenants.validation import Invalid

KEPT_SECONDS = 365 * 86_400


class LookForm(forms.Form):
    accent = RuleField(
        portal_looks.accent,
        label=gettext_lazy("Accent colour"),
        max_length=7,
        help_text=gettext_lazy(
            "Such as #1f5fd0. It is made darker or lighter where it could not be read. Empty: ours."
        ),
    )
    logo = forms.FileField(
        label=gettext_lazy("Logo"),
        required=False,
        widget=forms.FileInput(attrs={"accept": "image/png,image/jpeg"}),
        help_text=gettext_lazy("PNG or JPEG, at most 1 MB. It is shown 48 pixels high at most."),
    )
    origins = forms.CharField(
        label=gettext_lazy("Your applications"),
        required=False,
        max_length=4000,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text=gettext_lazy(
            "Origins such as https://app.example.com, one a line. Their pages may show this portal in a frame, "
            "and links may lead back to them. Empty: none may."
        ),
    )
    is_catalogue_public = forms.BooleanField(
        label=gettext_lazy("Anybody may read the catalogue of event types"), required=False
    )

    def clean_logo(self) -> "UploadedFile[Any] | None":
        logo: UploadedFile[Any] | None = self.cleaned_data["logo"]
        if logo is not None and (logo.size or 0) > MAX_UPLOAD_BYTES:
            raise forms.ValidationError(_("This file is larger than 1 MB."))
        return logo

    def clean_accent(self) -> str:
        return self.cleaned_data["accent"] or ""

    def clean_origins(self) -> list[str]:
        lines = [line.strip() for line in self.cleaned_data["origins"].splitlines() if line.strip()]
        if len(lines) > MAX_ORIGINS:
            raise forms.ValidationError(_("At most %(most)d of them.") % {"most": MAX_ORIGINS})
        found = []
        for line in lines:
            try:
                found.append(portal_looks.origin(line))
            except Invalid:
                text = _("%(line)s is no origin. Write it as https://app.example.com, without a path.")
                raise forms.ValidationError(text % {"line": line[:100]}) from None
        return list(dict.fromkeys(found))


@portal_page(needs=Role.ADMIN, methods=("GET", "HEAD", "POST"))
def look(request: PortalRequest) -> HttpResponse:
    initial = {
        "accent": request.look.accent,
        "origins": "\n".join(request.look.origins),
        "is_catalogue_public": request.look.is_catalogue_public,
    }
    is_sent = request.method == "POST"
    form = LookForm(request.POST, request.FILES) if is_sent else LookForm(initial=initial)
    if is_sent and form.is_valid() and _save(request, form):
        messages.success(request, _("Saved."))
        return redirect("portal-look", tenant=request.tenant.slug)
    context = {"form": form, "can_embed": bool(request.look.origins)}
    return render(request, "portal/settings/look.html", context, status=422 if form.is_bound else 200)


def _save(request: PortalRequest, form: LookForm) -> bool:
    fields: dict[str, Any] = dict(form.cleaned_data)
    logo: UploadedFile[Any] | None = fields.pop("logo")
    if logo is not None:
        fields["logo"] = logo.read()
    try:
        portal_looks.change_look(actor=request.actor, tenant=request.tenant, **fields)
    except NotALogo:
        form.add_error("logo", _("This is no PNG or JPEG that can be read."))
        return False
    return True


@changes(needs=Role.ADMIN)
def remove_logo(request: PortalRequest) -> HttpResponse:
    portal_looks.change_look(actor=request.actor, tenant=request.tenant, logo=None)
    messages.success(request, _("The logo is removed."))
    return redirect("portal-look", tenant=request.tenant.slug)


# --- what pages ask for -----------------------------------------------------------------------------------------------


@require_safe
def logo_file(request: HttpRequest, logo: str) -> HttpResponse:
    """By its hash, which nobody knows who was not shown a page with it."""
    drawn = portal_looks.find_logo(logo)
    if drawn is None:
        return errors.not_found(request)
    return _kept(HttpResponse(drawn, content_type="image/png"))


@require_safe
def stylesheet(request: HttpRequest, accent: str) -> HttpResponse:  # noqa: ARG001 - a view's
    """Of a colour, whoever chose it."""
    return _kept(HttpResponse(colours.stylesheet(f"#{accent}"), content_type="text/css; charset=utf-8"))


def _kept(response: HttpResponse) -> HttpResponse:
    """Their addresses change with what they hold."""
    response["Cache-Control"] = f"public, max-age={KEPT_SECONDS}, immutable"
    return response
