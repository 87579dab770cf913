"""Watches a cold room: a reading above the threshold raises an alert, and an alert switches the cooling on.

Two receivers in one program: the watch hears of readings that are too warm, the cooling hears of alerts.
`manage.py demo sensor` plays it. On your own: WEBHOOKS_API=… WEBHOOKS_KEY=… python examples/coldroom.py
"""

import threading

from inbox import Event
from platform_api import publish
from webhooks import receive, tell

THRESHOLD = 8.0
TARGET = 3.0


def watch(event: Event) -> None:
    reading = event.data
    tell(f"... watch: {reading['device']} has {reading['value']} °C, above {THRESHOLD} °C: I raise an alert")
    alert = {key: reading[key] for key in ("device", "quantity", "value", "unit")} | {
        "alert": f"alert-{event.id[-6:]}",
        "threshold": THRESHOLD,
        "direction": "above",
        "severity": "critical",
        "raised_at": event.timestamp,
    }
    publish("sensor.alert.raised", alert, because_of=event.id, hops=event.hops)


def cool(event: Event) -> None:
    alert = event.data
    tell(f"... cooling: {alert['alert']} says {alert['value']} °C: I tell {alert['device']} to cool")
    command = {
        "command": f"cmd-{event.id[-6:]}",
        "device": alert["device"],
        "action": "cool",
        "arguments": {"target": TARGET, "unit": "°C"},
        "because_of": alert["alert"],
        "requested_at": event.timestamp,
    }
    publish("device.command.requested", command, because_of=event.id, hops=event.hops)


if __name__ == "__main__":
    too_warm = f'data.quantity == "temperature" && data.value > {THRESHOLD}'
    threading.Thread(
        target=receive,
        args=("watch", ["sensor.reading.taken"], watch),
        kwargs={"filters": {"sensor.reading.taken": too_warm}, "retry_schedule": [2, 10, 60]},
        daemon=True,
    ).start()
    receive("cooling", ["sensor.alert.raised"], cool, retry_schedule=[2, 10, 60])
