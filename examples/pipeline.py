"""A build service: a push to the main branch makes a pipeline run, and the pipeline tells how it went.

`manage.py demo push` plays it. On your own: WEBHOOKS_API=… WEBHOOKS_KEY=… python examples/pipeline.py
"""

import time

from inbox import Event
from platform_api import publish
from webhooks import receive, tell

STEPS = ("check out", "build", "test")
STEP_SECONDS = 0.2


def act(event: Event) -> None:
    push = event.data
    run = {
        "pipeline": f"run-{push['after'][:8]}",
        "repository": push["repository"],
        "ref": push["ref"],
        "commit": push["after"],
    }
    tell(f"... {push['pusher']} pushed {push['after'][:8]} to {push['ref']}: {run['pipeline']} begins")
    publish(
        "pipeline.started",
        {**run, "started_by": push["pusher"], "started_at": event.timestamp},
        because_of=event.id,
        hops=event.hops,
    )
    for step in STEPS:
        time.sleep(STEP_SECONDS)
        tell(f"    | {step}: ok")
    publish(
        "pipeline.finished",
        {**run, "result": "passed", "seconds": len(STEPS) * STEP_SECONDS, "finished_at": event.timestamp},
        because_of=event.id,
        hops=event.hops,
    )
    tell(f"... {run['pipeline']} passed")


if __name__ == "__main__":
    receive(
        "pipeline",
        ["repository.pushed"],
        act,
        filters={"repository.pushed": 'data.ref == "refs/heads/main"'},
        description="Builds of the main branch",
        retry_schedule=[2, 10, 60],
    )
