"""Pages for what went wrong, in words for people. Below the API errors have a shape of their own."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from tenants.models import Member


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """The same for what does not exist and for what is somebody else's."""
    return _page(
        request,
        404,
        _("There is no such page"),
        _(
            "It does not exist, or your account may not see it. Check the address, or whom you are signed in as."
        ),
    )


def gone(request: HttpRequest) -> HttpResponse:
    """To somebody who may see the tenant, of one of its things."""
    return _page(
        request,
        404,
        _("This is not here any more"),
        _("It was deleted since the page that led here was loaded, or the address is mistyped."),
    )


def forbidden(request: HttpRequest, *, needs: Member.Role) -> HttpResponse:
    return _page(
        request,
        403,
        _("Your role may not do this"),
        _("It needs the role %(role)s. An admin of this tenant can give it to you.") % {"role": needs.label},
    )


def closed_to_support(request: HttpRequest) -> HttpResponse:
    return _page(
        request,
        403,
        _("Support may not see this"),
        _("Secrets, keys and members are the tenant's own. Ask one of its admins."),
    )


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001 - Django's signature
    return _page(
        request,
        403,
        _("This form was too old"),
        _(
            "Nothing was changed. Go back, load the page again, and repeat what you did. Cookies must be allowed."
        ),
    )


def refused(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:  # noqa: ARG001 - Django's signature
    return _page(request, 403, _("This is not allowed"), _("Your account may not see this page or do this."))


def frame_is_over(request: HttpRequest) -> HttpResponse:
    """Inside a frame nobody signs in: the application around it has to bring a new link."""
    return _page(
        request,
        403,
        _("This session is over"),
        _("Load the page of the application around this one again. It opens your webhooks anew."),
    )


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:  # noqa: ARG001 - Django's signature
    return _page(request, 400, _("This request cannot be read"), _("Go back and try again."))


def server_error(request: HttpRequest) -> HttpResponse:
    return _page(
        request,
        500,
        _("Something went wrong here"),
        _(
            "It is our fault, and it was written down. Nothing that you published is lost. Try again in a minute."
        ),
    )


def unavailable(request: HttpRequest) -> HttpResponse:
    response = _page(
        request,
        503,
        _("The platform is away for a moment"),
        _("Nothing that was published is lost. Try again in a few seconds."),
    )
    response["Retry-After"] = "5"
    return response


def _page(request: HttpRequest, status: int, title: str, text: str) -> HttpResponse:
    # Pages for what is not there and for what is somebody else's are the same, down to the address in them.
    context = {"title": title, "text": text, "status": status, "is_error_page": True}
    return render(request, "portal/error.html", context, status=status)
