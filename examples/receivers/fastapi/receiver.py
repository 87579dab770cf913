"""A receiver in FastAPI: verify, keep, answer at once, act once. See README.md."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response

KEY = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
TOLERANCE_SECONDS, LARGEST_BODY = 300, 1_000_000

inbox = sqlite3.connect(os.environ.get("INBOX", "inbox.sqlite"), isolation_level=None)
inbox.execute("CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY, body TEXT, is_done INTEGER DEFAULT 0)")
has_work = asyncio.Event()


def act(event: dict[str, Any]) -> None:
    """Yours. What it writes to the inbox's own database is written once: it is one transaction with the mark."""
    print("acting on", event["type"], flush=True)


def is_genuine(headers: Mapping[str, str], body: bytes) -> bool:
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256))
    given = headers.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(expected, each) for each in given)


async def work() -> None:
    """One after the other; what fails is tried again, and what an earlier run left is done first."""
    while True:
        has_work.clear()
        for message_id, body in inbox.execute("SELECT id, body FROM inbox WHERE NOT is_done").fetchall():
            inbox.execute("BEGIN")
            try:
                act(json.loads(body))
                inbox.execute("UPDATE inbox SET is_done = 1 WHERE id = ?", [message_id])
                inbox.execute("COMMIT")
            except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
                inbox.execute("ROLLBACK")
                print("failed", message_id, error, flush=True)
                has_work.set()
                await asyncio.sleep(1)
        await has_work.wait()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    worker = asyncio.create_task(work())
    yield
    worker.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/webhooks")
async def receive(request: Request) -> Response:
    body = b""
    async for chunk in request.stream():  # the bytes as they came: the signature is over them
        body += chunk
        if len(body) > LARGEST_BODY:
            return Response(status_code=413)
    if not is_genuine(request.headers, body):
        return Response(status_code=401)
    row = [request.headers["webhook-id"], body.decode()]
    added = inbox.execute("INSERT OR IGNORE INTO inbox (id, body) VALUES (?, ?)", row)
    has_work.set()
    return Response(status_code=204 if added.rowcount else 200)
