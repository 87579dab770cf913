"""Packs of event types in the portal: listed beside the catalogue, shown type by type, installed with one click."""

import json

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from tenants.portal.entry import PortalRequest, changes, portal_page
from tenants.services import packs


@portal_page()
def listing(request: PortalRequest) -> HttpResponse:
    return render(request, "portal/packs/list.html", {"packs": packs.packs_of(request.tenant)})


@portal_page()
def detail(request: PortalRequest, pack: str) -> HttpResponse:
    state = packs.pack_of(request.tenant, pack)
    statuses = state.type_statuses
    changed = {change.name: change for change in state.difference.changes}
    types = [
        {
            "type": each,
            "status": statuses[each.name],
            "change": changed.get(each.name),
            "schema": json.dumps(each.schema, indent=2, ensure_ascii=False),
            "example": json.dumps(each.example, indent=2, ensure_ascii=False),
        }
        for each in state.pack.types
    ]
    return render(request, "portal/packs/detail.html", {"state": state, "types": types})


@changes()
def install(request: PortalRequest, pack: str) -> HttpResponse:
    done = packs.install_pack(actor=request.actor, tenant=request.tenant, name=pack)
    count = len(done.created) + len(done.updated)
    if count:
        text = ngettext("%(count)d event type is in place.", "%(count)d event types are in place.", count)
        messages.success(request, text % {"count": count})
    else:
        messages.success(request, _("The catalogue has it all already."))
    return redirect("portal-packs", tenant=request.tenant.slug)
