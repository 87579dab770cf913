"""The admin of tenants, for operators. History is read-only; what changes something calls the services, and is audited."""

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from tenants import ids
from tenants.models import ApiKey, AuditEntry, EventType, Tenant, User
from tenants.services import keys, tenants
from tenants.services.audit import Actor


def actor_of(request: HttpRequest) -> Actor:
    assert isinstance(request.user, User)
    return Actor(
        "operator",
        ids.to_text(ids.USER, request.user.id),
        request.user.email,
        request.META.get("REMOTE_ADDR") or None,
        getattr(request, "request_id", ""),
    )


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # Django's class takes none at run time
    """Looked at here, changed through the API or an action."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002 - Django's
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:  # noqa: ARG002
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Of actions: seeing is not enough."""
        return isinstance(request.user, User) and request.user.is_superuser


@admin.register(Tenant)
class TenantAdmin(ReadOnlyAdmin):
    list_display = ["slug", "name", "status", "created_at", "deleted_at"]
    list_filter = ["status"]
    search_fields = ["slug", "name"]
    ordering = ["-id"]
    actions = ["suspend", "resume"]

    @admin.action(description=_("Suspend: refuse publishes, hold deliveries"), permissions=["operate"])
    def suspend(self, request: HttpRequest, queryset: "QuerySet[Tenant]") -> None:
        self._set_status(request, queryset, Tenant.Status.SUSPENDED)

    @admin.action(description=_("Resume: deliver what was held"), permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: "QuerySet[Tenant]") -> None:
        self._set_status(request, queryset, Tenant.Status.ACTIVE)

    def _set_status(self, request: HttpRequest, queryset: "QuerySet[Tenant]", status: str) -> None:
        for tenant in queryset.filter(deleted_at__isnull=True):
            tenants.update_tenant(actor=actor_of(request), tenant=tenant, status=status)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ["prefix", "name", "tenant", "expires_at", "revoked_at", "last_used_at"]
    list_select_related = ["tenant"]
    fields = ["prefix", "name", "tenant", "scopes", "rate_limit", "expires_at", "revoked_at", "last_used_at"]
    search_fields = ["prefix", "name", "tenant__slug"]
    ordering = ["-id"]
    actions = ["revoke"]

    @admin.action(description=_("Revoke"), permissions=["operate"])
    def revoke(self, request: HttpRequest, queryset: "QuerySet[ApiKey]") -> None:
        for key in queryset.filter(revoked_at__isnull=True).select_related("tenant"):
            keys.revoke_key(actor=actor_of(request), tenant=key.tenant, key_id=key.id)


@admin.register(EventType)
class EventTypeAdmin(ReadOnlyAdmin):
    list_display = ["name", "tenant", "group", "archived_at"]
    list_select_related = ["tenant"]
    search_fields = ["name", "tenant__slug"]
    ordering = ["-id"]


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ["created_at", "tenant", "actor_kind", "actor", "action", "target", "remote_ip"]
    list_select_related = ["tenant"]
    list_filter = ["actor_kind"]
    search_fields = ["tenant__slug", "action", "target", "request_id"]
    ordering = ["-id"]
