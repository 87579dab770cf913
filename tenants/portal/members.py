"""The members page: who belongs to the tenant, in which role; invitations. For admins."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from tenants import access, ids, mail
from tenants.counting import TooManyInvitations
from tenants.models import Member
from tenants.portal.entry import PortalRequest, Role, changes, portal_page
from tenants.portal.lists import page_of, posted
from tenants.portal.sessions import wait_text
from tenants.services import invitations, members
from tenants.services.invitations import AlreadyInvited, AlreadyMember, TooManyOpen
from tenants.services.members import LastAdmin


class InviteForm(forms.Form):
    email = forms.EmailField(label=gettext_lazy("E-mail address"), max_length=254)
    role = forms.ChoiceField(
        label=gettext_lazy("Role"), choices=Role.choices, initial=Role.DEVELOPER.value, required=True
    )


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Role.choices)


@portal_page(needs=Role.ADMIN, methods=("GET", "HEAD", "POST"))
def listing(request: PortalRequest) -> HttpResponse:
    form = InviteForm(posted(request))
    if request.method == "POST" and form.is_valid():
        try:
            invitation = invitations.invite(
                actor=request.actor,
                tenant=request.tenant,
                email=form.cleaned_data["email"],
                role=Role(form.cleaned_data["role"]),
                language=get_language() or "en",
            )
        except AlreadyMember:
            form.add_error("email", _("This person is a member already."))
        except AlreadyInvited:
            form.add_error("email", _("This person is invited already. You can send the invitation again."))
        except TooManyOpen:
            form.add_error("email", _("Too many invitations are open. End some that nobody accepted."))
        except TooManyInvitations as error:
            form.add_error("email", wait_text(error))
        else:
            messages.success(
                request, _("%(email)s gets an e-mail with the invitation.") % {"email": invitation.email}
            )
            return redirect("portal-members", tenant=request.tenant.slug)
    now = timezone.now()
    context: dict[str, Any] = {
        "page": page_of(request, members.members_of(request.tenant)),
        "invitations": [
            {"row": row, "is_expired": row.expires_at <= now}
            for row in invitations.open_invitations(request.tenant).newest_first()
        ],
        "form": form,
        "roles": Role.choices,
        "can_send": mail.can_be_sent(),
    }
    return render(request, "portal/settings/members.html", context, status=422 if form.is_bound else 200)


@changes(needs=Role.ADMIN)
def change_role(request: PortalRequest, member: str) -> HttpResponse:
    row = members.get_member(tenant=request.tenant, member_id=access.id_of(ids.MEMBER, member))
    form = RoleForm(request.POST)
    if not form.is_valid():
        messages.error(request, _("Choose one of the roles."))
        return _back(request)
    try:
        changed = members.change_role(
            actor=request.actor,
            tenant=request.tenant,
            member_id=row.id,
            role=Role(form.cleaned_data["role"]),
        )
    except LastAdmin:
        _say_last_admin(request)
    else:
        role = Member.Role(changed.role).label
        text = _("%(email)s is %(role)s from now on.")
        messages.success(request, text % {"email": changed.user.email, "role": role})
        if changed.user == request.user and changed.role != Role.ADMIN:
            return redirect("portal-overview", tenant=request.tenant.slug)
    return _back(request)


@changes(needs=Role.ADMIN)
def remove(request: PortalRequest, member: str) -> HttpResponse:
    try:
        removed = members.remove_member(
            actor=request.actor, tenant=request.tenant, member_id=access.id_of(ids.MEMBER, member)
        )
    except LastAdmin:
        _say_last_admin(request)
        return _back(request)
    messages.success(request, _("%(email)s is no member any more.") % {"email": removed.user.email})
    return redirect("portal-home") if removed.user == request.user else _back(request)


@changes(needs=Role.ADMIN)
def send_again(request: PortalRequest, invitation: str) -> HttpResponse:
    try:
        invitations.send_again(
            actor=request.actor,
            tenant=request.tenant,
            invitation_id=access.id_of(ids.INVITATION, invitation),
        )
    except TooManyInvitations as error:
        messages.error(request, wait_text(error))
    else:
        messages.success(request, _("The invitation is sent again. The link of the earlier e-mail is over."))
    return _back(request)


@changes(needs=Role.ADMIN)
def end_invitation(request: PortalRequest, invitation: str) -> HttpResponse:
    invitations.end(
        actor=request.actor, tenant=request.tenant, invitation_id=access.id_of(ids.INVITATION, invitation)
    )
    messages.success(request, _("The invitation is over. Its link does not work any more."))
    return _back(request)


def _say_last_admin(request: PortalRequest) -> None:
    messages.error(request, _("This is the only admin. Make somebody else an admin first."))


def _back(request: PortalRequest) -> HttpResponse:
    return redirect("portal-members", tenant=request.tenant.slug)
