"""For commands that name a tenant."""

from django.core.management import CommandError

from tenants.models import Tenant


def tenant_of(slug: str) -> Tenant:
    tenant = None
    # Others are no slugs, and of a terminal that speaks no UTF-8 the database could not be asked for them.
    if slug.isascii():
        tenant = Tenant.objects.filter(slug=slug, deleted_at__isnull=True).first()
    if tenant is None:
        raise CommandError(f"There is no tenant {slug}.")
    return tenant
