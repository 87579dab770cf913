"""The project as it was before, for tests of upgrading. Needs the history: a clone that is not shallow."""

import subprocess
from pathlib import Path

import pytest

from deliveries.bench.children import ROOT

MIGRATIONS = ("tenants/migrations", "deliveries/migrations")


def check_out_before_newest_migration(folder: Path) -> str:
    """Into that folder. Returns the commit."""
    if _git("rev-parse", "--is-shallow-repository") != "false":
        pytest.fail("The history is cut off. Fetch all of it: git fetch --unshallow")
    commit = _commit_before_newest_migration()
    folder.mkdir()
    archive = folder.with_suffix(".tar")
    _git("archive", "--output", str(archive), commit)
    subprocess.run(["tar", "-xf", str(archive), "-C", str(folder)], check=True)
    archive.unlink()
    return commit


def _commit_before_newest_migration() -> str:
    here = {str(path.relative_to(ROOT)) for each in MIGRATIONS for path in (ROOT / each).glob("[0-9]*.py")}
    committed = set(_git("ls-tree", "-r", "--name-only", "HEAD", *MIGRATIONS).splitlines())
    if here - committed:
        # It is being written: the commit that it will stand on is the one before.
        return _git("rev-parse", "HEAD")
    patterns = [f"{each}/[0-9]*.py" for each in MIGRATIONS]
    newest = _git("log", "-1", "--no-renames", "--diff-filter=A", "--format=%H", "--", *patterns)
    return _git("rev-parse", f"{newest}^")


def _git(*arguments: str) -> str:
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.fail("git is not installed: the version before cannot be had")
    if done.returncode:
        pytest.fail(
            f"git {arguments[0]} failed, and with it the version before. Run this in a clone with its history: {done.stderr}"
        )
    return done.stdout.strip()
