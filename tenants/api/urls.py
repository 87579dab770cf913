"""The paths of this app below `/api/v1/`."""

from django.urls import path

from tenants.api.whoami import WhoAmIView

urlpatterns = [
    path("whoami", WhoAmIView.as_view()),
]
