"""The one row scope: rows of a tenant are reached through `.objects.for_tenant(tenant)` and no other way.

Every model whose rows belong to a tenant uses `TenantManager` as `objects`; asking it for anything else raises.
`unscoped` is the bypass, allowed in the short list that `tests/architecture/test_scoping.py` holds.
"""

from typing import Any, NoReturn, Self, TypeVar
from uuid import UUID

from django.db import models

Row_co = TypeVar("Row_co", bound=models.Model, covariant=True)


class UnscopedQuery(RuntimeError):
    """Rows of a tenant were asked for without saying whose."""


class TenantQuerySet(models.QuerySet[Row_co]):
    def newest_first(self) -> Self:
        """By key: UUIDv7 keys rise with time and are unique."""
        return self.order_by("-id")


class TenantManager(models.Manager[Row_co]):
    """The one door. Only `for_tenant` leads to rows."""

    def for_tenant(self, tenant: "models.Model | UUID") -> TenantQuerySet[Row_co]:
        tenant_id = tenant if isinstance(tenant, UUID) else tenant.pk
        return self._unscoped().filter(tenant_id=tenant_id)

    def _unscoped(self) -> TenantQuerySet[Row_co]:
        return TenantQuerySet(self.model, using=self._db)

    def get_queryset(self) -> NoReturn:
        raise UnscopedQuery(
            f"{self.model.__name__}.objects knows no tenant: use .objects.for_tenant(tenant), "
            "or .unscoped where tests/architecture/test_scoping.py allows it."
        )


class UnscopedManager(models.Manager[Row_co]):
    """The bypass, named so that one can grep for it."""

    def get_queryset(self) -> TenantQuerySet[Row_co]:
        return TenantQuerySet(self.model, using=self._db)


class TenantOwned(models.Model):
    """Base of everything that belongs to a tenant. Fields and flow stay with the models themselves."""

    # Django's own machinery (cascades, validation of foreign keys, the admin) uses the base manager.
    unscoped: UnscopedManager[Any] = UnscopedManager()
    objects: TenantManager[Any] = TenantManager()

    class Meta:
        abstract = True
        base_manager_name = "unscoped"
        default_manager_name = "unscoped"
