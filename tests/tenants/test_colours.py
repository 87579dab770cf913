"""An accent colour can be read on our pages, whatever was chosen."""

import re

import pytest

from tenants import colours


@pytest.mark.parametrize(
    "accent", ["#000000", "#ffffff", "#ffff00", "#1f5fd0", "#808080", "#00ff00", "#3a0000"]
)
def test_it_can_be_read_on_light_and_on_dark(accent: str) -> None:
    light, dark = colours.stylesheet(accent).split("@media")

    for part, surfaces in ((light, colours.LIGHT_SURFACES), (dark, colours.DARK_SURFACES)):
        tokens = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", part))
        shown = colours.read(tokens["accent"])
        assert all(colours.contrast(shown, surface) >= 4.5 for surface in surfaces)
        assert colours.contrast(shown, colours.read(tokens["accent-ink"])) >= 4.5


def test_one_that_can_be_read_stays_as_it_is() -> None:
    assert "--accent: #1f5fd0;" in colours.stylesheet("#1f5fd0")


def test_contrast_is_counted_as_the_standard_does() -> None:
    assert colours.contrast(colours.WHITE, colours.BLACK) == 21
    assert round(colours.contrast((118, 118, 118), colours.WHITE), 2) == 4.54
