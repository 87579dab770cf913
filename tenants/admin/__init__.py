"""The admin of tenants, for operators. History is read-only; what changes something calls the services, and is audited.

`base` is what all lists and pages of the admin have in common, `show` how values look. `deliveries/admin` builds on both.
`audited` is for the pages that libraries bring, which change things by themselves.
"""

from tenants.admin import catalogue, people, support, tenants

__all__ = ["catalogue", "people", "support", "tenants"]
