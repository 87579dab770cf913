"""Books in which every payment is written down. `manage.py demo outage` takes it down for a while.

FOLDER says where the book and the inbox are kept.
"""

import sqlite3

from inbox import Event, path_of
from webhooks import receive, tell

book = sqlite3.connect(path_of("book"), isolation_level=None, check_same_thread=False)
book.execute("CREATE TABLE IF NOT EXISTS payments (webhook TEXT PRIMARY KEY, amount INTEGER)")


def act(event: Event) -> None:
    total = event.data["total"]
    # The id again: had we crashed behind this line, the inbox would bring the event back.
    book.execute("INSERT OR IGNORE INTO payments VALUES (?, ?)", [event.id, total["amount"]])
    ((count, amount),) = book.execute("SELECT count(*), sum(amount) FROM payments")
    tell(
        f"... wrote down order {event.data['order']}: {count} payments, {amount / 100:.2f} {total['currency']}"
    )


if __name__ == "__main__":
    receive("books", ["order.paid"], act, description="Every payment", retry_schedule=[1])
