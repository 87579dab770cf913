"""Which endpoints need somebody's attention, why, and what to do about it. Pure: no database, no clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from deliveries.models import Endpoint
from deliveries.pipeline.outcome import Outcome, explain
from deliveries.services.condition import MOST_DUE, Condition
from deliveries.services.health import disables_at
from tenants.portal.words import in_words

FAILING_IN_A_ROW: Final = 3
"""So many of the newest without a success: it fails now."""

FAILING_SHARE: Final = 0.2
"""Or so many of the latest altogether, of at least LEAST_TRIED."""

LEAST_TRIED: Final = 5
"""Of fewer, a share says nothing."""

BEHIND: Final = timedelta(minutes=2)
"""What should have been sent so long ago waits."""

MOST_SHOWN: Final = 12
"""On the overview; of the others it says how many there are."""


class Severity(IntEnum):
    """The most urgent first."""

    DISABLED = 0
    FAILING = 1
    BEHIND = 2
    UNSTEADY = 3


@dataclass(frozen=True, slots=True)
class Concern:
    endpoint: Endpoint
    severity: Severity
    headline: str
    why: str
    what_to_do: str
    health: Condition
    since: datetime | None = None
    disables_at: datetime | None = None
    """If it goes on like this."""


def concerns(
    endpoints: Iterable[Endpoint], health: Mapping[UUID, Condition], *, now: datetime
) -> list[Concern]:
    """One an endpoint at most, the most urgent first."""
    found = [
        concern
        for endpoint in endpoints
        if (concern := concern_of(endpoint, health.get(endpoint.id, Condition()), now=now)) is not None
    ]
    return sorted(found, key=lambda concern: (concern.severity, -concern.health.unsuccessful))


def concern_of(endpoint: Endpoint, health: Condition, *, now: datetime) -> Concern | None:
    """What somebody stopped on purpose is nobody's worry."""
    if endpoint.status == Endpoint.Status.DISABLED:
        return _disabled(endpoint, health)
    if health.is_circuit_open:
        return Concern(
            endpoint,
            Severity.FAILING,
            _("Held back: nothing but failures"),
            why_it_fails(health),
            _(
                "Mend the receiver, then send a test. Until then it is tried now and then, and nothing is lost."
            ),
            health,
            health.failing_since,
            disables_at(endpoint),
        )
    if health.tried and health.failing_in_a_row >= min(FAILING_IN_A_ROW, health.tried):
        return Concern(
            endpoint,
            Severity.FAILING,
            _("Failing"),
            why_it_fails(health),
            _(
                "Mend the receiver, then send a test. What failed is retried by its schedule, or by hand at once."
            ),
            health,
            health.failing_since,
            disables_at(endpoint),
        )
    if health.due_since is not None and now - health.due_since > BEHIND and not health.is_paused:
        return _behind(endpoint, health)
    if health.tried >= LEAST_TRIED and health.unsuccessful > FAILING_SHARE * health.tried:
        return Concern(
            endpoint,
            Severity.UNSTEADY,
            ngettext(
                "%(number)d of the latest %(tried)d deliveries failed",
                "%(number)d of the latest %(tried)d deliveries failed",
                health.unsuccessful,
            )
            % {"number": health.unsuccessful, "tried": health.tried},
            why_it_fails(health),
            _("Look at the deliveries that failed: each says what was sent and what came back."),
            health,
        )
    return None


def why_it_fails(health: Condition) -> str:
    if health.last_outcome is None:
        return ""
    return in_words(explain(Outcome(health.last_outcome), health.last_status_code, ""))


def _disabled(endpoint: Endpoint, health: Condition) -> Concern | None:
    match endpoint.disabled_reason:
        case Endpoint.DisabledReason.GONE:
            why = _("Its receiver answered 410 Gone, which says that it wants no more webhooks.")
            what_to_do = _("If that was a mistake, mend the receiver and enable it again. If not, delete it.")
        case Endpoint.DisabledReason.FAILING:
            why = _("It failed for too long. %(reason)s") % {"reason": why_it_fails(health)}
            what_to_do = _("Mend the receiver and enable it again: you can then send what it missed.")
        case Endpoint.DisabledReason.RECEIVER:
            why = _("Its receiver asked for no more webhooks.")
            what_to_do = _("Ask whoever runs it. Once it is enabled you can send what it missed.")
        case _:
            return None
    return Concern(
        endpoint, Severity.DISABLED, _("Disabled"), why.strip(), what_to_do, health, endpoint.missed_since
    )


def _behind(endpoint: Endpoint, health: Condition) -> Concern:
    if health.due >= MOST_DUE:
        headline = _("Behind: more than %(number)d deliveries wait") % {"number": MOST_DUE}
    else:
        headline = ngettext(
            "Behind: %(number)d delivery waits", "Behind: %(number)d deliveries wait", health.due
        ) % {"number": health.due}
    if health.hold_reason == "answer":
        why = _("Its receiver asked for a pause, or answered that it is overloaded.")
        what_to_do = _("Give it more capacity, or set a pace that it can keep.")
    elif endpoint.rate_limit is not None:
        why = _("More comes than its pace of %(rate)s requests per second lets through.") % {
            "rate": f"{endpoint.rate_limit:g}"
        }
        what_to_do = _("Raise the pace if the receiver can take more.")
    else:
        why = _("More comes than it takes, with %(number)d requests at once.") % {
            "number": endpoint.max_in_flight
        }
        what_to_do = _("Let it answer first and work afterwards, or raise the number of requests at once.")
    return Concern(endpoint, Severity.BEHIND, headline, why, what_to_do, health, health.due_since)
