"""People, members, keys and portal links in the admin. Of keys and links no more is shown than tells them apart."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from tenants import ids
from tenants.admin.base import Action, Column, Link, OfTenant, OperatorAdmin, Sheet, Table
from tenants.admin.show import NOTHING, act_url, code, link, list_url, page_url, state, when
from tenants.admin.tenants import tenant_link
from tenants.models import ApiKey, Member, PortalLink, User
from tenants.services import two_factor

# --- people -----------------------------------------------------------------------------------------------------------


class UserFilter(forms.Form):
    email = forms.CharField(
        label=gettext_lazy("Beginning of the e-mail address"), required=False, max_length=254
    )
    is_staff = forms.BooleanField(label=gettext_lazy("Only operators"), required=False)


def user_link(user: User) -> object:
    return link(page_url("tenants_user", user.id), user.email)


def kind_of(user: User) -> str:
    if not user.is_staff:
        return _("member")
    return _("operator") if user.is_superuser else _("operator who looks")


@admin.register(User)
class UserAdmin(OperatorAdmin):
    filters = UserFilter
    columns = [
        Column(gettext_lazy("E-mail address"), user_link),
        Column(gettext_lazy("Name"), lambda user: user.name),
        Column(gettext_lazy("Kind"), kind_of),
        Column(gettext_lazy("State"), lambda user: state("active" if user.is_active else "disabled")),
        Column(gettext_lazy("Last sign-in"), lambda user: when(user.last_login)),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[User]":
        rows = User.objects.all()
        if wanted.get("email"):
            rows = rows.filter(email__startswith=wanted["email"].lower())
        return rows.filter(is_staff=True) if wanted.get("is_staff") else rows

    def get(self, key: UUID) -> User | None:
        return User.objects.filter(id=key).first()

    def sheet(self, row: User) -> Sheet:
        members = row.memberships.select_related("tenant").order_by("-id")[:50]
        return Sheet(
            title=row.email,
            facts=[
                (_("Name"), row.name or NOTHING),
                (_("Id"), code(ids.to_text(ids.USER, row.id))),
                (_("Kind"), kind_of(row)),
                (_("State"), state("active" if row.is_active else "disabled")),
                (_("Second factor"), _("on") if two_factor.is_on(row) else _("off")),
                (_("Last sign-in"), when(row.last_login)),
                (_("Made"), when(row.created_at)),
            ],
            actions=_account_actions(row),
            tables=[
                Table(
                    _("Tenants"),
                    [_("Tenant"), _("Role"), _("Since")],
                    [[tenant_link(each.tenant), each.role, when(each.created_at)] for each in members],
                    empty=_("Of no tenant."),
                )
            ],
        )


def _account_actions(row: User) -> list[Action]:
    chosen = {"ids": row.id}
    if not row.is_active:
        return [Action(_("Open account…"), act_url("open-account", **chosen))]
    return [
        Action(_("Send a password reset…"), act_url("send-reset", **chosen)),
        Action(_("Reset the second factor…"), act_url("second-factor-off", **chosen), is_severe=True),
        Action(_("Close account…"), act_url("close-account", **chosen), is_severe=True),
    ]


class MemberFilter(OfTenant):
    pass


@admin.register(Member)
class MemberAdmin(OperatorAdmin):
    filters = MemberFilter
    columns = [
        Column(gettext_lazy("Person"), lambda member: user_link(member.user)),
        Column(gettext_lazy("Tenant"), lambda member: tenant_link(member.tenant)),
        Column(gettext_lazy("Role"), lambda member: member.role),
        Column(gettext_lazy("Since"), lambda member: when(member.created_at)),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[Member]":
        rows: QuerySet[Member] = Member.unscoped.select_related("tenant", "user")
        return rows.filter(tenant=wanted["tenant"]) if wanted.get("tenant") else rows

    def get(self, key: UUID) -> Member | None:
        row: Member | None = Member.unscoped.select_related("tenant", "user").filter(id=key).first()
        return row

    def sheet(self, row: Member) -> Sheet:
        return Sheet(
            title=row.user.email,
            facts=[
                (_("Person"), user_link(row.user)),
                (_("Tenant"), tenant_link(row.tenant)),
                (_("Role"), row.role),
                (_("Since"), when(row.created_at)),
            ],
        )


# --- ways in ----------------------------------------------------------------------------------------------------------


def ending(at: datetime | None, ended_at: datetime | None) -> object:
    if ended_at is not None:
        return state("revoked")
    return state("expired" if at is not None and at <= timezone.now() else "active")


@admin.register(ApiKey)
class ApiKeyAdmin(OperatorAdmin):
    filters = OfTenant
    columns = [
        Column(gettext_lazy("Key"), lambda key: link(page_url("tenants_apikey", key.id), f"{key.prefix}…")),
        Column(gettext_lazy("Name"), lambda key: key.name),
        Column(
            gettext_lazy("Tenant"),
            lambda key: _("the operators'") if key.tenant is None else tenant_link(key.tenant),
        ),
        Column(gettext_lazy("State"), lambda key: ending(key.expires_at, key.revoked_at)),
        Column(gettext_lazy("Last used"), lambda key: when(key.last_used_at)),
    ]
    bulk_actions: ClassVar = [("revoke-key", gettext_lazy("Revoke"))]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[ApiKey]":
        rows = ApiKey.objects.select_related("tenant").defer("hash")
        return rows.filter(tenant=wanted["tenant"]) if wanted.get("tenant") else rows

    def get(self, key: UUID) -> ApiKey | None:
        return ApiKey.objects.select_related("tenant").defer("hash").filter(id=key).first()

    def sheet(self, row: ApiKey) -> Sheet:
        is_live = row.revoked_at is None
        return Sheet(
            title=f"{row.prefix}…",
            facts=[
                (_("Name"), row.name),
                (_("Id"), code(ids.to_text(ids.API_KEY, row.id))),
                (_("Tenant"), _("the operators'") if row.tenant is None else tenant_link(row.tenant)),
                (_("State"), ending(row.expires_at, row.revoked_at)),
                (_("Scopes"), ", ".join(row.scopes) or (_("everything") if row.tenant is None else NOTHING)),
                (_("Requests a minute"), str(row.rate_limit or NOTHING)),
                (_("Made"), when(row.created_at)),
                (_("Expires"), when(row.expires_at)),
                (_("Revoked"), when(row.revoked_at)),
                (_("Last used"), when(row.last_used_at)),
            ],
            links=[]
            if row.tenant is None
            else [Link(_("Its tenant's audit log"), list_url("tenants_auditentry", tenant=row.tenant.slug))],
            actions=[Action(_("Revoke…"), act_url("revoke-key", ids=row.id), is_severe=True)]
            if is_live
            else [],
        )


@admin.register(PortalLink)
class PortalLinkAdmin(OperatorAdmin):
    filters = OfTenant
    columns = [
        Column(
            gettext_lazy("Made"),
            lambda row: link(page_url("tenants_portallink", row.id), when(row.created_at)),
        ),
        Column(gettext_lazy("Tenant"), lambda row: tenant_link(row.tenant)),
        Column(gettext_lazy("For"), lambda row: row.email or NOTHING),
        Column(gettext_lazy("Role"), lambda row: row.role),
        Column(gettext_lazy("Used"), lambda row: when(row.used_at)),
        Column(
            gettext_lazy("State"), lambda row: ending(None if row.used_at else row.expires_at, row.ended_at)
        ),
    ]

    def find(self, wanted: dict[str, Any]) -> "QuerySet[PortalLink]":
        rows: QuerySet[PortalLink] = PortalLink.unscoped.select_related("tenant").defer("hash")
        return rows.filter(tenant=wanted["tenant"]) if wanted.get("tenant") else rows

    def get(self, key: UUID) -> PortalLink | None:
        row: PortalLink | None = (
            PortalLink.unscoped.select_related("tenant").defer("hash").filter(id=key).first()
        )
        return row

    def sheet(self, row: PortalLink) -> Sheet:
        return Sheet(
            title=_("Portal link"),
            facts=[
                (_("Id"), code(ids.to_text(ids.PORTAL_LINK, row.id))),
                (_("Tenant"), tenant_link(row.tenant)),
                (_("For"), row.email or NOTHING),
                (_("Role"), row.role),
                (_("Made"), when(row.created_at)),
                (_("Until"), when(row.expires_at)),
                (_("Used"), when(row.used_at)),
                (_("Ended"), when(row.ended_at)),
            ],
        )
