"""The servers of this checkout, shared by all its commands: the first one starts them, the last one stops them.

`var/servers.lock` is held while somebody starts, joins or stops. `var/servers.users` is held, shared, by everybody
who uses the servers; the kernel lets go of it when a process ends, however it ends. So whatever was killed, the next
command finds out by itself whether servers run (they answer to the kept passwords) and whether others need them.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from webhooks_platform.embedded.postgres import PostgresServer
from webhooks_platform.embedded.programs import Account, EmbeddedError, find_account, find_programs, is_usable
from webhooks_platform.embedded.secrets import load_secrets, remember_secret, write_private
from webhooks_platform.embedded.servers import Server, StopMode, is_alive, works_in
from webhooks_platform.embedded.valkey import ValkeyServer

PATIENCE_SECONDS = 30
"""How long servers that another command uses may fail to answer before we give up."""

TEMPORARY_PREFIX = "webhooks-servers-"

START_ATTEMPTS = 3
"""A port that was free a moment ago may be taken by now."""


@dataclass(slots=True)
class Servers:
    postgres: PostgresServer
    valkey: ValkeyServer
    folder: Path
    is_joined: bool
    """Another command had started them."""
    release: Callable[[StopMode], None]
    used_by: int = field(default_factory=os.getpid)

    @property
    def database_url(self) -> str:
        return self.postgres.url

    @property
    def admin_url(self) -> str:
        return self.postgres.admin_url

    @property
    def broker_url(self) -> str:
        return self.valkey.url

    def stop(self, mode: StopMode = "fast") -> None:
        """We need them no more. May be called again, and does nothing in a fork of the process that joined."""
        if self.used_by == os.getpid():
            self.used_by = 0
            self.release(mode)


def ensure_servers(*, data_dir: Path, durable: bool = True) -> Servers:
    """Join the servers of `data_dir`, or start them. Without `durable`: new ones in a temporary folder."""
    if not durable:
        return temporary_servers()
    home = data_dir.resolve()
    try:
        return _ensure_shared(home)
    except PermissionError as error:
        raise EmbeddedError(
            f"{error.filename} belongs to somebody else. Run this as the user who first ran it here, "
            "or set DATABASE_URL and CELERY_BROKER_URL."
        ) from None


def _ensure_shared(home: Path) -> Servers:
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / "servers.lock"):
        kept = load_secrets(home)
        state = _read_state(home)
        folder, account = _choose_folder(home, kept)
        programs = find_programs(account, copies=folder / "programs")
        postgres = PostgresServer(
            folder=folder / "postgres",
            programs=programs,
            account=account,
            is_durable=True,
            password=kept["database_password"],
            admin_password=kept["admin_password"],
            port=state.get("postgres_port"),
        )
        valkey = ValkeyServer(
            folder=folder / "valkey",
            programs=programs,
            account=account,
            password=kept["broker_password"],
            port=state.get("valkey_port"),
        )
        postgres.adopt(state.get("postgres_pid"))
        valkey.adopt(state.get("valkey_pid"))
        users = (home / "servers.users").open("a")
        try:
            is_joined = _join(postgres, valkey, has_other_users=not _is_alone(users))
            if not is_joined:
                _start([postgres, valkey])
                _write_state(home, postgres, valkey)
            fcntl.flock(users, fcntl.LOCK_SH)
        except BaseException:
            users.close()
            raise

    def release(mode: StopMode) -> None:
        with _locked(home / "servers.lock"):
            fcntl.flock(users, fcntl.LOCK_UN)
            if _is_alone(users):
                valkey.stop(mode)
                postgres.stop(mode)
                _write_state(home, postgres, valkey)
            users.close()

    return Servers(postgres=postgres, valkey=valkey, folder=folder, is_joined=is_joined, release=release)


def _choose_folder(home: Path, kept: dict[str, str]) -> tuple[Path, Account]:
    """`home`, or for root in a place that others cannot enter, a folder outside of it, remembered in the secrets."""
    if kept.get("data_of") == str(home) and Path(kept["data"]).is_dir():
        elsewhere = Path(kept["data"])
        return elsewhere, find_account(elsewhere / "postgres")
    account = find_account(home / "postgres")
    if is_usable(home, account):
        return home, account
    if (home / "postgres").exists() or not account.is_other:
        raise EmbeddedError(
            f"The account that runs the servers cannot write to {home}, where their data is or should be."
        )
    for parent in (Path("/var/lib/webhooks-platform"), Path("/var/tmp/webhooks-platform")):  # noqa: S108 - random name below
        folder = parent / secrets.token_hex(8)
        with contextlib.suppress(OSError):
            parent.mkdir(exist_ok=True)
            parent.chmod(0o755)
            if parent.stat().st_uid == 0 and is_usable(folder, account):
                remember_secret(home, "data", str(folder))
                remember_secret(home, "data_of", str(home))
                return folder, account
    raise EmbeddedError(
        "No folder found that the account which runs the servers can write to. Set DATABASE_URL."
    )


def _join(postgres: PostgresServer, valkey: ValkeyServer, *, has_other_users: bool) -> bool:
    """Whether both answer. What others are using gets time to answer and is never stopped by us."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        if (
            postgres.is_running()
            and valkey.is_running()
            and postgres.is_answering()
            and valkey.is_answering()
        ):
            return True
        if not has_other_users or not (postgres.is_running() or valkey.is_running()):
            return False
        if time.monotonic() > deadline:
            raise EmbeddedError(
                "Another command of this checkout is using the servers, and they do not answer. "
                f"End that command first. Logs: {postgres.log}, {valkey.log}"
            )
        time.sleep(0.2)


def _start(servers: list[Server]) -> None:
    for server in servers:
        server.stop("immediate")  # what is left of an earlier run
    try:
        for server in servers:
            _start_on_some_port(server)
    except BaseException:
        for server in servers:
            server.stop("immediate")
        raise


def _start_on_some_port(server: Server) -> None:
    for attempt in range(1, START_ATTEMPTS + 1):
        if not server.has_free_port():
            server.choose_port()
        try:
            server.start()
        except EmbeddedError:
            if attempt == START_ATTEMPTS or server.has_free_port():
                raise
        else:
            return


def temporary_servers() -> Servers:
    """A new, empty pair that forgets everything: without fsync, gone with the process that started it."""
    account = find_account()
    _remove_left_overs()
    folder = _temporary_folder(account)
    held = (folder / "held").open("a")
    fcntl.flock(held, fcntl.LOCK_EX)
    programs = find_programs(account, copies=folder / "programs")
    postgres = PostgresServer(
        folder=folder / "postgres",
        programs=programs,
        account=account,
        is_durable=False,
        password=secrets.token_hex(16),
        admin_password=secrets.token_hex(16),
        is_bound=True,
    )
    valkey = ValkeyServer(
        folder=folder / "valkey",
        programs=programs,
        account=account,
        password=secrets.token_hex(16),
        is_bound=True,
    )

    def release(mode: StopMode) -> None:
        valkey.stop(mode)
        postgres.stop(mode)
        held.close()
        shutil.rmtree(folder, ignore_errors=True)

    try:
        _start([postgres, valkey])
    except BaseException:
        release("immediate")
        raise
    return Servers(postgres=postgres, valkey=valkey, folder=folder, is_joined=False, release=release)


def _temporary_folder(account: Account) -> Path:
    for parent in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"]):  # noqa: S108 - mkdtemp below
        with contextlib.suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent)).resolve()
            if is_usable(folder, account):
                return folder
            shutil.rmtree(folder, ignore_errors=True)
    raise EmbeddedError(
        "No temporary folder found that the account which runs the servers can write to. Set TMPDIR."
    )


def _remove_left_overs() -> None:
    """Folders of test runs that were killed: nobody holds them any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.geteuid() and folder.stat().st_mtime < time.time() - 60:
                with (folder / "held").open("a") as held:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _stop_left_over(folder / "postgres")
                    shutil.rmtree(folder, ignore_errors=True)


def _stop_left_over(data: Path) -> None:
    """Where a server does not end with its parent by itself."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        if is_alive(pid) and works_in(pid, data):
            os.kill(pid, 9)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_alone(users: IO[str]) -> bool:
    """Asked only while the other lock is held, so nobody can come in between."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_state(home: Path) -> dict[str, Any]:
    """What the last command wrote, unless it is unreadable or came here with a copy of another checkout."""
    try:
        state = json.loads((home / "servers.json").read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and state.get("home") == str(home) else {}


def _write_state(home: Path, postgres: PostgresServer, valkey: ValkeyServer) -> None:
    state = {
        "home": str(home),
        "postgres_pid": postgres.pid if postgres.is_running() else None,
        "postgres_port": postgres.port,
        "valkey_pid": valkey.pid if valkey.is_running() else None,
        "valkey_port": valkey.port,
    }
    write_private(home / "servers.json", json.dumps(state, indent=2))
