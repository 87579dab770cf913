"""Webhooks on a laptop: reads what happens at the platform and forwards it to a local port, signed. Needs only `requests`.

    python listen.py --api https://webhooks.example.com --key whk_… --forward http://localhost:3000/hook --types 'order.*'

It reads an endpoint of kind poll, which it makes for itself and finds again: what happens while it is away waits there.
Something counts as forwarded when the local port answered, whatever it said; while nobody listens there, it waits.
The key needs the scopes endpoints:write (which shows the signing secret, too) and events:read.

`manage.py listen` is this file.
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import requests

POLL_SECONDS = 0.5
"""Between looks when there is nothing."""

LONGEST_WAIT_SECONDS = 15.0
"""Between tries when the platform or the local port is away."""

TIMEOUT_SECONDS = 30.0
BATCH = 50


class GiveUp(Exception):
    """Trying again would not help: a wrong key, say."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--api", required=True, help="where the platform is, such as https://webhooks.example.com"
    )
    parser.add_argument("--key", required=True, help="an API key with endpoints:write and events:read")
    parser.add_argument("--forward", required=True, help="such as http://localhost:3000/hook")
    parser.add_argument(
        "--types", default="*", help="patterns with commas between, such as order.*,invoice.paid"
    )
    parser.add_argument("--tenant", default="", help="for operator keys; else the key's own")
    parser.add_argument(
        "--name", default="listen", help="two listeners of different names get everything each"
    )
    parser.add_argument(
        "--forget", action="store_true", help="delete the endpoint at the end; nothing waits then"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add_arguments(parser)
    return run(vars(parser.parse_args(arguments)), say=_print, stop=threading.Event())


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(options: dict[str, Any], *, say: Callable[[str], None], stop: threading.Event) -> int:
    """Until it is stopped; returns the exit code."""
    listener = Listener(options, say, stop)
    try:
        refuse_odd(options)
        listener.begin()
        listener.listen()
    except GiveUp as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        pass
    finally:
        listener.end()
    return 0


def refuse_odd(options: dict[str, Any]) -> None:
    """What would be tried again for ever. Raises GiveUp."""
    for name in ("api", "forward"):
        if not _is_address(str(options[name])):
            raise GiveUp(f"--{name} {options[name]} is no address: write it as http://localhost:3000")
    key = str(options["key"])
    if not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise GiveUp("--key is no API key: it looks like whk_ and letters, without blanks")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - which is looked at only when it is asked for
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


class Listener:
    def __init__(self, options: dict[str, Any], say: Callable[[str], None], stop: threading.Event) -> None:
        base = str(options["api"]).rstrip("/").removesuffix("/api/v1")
        self.api = f"{base}/api/v1"
        self.forward_to = str(options["forward"])
        self.patterns = [each.strip() for each in str(options["types"]).split(",") if each.strip()]
        self.tenant = str(options["tenant"])
        self.name = str(options["name"])
        self.is_forgetful = bool(options["forget"])
        self.say = say
        self.stop = stop
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {options['key']}"
        self.local = requests.Session()
        # No proxy stands between this machine and itself.
        self.local.trust_env = False
        self.endpoint = ""
        self.after: str | None = None

    # --- the three parts ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        who = self.ask("GET", f"{self.api}/whoami")
        if "tenant" not in who:
            raise GiveUp(f"{self.api} is not the platform.")
        if not self.tenant:
            tenant = who["tenant"]
            if tenant is None:
                raise GiveUp("This is an operator's key: say which tenant with --tenant.")
            self.tenant = tenant["id"]
        endpoints = f"{self.api}/tenants/{quote(self.tenant, safe='')}/endpoints"
        self.endpoint = f"{endpoints}/{quote(self.name, safe='')}"
        wanted = {
            "kind": "poll",
            "url": None,
            "event_types": self.patterns,
            "description": f"Forwarded to {self.forward_to} by listen",
        }
        made = self.ask("PUT", self.endpoint, json=wanted)
        if made["status"] != "enabled":
            self.ask("POST", f"{self.endpoint}/enable")
        secret = self.ask("GET", f"{self.endpoint}/secret")["secret"]
        self.say(f"Listening for {', '.join(self.patterns)}, forwarding to {self.forward_to}")
        self.say(f"Signing secret: {secret}")

    def listen(self) -> None:
        while not self.stop.is_set():
            query: dict[str, Any] = {"limit": BATCH, "consumer": self.name}
            if self.after is not None:
                query["after"] = self.after
            found = self.ask("GET", f"{self.endpoint}/poll", params=query)["data"]
            for item in found:
                if not self.forward(item):
                    return
                # Acknowledged with the next look. Who is killed in between forwards it once more.
                self.after = item["cursor"]
            if not found:
                self.stop.wait(POLL_SECONDS)

    def end(self) -> None:
        """Best effort: what it cannot say now is read and forwarded once more next time."""
        if not self.endpoint:
            return
        try:
            if self.is_forgetful:
                self.session.delete(self.endpoint, timeout=5)
            elif self.after is not None:
                query: dict[str, Any] = {"after": self.after, "limit": 1, "consumer": self.name}
                self.session.get(f"{self.endpoint}/poll", params=query, timeout=5)
        except requests.RequestException:
            self.say("The platform is away; the last ones come again next time.")

    # --- its parts ----------------------------------------------------------------------------------------------------

    def forward(self, item: dict[str, Any]) -> bool:
        """Whether it got there. False: stopped meanwhile."""
        wait = 0.25
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                answer = self.local.post(
                    self.forward_to,
                    data=item["body"].encode(),
                    headers=item["headers"],
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                if wait == 0.25:
                    self.say(f"{self.forward_to} does not answer ({type(error).__name__}), trying again")
                self.stop.wait(wait)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)
                continue
            took_ms = (time.monotonic() - began) * 1000
            at = time.strftime("%H:%M:%S")
            self.say(f"{at}  {item['event_type']}  {item['event']}  {answer.status_code}  {took_ms:.0f} ms")
            return True
        return False

    def ask(self, method: str, url: str, **details: Any) -> Any:
        """Until there is an answer. Raises GiveUp."""
        wait = 0.5
        while not self.stop.is_set():
            try:
                answer = self.session.request(method, url, timeout=TIMEOUT_SECONDS, **details)
            except requests.RequestException as error:
                reason, pause = type(error).__name__, wait
            else:
                if answer.ok:
                    if wait > 0.5:
                        self.say("Connected again")
                    return _content(answer)
                if answer.status_code < 500 and answer.status_code != 429:
                    raise GiveUp(_refusal(answer))
                reason = str(answer.status_code)
                pause = _seconds(answer.headers.get("Retry-After"), wait)
            if wait == 0.5:
                self.say(f"The platform does not answer ({reason}), trying again")
            self.stop.wait(pause)
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)
        raise GiveUp("Stopped.")


def _content(answer: requests.Response) -> dict[str, Any]:
    """Raises GiveUp: somebody else answers."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise GiveUp(_stranger(answer))
    return found


def _refusal(answer: requests.Response) -> str:
    try:
        problem = answer.json()
        return f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return _stranger(answer)


def _stranger(answer: requests.Response) -> str:
    return f"{answer.url.partition('?')[0]} answered {answer.status_code}. Is this the platform?"


def _seconds(text: str | None, default: float) -> float:
    return min(float(text), LONGEST_WAIT_SECONDS) if text and text.isdigit() else default


if __name__ == "__main__":
    sys.exit(main())
