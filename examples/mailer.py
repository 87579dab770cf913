"""An e-mail service that writes to customers when they are charged and when they get their money back.

`manage.py demo payment` plays it. On your own: WEBHOOKS_API=… WEBHOOKS_KEY=… python examples/mailer.py
"""

from inbox import Event
from webhooks import receive, tell


def act(event: Event) -> None:
    data = event.data
    customer = data["customer"]
    money = f"{data['amount'] // 100}.{data['amount'] % 100:02} {data['currency']}"
    match event.type:
        case "payment.charge.succeeded":
            subject = f"Your receipt for {money}"
            text = (
                f"Thank you, {customer['name']}. We have received {money} for {data['description'].lower()}."
            )
        case "payment.refund.succeeded":
            subject = f"We have sent you {money}"
            text = f"Dear {customer['name']}, {money} are on their way back to you."
        case other:
            tell(f"... nobody gets a letter about {other}")
            return
    tell(f"... writing to {customer['email']}")
    tell(f"    | Subject: {subject}")
    tell(f"    | {text}")
    tell(f"... sent, once: {event.id}")


if __name__ == "__main__":
    receive(
        "mailer",
        ["payment.charge.succeeded", "payment.refund.succeeded"],
        act,
        description="Letters to customers",
        retry_schedule=[2, 10, 60],
    )
