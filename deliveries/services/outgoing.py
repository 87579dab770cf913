"""The transport as the settings have it: for deliveries, and for everything else that goes to customers' addresses."""

from django.conf import settings

from deliveries.pipeline.address_guard import AddressGuard
from deliveries.pipeline.transport import Transport, open_transport


def open_configured_transport(capacity: int) -> Transport:
    guard = AddressGuard(settings.WEBHOOKS_ALLOWED_NETWORKS, settings.WEBHOOKS_OWN_PORTS)
    return open_transport(
        settings.WEBHOOKS_TRANSPORT,
        guard=guard,
        max_in_flight=capacity,
        dns_servers=settings.WEBHOOKS_DNS_SERVERS,
        verify_ca=settings.WEBHOOKS_CA_FILE or None,
        max_connections=2 * capacity,
        proxy=settings.WEBHOOKS_EGRESS_PROXY or None,
    )
