"""Settings that make no sense are refused at start, by every process, with what would be right."""

import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from django.core.exceptions import ImproperlyConfigured

from tests.deploy.test_files import ROOT, procfile
from tests.deploy.test_start import PRODUCTION
from webhooks_platform import env
from webhooks_platform.embedded.servers import free_port
from webhooks_platform.env import AllowedNetwork, Email, origin_of

KEY = "A" * 43 + "="
"""32 bytes of nothing, in base64."""

number = partial(env.env_int, default=5, low=1, high=9)
choice = partial(env.env_choice, default="curl", choices=("curl", "requests"))
sender = partial(env.env_sender, default="webhooks@localhost")
mails = partial(env.env_email, default="")
SMTP = "django.core.mail.backends.smtp.EmailBackend"


def database_options(name: str) -> Any:
    return (env.env_database(name) or {})["OPTIONS"]


GOOD: list[tuple[Callable[[str], Any], str, Any]] = [
    (partial(env.env_str, default="x"), "anything", "anything"),
    (env.env_list, " a, b ,,", ["a", "b"]),
    (partial(env.env_bool, default=False), " Yes ", True),
    (partial(env.env_bool, default=True), "", True),
    (partial(env.env_bool, default=True), "off", False),
    (number, "", 5),
    (number, " 9 ", 9),
    (choice, "requests", "requests"),
    (choice, "", "curl"),
    (env.env_emails, "", []),
    (env.env_emails, "ops@example.com, a@b.example", ["ops@example.com", "a@b.example"]),
    (sender, "", "webhooks@localhost"),
    (sender, "Hooks <hooks@example.com>", "Hooks <hooks@example.com>"),
    (env.env_url, "", ""),
    (env.env_url, "https://hooks.slack.com/services/T0", "https://hooks.slack.com/services/T0"),
    (env.env_public_url, "", ""),
    (env.env_public_url, "https://hooks.example.com/", "https://hooks.example.com"),
    (env.env_public_url, "http://10.0.0.7:8000", "http://10.0.0.7:8000"),
    (env.env_origins, "", []),
    (
        env.env_origins,
        "https://a.example, http://localhost:3000",
        ["https://a.example", "http://localhost:3000"],
    ),
    (
        env.env_hosts,
        "hooks.example.com,.example.org,127.0.0.1,[::1],*",
        ["hooks.example.com", ".example.org", "127.0.0.1", "[::1]", "*"],
    ),
    (env.env_host, "", ""),
    (env.env_host, "In.Example.com", "in.example.com"),
    (
        env.env_name_servers,
        "9.9.9.9, 10.0.0.2:5353,2620:fe::fe,[2620:fe::9]:53,[2620:fe::9]",
        ["9.9.9.9", "10.0.0.2:5353", "2620:fe::fe", "[2620:fe::9]:53", "[2620:fe::9]"],
    ),
    (env.env_authorities, "", ""),
    (env.env_authorities, certifi.where(), certifi.where()),
    (env.env_broker, "", ""),
    (env.env_broker, "rediss://:secret@cache:6380/1", "rediss://:secret@cache:6380/1"),
    (env.env_database, "", None),
    (
        database_options,
        "postgresql://db/webhooks?sslmode=verify-full&sslrootcert=/ca.pem",
        {"sslmode": "verify-full", "sslrootcert": "/ca.pem"},
    ),
    (
        env.env_allowed_networks,
        "10.0.0.0/8,127.0.0.1/32@9000",
        [
            AllowedNetwork(ipaddress.ip_network("10.0.0.0/8"), None),
            AllowedNetwork(ipaddress.ip_network("127.0.0.1/32"), 9000),
        ],
    ),
    (env.env_networks, "10.0.0.0/8", [ipaddress.ip_network("10.0.0.0/8")]),
    (env.env_proxy, "http://user:secret@proxy:3128", "http://user:secret@proxy:3128"),
    (env.env_encryption_keys, f"k1:{KEY}", [("k1", bytes(32))]),
    (mails, "", Email("django.core.mail.backends.dummy.EmailBackend")),
    (
        mails,
        "file:///var/mail",
        Email("django.core.mail.backends.filebased.EmailBackend", folder="/var/mail"),
    ),
    (mails, "console:", Email("django.core.mail.backends.console.EmailBackend")),
    (mails, "smtp://u:p%40@mail:587", Email(SMTP, "mail", 587, "u", "p@", starts_tls=True)),
    (mails, "smtps://mail", Email(SMTP, "mail", 465, is_tls=True)),
]

BAD: list[tuple[Callable[[str], Any], str, str]] = [
    (partial(env.env_bool, default=False), "maybe", "neither yes nor no. Set it to 'true' or 'false'"),
    (number, "many", "is not a whole number. Set it between 1 and 9"),
    (number, "10", "is out of range. Set it between 1 and 9"),
    (choice, "wget", "Set it to one of: curl, requests"),
    (env.env_emails, "ops", "'ops' is no e-mail address. Write ops@example.com"),
    (env.env_emails, "ops@example.com,@x", "'@x' is no e-mail address"),
    (env.env_emails, "two words@example.com", "is no e-mail address"),
    (sender, "Webhooks", "Set it to one such as Webhooks <webhooks@example.com>"),
    (env.env_url, "hooks.slack.com/secret", "is no URL. Set it to"),
    (env.env_url, "ftp://hooks.slack.com/secret", "is no URL. Set it to"),
    (env.env_url, "https://hooks slack.com/secret", "is no URL. Set it to"),
    (env.env_url, "https://[secret", "is no URL. Set it to"),
    (env.env_public_url, "hooks.example.com", "Set it to what people type, such as https://"),
    (env.env_public_url, "https://hooks.example.com/?a=b", "Set it to what people type, such as https://"),
    (env.env_public_url, "https://hooks.example.com:port", "Set it to what people type, such as https://"),
    (env.env_public_url, "https://ops@hooks.example.com", "Set it to what people type, such as https://"),
    (env.env_public_url, "https://https://hooks.example.com", "Set it to what people type, such as https://"),
    (env.env_public_url, "https://hooks .example.com", "Set it to what people type, such as https://"),
    (env.env_origins, "https://a.example/", "'https://a.example/' is no origin. List them as browsers"),
    (env.env_origins, "https://a b.example", "is no origin"),
    (env.env_origins, "a.example", "is no origin"),
    (env.env_origins, "null", "is no origin"),
    (env.env_origins, "https://a.example?x", "is no origin"),
    (env.env_hosts, "https://hooks.example.com", "is no host. List names alone"),
    (env.env_hosts, "hooks.example.com:8000", "is no host. List names alone"),
    (env.env_host, "https://in.example.com", "is no host. Set it to a name alone"),
    (env.env_host, "in.example.com:443", "is no host. Set it to a name alone"),
    (env.env_host, "in.example.com/in", "is no host. Set it to a name alone"),
    (env.env_name_servers, "dns.example.com", "is no address of a name server. Write 9.9.9.9"),
    (env.env_name_servers, "9.9.9.9:port", "is no address of a name server"),
    (env.env_name_servers, "9.9.9.9:", "is no address of a name server"),
    (env.env_name_servers, "9.9.9.9:0", "is no address of a name server"),
    (env.env_name_servers, "127.0.0.1#5353", "is no address of a name server. Write 9.9.9.9 or 9.9.9.9:53"),
    (env.env_name_servers, "9.9.9.9?", "is no address of a name server"),
    (env.env_name_servers, "9.9.9.9/24", "is no address of a name server"),
    (env.env_authorities, "/nowhere/ca.pem", "No such file or directory.*Set it to a PEM file"),
    (env.env_authorities, "/", "Set it to a PEM file"),
    (env.env_authorities, __file__, "cannot be read as certificates.*Set it to a PEM file"),
    (env.env_broker, "amqp://user:secret@rabbit", "Set it to redis://host:6379/0"),
    (env.env_broker, "redis://cache :6379", "Set it to redis://host:6379/0"),
    (env.env_broker, "cache:6379", "Set it to redis://host:6379/0"),
    (env.env_broker, "redis://:6379", "Set it to redis://host:6379/0"),
    (env.env_broker, "redis://cache:secret", "Set it to redis://host:6379/0"),
    (env.env_broker, "redis://cache:6379/secret", "Set it to redis://host:6379/0"),
    (env.env_database, "postgresql://db/webhooks?conn_max_age=60", '"conn_max_age".*such as .sslmode='),
    (env.env_database, "postgresql://db/webhooks?options=-csecret%3D1", "ALTER ROLE"),
    (env.env_database, "postgresql://db/webhooks?currentSchema=secret", "ALTER ROLE"),
    (env.env_database, "mysql://root:secret@db/webhooks", "Set it to postgresql://"),
    (env.env_database, "postgresql://user:secret@d b/webhooks", "Set it to postgresql://"),
    (env.env_database, "sqlite:///secret", "Set it to postgresql://"),
    (env.env_database, "postgresql://user:secret@db", "name a database.*Set it to postgresql://"),
    (env.env_database, "postgresql://user:pass@db:secret/webhooks", "Set it to postgresql://"),
    (env.env_allowed_networks, "10.0.0.1/8", "is no network.*Write CIDRs"),
    (env.env_allowed_networks, "10.0.0.0/8@http", "is no network.*Write CIDRs"),
    (env.env_allowed_networks, "10.0.0.0/8@", "is no network.*Write CIDRs"),
    (env.env_allowed_networks, "10.0.0.0/8@0", "0 is no port.*Write CIDRs"),
    (env.env_allowed_networks, "10.0.0.0/8@65536", "65536 is no port.*Write CIDRs"),
    (env.env_networks, "proxy", "is no network.*Write CIDRs"),
    (env.env_networks, "10.0.0.5/32@443", "is no network.*Write CIDRs.*without a port"),
    (env.env_proxy, "socks5://secret@proxy:1080", "is no proxy. Write it as http://"),
    (env.env_proxy, "http://pro xy:3128", "is no proxy. Write it as http://"),
    (env.env_proxy, "http://secret:3128x", "is no proxy. Write it as http://"),
    (env.env_proxy, "http://proxy", "is no proxy. Write it as http://"),
    (env.env_encryption_keys, "secret", "Make one with"),
    (env.env_encryption_keys, "k1:c2VjcmV0", "Make one with"),
    (env.env_encryption_keys, f"k1:{KEY},k1:{KEY}", "Give each key an id of its own"),
    (mails, "mail.example.com", "is no address of a mail server. Set it to smtp://"),
    (mails, "imap://user:secret@mail", "is no address of a mail server. Set it to smtp://"),
    (mails, "file://secret", "Set it to smtp://.*, or to file:///folder"),
    (mails, "file:", "Set it to smtp://.*, or to file:///folder"),
    (mails, "smtp://mail:secret", "is no address of a mail server"),
]


def name_of(read: Callable[[str], Any]) -> str:
    return str(getattr(read, "func", read).__name__)


@pytest.mark.parametrize(
    ("read", "text", "expected"), GOOD, ids=lambda each: name_of(each) if callable(each) else None
)
def test_what_makes_sense(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], Any], text: str, expected: Any
) -> None:
    monkeypatch.setenv("WEBHOOKS_X", text)

    assert read("WEBHOOKS_X") == expected


@pytest.mark.parametrize(
    ("read", "text", "says"), BAD, ids=lambda each: name_of(each) if callable(each) else None
)
def test_what_makes_none(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[str], Any], text: str, says: str
) -> None:
    monkeypatch.setenv("WEBHOOKS_X", text)

    with pytest.raises(ImproperlyConfigured, match=says) as refused:
        read("WEBHOOKS_X")

    assert str(refused.value).startswith("WEBHOOKS_X")
    assert "secret" not in str(refused.value)


def test_authorities_of_which_a_line_is_missing_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = Path(certifi.where()).read_text().splitlines(keepends=True)
    begins = [place for place, line in enumerate(lines) if "BEGIN CERTIFICATE" in line]
    damaged = tmp_path / "ca.pem"
    damaged.write_text("".join(lines[: begins[-1] + 3] + lines[begins[-1] + 4 :]))
    monkeypatch.setenv("WEBHOOKS_X", str(damaged))

    with pytest.raises(ImproperlyConfigured, match=r"one of them is damaged.*Set it to a PEM file"):
        env.env_authorities("WEBHOOKS_X")


def test_the_smallest_certificate_is_an_authority_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ours")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    made = builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=9)).sign(key, None)
    path = tmp_path / "ca.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    monkeypatch.setenv("WEBHOOKS_X", str(path))

    assert len(made.public_bytes(Encoding.DER)) < 256
    assert env.env_authorities("WEBHOOKS_X") == str(path)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hooks.example.com", "https://hooks.example.com"),
        ("https://Hooks.Example.com:443/webhooks", "https://hooks.example.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443"),
        ("", ""),
        ("hooks.example.com", ""),
        ("https://[hooks", ""),
        ("https://hooks.example.com:port", ""),
    ],
)
def test_an_origin_is_written_as_browsers_send_it(url: str, expected: str) -> None:
    assert origin_of(url) == expected


def test_every_reader_is_tried() -> None:
    readers = {name for name in vars(env) if name.startswith("env_")}

    assert {name_of(read) for read, _, _ in GOOD} - {"database_options"} == readers
    assert {name_of(read) for read, _, _ in BAD} == readers - {"env_str", "env_list"}


# --- real processes ---------------------------------------------------------------------------------------------------


@contextmanager
def started(process: str, **changes: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process of the Procfile, in a production but for these settings, and the port that it would serve at."""
    port = free_port()
    environment = os.environ | PRODUCTION | changes
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    running = subprocess.Popen(
        [word.replace("${PORT:-8000}", str(port)) for word in procfile()[process]],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield running, port
    finally:
        running.terminate()
        running.communicate(timeout=60)


@pytest.mark.parametrize(
    ("process", "changes", "says"),
    [
        ("worker", {"SECRET_KEY": ""}, "SECRET_KEY is not set. Set it to 50 random characters"),
        ("dispatch", {"WEBHOOKS_ENCRYPTION_KEYS": ""}, "WEBHOOKS_ENCRYPTION_KEYS is not set. Set it to 'id:"),
        ("beat", {"WEBHOOKS_PUBLIC_URL": "hooks"}, "Set it to what people type"),
        ("worker", {"DATABASE_URL": ""}, "DATABASE_URL is not set. Set it to postgresql://"),
        ("beat", {"CELERY_BROKER_URL": ""}, "CELERY_BROKER_URL is not set. Set it to redis://"),
    ],
)
def test_a_process_with_odd_settings_does_not_start(process: str, changes: dict[str, str], says: str) -> None:
    with started(process, **changes) as (running, _):
        output, _ = running.communicate(timeout=60)

    assert running.returncode != 0
    assert says in output


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"WEBHOOKS_INBOUND_HOST": "in.example.com"}, "refused by ALLOWED_HOSTS. List it there, too."),
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set. Set it to postgresql://"),
    ],
)
def test_a_web_server_with_odd_settings_serves_nothing(changes: dict[str, str], says: str) -> None:
    """Its main process tries again and again, and says each time why there is nothing to serve."""
    with started("web", **changes) as (running, port):
        assert running.stdout is not None
        said = next((line for line in running.stdout if says in line), None)
        with (
            pytest.raises(OSError, match="refused"),
            socket.create_connection(("127.0.0.1", port), timeout=5),
        ):
            pass

    assert said is not None
