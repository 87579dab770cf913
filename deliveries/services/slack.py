"""Where a tenant's notices go beside e-mail: a Slack-compatible incoming webhook. Called by the API and the portal."""

from urllib.parse import urlsplit

from django.db import transaction
from django.db.models.functions import Now

from deliveries.models import SlackHook
from deliveries.sealed import open_slack_url, seal_slack_url
from tenants import ids
from tenants.models import Tenant
from tenants.services import audit
from tenants.services.audit import Actor


def shown_url(tenant: Tenant) -> str | None:
    """Scheme and host alone: the rest opens the channel."""
    hook = SlackHook.objects.for_tenant(tenant).first()
    if hook is None:
        return None
    return _shown(open_slack_url(tenant_id=tenant.id, sealed=bytes(hook.encrypted)))


def set_url(*, actor: Actor, tenant: Tenant, url: str | None) -> None:
    """None: none any more. `url` was judged by `endpoint_settings.url`."""
    rows = SlackHook.objects.for_tenant(tenant)
    with transaction.atomic():
        old = rows.select_for_update().first()
        if url is None:
            rows.delete()
        else:
            fields = {"encrypted": seal_slack_url(url, tenant_id=tenant.id), "updated_at": Now()}
            rows.update_or_create(defaults=fields, create_defaults={**fields, "tenant": tenant})
        if old is None and url is None:
            return
        audit.record(
            actor=actor,
            tenant=tenant,
            action="notifications.slack_changed",
            target=ids.to_text(ids.TENANT, tenant.id),
            before={"has_slack": old is not None},
            after={"slack_url": None if url is None else _shown(url)},
        )


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/***"
