"""The sensor story: a reading over a threshold, an alert, and a response that nobody had to press a button for."""

from webhooks_platform.demo.stage import PLATFORM, Stage
from webhooks_platform.demo.voice import now

TITLE = "A cold room gets warm"
SUMMARY = "a sensor's reading is over a threshold; an alert is raised and answered by a machine"

READINGS = (4.2, 6.9, 9.6)


def play(stage: Stage) -> None:
    sensor = stage.voice("sensor")
    stage.tell(
        "`sensor` measures a cold room and publishes every reading. `coldroom` runs two receivers: a watch, which"
        " raises alerts, and the cooling, which answers them. `cooler` is the machine. None knows the others:"
        " each asks the platform for what it needs, and publishes what it does."
    )

    stage.chapter("Who wants what")
    stage.api.send("POST", "/packs/iot/install")
    stage.begin("coldroom", endpoints=2)
    stage.begin("cooler")
    stage.tell(
        'The watch has a filter on its subscription: data.quantity == "temperature" && data.value > 8.0. The platform'
        " judges it, so readings that are in order cause no request at all."
    )

    stage.chapter("Readings come in")
    last = ""
    for number, value in enumerate(READINGS, 1):
        sensor.tell(f"{value} °C")
        reading = {
            "device": "cold-room-2",
            "location": "Hamburg, hall 3",
            "quantity": "temperature",
            "value": value,
            "unit": "°C",
            "measured_at": now(),
        }
        last = sensor.publish("sensor.reading.taken", reading, key=f"reading {number}")
        is_wanted = len(stage.deliveries(last)) > 0
        stage.say(PLATFORM, f"{last}: {'the watch gets it' if is_wanted else 'nobody wants it'}")
        stage.pause()

    stage.chapter("The answer, without anybody pressing a button")
    stage.hear("coldroom", "I raise an alert")
    stage.hear("coldroom", "to cool")
    stage.hear("cooler", "3.0 °C again")
    stage.show(last)
    stage.tell(
        "Reading, alert, command, reading: each is an event that the one before brought about, and each went through"
        " the platform. The new reading is below the threshold, so the chain ends. One that went in circles would be"
        " ended by the platform after five webhooks: each carries the header webhook-hops, and receivers send it along."
    )
