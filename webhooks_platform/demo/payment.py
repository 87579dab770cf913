"""The payment story: a gateway tells an e-mail service of a charge and a refund, and the customer gets letters."""

from webhooks_platform.demo.stage import Stage
from webhooks_platform.demo.voice import now

TITLE = "A charge and a refund become letters"
SUMMARY = "a payment gateway tells an e-mail service of a charge, and later of a refund"

CUSTOMER = {"id": "cus-17", "name": "Grace Example", "email": "grace@example.com"}


def play(stage: Stage) -> None:
    gateway = stage.voice("gateway")
    stage.tell(
        "`gateway` takes money from cards. `mailer` writes e-mails. The gateway does not wait for letters to be"
        " written: it publishes what happened and goes on."
    )

    stage.chapter("The mailer asks for two types of events")
    stage.api.send("POST", "/packs/payments/install")
    stage.begin("mailer")

    stage.chapter("A charge")
    gateway.tell("Grace's card was charged 33.90 EUR")
    charge = gateway.publish(
        "payment.charge.succeeded",
        {
            "charge": "ch-5510",
            "customer": CUSTOMER,
            "amount": 3390,
            "currency": "EUR",
            "method": {"kind": "card", "last_digits": "4242"},
            "description": "Order 1001",
            "charged_at": now(),
        },
        key="ch-5510",
    )
    stage.hear("mailer", f"sent, once: {charge}")
    stage.show(charge)

    stage.chapter("A charge that fails")
    gateway.tell("Hedy's card has expired")
    failed = gateway.publish(
        "payment.charge.failed",
        {
            "charge": "ch-5511",
            "customer": {"id": "cus-18", "name": "Hedy Example", "email": "hedy@example.com"},
            "amount": 990,
            "currency": "EUR",
            "reason": "card_expired",
            "failed_at": now(),
        },
        key="ch-5511",
    )
    count = len(stage.deliveries(failed))
    stage.tell(f"The mailer did not ask for payment.charge.failed: {count} deliveries, and no letter.")

    stage.chapter("Nine days later: a refund")
    gateway.tell("One mug was broken; 12.50 EUR go back to Grace")
    refund = gateway.publish(
        "payment.refund.succeeded",
        {
            "refund": "re-311",
            "charge": "ch-5510",
            "customer": CUSTOMER,
            "amount": 1250,
            "currency": "EUR",
            "reason": "One mug was broken",
            "refunded_at": now(),
        },
        key="re-311",
    )
    stage.hear("mailer", f"sent, once: {refund}")
    stage.show(refund)

    stage.chapter("Once more, by hand")
    stage.tell(
        "Support sends the refund's webhook again, as one does when a receiver says that it got nothing."
    )
    (delivery,) = stage.deliveries(refund)
    stage.api.send("POST", f"/deliveries/{delivery['id']}/retry")
    stage.hear("mailer", "came again, with the same webhook-id")
    stage.show(refund, attempts=2)
    stage.tell("Grace has one letter about it, not two: the mailer's inbox knew the webhook-id.")
