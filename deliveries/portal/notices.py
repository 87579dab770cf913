"""Where the notices of a tenant go beside e-mail: a channel of a chat, by a Slack-compatible webhook."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deliveries.services import endpoint_settings, slack
from tenants.portal.entry import PortalRequest, Role, changes, portal_page
from tenants.portal.lists import RuleField, posted


class UnshownInput(forms.URLInput):
    """The address opens the channel: it goes in and never comes out, not even when the form is shown again."""

    def format_value(self, value: Any) -> None:  # noqa: ARG002 - a widget's
        return None


class ChannelForm(forms.Form):
    url = RuleField(
        endpoint_settings.url,
        label=gettext_lazy("Address of the incoming webhook"),
        required=True,
        widget=UnshownInput(
            attrs={"placeholder": "https://hooks.slack.com/services/…", "autocomplete": "off"}
        ),
        help_text=gettext_lazy("From the settings of your chat. Kept encrypted, and not shown again."),
    )


@portal_page(needs=Role.DEVELOPER, methods=("GET", "HEAD", "POST"))
def channel(request: PortalRequest) -> HttpResponse:
    form = ChannelForm(posted(request))
    if form.is_valid():
        slack.set_url(actor=request.actor, tenant=request.tenant, url=form.cleaned_data["url"])
        messages.success(request, _("Saved."))
        return redirect("portal-channel", tenant=request.tenant.slug)
    context = {"form": form, "shown_url": slack.shown_url(request.tenant)}
    return render(request, "portal/settings/channel.html", context, status=422 if form.is_bound else 200)


@changes()
def remove_channel(request: PortalRequest) -> HttpResponse:
    slack.set_url(actor=request.actor, tenant=request.tenant, url=None)
    messages.success(request, _("Notices go to no channel any more."))
    return redirect("portal-channel", tenant=request.tenant.slug)
