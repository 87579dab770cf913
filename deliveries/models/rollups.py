"""What history was counted to, so that charts and statistics read none of it."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Index, Q

from tenants.models import Tenant
from tenants.scoping import TenantOwned


class Cell(TenantOwned):
    """What became of the deliveries that an endpoint, or a tenant, was owed in one minute or hour. Abstract."""

    id = models.BigAutoField(primary_key=True)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    """Without a constraint: history has none either, and a run must not fail by a tenant that goes meanwhile."""
    series_id = models.UUIDField()
    """The endpoint; or the tenant itself, for all of its endpoints together."""
    begins_at = models.DateTimeField()
    minutes = models.PositiveSmallIntegerField()
    """How wide it is: 1 or 60."""
    succeeded = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    cancelled = models.BigIntegerField(default=0)
    pending = models.BigIntegerField(default=0)
    attempts = models.BigIntegerField(default=0)
    latency_buckets = ArrayField(models.PositiveSmallIntegerField(), default=list)
    """Which buckets of the attempts' durations have any, rising (`pipeline/rollups.py`)."""
    latency_counts = ArrayField(models.BigIntegerField(), default=list)
    """And how many each."""

    class Meta(TenantOwned.Meta):
        abstract = True


class Rollup(Cell):
    """A count of history, so that charts and statistics read none. Written by `pipeline/rollups.py` alone.

    Minutes of the last day, hours before that; never both of the same time.
    """

    counted_at = models.DateTimeField()
    is_open = models.BooleanField()
    """It may change: something in it is pending, or was attempted since it was counted."""

    class Meta(TenantOwned.Meta):
        constraints = [
            # A series over time, which is what charts read; and one row for each of its minutes and hours.
            models.UniqueConstraint(fields=["series_id", "begins_at", "minutes"], name="rollup_once"),
        ]
        indexes = [
            # The endpoints of a tenant at one time, which are summed up to the tenant's own.
            Index(fields=["tenant", "begins_at"], name="rollup_by_tenant"),
            # Minutes that become hours, and hours that go.
            Index(fields=["begins_at"], name="rollup_by_time"),
            # What is to be counted again, the longest ago first.
            Index(fields=["counted_at"], condition=Q(is_open=True), name="rollup_open"),
        ]

    def __str__(self) -> str:
        return f"{self.series_id} {self.begins_at}"


class RollupGone(Cell):
    """What retention took out of an open roll-up: counting it again adds this. Written with the deletion."""

    class Meta(TenantOwned.Meta):
        constraints = [
            # Found by its roll-up.
            models.UniqueConstraint(fields=["series_id", "begins_at", "minutes"], name="rollup_gone_once"),
        ]
        indexes = [
            # Those that go with their roll-ups.
            Index(fields=["begins_at"], name="rollup_gone_by_time"),
        ]


class RollupState(models.Model):
    """The one row in which roll-ups remember how far they came. Its lock lets one run work at a time."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    minutes_to = models.DateTimeField(null=True)
    """Deliveries made before are rolled up. Empty: nothing is."""
    hours_to = models.DateTimeField(null=True)
    """What was made before is in hours, what came after in minutes."""
    attempts_to = models.DateTimeField(null=True)
    """Attempts recorded before have been looked at."""
    seen_at = models.DateTimeField(null=True)
    seen_transaction = models.BigIntegerField(null=True)
    """The number of the newest transaction then."""
    settled_at = models.DateTimeField(null=True)
    """All transactions that had begun to write by then are over."""

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="rollup_state_is_one_row")]

    def __str__(self) -> str:
        return f"{self.minutes_to}"
