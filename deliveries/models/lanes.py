"""Who works on which endpoint: lanes, the dispatchers that have them, and how far their repair came."""

from django.db import models
from django.db.models import Index, Q
from django.db.models.functions import Greatest, Now

from deliveries.models.endpoints import Endpoint
from tenants.ids import new_id
from tenants.models import Tenant
from tenants.scoping import TenantOwned


class Dispatcher(models.Model):
    """A running dispatcher and its lease on life. A new row, with a new id, for every run."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    alive_until = models.DateTimeField()
    started_at = models.DateTimeField(db_default=Now())
    process = models.CharField(max_length=255, blank=True, default="")
    """Host and process id, for people."""
    has_room = models.BooleanField(default=True)
    is_draining = models.BooleanField(default=False)
    deliveries_done = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return self.process


class Lane(TenantOwned):
    """The queue of one endpoint: one narrow row, made in the same transaction as the endpoint.

    `ready_at`: when to look at it, NULL = nothing to do. `hold_until`: not before when; owned by the holder.
    `is_paused`: stopped by people; owned by services. `dispatcher_id`: who has it; a lane with a holder is written by
    that holder alone, apart from `ready_at` (wake), `is_paused`, and a service that wipes its health (`resets`). `is_ready` marks lanes to be looked at *now*:
    wake sets it, and promotion when a scheduled or held lane falls due, so that the take query never steps over the others.
    """

    endpoint = models.OneToOneField(Endpoint, primary_key=True, on_delete=models.CASCADE, related_name="lane")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", db_index=False)
    ready_at = models.DateTimeField(null=True)
    is_ready = models.BooleanField(default=False)
    hold_until = models.DateTimeField(null=True)
    hold_reason = models.CharField(max_length=16, null=True)
    """Why it is held, for people: rate, circuit or answer (429, 502, 503, 504)."""
    is_paused = models.BooleanField(default=False)
    dispatcher_id = models.UUIDField(null=True)
    slots = models.FloatField(default=2)
    """Requests at once that its answers have earned, up to the endpoint's max_in_flight."""
    tokens = models.FloatField(db_default=0.0)
    """What was left of its pace (rate_limit) when it was given back. Nothing after a crash."""
    tokens_at = models.DateTimeField(null=True)
    # Health: empty for an endpoint whose last answer was good. Kept by the holder (`pipeline/health.py`).
    failures = models.IntegerField(db_default=0)
    """In a row."""
    failing_since = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True)
    """The last of them."""
    is_own_failing = models.BooleanField(db_default=False)
    """One of them was of an event of the tenant's own, not of the platform's operational ones."""
    pause_seconds = models.FloatField(null=True)
    """The last pause after 429, 502, 503 or 504."""
    circuit_opened_at = models.DateTimeField(null=True)
    circuit_seconds = models.FloatField(null=True)
    """The open circuit's last wait."""
    warned_at = models.DateTimeField(null=True)
    """When its owner was told that it will be disabled; owned by that sweep."""
    owed_from = models.DateTimeField(null=True)
    """Nothing is owed that was due before; owned by the holder. NULL: not known. Where versions of rows pile up
    (somebody's old snapshot), what is owed is looked for from here on, past all that was delivered since."""
    resets = models.IntegerField(db_default=0)
    """Raised when a service wipes the health: what a holder counted before is then not written any more."""

    class Meta(TenantOwned.Meta):
        indexes = [
            # Take: tenants in turn, then each tenant's lanes, longest ready first. Served lanes are not in it.
            Index(
                fields=["tenant", "ready_at"],
                condition=Q(is_ready=True, dispatcher_id__isnull=True, is_paused=False),
                name="lane_ready",
            ),
            # Promote: the next scheduled or held lane to fall due.
            Index(
                Greatest("ready_at", "hold_until"),
                condition=Q(
                    is_ready=False, dispatcher_id__isnull=True, is_paused=False, ready_at__isnull=False
                ),
                name="lane_scheduled",
            ),
            # Takeover, renewal and release: the lanes of one dispatcher.
            Index(
                fields=["dispatcher_id"], condition=Q(dispatcher_id__isnull=False), name="lane_by_dispatcher"
            ),
            # Metrics: how many are stopped by people.
            Index(fields=["endpoint"], condition=Q(is_paused=True), name="lane_paused"),
            # The sweep that disables what fails for days, and the pages that show what fails, the longest first.
            Index(
                fields=["failing_since", "endpoint"],
                condition=Q(failing_since__isnull=False),
                name="lane_failing",
            ),
        ]


class SweepState(models.Model):
    """The one row in which the repair sweep remembers how far it came."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    repaired_at = models.DateTimeField()
    """Deliveries created before have been looked at."""
    walked_to = models.UUIDField()
    """The last lane of the walk over all of them."""

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="sweep_state_is_one_row")]

    def __str__(self) -> str:
        return f"{self.repaired_at}"
