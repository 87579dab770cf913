"""The machine in the cold room: it does what it is told, and measures what came of it. `manage.py demo sensor` plays it."""

from inbox import Event
from platform_api import publish
from webhooks import receive, tell


def act(event: Event) -> None:
    command = event.data
    target = command["arguments"]["target"]
    tell(
        f"... {command['action']} to {target} {command['arguments']['unit']}, because of {command['because_of']}"
    )
    reading = {
        "device": command["device"],
        "quantity": "temperature",
        "value": target,
        "unit": command["arguments"]["unit"],
        "measured_at": event.timestamp,
    }
    publish("sensor.reading.taken", reading, because_of=event.id, hops=event.hops)
    tell(f"... {target} {reading['unit']} again")


if __name__ == "__main__":
    receive("cooler", ["device.command.requested"], act, retry_schedule=[2, 10, 60])
