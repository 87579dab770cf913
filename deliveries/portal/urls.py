"""`/portal/<tenant>/…`: what a tenant sees of its webhooks."""

from django.urls import path

from deliveries.portal import (
    deliveries,
    endpoint_secrets,
    endpoints,
    events,
    history,
    jobs,
    live,
    overview,
    stopping,
    subscriptions,
    trying,
)

urlpatterns = [
    path("<str:tenant>/", overview.overview, name="portal-overview"),
    path("<str:tenant>/endpoints", endpoints.listing, name="portal-endpoints"),
    path("<str:tenant>/endpoints/new", endpoints.create, name="portal-endpoint-new"),
    path("<str:tenant>/endpoints/<str:endpoint>/edit", endpoints.edit, name="portal-endpoint-edit"),
    path("<str:tenant>/endpoints/<str:endpoint>/enable", stopping.enable, name="portal-endpoint-enable"),
    path("<str:tenant>/endpoints/<str:endpoint>/disable", stopping.disable, name="portal-endpoint-disable"),
    path("<str:tenant>/endpoints/<str:endpoint>/delete", stopping.delete, name="portal-endpoint-delete"),
    path("<str:tenant>/endpoints/<str:endpoint>/restore", stopping.restore, name="portal-endpoint-restore"),
    path("<str:tenant>/endpoints/<str:endpoint>/missed", stopping.send_missed, name="portal-endpoint-missed"),
    path(
        "<str:tenant>/endpoints/<str:endpoint>/secret", endpoint_secrets.secret, name="portal-endpoint-secret"
    ),
    path(
        "<str:tenant>/endpoints/<str:endpoint>/secret/rotate",
        endpoint_secrets.rotate,
        name="portal-endpoint-rotate",
    ),
    path(
        "<str:tenant>/endpoints/<str:endpoint>/subscriptions/new",
        subscriptions.create,
        name="portal-subscription-new",
    ),
    path(
        "<str:tenant>/endpoints/<str:endpoint>/subscriptions/try",
        subscriptions.try_out,
        name="portal-subscription-try",
    ),
    path(
        "<str:tenant>/endpoints/<str:endpoint>/subscriptions/<str:subscription>",
        subscriptions.edit,
        name="portal-subscription",
    ),
    path(
        "<str:tenant>/endpoints/<str:endpoint>/subscriptions/<str:subscription>/delete",
        subscriptions.delete,
        name="portal-subscription-delete",
    ),
    path("<str:tenant>/endpoints/<str:endpoint>/test", trying.send_test, name="portal-endpoint-test"),
    path("<str:tenant>/endpoints/<str:endpoint>/again", jobs.again, name="portal-endpoint-again"),
    path("<str:tenant>/endpoints/<str:endpoint>", endpoints.detail, name="portal-endpoint"),
    path("<str:tenant>/events", events.listing, name="portal-events"),
    path("<str:tenant>/events/export", history.export, {"kind": "events"}, name="portal-events-export"),
    path(
        "<str:tenant>/events/export/job",
        history.export_by_job,
        {"kind": "events"},
        name="portal-events-export-job",
    ),
    path("<str:tenant>/events/<str:event>", events.detail, name="portal-event"),
    path("<str:tenant>/events/<str:event>/replay", events.replay, name="portal-event-replay"),
    path("<str:tenant>/attempts/<str:attempt>", deliveries.attempt, name="portal-attempt"),
    path("<str:tenant>/live", live.page, name="portal-live"),
    path("<str:tenant>/live/rows", live.rows, name="portal-live-rows"),
    path("<str:tenant>/jobs", jobs.listing, name="portal-jobs"),
    path("<str:tenant>/jobs/<str:job>", jobs.detail, name="portal-job"),
    path("<str:tenant>/jobs/<str:job>/progress", jobs.progress, name="portal-job-progress"),
    path("<str:tenant>/jobs/<str:job>/cancel", jobs.cancel, name="portal-job-cancel"),
    path("<str:tenant>/jobs/<str:job>/file", jobs.file, name="portal-job-file"),
    path("<str:tenant>/deliveries", deliveries.listing, name="portal-deliveries"),
    path(
        "<str:tenant>/deliveries/export",
        history.export,
        {"kind": "deliveries"},
        name="portal-deliveries-export",
    ),
    path(
        "<str:tenant>/deliveries/export/job",
        history.export_by_job,
        {"kind": "deliveries"},
        name="portal-deliveries-export-job",
    ),
    path("<str:tenant>/deliveries/picked", deliveries.change_picked, name="portal-deliveries-picked"),
    path("<str:tenant>/deliveries/everything", history.everything, name="portal-deliveries-everything"),
    path("<str:tenant>/deliveries/<str:delivery>", deliveries.detail, name="portal-delivery"),
    path(
        "<str:tenant>/deliveries/<str:delivery>/progress",
        deliveries.progress,
        name="portal-delivery-progress",
    ),
    path("<str:tenant>/deliveries/<str:delivery>/retry", deliveries.retry, name="portal-delivery-retry"),
    path("<str:tenant>/deliveries/<str:delivery>/cancel", deliveries.cancel, name="portal-delivery-cancel"),
]
