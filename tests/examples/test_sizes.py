"""The examples stay short enough to be read at once."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
MOST_LINES = 80


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < MOST_LINES
