"""Django's admin as an app, with our site in the place of its own. A module of its own: one app configuration each."""

from django.contrib.admin.apps import AdminConfig


class OperatorAdminConfig(AdminConfig):
    default_site = "webhooks_platform.operator_site.OperatorSite"
