"""The paths of this app below `/api/v1/`."""

from django.urls import path

from deliveries.api import endpoints, secrets, subscriptions

ENDPOINTS = "tenants/<str:tenant>/endpoints"
ENDPOINT = f"{ENDPOINTS}/<str:endpoint>"

urlpatterns = [
    path(ENDPOINTS, endpoints.EndpointsView.as_view()),
    path(ENDPOINT, endpoints.EndpointView.as_view()),
    path(f"{ENDPOINT}/enable", endpoints.EnableView.as_view()),
    path(f"{ENDPOINT}/disable", endpoints.DisableView.as_view()),
    path(f"{ENDPOINT}/secret", secrets.SecretView.as_view()),
    path(f"{ENDPOINT}/secret/rotate", secrets.RotateView.as_view()),
    path(f"{ENDPOINT}/subscriptions", subscriptions.SubscriptionsView.as_view()),
    path(f"{ENDPOINT}/subscriptions/<str:subscription>", subscriptions.SubscriptionView.as_view()),
]
