"""What an operator's action is done to: a list of ids, or whatever a filter finds. Called by the admin and `bulk`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Min, Model, QuerySet
from django.db.models.functions import Least

from deliveries.models import BulkAction, Delivery, Endpoint, Event, Job
from deliveries.services import deliveries, hosts
from deliveries.services.bulk_actions import Action, Target
from tenants import ids
from tenants.models import ApiKey, Tenant, User

MOST_COUNTED: Final = 10_000
"""What is chosen is counted so far; the number then means: at least."""


def chosen(action: Action, selection: dict[str, Any]) -> "QuerySet[Any]":
    """By key, the first one first. A selection is a list of ids, or what filters a list."""
    match action.target:
        case Target.TENANT:
            rows: QuerySet[Any] = Tenant.objects.filter(deleted_at__isnull=True)
        case Target.KEY:
            rows = ApiKey.objects.select_related("tenant").filter(revoked_at__isnull=True)
        case Target.USER:
            rows = User.objects.all()
        case Target.ENDPOINT:
            rows = Endpoint.unscoped.filter(deleted_at__isnull=True).select_related("tenant")
            if "host" in selection:
                rows = hosts.endpoints_of_host(selection["host"]).select_related("tenant")
        case Target.EVENT:
            rows = Event.unscoped.defer("data").select_related("tenant")
        case Target.DELIVERY:
            rows = Delivery.unscoped.defer(*deliveries.BODIES)
            if "tenant" in selection:
                rows = _found_deliveries(selection)
        case Target.JOB:
            rows = Job.unscoped.all()
        case Target.BULK:
            rows = BulkAction.objects.all()
    if "ids" in selection:
        rows = rows.filter(id__in=[UUID(each) for each in selection["ids"]])
    elif not selection.keys() & {"host", "tenant"}:
        rows = rows.none()
    return rows.order_by("id")


def _found_deliveries(selection: dict[str, Any]) -> "QuerySet[Delivery]":
    """Those of a tenant that were made before the action began."""
    endpoint = selection.get("endpoint")
    return deliveries.find_deliveries(
        Tenant.objects.get(id=selection["tenant"]),
        endpoint_id=None if endpoint is None else UUID(endpoint),
        status=selection["status"],
        outcome=selection.get("outcome"),
        event_type=selection.get("event_type"),
        until=datetime.fromisoformat(selection["until"]),
    )


def count(action: Action, selection: dict[str, Any]) -> int:
    """As far as MOST_COUNTED."""
    return chosen(action, selection).values("id")[:MOST_COUNTED].count()


def examples_of(action: Action, selection: dict[str, Any], *, most: int) -> Sequence[Model]:
    return list(chosen(action, selection)[:most])


def trouble_began(action: Action, selection: dict[str, Any]) -> datetime | None:
    """Of endpoints: since when the first of them fails, or misses something."""
    rows = chosen(action, selection).annotate(since=Least("missed_since", "lane__failing_since"))
    found: datetime | None = rows.values("since")[:MOST_COUNTED].aggregate(first=Min("since"))["first"]
    return found


def selection_of_deliveries(
    *,
    tenant: Tenant,
    status: str,
    endpoint_id: UUID | None,
    outcome: str | None,
    event_type: str | None,
    now: datetime,
) -> dict[str, Any]:
    found: dict[str, Any] = {"tenant": str(tenant.id), "status": status, "until": now.isoformat()}
    if endpoint_id is not None:
        found["endpoint"] = str(endpoint_id)
    if outcome:
        found["outcome"] = outcome
    if event_type:
        found["event_type"] = event_type
    return found


def shown_id(target: Target, key: UUID) -> str:
    """As the API spells it, where it does."""
    prefixes = {
        Target.TENANT: ids.TENANT,
        Target.KEY: ids.API_KEY,
        Target.USER: ids.USER,
        Target.ENDPOINT: ids.ENDPOINT,
        Target.EVENT: ids.EVENT,
        Target.DELIVERY: ids.DELIVERY,
        Target.JOB: ids.JOB,
    }
    prefix = prefixes.get(target)
    return str(key) if prefix is None else ids.to_text(prefix, key)
