"""What was counted: for tenants by day, and for `/metrics` and the operators' dashboard."""

from django.db import models

from tenants.models import Tenant
from tenants.scoping import TenantOwned


class Usage(TenantOwned):
    """What a tenant used on one day (UTC). Written by `pipeline/counters.py`, in bulk; kept as long as the tenant."""

    id = models.BigAutoField(primary_key=True)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    """Without a constraint: one wrong key must not keep the counts of all others from being written."""
    day = models.DateField()
    events = models.BigIntegerField(default=0)
    attempts = models.BigIntegerField(default=0)
    succeeded = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)

    class Meta(TenantOwned.Meta):
        constraints = [
            # A tenant's months, and where the counts of a day are added.
            models.UniqueConstraint(fields=["tenant", "day"], name="usage_once_a_day"),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.day}"


class MetricTotal(models.Model):
    """What all processes have counted so far, for `/metrics`. Written by `pipeline/counters.py`, in bulk."""

    key = models.CharField(max_length=100, primary_key=True)
    """`name` or `name:label`, about a hundred of them."""
    value = models.FloatField()

    def __str__(self) -> str:
        return f"{self.key} {self.value}"


class MetricSample(models.Model):
    """The totals of one minute, kept for a day: what the admin's dashboard tells speeds from."""

    at = models.DateTimeField(primary_key=True)
    totals = models.JSONField()

    def __str__(self) -> str:
        return f"{self.at}"
