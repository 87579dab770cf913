#!/usr/bin/env python
"""The commands. Without DATABASE_URL and CELERY_BROKER_URL those that need servers use the checkout's own."""

import atexit
import os
import signal
import sys
from pathlib import Path
from types import FrameType

VAR = Path(__file__).resolve().parent / "var"

OPEN = ("DATABASE_URL", "CELERY_BROKER_URL", "SECRET_KEY", "WEBHOOKS_ENCRYPTION_KEYS")
"""What is made here if the environment leaves it open."""

COMMANDS_WITHOUT_SERVERS = {
    "",
    "--help",
    "--version",
    "-h",
    "check",
    "collectstatic",
    "compilemessages",
    "diffsettings",
    "findstatic",
    "help",
    "listen",
    "makemessages",
    "makemigrations",
    "spectacular",
    "startapp",
    "version",
}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webhooks_platform.settings")
    try:
        provide_environment(sys.argv[1:])
        run(sys.argv)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def run(arguments: list[str]) -> None:
    """What people mend themselves is said to them in words; with --traceback, as Django's commands do, also where."""
    # After the environment is complete.
    import psycopg  # noqa: PLC0415
    from django.core.exceptions import ImproperlyConfigured  # noqa: PLC0415
    from django.core.management import execute_from_command_line  # noqa: PLC0415
    from django.db import OperationalError  # noqa: PLC0415

    try:
        execute_from_command_line(arguments)
    except ImproperlyConfigured as error:
        if "--traceback" in arguments:
            raise
        sys.exit(str(error))
    except (OperationalError, psycopg.OperationalError) as error:
        # What a database says that answers has a code, and is a fault of ours.
        is_answer = getattr(error.__cause__ or error, "sqlstate", None) is not None
        if is_answer or "--traceback" in arguments:
            raise
        sys.exit(
            f"The database does not answer: {error}\nSee that it runs, and that DATABASE_URL leads to it."
        )


def provide_environment(arguments: list[str]) -> None:
    """Whatever the environment says stays. What it leaves open is for trying out and developing on one machine."""
    command = arguments[0] if arguments else ""
    for name in OPEN:
        if not os.environ.get(name, "").strip():
            os.environ.pop(name, None)  # empty is not set, as for the settings
    is_configured = "DATABASE_URL" in os.environ and "CELERY_BROKER_URL" in os.environ
    if not is_configured or command == "serve" or (VAR / "secrets.json").exists():
        provide_secrets()
    if is_configured or not needs_servers(command, arguments):
        return
    os.environ.setdefault("WEBHOOKS_SECURE_COOKIES", "false")  # there is no TLS on this machine's own address
    provide_servers()


def needs_servers(command: str, arguments: list[str]) -> bool:
    if {"-h", "--help"} & set(arguments):
        return False
    if arguments == ["demo"]:  # it lists the stories
        return False
    return command not in COMMANDS_WITHOUT_SERVERS or any(each.startswith("--database") for each in arguments)


def provide_secrets() -> None:
    from webhooks_platform.embedded import EmbeddedError, load_secrets  # noqa: PLC0415 - not needed in production

    try:
        secrets = load_secrets(VAR)
    except (EmbeddedError, OSError) as error:
        sys.exit(
            f"{error}\nSet SECRET_KEY and WEBHOOKS_ENCRYPTION_KEYS, or run this as the user who first ran it here."
        )
    for name in ("SECRET_KEY", "WEBHOOKS_ENCRYPTION_KEYS"):
        os.environ.setdefault(name, secrets[name])


def provide_servers() -> None:
    from webhooks_platform.embedded import EmbeddedError, ensure_servers  # noqa: PLC0415 - not needed in production

    signal.signal(signal.SIGTERM, exit_in_order)
    try:
        servers = ensure_servers(data_dir=VAR)
    except EmbeddedError as error:
        sys.exit(str(error))
    atexit.register(servers.stop)
    # One of the two may be set; then only the other is ours.
    if "DATABASE_URL" not in os.environ:
        os.environ["WEBHOOKS_EMBEDDED_DATABASE"] = str(VAR)
    os.environ.setdefault("DATABASE_URL", servers.database_url)
    os.environ.setdefault("CELERY_BROKER_URL", servers.broker_url)
    os.environ["WEBHOOKS_EMBEDDED_FOLDER"] = str(servers.folder)


def exit_in_order(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal handlers are called
    """So that the servers are let go of."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
