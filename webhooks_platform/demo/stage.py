"""Where a story plays: one tenant, its receivers, those who publish, and somebody who tells what it means.

Everything that anybody says goes through `say`, in order, and can be waited for: a story goes on when what it told
has really happened.
"""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from django.conf import settings

from webhooks_platform.demo.api import Api
from webhooks_platform.demo.voice import Voice
from webhooks_platform.embedded.parent import die_with_parent

NARRATOR = "story"
PLATFORM = "platform"

WIDTH = 96

PATIENCE_SECONDS = 60.0
"""For what must happen next. On a machine that does much else, it may take its time."""


class StoryFailed(Exception):
    """Something that was to happen did not. The message says what was waited for."""


class Stage:
    """`with Stage(…) as stage:` ends every receiver, however it ends."""

    def __init__(self, *, api: Api, folder: Path, say: Callable[[str, str], None], pace: float = 0.0) -> None:
        """`pace`: seconds that a reader gets for each step."""
        self.api = api
        self.folder = folder
        self.pace = pace
        self.said: list[tuple[str, str]] = []
        self._say = say
        self._spoken = threading.Condition()
        self._receivers: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._chapters = 0
        self._shown: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._receivers):
            self.end(name)

    # --- saying -------------------------------------------------------------------------------------------------------

    def say(self, who: str, line: str) -> None:
        with self._spoken:
            self._say(who, line)
            self.said.append((who, line))
            self._spoken.notify_all()

    def tell(self, text: str) -> None:
        """A paragraph of the narrator's."""
        for line in textwrap.wrap(" ".join(text.split()), WIDTH):
            self.say(NARRATOR, line)

    def chapter(self, title: str) -> None:
        self.pause()
        self._chapters += 1
        self.say(NARRATOR, "")
        self.say(NARRATOR, f"{self._chapters}. {title}")

    def voice(self, name: str) -> Voice:
        return Voice(self.api, lambda line: self.say(name, line))

    def pause(self) -> None:
        time.sleep(self.pace)

    def hear(self, who: str, words: str, *, times: int = 1) -> None:
        """Until they have said that, so many times since the story began. Raises StoryFailed."""

        def count() -> int:
            return sum(name == who and words in line for name, line in self.said)

        with self._spoken:
            if not self._spoken.wait_for(lambda: count() >= times, PATIENCE_SECONDS):
                raise StoryFailed(f'{who} did not say "{words}" within {PATIENCE_SECONDS:g} s')

    # --- receivers ----------------------------------------------------------------------------------------------------

    def begin(self, name: str, *, endpoints: int = 1) -> None:
        """Run `examples/<name>.py` until the stage ends; returns when its endpoints are there."""
        before = sum(who == name and line.startswith("I listen at") for who, line in self.said)
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(  # noqa: S603 - our own examples
            [sys.executable, str(Path(settings.BASE_DIR) / "examples" / f"{name}.py")],
            env=os.environ
            | {
                "PYTHONUNBUFFERED": "1",
                "WEBHOOKS_API": self.api.base,
                "WEBHOOKS_KEY": self.api.key,
                "FOLDER": str(folder),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call
        )
        self._receivers[name] = process
        reader = threading.Thread(target=self._read, args=(name, process), daemon=True)
        reader.start()
        self._readers.append(reader)
        self.hear(name, "I listen at", times=before + endpoints)

    def end(self, name: str) -> None:
        """At once, as if somebody had pulled the plug."""
        process = self._receivers.pop(name)
        process.kill()
        process.wait()

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.say(name, line.rstrip())

    # --- what the platform did ----------------------------------------------------------------------------------------

    def wait(self, what: str, found: Callable[[], Any]) -> Any:
        """The first answer that is not empty. Raises StoryFailed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (answer := found()):
            if time.monotonic() > deadline:
                raise StoryFailed(f"{what} did not happen within {PATIENCE_SECONDS:g} s")
            time.sleep(0.05)
        return answer

    def names(self) -> dict[str, str]:
        """What we call each endpoint, by its id."""
        return {each["id"]: each["uid"] for each in self.api.send("GET", "/endpoints")["data"]}

    def deliveries(self, event_id: str) -> list[dict[str, Any]]:
        return list(self.api.send("GET", f"/events/{event_id}/deliveries")["data"])

    def attempts(self, event_id: str) -> list[tuple[str, dict[str, Any]]]:
        """(endpoint's uid, attempt) of everything that was sent for an event, in order."""
        names = self.names()
        found = [
            (names[delivery["endpoint"]], attempt)
            for delivery in self.deliveries(event_id)
            for attempt in self.api.send("GET", f"/deliveries/{delivery['id']}/attempts")["data"]
        ]
        return sorted(found, key=lambda each: each[1]["started_at"])

    def show(self, event_id: str, *, attempts: int = 1) -> None:
        """Have the platform say what it did for an event, once it made so many attempts; what it said before, not."""

        def enough() -> list[tuple[str, dict[str, Any]]]:
            found = self.attempts(event_id)
            return found if len(found) >= attempts else []

        for name, attempt in self.wait(f"attempt {attempts} for {event_id}", enough):
            if attempt["id"] in self._shown:
                continue
            self._shown.add(attempt["id"])
            status = attempt["status_code"]
            answered = f"answered {status}" if status else attempt["outcome"].replace("_", " ")
            self.say(
                PLATFORM,
                f"{event_id} to {name}: attempt {attempt['number']} {answered} after {attempt['duration_ms']:.0f} ms",
            )

    def show_request(self, event_id: str) -> None:
        """Have the platform say what the first request for an event looked like."""
        name, attempt = self.wait(f"a request for {event_id}", lambda: self.attempts(event_id))[0]
        event = self.api.send("GET", f"/events/{event_id}")
        self.say(PLATFORM, f"POST {self.api.send('GET', f'/endpoints/{name}')['url']}")
        for header, value in attempt["request_headers"].items():
            if header.startswith(("webhook-", "content-type")):
                self.say(PLATFORM, f"    {header}: {value}")
        self.say(PLATFORM, "")
        body = {"type": event["type"], "timestamp": event["occurred_at"], "data": event["data"]}
        for line in json.dumps(body, indent=2, ensure_ascii=False).splitlines():
            self.say(PLATFORM, f"    {line}")
