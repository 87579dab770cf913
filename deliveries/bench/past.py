"""A believable past, made up: events, deliveries and attempts as months of use leave them, as rows for COPY.

Pure, and the same for the same hour. Called by `history.py`, in processes beside the one that writes: making up a row and
storing it take about as long as each other.
"""

import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

HOUR_US: Final = 3_600_000_000

NULL: Final = "\\N"
"""As COPY reads it."""

EVENT_TYPES: Final = (
    "order.created",
    "order.paid",
    "order.shipped",
    "order.cancelled",
    "invoice.created",
    "invoice.paid",
    "invoice.overdue",
    "customer.created",
    "customer.updated",
    "message.delivered",
    "message.failed",
    "device.reading",
)

EVENT_COLUMNS: Final = "id, tenant_id, type, occurred_at, data, channels, sequence, settings_version, delivery_count, hops, created_at"
DELIVERY_COLUMNS: Final = (
    "id, tenant_id, endpoint_id, event_id, event_type, status, cancel_reason, trigger, subscription_id, sequence,"
    " attempt_count, schedule_step, next_attempt_at, size, last_outcome, last_status_code, created_at, completed_at"
)
ATTEMPT_COLUMNS: Final = (
    "id, tenant_id, delivery_id, number, trigger, started_at, duration_ms, first_byte_ms, outcome, detail, status_code,"
    " remote_ip, request_headers, response_headers, response_body, is_truncated"
)


@dataclass(frozen=True, slots=True)
class Customer:
    """A tenant, as far as its past needs it: ids as 32 digits."""

    tenant: str
    endpoints: Sequence[tuple[str, str]]
    """Each with its subscription."""


@dataclass(frozen=True, slots=True)
class Hour:
    """What is to be made up: so many deliveries, from then on."""

    begins_us: int
    ends_us: int
    latest_us: int
    """No attempt is later: neither than now nor than the week."""
    deliveries: int
    first_serial: int
    """Deliveries are numbered, which makes their keys and sequence numbers different."""
    is_recent: bool
    """What failed may be waiting for its next attempt."""


# --- what becomes of a delivery ---------------------------------------------------------------------------------------

Try = tuple[str, int | None, int]
"""Outcome, status code, seconds after the delivery was made."""


@dataclass(frozen=True, slots=True)
class Story:
    status: str
    tries: tuple[Try, ...]
    reason: str = NULL


WELL: Final = Story("succeeded", (("succeeded", 200, 0),))
LATER: Final = Story("succeeded", (("http_error", 503, 0), ("succeeded", 200, 7)))
MUCH_LATER: Final = Story(
    "succeeded",
    (
        ("timeout", None, 0),
        ("timeout", None, 20),
        ("connection_failed", None, 320),
        ("succeeded", 204, 2_100),
    ),
)
REFUSED: Final = Story("failed", tuple(("http_error", 400, seconds) for seconds in (0, 5, 305, 2_105)))
DOWN: Final = Story("failed", tuple(("connection_failed", None, seconds) for seconds in (0, 5, 305)))
UNSAFE: Final = Story("failed", (("tls_failed", None, 0), ("tls_failed", None, 6)))
ENDED: Final = Story("cancelled", (), "endpoint_disabled")
WAITING: Final = Story("pending", (("http_error", 500, 0), ("http_error", 500, 6)))

USUAL: Final = (
    [WELL] * 4_850
    + [LATER] * 140
    + [MUCH_LATER] * 40
    + [REFUSED] * 50
    + [DOWN] * 25
    + [UNSAFE]
    + [ENDED] * 14
)
RECENT: Final = [*USUAL, *([WAITING] * 25)]


# --- rows -------------------------------------------------------------------------------------------------------------


def hours_of_a_week() -> list[float]:
    """Shares: more by day than by night, less at weekends. From Monday on."""
    by_hour = [1, 1, 1, 1, 1, 2, 3, 5, 8, 10, 11, 11, 10, 10, 11, 11, 10, 9, 8, 7, 6, 4, 3, 2]
    weights = [hour * (0.5 if day >= 5 else 1.0) for day in range(7) for hour in by_hour]
    return [each / sum(weights) for each in weights]


PAYLOADS: Final = [
    json.dumps(
        {
            "id": f"{prefix}-{10_000 + number * 37}",
            "amount": number * 13 % 900 + 1,
            "currency": ("EUR", "USD", "GBP")[number % 3],
            "customer": {"id": f"c-{number * 7 % 1_000}", "city": ("Berlin", "Lyon", "Leeds")[number % 3]},
        },
        separators=(",", ":"),
    )
    for number, prefix in enumerate(("o", "i", "c", "m") * 64)
]
REQUEST: Final = "webhook-timestamp: 1\\nuser-agent: webhooks\\ncontent-type: application/json"
ANSWER: Final = "HTTP/1.1 200 OK\\ncontent-type: application/json"
BODY: Final = '{"ok":true}'


def rows_of(hour: Hour, customers: Sequence[Customer], seed: int) -> tuple[bytes, bytes, bytes]:
    """Rows of events, deliveries and attempts, for COPY as text."""
    dice = random.Random(f"{seed} {hour.begins_us}")  # noqa: S311 - not for secrets
    stories = RECENT if hour.is_recent else USUAL
    # The first customers have most of it.
    weights = list(accumulate(1 / (place + 1) ** 0.9 for place in range(len(customers))))
    who = dice.choices(customers, cum_weights=weights, k=4_093)
    told = dice.choices(stories, k=65_521)
    lasted = [f"{dice.lognormvariate(4.0, 0.8):.3f}" for _ in range(1_021)]
    payloads = [payload.encode().hex() for payload in PAYLOADS]
    sizes = [len(payload) for payload in PAYLOADS]
    request, answer, body = (
        text.encode().decode("unicode_escape").encode().hex() for text in (REQUEST, ANSWER, BODY)
    )
    tail = f"\\\\x{request}\t\\\\x{answer}\t\\\\x{body}\tf\n"
    seconds: dict[int, str] = {}

    def text(us: int) -> str:
        second, rest = divmod(us, 1_000_000)
        found = seconds.get(second)
        if found is None:
            found = seconds[second] = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))
        return f"{found}.{rest:06d}+00"

    events: list[str] = []
    deliveries: list[str] = []
    attempts: list[str] = []
    serial, last = hour.first_serial, hour.first_serial + hour.deliveries
    # Time passes evenly, a little at random.
    length = (hour.ends_us - hour.begins_us) // max(hour.deliveries, 1)
    while serial < last:
        at = hour.begins_us + (serial - hour.first_serial) * length + serial * 7_919 % max(length, 1)
        customer = who[serial % 4_093]
        endpoints = customer.endpoints
        # Every endpoint gets some, three events in ten go to two.
        wanted = min(2 if serial % 10 < 3 else 1, len(endpoints), last - serial)
        milliseconds, number = f"{at // 1000:012x}", serial % 256
        event = f"{milliseconds}7{serial & 0xFFF:03x}8e{serial:014x}"
        type_ = EVENT_TYPES[serial % 12 if serial % 3 else serial % 5]
        made = text(at)
        channels = "{eu}" if serial % 4 == 0 else NULL
        sequence = serial
        events.append(
            f"{event}\t{customer.tenant}\t{type_}\t{made}\t\\\\x{payloads[number]}\t{channels}\t{sequence}\t1\t{wanted}\t0\t{made}\n"
        )
        for place in range(wanted):
            endpoint, subscription = endpoints[(serial // 4_093 + place) % len(endpoints)]
            delivery = f"{milliseconds}7{serial & 0xFFF:03x}8d{serial:014x}"
            story = told[serial % 65_521]
            ended = at
            for tried, (outcome, code, later) in enumerate(story.tries, start=1):
                duration = "15000" if outcome == "timeout" else lasted[(serial + tried) % 1_021]
                started = min(at + later * 1_000_000 + 4_000, hour.latest_us - 2_000)
                ended = started + 1_000
                attempts.append(
                    f"{ended // 1000:012x}7{tried:03x}8a{serial:014x}\t{customer.tenant}\t{delivery}\t{tried}\tautomatic\t{text(started)}\t{duration}\t"
                    f"{duration if code else NULL}\t{outcome}\t\t{code or NULL}\t198.51.100.7\t{tail}"
                )
            is_pending = story.status == "pending"
            outcome, code = story.tries[-1][:2] if story.tries else (NULL, None)
            deliveries.append(
                f"{delivery}\t{customer.tenant}\t{endpoint}\t{event}\t{type_}\t{story.status}\t{story.reason}\tautomatic\t{subscription}\t{sequence}\t"
                f"{len(story.tries)}\t{len(story.tries)}\t{text(hour.latest_us + 6 * HOUR_US) if is_pending else NULL}\t{sizes[number]}\t"
                f"{outcome}\t{code or NULL}\t{made}\t{NULL if is_pending else text(ended)}\n"
            )
            serial += 1
    return "".join(events).encode(), "".join(deliveries).encode(), "".join(attempts).encode()


def hours_between(begins_us: int, ends_us: int) -> Iterator[int]:
    """Their beginnings."""
    at = begins_us // HOUR_US * HOUR_US
    while at < ends_us:
        yield at
        at += HOUR_US
