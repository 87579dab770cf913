"""Every URL of the platform, by area."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("api/v1/", include("tenants.api.urls")),
    path("api/v1/", include("deliveries.api.urls")),
    path("admin/", admin.site.urls),
]
