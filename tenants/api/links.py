"""Links of the document: from a reply that names something to the operations that take it. Called by `schema.py`.

A person sees what to do next with what came back; tools walk the API by them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tenants.api.fields import AnySchema


class Named(NamedTuple):
    """Where a reply names something: the operation, and the place in the reply's body."""

    operation: str
    pointer: str = "/id"
    status: str = ""
    """Of the reply that has it; empty: of every success."""


FIRST = "/data/0/id"
"""Of a list. A list leads to what shows its items; what changes them is reached from there."""

NAMED: Mapping[str, Sequence[Named]] = {
    "tenant": (Named("create_tenant"), Named("put_tenant", status="201"), Named("list_tenants", FIRST)),
    "key": (Named("create_api_key"), Named("list_api_keys", FIRST)),
    "link": (Named("create_portal_link"),),
    "name": (
        Named("create_event_type", "/name"),
        Named("list_event_types", "/data/0/name"),
        Named("create_shared_event_type", "/name"),
        Named("list_shared_event_types", "/data/0/name"),
    ),
    "endpoint": (
        Named("create_endpoint"),
        Named("put_endpoint", status="201"),
        Named("list_endpoints", FIRST),
        Named("list_deliveries", "/data/0/endpoint"),
    ),
    "subscription": (Named("create_subscription"), Named("list_subscriptions", FIRST)),
    "event": (
        Named("publish_event"),
        Named("publish_events", FIRST),
        Named("list_events", FIRST),
        Named("test_endpoint", "/event"),
        Named("get_delivery", "/event"),
    ),
    "delivery": (
        Named("test_endpoint"),
        Named("list_deliveries", FIRST),
        Named("list_event_deliveries", FIRST),
        Named("replay_event", FIRST),
    ),
    "source": (Named("create_source"), Named("list_sources", FIRST)),
    "incoming": (Named("list_incoming_requests", FIRST),),
    "job": (Named("recover_endpoint"), Named("replay_endpoint", status="202"), Named("list_jobs", FIRST)),
}
"""By the parameter that takes the name."""

OF_A_TENANT = (
    "get_tenant",
    "update_tenant",
    "delete_tenant",
    "create_api_key",
    "create_event_type",
    "create_endpoint",
    "create_portal_link",
    "create_source",
    "list_sources",
    "publish_event",
    "list_event_types",
    "list_endpoints",
    "list_events",
    "list_deliveries",
)
"""Nearly everything is below a tenant; these are what one begins with."""


def add_links(paths: Mapping[str, Any]) -> None:
    """To every reply that names something, a link to each operation that takes it as the last name of its path."""
    operations = {each.id: each for each in _operations(paths)}
    for parameter, places in NAMED.items():
        for place in places:
            for target in operations.values():
                if _leads(place, operations[place.operation], target, parameter):
                    _add(place, operations[place.operation], target, parameter)


class _Operation(NamedTuple):
    id: str
    method: str
    names: list[str]
    """Those in its path."""
    described: AnySchema


def _operations(paths: Mapping[str, Any]) -> Iterator[_Operation]:
    for path, item in paths.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        for method, described in item.items():
            yield _Operation(described["operationId"], method, names, described)


def _leads(place: Named, source: _Operation, target: _Operation, parameter: str) -> bool:
    if target.id == source.id or target.method == "put":
        return False
    if place.pointer.startswith("/data/") and target.method != "get":
        return False
    if parameter == "tenant":
        return target.id in OF_A_TENANT
    is_known = target.names[-1:] == [parameter] and set(target.names[:-1]) <= set(source.names)
    # The names of the platform's event types and of a tenant's are the same parameter.
    return is_known and ("tenant" in target.names) == ("tenant" in source.names)


def _add(place: Named, source: _Operation, target: _Operation, parameter: str) -> None:
    parameters = {name: f"$request.path.{name}" for name in target.names if name != parameter}
    parameters[parameter] = f"$response.body#{place.pointer}"
    for status, response in source.described["responses"].items():
        if status == place.status or (not place.status and status.startswith("2")):
            link = {"operationId": target.id, "parameters": parameters}
            response.setdefault("links", {})[target.id] = link
