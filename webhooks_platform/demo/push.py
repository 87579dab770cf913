"""The push story: a repository host's webhook comes in at a source, becomes an event, and goes out to whoever asked."""

import hashlib
import hmac
import json
from typing import Any

from webhooks_platform.demo.api import post
from webhooks_platform.demo.stage import PLATFORM, Stage
from webhooks_platform.demo.voice import now

TITLE = "A push starts a pipeline"
SUMMARY = "a push arrives from a repository host; a pipeline runs, and a chat room hears of everything"

SECRET = "the host and the platform know this"  # noqa: S105 - of a platform that is gone when the story is over

BEFORE = "59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5"
TOPIC = "1d2e3f405162738495a6b7c8d9e0f1a2b3c4d5e6"
MAIN = "8f3c1d6a2e5b7094c1d3e6f8a9b0c2d4e5f60718"

MAPPING = """{
    "repository": data.body.repository.full_name,
    "ref": data.body.ref,
    "before": data.body.before,
    "after": data.body.after,
    "pusher": data.body.pusher.name,
    "commits": data.body.commits.map(each, {"id": each.id, "message": each.message, "author": each.author.name}),
    "pushed_at": data.body.head_commit.timestamp
}"""
"""From what GitHub sends to what the pack calls repository.pushed."""


def play(stage: Stage) -> None:
    stage.tell(
        "`host` keeps repositories, as GitHub does, and sends a webhook of its own kind for every push. `pipeline`"
        " builds the main branch. `chat` is a room where people want to know of everything. This time the platform is"
        " at both ends: it receives the host's webhook, and sends webhooks to whoever asked."
    )

    stage.chapter("A source: where the host's webhooks come in")
    stage.api.send("POST", "/packs/ci-cd/install")
    source = make_source(stage)
    stage.say(PLATFORM, f"Here is a URL for the host: {source['url'][:48]}…")
    stage.tell(
        "The source was made from the preset `github`: it knows how that host signs (X-Hub-Signature-256) and numbers"
        " (X-GitHub-Delivery) what it sends. A mapping turns the host's long body into a repository.pushed."
    )

    stage.chapter("Two receivers, two wishes")
    stage.begin("pipeline")
    stage.say("pipeline", 'My subscription has a filter: data.ref == "refs/heads/main"')
    stage.begin("chat")

    stage.chapter("A push to another branch")
    push(stage, source, number=1, ref="refs/heads/topic", after=TOPIC, message="Try it")
    stage.hear("chat", "ada pushed to topic")
    stage.show(newest_event(stage))
    stage.tell("One delivery: the pipeline's filter said no, so nothing was sent to it.")

    stage.chapter("A push to main")
    push(stage, source, number=2, ref="refs/heads/main", after=MAIN, message="Round the total once")
    stage.hear("chat", "ada pushed to main")
    stage.hear("pipeline", "passed")
    stage.hear("chat", f"run-{MAIN[:8]} passed")
    stage.tell(
        "One push, two webhooks at the same time. The pipeline published pipeline.started and pipeline.finished, and"
        " the chat room heard of both without the pipeline knowing that there is a chat room."
    )

    stage.chapter("The host sends it again, and somebody else tries to")
    stage.say("host", "I am not sure that it arrived, so here it is once more")
    push(stage, source, number=2, ref="refs/heads/main", after=MAIN, message="Round the total once")
    stage.say("stranger", "I push to main, too; I only cannot sign it")
    push(stage, source, number=3, ref="refs/heads/main", after=TOPIC, message="Mine", who="stranger")
    for request in stage.api.send("GET", f"/sources/{source['id']}/requests")["data"][1::-1]:
        reason = f": {request['detail']}" if request["detail"] else ""
        stage.say(PLATFORM, f"{request['id']} {request['verdict']}{reason}")
    stage.tell(
        "What comes twice is answered like the first time and makes no second event. What is not genuine is refused,"
        " and kept with its reason, so that one can see who tries what."
    )


def make_source(stage: Stage) -> dict[str, Any]:
    source = {
        "name": "Repositories",
        "preset": "github",
        "secrets": [SECRET],
        "event_type": '"repository.pushed"',
        "data": MAPPING,
    }
    made: dict[str, Any] = stage.api.send("POST", "/sources", source)
    return made


def push(
    stage: Stage,
    source: dict[str, Any],
    *,
    number: int,
    ref: str,
    after: str,
    message: str,
    who: str = "host",
) -> None:
    """As GitHub sends it; only who knows the secret can sign."""
    commit = {"id": after, "message": message, "timestamp": now(), "author": {"name": "Ada Example"}}
    body = json.dumps(
        {
            "ref": ref,
            "before": BEFORE,
            "after": after,
            "repository": {"id": 35129377, "name": "shop", "full_name": "acme/shop", "private": True},
            "pusher": {"name": "ada", "email": "ada@example.com"},
            "commits": [commit],
            "head_commit": commit,
        }
    ).encode()
    secret = SECRET if who == "host" else "a guess"
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": f"72d3162e-cc78-11e3-81ab-4c9367dc095{number}",
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
    }
    stage.say(who, f"ada pushed to {ref.removeprefix('refs/heads/')}: POST to the source, signed")
    status = post(source["url"], body, headers)
    stage.say(who, f"  → {status}")


def newest_event(stage: Stage) -> str:
    return str(stage.api.send("GET", "/events?limit=1")["data"][0]["id"])
