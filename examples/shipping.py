"""A shipping service that hears of a shop's orders and prints a label for each parcel.

`manage.py demo order` plays it. On your own: WEBHOOKS_API=… WEBHOOKS_KEY=… python examples/shipping.py
"""

from typing import Any

from inbox import Event
from webhooks import receive, tell

GRAMS = {"MUG-BLUE": 380, "TEA-ASSAM": 120}
DEFAULT_GRAMS = 500


def act(event: Event) -> None:
    order = event.data
    address = order["shipping_address"]
    tell(f"... printing the label of order {order['order']}:")
    for line in [
        order["customer"]["name"],
        *address["lines"],
        f"{address['postal_code']} {address['city']}, {address['country']}",
    ]:
        tell(f"    | {line}")
    for item in order["items"]:
        tell(f"    - {item['quantity']} x {item['title']} ({item['sku']})")
    tell(f"... label of order {order['order']} is printed; the parcel weighs {weight(order['items'])} g")


def weight(items: list[dict[str, Any]]) -> int:
    return sum(item["quantity"] * GRAMS.get(item["sku"], DEFAULT_GRAMS) for item in items)


if __name__ == "__main__":
    receive("shipping", ["order.created"], act, description="Parcels", retry_schedule=[2, 10, 60])
