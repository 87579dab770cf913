"""What the pages of docs/ name is there: other pages, headings, files and tests."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    text = without_code(page)

    for path in re.findall(
        r"`((?:docs|tests|examples|tenants|deliveries|webhooks_platform|\.ci)/[\w./]*)`", text
    ):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(test_\w+)`", text):
        assert name in all_tests(), name


def test_every_setting_of_the_platforms_own_is_told_of() -> None:
    settings = (ROOT / "webhooks_platform" / "settings.py").read_text()
    read = set(re.findall(r"env_\w+\(\s*\"(WEBHOOKS_\w+)\"", settings))
    pages = "".join(without_code(page) for page in PAGES)

    assert len(read) > 20
    assert read - set(re.findall(r"`(WEBHOOKS_[A-Z_]+)[`=]", pages)) == set()


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def all_tests() -> frozenset[str]:
    files = (ROOT / "tests").rglob("test_*.py")
    return frozenset(name for file in files for name in re.findall(r"def (test_\w+)", file.read_text()))
