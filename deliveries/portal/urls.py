"""`/portal/<tenant>/…`: what a tenant sees of its webhooks."""

from django.urls import path

from deliveries.portal import deliveries, endpoints, events, overview, trying

urlpatterns = [
    path("<str:tenant>/", overview.overview, name="portal-overview"),
    path("<str:tenant>/endpoints", endpoints.listing, name="portal-endpoints"),
    path("<str:tenant>/endpoints/new", endpoints.create, name="portal-endpoint-new"),
    path("<str:tenant>/endpoints/<str:endpoint>/edit", endpoints.edit, name="portal-endpoint-edit"),
    path("<str:tenant>/endpoints/<str:endpoint>/enable", endpoints.enable, name="portal-endpoint-enable"),
    path("<str:tenant>/endpoints/<str:endpoint>/disable", endpoints.disable, name="portal-endpoint-disable"),
    path("<str:tenant>/endpoints/<str:endpoint>/delete", endpoints.delete, name="portal-endpoint-delete"),
    path("<str:tenant>/endpoints/<str:endpoint>/secret", endpoints.secret, name="portal-endpoint-secret"),
    path("<str:tenant>/endpoints/<str:endpoint>/test", trying.send_test, name="portal-endpoint-test"),
    path("<str:tenant>/endpoints/<str:endpoint>", endpoints.detail, name="portal-endpoint"),
    path("<str:tenant>/events", events.listing, name="portal-events"),
    path("<str:tenant>/events/<str:event>", events.detail, name="portal-event"),
    path("<str:tenant>/events/<str:event>/replay", events.replay, name="portal-event-replay"),
    path("<str:tenant>/deliveries", deliveries.listing, name="portal-deliveries"),
    path("<str:tenant>/deliveries/<str:delivery>", deliveries.detail, name="portal-delivery"),
    path(
        "<str:tenant>/deliveries/<str:delivery>/progress",
        deliveries.progress,
        name="portal-delivery-progress",
    ),
    path("<str:tenant>/deliveries/<str:delivery>/retry", deliveries.retry, name="portal-delivery-retry"),
    path("<str:tenant>/deliveries/<str:delivery>/cancel", deliveries.cancel, name="portal-delivery-cancel"),
]
