"""Every story of `manage.py demo`, as it is told there: over HTTP, with the real receivers and a real worker.

A story itself waits for what it tells, so it fails if that does not happen; here is what must be true when it is over.
"""

from collections import Counter
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tenants.ids import new_id
from tests.support.running import until
from webhooks_platform.demo.api import Api
from webhooks_platform.demo.place import Place
from webhooks_platform.demo.stories import STORIES, perform

pytestmark = pytest.mark.timeout(300)


class Told:
    """A story that was performed, and the tenant that it left behind."""

    def __init__(self, place: Place, name: str) -> None:
        self.lines: list[tuple[str, str]] = []
        self.api: Api = perform(
            STORIES[name],
            place=place,
            tenant=f"{name}-{new_id().hex[-8:]}",
            say=lambda who, line: self.lines.append((who, line)),
            pace=0,
        )

    def by(self, who: str) -> list[str]:
        return [line for name, line in self.lines if name == who]

    def count(self, who: str, words: str) -> int:
        return sum(words in line for line in self.by(who))

    def all(self, path: str) -> list[dict[str, Any]]:
        """The oldest first."""
        rows: list[dict[str, Any]] = self.api.send("GET", f"{path}?limit=250")["data"]
        return rows[::-1]

    def events(self) -> list[str]:
        return [event["type"] for event in self.all("/events")]

    def deliveries(self) -> Counter[tuple[str, str, str, int]]:
        """(endpoint, event type, status, attempts) of each, when all have ended."""
        names = {each["id"]: each["uid"] for each in self.all("/endpoints")}
        # A receiver acts, and says so, before the platform has written down its answer.
        until(lambda: all(each["status"] != "pending" for each in self.all("/deliveries")))
        return Counter(
            (names[each["endpoint"]], each["event_type"], each["status"], each["attempt_count"])
            for each in self.all("/deliveries")
        )


@pytest.fixture(scope="module")
def appointment(place: Place) -> Told:
    return Told(place, "appointment")


def test_appointment(appointment: Told) -> None:
    told = appointment

    assert told.events() == [
        "message.accepted",
        "message.delivered",
        "message.reply.received",
        "message.accepted",
    ]
    assert told.deliveries() == {
        ("clinic", "message.accepted", "succeeded", 1): 2,
        ("clinic", "message.delivered", "succeeded", 1): 1,
        # The clinic stumbled once, and acted once.
        ("clinic", "message.reply.received", "succeeded", 2): 1,
    }
    assert told.count("clinic", "I answer by myself") == 1
    assert told.count("clinic", "refused with 401") == 1
    answer = told.api.send("GET", f"/events/{told.all('/events')[-1]['id']}")["data"]
    assert (answer["to"], answer["text"]) == ("+447700900101", "Thank you, see you tomorrow.")


def test_order(place: Place) -> None:
    told = Told(place, "order")

    # What was refused is nowhere, and what was published twice is there once.
    assert told.events() == ["order.created", "order.paid"]
    assert told.deliveries() == {("shipping", "order.created", "succeeded", 1): 1}
    assert told.count("shop", '422: data: "shipping_address" is a required property') == 1
    label = told.by("shipping")
    begin = label.index("... printing the label of order 1001:")
    assert label[begin + 1 :] == [
        "    | Grace Example",
        "    | 12 Harbour Street",
        "    | 20457 Hamburg, DE",
        "    - 2 x Blue mug (MUG-BLUE)",
        "    - 1 x Assam tea (TEA-ASSAM)",
        "... label of order 1001 is printed; the parcel weighs 880 g",
    ]


def test_payment(place: Place) -> None:
    told = Told(place, "payment")

    assert told.events() == [
        "payment.charge.succeeded",
        "payment.charge.failed",
        "payment.refund.succeeded",
    ]
    assert told.deliveries() == {
        ("mailer", "payment.charge.succeeded", "succeeded", 1): 1,
        ("mailer", "payment.refund.succeeded", "succeeded", 2): 1,
    }
    assert [line for line in told.by("mailer") if "Subject" in line] == [
        "    | Subject: Your receipt for 33.90 EUR",
        "    | Subject: We have sent you 12.50 EUR",
    ]


def test_push(place: Place) -> None:
    told = Told(place, "push")

    assert told.events() == [
        "repository.pushed",
        "repository.pushed",
        "pipeline.started",
        "pipeline.finished",
    ]
    assert told.deliveries() == {
        ("chat", "repository.pushed", "succeeded", 1): 2,
        ("chat", "pipeline.started", "succeeded", 1): 1,
        ("chat", "pipeline.finished", "succeeded", 1): 1,
        ("pipeline", "repository.pushed", "succeeded", 1): 1,
    }
    assert told.by("chat")[1:] == [
        "#builds  ada pushed to topic: Try it",
        "#builds  ada pushed to main: Round the total once",
        "#builds  run-8f3c1d6a has started",
        "#builds  run-8f3c1d6a passed",
    ]
    (source,) = told.all("/sources")
    requests = told.all(f"/sources/{source['id']}/requests")
    assert [(each["verdict"], each["reason"], each["status_code"]) for each in requests] == [
        ("accepted", None, 200),
        ("accepted", None, 200),
        ("duplicate", None, 200),
        ("refused", "signature_wrong", 401),
    ]


def test_sensor(place: Place) -> None:
    told = Told(place, "sensor")

    assert Counter(told.events()) == {
        "sensor.reading.taken": 4,
        "sensor.alert.raised": 1,
        "device.command.requested": 1,
    }
    # Only the reading above the threshold reached anybody.
    assert told.deliveries() == {
        ("watch", "sensor.reading.taken", "succeeded", 1): 1,
        ("cooling", "sensor.alert.raised", "succeeded", 1): 1,
        ("cooler", "device.command.requested", "succeeded", 1): 1,
    }
    events = told.all("/events")
    values = [
        told.api.send("GET", f"/events/{event['id']}")["data"]["value"]
        for event in events
        if event["type"] == "sensor.reading.taken"
    ]
    assert values == [4.2, 6.9, 9.6, 3.0]


def test_outage(place: Place) -> None:
    told = Told(place, "outage")

    assert told.events() == ["order.paid"] * 5
    assert told.deliveries() == {
        ("books", "order.paid", "failed", 2): 3,
        # Two that found somebody there, and the three that recovery sent again.
        ("books", "order.paid", "succeeded", 1): 5,
    }
    written = [line for line in told.by("books") if "wrote down" in line]
    assert sorted(line.split(":")[0] for line in written) == [
        f"... wrote down order {number}" for number in range(1, 6)
    ]
    assert written[-1].endswith("5 payments, 150.00 EUR")


def test_a_story_is_told_in_words_that_a_newcomer_needs(appointment: Told) -> None:
    told = appointment

    text = " ".join(told.by("story"))
    for word in ("webhook", "event", "endpoint", "secret", "signature", "delivery", "202", "webhook-id"):
        assert word in text, word
    # One request as it went over the wire.
    assert told.count("platform", "webhook-signature: v1,") == 1
    assert told.count("platform", '"type": "message.accepted"') == 1
    assert all(len(line) <= 96 for line in told.by("story"))


# --- the command ------------------------------------------------------------------------------------------------------


def test_without_a_name_the_command_lists_the_stories() -> None:
    output = StringIO()

    call_command("demo", stdout=output)

    for name, story in STORIES.items():
        assert f"  {name:<12} {story.summary}\n" in output.getvalue()


def test_a_story_that_is_not_there_is_refused() -> None:
    with pytest.raises(CommandError, match="invalid choice"):
        call_command("demo", "nothing")
