"""A clinic that hears what becomes of its text messages, and answers patients who write back.

`manage.py demo appointment` plays it. On your own: WEBHOOKS_API=… WEBHOOKS_KEY=… python examples/clinic.py
"""

import itertools

from inbox import Event
from platform_api import publish
from webhooks import acknowledge, receive, tell

CLINIC = "+447700900000"

STUMBLE_EVERY = 3
"""Every third reply is kept and then not acknowledged, to show that the second time does no harm."""

replies = itertools.count()


def act(event: Event) -> None:
    data = event.data
    match event.type:
        case "message.accepted":
            tell(f"... acting on it: a message to {data['to']} is on its way")
        case "message.delivered":
            tell(f"... acting on it: {data['to']} has been told")
        case "message.reply.received":
            text, decision = choose_answer(data["text"])
            tell(f'... acting on it: {decision}. I answer by myself: "{text}"')
            message = {
                "message": f"answer-to-{data['message']}",
                "from": CLINIC,
                "to": data["from"],
                "text": text,
                "provider_time": event.timestamp,
            }
            publish("message.accepted", message, because_of=event.id, hops=event.hops)
        case other:
            tell(f"... {other} is news to me")


def choose_answer(text: str) -> tuple[str, str]:
    match text.strip().lower():
        case yes if yes.startswith("yes"):
            return "Thank you, see you tomorrow.", "the appointment is confirmed"
        case no if no.startswith("no"):
            return "Get well soon. We have cancelled it.", "the appointment is cancelled"
        case _:
            return "We will call you about that.", "somebody has to call back"


def answer(event: Event, is_new: bool) -> int:
    if is_new and event.type == "message.reply.received" and next(replies) % STUMBLE_EVERY == 0:
        tell(f"{event.type} came: signature good, kept in my inbox. But I stumble, and answer 503")
        return 503
    return acknowledge(event, is_new)


if __name__ == "__main__":
    receive(
        "clinic",
        ["message.*"],
        act,
        answer=answer,
        description="The clinic's appointment book",
        retry_schedule=[2, 10, 60, 300, 3600],
    )
