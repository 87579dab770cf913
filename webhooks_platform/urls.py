"""Every URL of the platform, by area."""

from django.contrib import admin
from django.urls import include, path

from deliveries.api import receiving
from tenants.portal.urls import catalogue_urlpatterns
from webhooks_platform import health, metrics, openapi

urlpatterns = [
    path("api/v1/", include("deliveries.api.urls")),
    path("api/v1/", include("tenants.api.urls")),
    path("api/v1/openapi.json", openapi.openapi_json, name="openapi"),
    path("api/docs", openapi.docs, name="api-docs"),
    path("in/<str:token>", receiving.receive),
    path("portal/", include("tenants.portal.urls")),
    path("catalogue/", include(catalogue_urlpatterns)),
    path("portal/", include("deliveries.portal.urls")),
    path("health/live", health.live),
    path("health/ready", health.ready),
    path("metrics", metrics.metrics),
    path("admin/", admin.site.urls),
]

handler400 = "tenants.portal.errors.bad_request"
handler403 = "tenants.portal.errors.refused"
handler404 = "tenants.portal.errors.not_found"
handler500 = "tenants.portal.errors.server_error"
