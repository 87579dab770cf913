"""The order story: a shop tells its shipping service what to send, to whom and where."""

import json
import urllib.error
from typing import Any

from webhooks_platform.demo.stage import PLATFORM, Stage
from webhooks_platform.demo.voice import now

TITLE = "An order goes to the shipping service"
SUMMARY = "a shop tells its shipping service of an order: customer, address, items"

NUMBER = "1001"


def order() -> dict[str, Any]:
    return {
        "order": NUMBER,
        "customer": {"name": "Grace Example", "email": "grace@example.com", "phone": "+447700900123"},
        "shipping_address": {
            "lines": ["12 Harbour Street"],
            "city": "Hamburg",
            "postal_code": "20457",
            "country": "DE",
        },
        "items": [
            {"sku": "MUG-BLUE", "title": "Blue mug", "quantity": 2, "unit_price": 1250},
            {"sku": "TEA-ASSAM", "title": "Assam tea", "quantity": 1, "unit_price": 890},
        ],
        "total": {"amount": 3390, "currency": "EUR"},
        "created_at": now(),
    }


def play(stage: Stage) -> None:
    shop = stage.voice("shop")
    stage.tell(
        "`shop` sells tea and mugs. `shipping` is another company, which packs and sends. The shop publishes each"
        " order once; the platform brings it to the shipping service as a webhook."
    )

    stage.chapter("The catalogue says what an order looks like")
    stage.api.send("POST", "/packs/commerce/install")
    stage.say(
        "shop", "I installed the pack `commerce`: order.created and its neighbours, each with a JSON Schema"
    )
    stage.begin("shipping")

    stage.chapter("An order without an address is refused at the door")
    incomplete = {name: value for name, value in order().items() if name != "shipping_address"}
    shop.tell("I publish an order, and forget the address")
    for refusal in refusals(stage, incomplete):
        shop.tell(f"  → 422: {refusal}")
    stage.tell("What is wrong is told to whoever made the mistake. The shipping service never sees it.")

    stage.chapter("The whole order")
    shop.tell(f"Grace ordered two mugs and tea: order {NUMBER}")
    event = shop.publish("order.created", order(), key=f"order {NUMBER}")
    stage.hear("shipping", f"label of order {NUMBER} is printed")
    stage.show(event)

    stage.chapter("What the shipping service did not ask for")
    shop.tell("Grace has paid")
    paid = shop.publish(
        "order.paid",
        {
            "order": NUMBER,
            "payment": "pay-7d21",
            "method": "card",
            "total": order()["total"],
            "paid_at": now(),
        },
        key=f"paid {NUMBER}",
    )
    names = stage.names()
    for each in stage.api.send("GET", f"/events/{paid}/explain")["data"]:
        stage.say(PLATFORM, f"{paid} to {names[each['endpoint']]}: nothing sent. {each['reason']}")
    stage.tell(
        "Each endpoint hears what it asked for. The platform can say of every event who got it, and why not."
    )

    stage.chapter("The shop is not sure, and publishes again")
    shop.tell("My connection broke before I saw the answer, so I publish the order again, with the same key")
    again = shop.publish("order.created", order_again(stage, event), key=f"order {NUMBER}")
    stage.tell(
        f"{'The same' if again == event else 'Another'} id: the platform knows the Idempotency-Key and took the order"
        " once. One parcel, not two."
    )


def order_again(stage: Stage, event_id: str) -> dict[str, Any]:
    """Exactly what was published: a key may not be used for something else."""
    data: dict[str, Any] = stage.api.send("GET", f"/events/{event_id}")["data"]
    return data


def refusals(stage: Stage, data: dict[str, Any]) -> list[str]:
    try:
        stage.api.publish("order.created", data, idempotency_key="an incomplete order")
    except urllib.error.HTTPError as error:
        with error:
            problem = json.loads(error.read())
        return [f"{each['field']}: {each['message']}" for each in problem["errors"]]
    return []
