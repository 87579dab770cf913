"""Everything in one go: `manage.py serve [--port 8000] [--demo]`.

Migrates, then runs the web server, the two workers and the scheduler as children, prints where to look and who to
log in as, and stops all of it in order on Ctrl-C. The servers below are manage.py's business.
"""

import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from io import StringIO
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand
from django.db import connection

from tenants.management.tables import migrating
from tenants.models import Member, Tenant, User
from tenants.services.audit import COMMAND
from tenants.services.members import set_member
from webhooks_platform.demo.api import DEMO_SCOPES, Api
from webhooks_platform.embedded.secrets import load_secrets, remember_secret
from webhooks_platform.embedded.servers import free_port, is_free
from webhooks_platform.processes import Supervisor

OPERATOR_EMAIL = "operator@localhost"

WEB_WORKERS = 2

HOSTS = ("127.0.0.1", "0.0.0.0")  # noqa: S104 - for those who ask for it

EXPECTED_WARNINGS = [
    "You're running the worker with superuser privileges",  # so is everything in many a container
    "No directory at",  # static files come straight from the source, collected or not
]

WEB_READY_SECONDS = 60

PORT_PATIENCE_SECONDS = 5
"""What an earlier, killed `serve` left behind is gone by then."""

DRAIN_SECONDS = 60
"""For the dispatch worker: longer than the longest request it may have in the air."""


class Command(BaseCommand):
    help = "Run the whole platform on this machine: database, broker, web, workers, scheduler."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="where the web server listens (8000)")
        parser.add_argument(
            "--host", default="127.0.0.1", help="on which address (127.0.0.1: this machine alone)"
        )
        parser.add_argument(
            "--demo", action="store_true", help="with a demo tenant, a receiver and a trickle of events"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"].replace("localhost", "127.0.0.1"), options["port"]
        refuse_odd(host, port)
        clinic_port = free_port() if options["demo"] else None
        supervisor = Supervisor(child_environment(host, port, clinic_port))
        supervisor.listen_to_signals()
        wait_for_port(supervisor, host, port)
        prepare_database(supervisor)
        start_platform(supervisor, host, port)
        try:
            wait_for_web(supervisor, port)
            if not supervisor.is_stopping:
                keys = ensure_keys(port, with_demo=options["demo"])
                introduce(supervisor, port, keys)
                if clinic_port is not None:
                    start_demo(supervisor, port, clinic_port, keys["demo_key"])
            supervisor.run_until_stopped()
        finally:
            stop_platform(supervisor)


def refuse_odd(host: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise CommandError("--port must be between 1 and 65535.")
    if host not in HOSTS:
        # Its own first requests, the demo and this machine's people come by 127.0.0.1.
        raise CommandError(f"--host must be {' or '.join(HOSTS)}, for all addresses of this machine.")


def child_environment(host: str, port: int, clinic_port: int | None) -> dict[str, str]:
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": ",".join(f"ignore:{beginning}" for beginning in EXPECTED_WARNINGS),
        "WEBHOOKS_WEB_PORT": str(port),
        # For somebody who looks at a terminal.
        "WEBHOOKS_LOG_FORMAT": os.environ.get("WEBHOOKS_LOG_FORMAT", "console"),
        "WEBHOOKS_LOG_LEVEL": os.environ.get("WEBHOOKS_LOG_LEVEL", "WARNING"),
    }
    if host == "127.0.0.1":
        # Nobody else reaches the admin, and its login stands on this terminal.
        environment.setdefault("WEBHOOKS_OPERATORS_SECOND_FACTOR", "false")
    if clinic_port is not None:
        allowed = [os.environ.get("WEBHOOKS_ALLOWED_NETWORKS", ""), f"127.0.0.1/32@{clinic_port}"]
        environment["WEBHOOKS_ALLOWED_NETWORKS"] = ",".join(filter(None, allowed))
    return environment


def wait_for_port(supervisor: Supervisor, host: str, port: int) -> None:
    deadline = time.monotonic() + PORT_PATIENCE_SECONDS
    while not is_free(port, host):
        if time.monotonic() > deadline or supervisor.is_stopping:
            raise CommandError(
                f"Port {port} of {host} is in use. Stop what uses it, or take another: serve --port {port + 1}"
            )
        supervisor.sleep(0.2)


def prepare_database(supervisor: Supervisor) -> None:
    if folder := os.environ.get("WEBHOOKS_EMBEDDED_FOLDER"):
        supervisor.say("serve", f"PostgreSQL and Valkey are running; their data and logs are in {folder}")
    report = StringIO()
    with migrating():
        call_command("migrate", interactive=False, verbosity=1, stdout=report)
    applied = report.getvalue().count("... OK")
    supervisor.say("serve", f"Applied {applied} migrations" if applied else "The database is up to date")
    password = var_secret("operator_password") or secrets.token_urlsafe(12)
    if not User.objects.filter(email=OPERATOR_EMAIL).exists():
        User.objects.create_superuser(OPERATOR_EMAIL, password)
        remember_secret(var_folder(), "operator_password", password)
    connection.close()


def start_platform(supervisor: Supervisor, host: str, port: int) -> None:
    granian = [sys.executable, "-m", "granian", "webhooks_platform.wsgi:application", "--interface", "wsgi"]
    granian += ["--host", host, "--port", str(port), "--workers", str(WEB_WORKERS), "--no-ws"]
    granian += ["--blocking-threads", str(settings.WEBHOOKS_DATABASE_POOL), "--respawn-failed-workers"]
    granian += ["--workers-kill-timeout", "10", "--log-level", "error"]
    supervisor.start("web", granian, grace_seconds=15)

    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "webhooks_platform"]
    worker = [*celery, "worker", "--loglevel", "warning", "--prefetch-multiplier", "1"]
    worker += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    # One process more than dispatchers: it answers the nudges that come while all the others are busy for minutes.
    dispatchers = str(settings.WEBHOOKS_DISPATCHERS + 1)
    supervisor.start(
        "dispatch",
        [*worker, "-Q", "dispatch", "-n", "dispatch@%h", "-c", dispatchers],
        grace_seconds=DRAIN_SECONDS,
    )
    supervisor.start(
        "worker", [*worker, "-Q", "celery", "-n", "worker@%h", "-c", "2"], grace_seconds=DRAIN_SECONDS
    )
    supervisor.start("beat", [*celery, "beat", "--loglevel", "warning", "--pidfile="], grace_seconds=10)


def stop_platform(supervisor: Supervisor) -> None:
    """First what makes work, then what does it, last what it needs; the servers follow when we have returned."""
    supervisor.stop_requests = max(supervisor.stop_requests, 1)
    supervisor.say("serve", "Stopping. Press Ctrl-C again to stop at once.")
    supervisor.stop(["sms"])
    supervisor.stop(["web"])
    supervisor.stop(["dispatch", "worker"])
    supervisor.stop(["beat", "clinic"])
    supervisor.say("serve", "Stopped.")


def wait_for_web(supervisor: Supervisor, port: int) -> None:
    deadline = time.monotonic() + WEB_READY_SECONDS
    while status(port, "/health/live") != 200:
        if supervisor.is_stopping:
            return
        supervisor.check_children()
        if time.monotonic() > deadline:
            raise CommandError(f"The web server did not answer within {WEB_READY_SECONDS} s.")
        supervisor.sleep(0.1)


def status(port: int, path: str, key: str = "") -> int | None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 - as above
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def ensure_keys(port: int, *, with_demo: bool) -> dict[str, str]:
    """The keys of earlier runs while they are good, else new ones. Shown here because this is a machine to try on."""
    operator_key = var_secret("operator_key")
    if status(port, "/api/v1/whoami", operator_key or "none") != 200:
        operator_key = made_by("create_operator_key", "serve")
        remember_secret(var_folder(), "operator_key", operator_key)
    assert operator_key is not None
    keys = {"operator_key": operator_key}
    if with_demo:
        demo_key = var_secret("demo_key")
        if status(port, "/api/v1/whoami", demo_key or "none") != 200:
            demo_key = make_demo_key(port, operator_key)
            remember_secret(var_folder(), "demo_key", demo_key)
        assert demo_key is not None
        keys["demo_key"] = demo_key
        let_operator_into_demo()
    return keys


def make_demo_key(port: int, operator_key: str) -> str:
    if status(port, "/api/v1/tenants/demo", operator_key) == 404:
        return made_by("create_tenant", "demo")
    api = Api(f"http://127.0.0.1:{port}/api/v1", operator_key)
    return str(
        api.send("POST", "/tenants/demo/api-keys", {"name": "serve --demo", "scopes": DEMO_SCOPES})["key"]
    )


def let_operator_into_demo() -> None:
    """So that the login opens the demo tenant's portal, too."""
    tenant = Tenant.objects.filter(slug="demo", deleted_at__isnull=True).first()
    operator = User.objects.filter(email=OPERATOR_EMAIL).first()
    if tenant is not None and operator is not None:
        set_member(actor=COMMAND, tenant=tenant, user=operator, role=Member.Role.ADMIN)
    connection.close()


def made_by(command: str, name: str) -> str:
    output = StringIO()
    call_command(command, name, "--json", stdout=output)
    connection.close()
    return str(json.loads(output.getvalue())["api_key"])


def start_demo(supervisor: Supervisor, port: int, clinic_port: int, key: str) -> None:
    environment = {
        "WEBHOOKS_API": f"http://127.0.0.1:{port}/api/v1/tenants/demo",
        "WEBHOOKS_KEY": key,
        "PORT": str(clinic_port),
    }
    clinic = [sys.executable, str(settings.BASE_DIR / "examples" / "clinic.py")]
    sms = [sys.executable, "-m", "webhooks_platform.demo.sms"]
    supervisor.start("clinic", clinic, grace_seconds=5, environment=environment)
    supervisor.start("sms", sms, grace_seconds=5, environment=environment)


def introduce(supervisor: Supervisor, port: int, keys: dict[str, str]) -> None:
    base = f"http://localhost:{port}"
    lines = [
        f"API          {base}/api/v1   (described at {base}/api/docs)",
        f"Portal       {base}/portal/",
        f"Admin        {base}/admin/",
        f"Login        {OPERATOR_EMAIL}   password {var_secret('operator_password')}",
        f"Operator key {keys['operator_key']}",
    ]
    if "demo_key" in keys:
        lines.append(f"Demo key     {keys['demo_key']}   (tenant 'demo')")
    lines.append("Stop         Ctrl-C")
    for line in lines:
        supervisor.say("serve", line)


def var_folder() -> Path:
    return Path(settings.BASE_DIR) / "var"


def var_secret(name: str) -> str | None:
    return load_secrets(var_folder()).get(name)
