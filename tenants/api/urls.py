"""The paths of this app below `/api/v1/`."""

from django.urls import path

from tenants.api import catalogue, event_types, packs
from tenants.api.api_keys import ApiKeysView, ApiKeyView
from tenants.api.looks import LookView
from tenants.api.portal_links import PortalLinksView, PortalLinkView
from tenants.api.tenants import TenantsView, TenantView
from tenants.api.whoami import WhoAmIView

urlpatterns = [
    path("whoami", WhoAmIView.as_view()),
    path("tenants", TenantsView.as_view()),
    path("tenants/<str:tenant>", TenantView.as_view()),
    path("tenants/<str:tenant>/api-keys", ApiKeysView.as_view()),
    path("tenants/<str:tenant>/api-keys/<str:key>", ApiKeyView.as_view()),
    path("tenants/<str:tenant>/look", LookView.as_view()),
    path("tenants/<str:tenant>/portal-links", PortalLinksView.as_view()),
    path("tenants/<str:tenant>/portal-links/<str:link>", PortalLinkView.as_view()),
    # The fixed names are reserved, so that no event type hides behind them.
    path("tenants/<str:tenant>/event-types", event_types.EventTypesView.as_view()),
    path("tenants/<str:tenant>/event-types/openapi.json", catalogue.ExportView.as_view()),
    path("tenants/<str:tenant>/event-types/import", catalogue.ImportView.as_view()),
    path("tenants/<str:tenant>/event-types/<str:name>", event_types.EventTypeView.as_view()),
    path("tenants/<str:tenant>/event-types/<str:name>/archive", event_types.ArchiveView.as_view()),
    path("tenants/<str:tenant>/event-types/<str:name>/unarchive", event_types.UnarchiveView.as_view()),
    path("tenants/<str:tenant>/event-types/<str:name>/compare", event_types.CompareView.as_view()),
    path("tenants/<str:tenant>/packs", packs.PacksView.as_view()),
    path("tenants/<str:tenant>/packs/<str:pack>", packs.PackView.as_view()),
    path("tenants/<str:tenant>/packs/<str:pack>/install", packs.InstallPackView.as_view()),
    path("event-types", event_types.SharedEventTypesView.as_view()),
    path("event-types/openapi.json", catalogue.SharedExportView.as_view()),
    path("event-types/import", catalogue.SharedImportView.as_view()),
    path("event-types/<str:name>", event_types.SharedEventTypeView.as_view()),
    path("event-types/<str:name>/archive", event_types.SharedArchiveView.as_view()),
    path("event-types/<str:name>/unarchive", event_types.SharedUnarchiveView.as_view()),
    path("event-types/<str:name>/compare", event_types.SharedCompareView.as_view()),
    path("packs", packs.SharedPacksView.as_view()),
    path("packs/<str:pack>", packs.SharedPackView.as_view()),
    path("packs/<str:pack>/install", packs.SharedInstallPackView.as_view()),
]
