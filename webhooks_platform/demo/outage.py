"""The outage story: a receiver is down for a while, and gets everything that it missed."""

from functools import partial

from webhooks_platform.demo.stage import PLATFORM, Stage
from webhooks_platform.demo.voice import now

TITLE = "A receiver is down for a while"
SUMMARY = "an endpoint goes down, deliveries fail, and it catches up by recovery"

MISSED = 3


def play(stage: Stage) -> None:
    shop = stage.voice("shop")
    began = now()
    stage.tell(
        "`shop` publishes payments. `books` writes them down. Then its machine loses power. To keep the story"
        " short, its endpoint asks for only one retry, after a second; by default the platform tries for three days."
    )

    stage.chapter("All is well")
    stage.api.send("POST", "/packs/commerce/install")
    stage.begin("books")
    first = pay(stage, 1)
    stage.hear("books", "wrote down order 1:")
    stage.show(first)

    stage.chapter("The power goes")
    stage.end("books")
    stage.say("books", "(nobody is here any more)")
    missed = [pay(stage, number) for number in range(2, 2 + MISSED)]
    for event in missed:
        stage.wait("the last attempt", partial(has_failed, stage, event))
    stage.show(missed[0], attempts=2)
    stage.tell(
        f"The shop noticed nothing: its payments were accepted. {MISSED} deliveries ended as failed, with every attempt"
        " written down."
    )

    stage.chapter("The power is back")
    stage.begin("books")
    pay(stage, 2 + MISSED)
    stage.hear("books", f"wrote down order {2 + MISSED}:")
    stage.tell("New payments arrive again. Those in between are still missing.")

    stage.chapter("Recovery")
    stage.say("books", f"I ask for what I missed: POST /endpoints/books/recover since {began}")
    job = stage.api.send("POST", "/endpoints/books/recover", {"since": began})
    stage.wait("the recovery", partial(is_done, stage, job["id"]))
    done = stage.api.send("GET", f"/jobs/{job['id']}")
    stage.say(PLATFORM, f"{done['id']}: {done['done']} of {done['total']} sent again")
    for number in range(2, 2 + MISSED):
        stage.hear("books", f"wrote down order {number}:")
    stage.show(missed[0], attempts=3)
    total = 2 + MISSED
    stage.hear("books", f": {total} payments")
    shop.tell(
        f"{total} payments published, and {total} are in the book: none is missing, none is there twice"
    )


def pay(stage: Stage, number: int) -> str:
    shop = stage.voice("shop")
    shop.tell(f"Order {number} is paid")
    total = {"amount": 1000 * number, "currency": "EUR"}
    data = {
        "order": str(number),
        "payment": f"pay-{number}",
        "method": "card",
        "total": total,
        "paid_at": now(),
    }
    return shop.publish("order.paid", data, key=f"paid {number}")


def has_failed(stage: Stage, event_id: str) -> bool:
    return [each["status"] for each in stage.deliveries(event_id)] == ["failed"]


def is_done(stage: Stage, job_id: str) -> bool:
    job = stage.api.send("GET", f"/jobs/{job_id}")
    return bool(job["status"] == "done")
