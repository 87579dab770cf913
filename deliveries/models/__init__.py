"""Where events go and how they get there, in tables; one subject a file.

- `endpoints`: what tenants set.
- `lanes`: who works on which endpoint.
- `history`: events, deliveries and attempts.
- `sources`, `polling`: what comes from others, and what receivers fetch themselves.
- `jobs`: work on much, in the background.
- `notices`: what people are told.
- `counts`: what was counted.
- `rollups`: what became of deliveries, by minute and hour.
"""

from deliveries.models.counts import MetricSample, MetricTotal, Usage
from deliveries.models.endpoints import (
    BY_THE_PLATFORM,
    Endpoint,
    EndpointSecret,
    EndpointVersion,
    ReversedHost,
    Subscription,
    default_success_statuses,
)
from deliveries.models.history import Attempt, Delivery, Event, RetentionMark
from deliveries.models.jobs import BulkAction, Job, JobPart
from deliveries.models.lanes import Dispatcher, Lane, SweepState
from deliveries.models.notices import Announcement, Notice, SlackHook
from deliveries.models.polling import PollConsumer, PollItem
from deliveries.models.rollups import Rollup, RollupGone, RollupState
from deliveries.models.sources import IncomingRequest, Source, SourceToken

__all__ = [
    "BY_THE_PLATFORM",
    "Announcement",
    "Attempt",
    "BulkAction",
    "Delivery",
    "Dispatcher",
    "Endpoint",
    "EndpointSecret",
    "EndpointVersion",
    "Event",
    "IncomingRequest",
    "Job",
    "JobPart",
    "Lane",
    "MetricSample",
    "MetricTotal",
    "Notice",
    "PollConsumer",
    "PollItem",
    "RetentionMark",
    "ReversedHost",
    "Rollup",
    "RollupGone",
    "RollupState",
    "SlackHook",
    "Source",
    "SourceToken",
    "Subscription",
    "SweepState",
    "Usage",
    "default_success_statuses",
]
