"""The stories by name, in the order in which to read them, and how one is performed."""

from collections.abc import Callable
from dataclasses import dataclass

from webhooks_platform.demo import appointment, order, outage, payment, push, sensor
from webhooks_platform.demo.api import Api
from webhooks_platform.demo.place import Place
from webhooks_platform.demo.stage import Stage


@dataclass(frozen=True, slots=True)
class Story:
    title: str
    summary: str
    play: Callable[[Stage], None]
    receivers: tuple[str, ...]
    """What of `examples/` it runs."""


STORIES = {
    "appointment": Story(appointment.TITLE, appointment.SUMMARY, appointment.play, ("clinic",)),
    "order": Story(order.TITLE, order.SUMMARY, order.play, ("shipping",)),
    "payment": Story(payment.TITLE, payment.SUMMARY, payment.play, ("mailer",)),
    "push": Story(push.TITLE, push.SUMMARY, push.play, ("pipeline", "chat")),
    "sensor": Story(sensor.TITLE, sensor.SUMMARY, sensor.play, ("coldroom", "cooler")),
    "outage": Story(outage.TITLE, outage.SUMMARY, outage.play, ("books",)),
}


def perform(story: Story, *, place: Place, tenant: str, say: Callable[[str, str], None], pace: float) -> Api:
    """From beginning to end; returns the API of its tenant. Raises StoryFailed."""
    api = place.make_tenant(tenant)
    with Stage(api=api, folder=place.folder / tenant, say=say, pace=pace) as stage:
        story.play(stage)
        files = " and ".join(f"examples/{each}.py" for each in story.receivers)
        stage.chapter("Where to go from here")
        stage.tell(f"What you saw receiving is in {files}: short, to be read and copied.")
        stage.tell("`make run` starts a platform that stays, with an API, a portal and an admin to look at.")
        stage.tell(
            "`manage.py demo` lists the other stories. docs/integrators.md has everything for your own code."
        )
    return api
