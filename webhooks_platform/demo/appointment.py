"""The appointment story: an SMS platform tells a clinic what becomes of its text messages, and the clinic answers."""

import time
from dataclasses import dataclass

from webhooks_platform.demo.api import post
from webhooks_platform.demo.stage import Stage
from webhooks_platform.demo.voice import Voice, now

TITLE = "Appointments by text message"
SUMMARY = "an SMS provider tells a clinic that a reminder arrived and what the patient answers"

CLINIC = "+447700900000"


@dataclass(frozen=True, slots=True)
class Patient:
    name: str
    phone: str
    reply: str


PATIENTS = [
    Patient("Ada", "+447700900101", "Yes, see you then"),
    Patient("Ben", "+447700900102", "NO, I am ill"),
    Patient("Chloé", "+447700900103", "Could we make it 11:30?"),
    Patient("Dilip", "+447700900104", "yes"),
]
"""Numbers reserved for stories."""


def accepted(sms: Voice, patient: Patient, message: str) -> str:
    text = f"{patient.name}, your appointment is tomorrow at 10:00. Will you come?"
    sms.tell(f'The clinic\'s reminder to {patient.name} is on its way: "{text}"')
    data = {"message": message, "from": CLINIC, "to": patient.phone, "text": text, "provider_time": now()}
    return sms.publish("message.accepted", data, key=f"{message} accepted")


def delivered(sms: Voice, patient: Patient, message: str) -> str:
    sms.tell(f"{patient.name}'s phone has it")
    data = {"message": message, "from": CLINIC, "to": patient.phone, "provider_time": now()}
    return sms.publish("message.delivered", data, key=f"{message} delivered")


def replied(sms: Voice, patient: Patient, message: str) -> str:
    sms.tell(f'{patient.name} writes back: "{patient.reply}"')
    data = {
        "message": f"reply-to-{message}",
        "in_reply_to": message,
        "from": patient.phone,
        "to": CLINIC,
        "text": patient.reply,
        "provider_time": now(),
    }
    return sms.publish("message.reply.received", data, key=f"{message} replied")


# --- once, with every step explained ----------------------------------------------------------------------------------


def play(stage: Stage) -> None:
    ada = PATIENTS[0]
    sms = stage.voice("sms")
    stage.tell(
        "`sms` is a provider of text messages. `clinic` is its customer, and wants to know what becomes of its"
        " messages and what patients answer. It could ask the provider every few seconds. Instead, the provider says"
        " each thing that happens once, to this platform, and the platform tells the clinic at once, by an HTTP"
        " request to a URL of the clinic's. That request is a webhook."
    )

    stage.chapter("The clinic asks for events")
    stage.api.send("POST", "/packs/messaging/install")
    stage.begin("clinic")
    stage.tell(
        "message.* is a pattern: every type of event that begins with `message.`. The platform gave the clinic a"
        " secret. It signs each webhook with it, so that the clinic can tell it from a forged one."
    )

    stage.chapter("Something happens, and is published once")
    event = accepted(sms, ada, "sms-1")
    stage.tell(
        "202 means durable: the event is in the database with one delivery for each endpoint that wants it. The"
        " provider need not know who they are, whether they are up, or how often it takes."
    )
    stage.hear("clinic", "is on its way")
    stage.show(event)
    stage.tell("This is the webhook, as it went over the wire:")
    stage.show_request(event)
    stage.tell(
        "The clinic did three things, in this order: it verified the signature, it put the event into an inbox of its"
        " own, and it answered. Only then did it act. So the answer is quick, whatever acting takes."
    )

    stage.chapter("And the next thing")
    event = delivered(sms, ada, "sms-1")
    stage.hear("clinic", "has been told")
    stage.show(event)

    stage.chapter("The patient answers, and the clinic stumbles")
    event = replied(sms, ada, "sms-1")
    stage.hear("clinic", "But I stumble")
    stage.show(event)
    stage.tell(
        "503 is no success. The platform cannot know that the clinic has the event, so it will send it again: after 2"
        " seconds, 10, a minute and so on, as the clinic's endpoint says. Nothing is lost while a receiver is in trouble."
    )
    stage.hear("clinic", "I answer by myself")
    stage.hear("clinic", "came again, with the same webhook-id")
    stage.show(event, attempts=2)
    stage.tell(
        "The second time did no harm: the webhook-id is the same on every attempt, and the inbox holds each id once."
        " That is how to act once on what may come twice."
    )

    stage.chapter("The automated answer is an event, too")
    stage.hear("clinic", "is on its way", times=2)
    stage.tell(
        f"The clinic published message.accepted for its answer to {ada.name}, and as it asked for message.*, it heard"
        " of that as well. That is all there is to an automated response: a webhook comes in, an event goes out."
    )

    stage.chapter("Somebody tries to cheat")
    stage.say("stranger", 'POST to the clinic: {"type": "message.reply.received", "data": {"text": "no"}}')
    status = forge(stage)
    stage.say("stranger", f"  → {status}")
    stage.hear("clinic", "refused with 401")
    stage.tell("Without the secret nobody can sign. Keep it like a password.")


def forge(stage: Stage) -> int:
    """What comes of a webhook that somebody else made up."""
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(time.time())),
        "webhook-signature": "v1,Zm9yZ2Vk",
    }
    body = b'{"type": "message.reply.received", "data": {"text": "no"}}'
    return post(stage.api.send("GET", "/endpoints/clinic")["url"], body, headers)
