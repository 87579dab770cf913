"""A chat room that hears of every push and of every pipeline. `manage.py demo push` plays it beside `pipeline.py`."""

from inbox import Event
from webhooks import receive, tell


def act(event: Event) -> None:
    data = event.data
    match event.type:
        case "repository.pushed":
            first = data["commits"][0]["message"].splitlines()[0] if data["commits"] else "nothing new"
            tell(f"#builds  {data['pusher']} pushed to {data['ref'].removeprefix('refs/heads/')}: {first}")
        case "pipeline.started":
            tell(f"#builds  {data['pipeline']} has started")
        case "pipeline.finished":
            tell(f"#builds  {data['pipeline']} {data['result']}")


if __name__ == "__main__":
    receive(
        "chat",
        ["repository.pushed", "pipeline.*"],
        act,
        answer=lambda _, is_new: 204 if is_new else 200,
        description="The builds' chat room",
        ordering="fifo",
        retry_schedule=[2, 10, 60],
    )
