"""What a member wants to be told of by e-mail: each for oneself, in whatever role."""

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants import mail
from tenants.models import User
from tenants.portal import errors
from tenants.portal.entry import PortalRequest, portal_page
from tenants.portal.lists import posted
from tenants.services import notifications
from tenants.services.notifications import Digest, Wanted


class NotificationForm(forms.Form):
    failing = forms.BooleanField(
        label=gettext_lazy("An endpoint keeps failing, and when it is well again"), required=False
    )
    disabled = forms.BooleanField(label=gettext_lazy("An endpoint is switched off"), required=False)
    digest = forms.ChoiceField(label=gettext_lazy("A summary by e-mail"), choices=Digest.choices)


@portal_page(methods=("GET", "HEAD", "POST"))
def preferences(request: PortalRequest) -> HttpResponse:
    if request.by_link is not None or not isinstance(request.user, User):
        # A link is nobody whom one could write to.
        return errors.refused(request)
    wanted = notifications.wanted_by(tenant=request.tenant, user=request.user)
    initial = {"failing": wanted.failing, "disabled": wanted.disabled, "digest": wanted.digest.value}
    form = NotificationForm(posted(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        notifications.set_wanted(
            actor=request.actor,
            tenant=request.tenant,
            user=request.user,
            wanted=Wanted(
                failing=form.cleaned_data["failing"],
                disabled=form.cleaned_data["disabled"],
                digest=Digest(form.cleaned_data["digest"]),
            ),
        )
        messages.success(request, _("Saved."))
        return redirect("portal-notifications", tenant=request.tenant.slug)
    context = {"form": form, "can_send": mail.can_be_sent()}
    return render(
        request, "portal/settings/notifications.html", context, status=422 if form.is_bound else 200
    )
