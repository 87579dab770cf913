"""The paths of this app below `/api/v1/`."""

from django.urls import path

from deliveries.api import (
    arrivals,
    deliveries,
    endpoints,
    events,
    explain,
    jobs,
    notifications,
    polling,
    secrets,
    sources,
    stats,
    subscriptions,
    trying,
)
from deliveries.api.publish import publish_batch, publish_or

ENDPOINTS = "tenants/<str:tenant>/endpoints"
ENDPOINT = f"{ENDPOINTS}/<str:endpoint>"
EVENTS = "tenants/<str:tenant>/events"
EVENT = f"{EVENTS}/<str:event>"
DELIVERIES = "tenants/<str:tenant>/deliveries"
DELIVERY = f"{DELIVERIES}/<str:delivery>"
JOBS = "tenants/<str:tenant>/jobs"
JOB = f"{JOBS}/<str:job>"
SOURCES = "tenants/<str:tenant>/sources"
SOURCE = f"{SOURCES}/<str:source>"
INCOMING = f"{SOURCE}/requests/<str:incoming>"

urlpatterns = [
    # First what is asked most: each path before it is a pattern that a publish is compared with.
    path(EVENTS, events.past_rest_framework(publish_or(events.EventsView.as_view()), events.EventsView)),
    path(f"{EVENTS}/batch", events.past_rest_framework(publish_batch, events.EventBatchView)),
    path(ENDPOINTS, endpoints.EndpointsView.as_view()),
    path(ENDPOINT, endpoints.EndpointView.as_view()),
    path(f"{ENDPOINT}/enable", endpoints.EnableView.as_view()),
    path(f"{ENDPOINT}/disable", endpoints.DisableView.as_view()),
    path(f"{ENDPOINT}/secret", secrets.SecretView.as_view()),
    path(f"{ENDPOINT}/secret/rotate", secrets.RotateView.as_view()),
    path(f"{ENDPOINT}/test", trying.EndpointTestView.as_view()),
    path(f"{ENDPOINT}/subscriptions", subscriptions.SubscriptionsView.as_view()),
    path(f"{ENDPOINT}/subscriptions/test", trying.MatchView.as_view()),
    path(f"{ENDPOINT}/subscriptions/transform", trying.TransformView.as_view()),
    path(f"{ENDPOINT}/subscriptions/<str:subscription>", subscriptions.SubscriptionView.as_view()),
    path(f"{ENDPOINT}/recover", jobs.RecoverView.as_view()),
    path(f"{ENDPOINT}/replay", jobs.ReplayView.as_view()),
    path(f"{ENDPOINT}/poll", polling.PollView.as_view()),
    path(f"{ENDPOINT}/stats", stats.StatsView.as_view()),
    path("tenants/<str:tenant>/notifications", notifications.NotificationsView.as_view()),
    path(JOBS, jobs.JobsView.as_view()),
    path(JOB, jobs.JobView.as_view()),
    path(f"{JOB}/cancel", jobs.CancelJobView.as_view()),
    path(EVENT, events.EventView.as_view()),
    path(f"{EVENT}/deliveries", events.EventDeliveriesView.as_view()),
    path(f"{EVENT}/replay", events.EventReplayView.as_view()),
    path(f"{EVENT}/data", events.EventDataView.as_view()),
    path(f"{EVENT}/explain", explain.ExplainView.as_view()),
    path(DELIVERIES, deliveries.DeliveriesView.as_view()),
    path(DELIVERY, deliveries.DeliveryView.as_view()),
    path(f"{DELIVERY}/attempts", deliveries.AttemptsView.as_view()),
    path(f"{DELIVERY}/retry", deliveries.RetryView.as_view()),
    path(f"{DELIVERY}/cancel", deliveries.CancelView.as_view()),
    path(SOURCES, sources.SourcesView.as_view()),
    path(SOURCE, sources.SourceView.as_view()),
    path(f"{SOURCE}/url/rotate", sources.TokenView.as_view()),
    path(f"{SOURCE}/requests", arrivals.IncomingRequestsView.as_view()),
    path(f"{SOURCE}/rerun", arrivals.RunAllAgainView.as_view()),
    path(INCOMING, arrivals.IncomingRequestView.as_view()),
    path(f"{INCOMING}/rerun", arrivals.RunAgainView.as_view()),
    path(f"{INCOMING}/data", arrivals.IncomingDataView.as_view()),
]
