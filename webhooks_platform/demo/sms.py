"""The SMS platform of the story. Run by `serve --demo`."""

import itertools
import time
import urllib.error
from datetime import UTC, datetime
from typing import Any

from webhooks_platform.demo.api import Api, demo_api, tell

PATIENTS = [
    ("Ada", "+447700900101", "Yes, see you then"),
    ("Ben", "+447700900102", "NO, I am ill"),
    ("Chloé", "+447700900103", "Could we make it 11:30?"),
    ("Dilip", "+447700900104", "yes"),
]
"""Numbers reserved for stories."""

PAUSE_SECONDS = 1.5

CATALOGUE: list[dict[str, Any]] = [
    {
        "name": "message.accepted",
        "description": "A text message was taken on and is on its way.",
        "group": "Messages",
        "example": {
            "message": "sms-1",
            "to": "+447700900101",
            "text": "Your appointment is tomorrow at 10:00.",
        },
    },
    {
        "name": "message.delivered",
        "description": "A text message arrived on the phone.",
        "group": "Messages",
        "example": {"message": "sms-1", "to": "+447700900101", "delivered_at": "2026-03-01T12:00:00Z"},
    },
    {
        "name": "message.reply.received",
        "description": "The person wrote back.",
        "group": "Replies",
        "example": {
            "message": "sms-1",
            "from": "+447700900101",
            "text": "Yes",
            "received_at": "2026-03-01T12:01:00Z",
        },
    },
]


def main() -> None:
    api = demo_api()
    publish_catalogue(api)
    wait_for_clinic(api)
    for number in itertools.count(1):
        name, phone, reply = PATIENTS[(number - 1) % len(PATIENTS)]
        remind(api, number=number, name=name, phone=phone, reply=reply)


def publish_catalogue(api: Api) -> None:
    for event_type in CATALOGUE:
        try:
            api.send("POST", "/event-types", event_type)
        except urllib.error.HTTPError as error:
            if error.code != 409:  # there from an earlier run
                raise


def wait_for_clinic(api: Api) -> None:
    while True:
        try:
            api.send("GET", "/endpoints/clinic")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            time.sleep(0.2)
        else:
            return


def remind(api: Api, *, number: int, name: str, phone: str, reply: str) -> None:
    message = f"sms-{datetime.now(UTC):%H%M%S}-{number}"
    text = f"{name}, your appointment is tomorrow at 10:00. Will you come?"

    publish(api, "message.accepted", {"message": message, "to": phone, "text": text})
    tell(f'The clinic\'s reminder to {name} is on its way: "{text}"   → published message.accepted')
    time.sleep(PAUSE_SECONDS)

    publish(api, "message.delivered", {"message": message, "to": phone, "delivered_at": now()})
    tell(f"{name}'s phone has it   → published message.delivered")
    time.sleep(PAUSE_SECONDS)

    publish(
        api,
        "message.reply.received",
        {"message": message, "from": phone, "text": reply, "received_at": now()},
    )
    tell(f'{name} writes back: "{reply}"   → published message.reply.received')
    time.sleep(2 * PAUSE_SECONDS)


def publish(api: Api, event_type: str, data: dict[str, Any]) -> None:
    """Until it is accepted. Trying again is safe: what the key names happens once."""
    while True:
        try:
            api.publish(event_type, data, idempotency_key=f"{data['message']} {event_type}")
        except OSError as error:  # an error status, or no answer
            tell(f"{event_type} was not accepted ({error}); trying again in {PAUSE_SECONDS:g} s")
            time.sleep(PAUSE_SECONDS)
        else:
            return


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


if __name__ == "__main__":
    main()
