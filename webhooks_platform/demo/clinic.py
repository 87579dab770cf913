"""The clinic of the story: a webhook receiver as an integrator would write it. Run by `serve --demo`."""

import base64
import hashlib
import hmac
import json
import os
import threading
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from webhooks_platform.demo.api import Api, demo_api, tell

TOLERANCE_SECONDS = 300
"""An older signature may be a recording played back."""

LARGEST_BODY = 1_000_000

REMEMBERED_IDS = 10_000

STUMBLE_EVERY = 3
"""Every third reply is acted on and then not acknowledged, to show that the second time does no harm."""


def verify(*, secret: str, headers: Any, body: bytes, now: float) -> bool:
    """All there is to verifying a Standard Webhooks signature."""
    message_id, timestamp = headers["webhook-id"] or "", headers["webhook-timestamp"] or ""
    if not timestamp.isdecimal() or abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    given = (headers["webhook-signature"] or "").split()
    return any(hmac.compare_digest(expected, each) for each in given)


class Clinic:
    """Acts on each event once, whatever is sent again: it remembers the ids of what it has acted on."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.secret = ""
        self.acted_on: OrderedDict[str, None] = OrderedDict()
        self.replies = 0
        self.lock = threading.Lock()

    def register(self, url: str) -> None:
        endpoint = {"url": url, "description": "The clinic's appointment book", "event_types": ["message.*"]}
        self.api.send("PUT", "/endpoints/clinic", endpoint)
        self.secret = self.api.send("GET", "/endpoints/clinic/secret")["secret"]
        tell(f"The clinic wants message.* at {url}")

    def receive(self, headers: Any, body: bytes) -> int:
        """The status to answer with: 2xx says that we took it, anything else that it shall come again."""
        if not verify(secret=self.secret, headers=headers, body=body, now=time.time()):
            tell("Something came without a good signature: refused")
            return 401
        event, message_id = json.loads(body), headers["webhook-id"]
        with self.lock:
            if message_id in self.acted_on:
                tell(
                    f"{event['type']} came again (attempt {headers['webhook-attempt']}), same id: already acted on"
                )
                return 200
            try:
                done = self.act(event, message_id)
            except OSError as error:  # the platform did not take our answer
                tell(
                    f"{event['type']} received, but the answer could not be sent ({error}). It shall come again"
                )
                return 503
            tell(f"{event['type']} received, signature verified: {done}")
            self.acted_on[message_id] = None
            if len(self.acted_on) > REMEMBERED_IDS:
                self.acted_on.popitem(last=False)
            if event["type"] == "message.reply.received" and self.replies % STUMBLE_EVERY == 0:
                tell(
                    "... but stumbled before saying so, and answers 503. It will come again in some 5 seconds"
                )
                return 503
        return 204

    def act(self, event: dict[str, Any], message_id: str) -> str:
        data = event["data"]
        match event["type"]:
            case "message.accepted":
                return f"noted, a message to {data['to']} is on its way"
            case "message.delivered":
                return f"noted, {data['to']} has been told"
            case "message.reply.received":
                self.replies += 1
                return self.answer(data, message_id)
            case other:
                return f"{other} is news to us"

    def answer(self, data: dict[str, Any], message_id: str) -> str:
        """Tell the patient. The id of what we answer makes a second answer impossible even if we forget."""
        text, decision = choose_answer(data["text"])
        answer = {"message": f"{data['message']}-answer", "to": data["from"], "text": text}
        self.api.publish("message.accepted", answer, idempotency_key=f"answer-{message_id}")
        return f'{decision}. Answered "{text}"   → published message.accepted'


def choose_answer(text: str) -> tuple[str, str]:
    match text.strip().lower():
        case yes if yes.startswith("yes"):
            return "Thank you, see you tomorrow.", "the appointment is confirmed"
        case no if no.startswith("no"):
            return "Get well soon. We have cancelled it.", "the appointment is cancelled"
        case _:
            return "We will call you about that.", "somebody has to call back"


def make_server(clinic: Clinic, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            if length > LARGEST_BODY:
                self.close_connection = True
                status = 413
            else:
                status = clinic.receive(self.headers, self.rfile.read(length))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """We tell the story ourselves."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    port = int(os.environ["DEMO_CLINIC_PORT"])
    clinic = Clinic(demo_api())
    server = make_server(clinic, port)  # it listens from now on, and answers once the secret is known
    clinic.register(f"http://127.0.0.1:{port}/webhooks")
    server.serve_forever()


if __name__ == "__main__":
    main()
