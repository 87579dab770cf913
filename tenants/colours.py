"""A tenant's accent colour on our pages: readable on light and on dark, whatever was chosen. Pure."""

import re
from typing import Final, NamedTuple

HEX: Final = re.compile(r"#[0-9a-f]{6}")

LIGHT_SURFACES: Final = ((255, 255, 255), (246, 247, 249), (240, 242, 245))
DARK_SURFACES: Final = ((24, 32, 42), (16, 21, 28), (15, 20, 26))
"""What it stands on: `--surface`, `--ground` and `--sunken` of tokens.css."""

READABLE: Final = 4.6
"""Of contrast; WCAG asks for 4.5."""

SOFT: Final = 0.1
"""How much of it is in the background of a note."""

WHITE: Final = (255, 255, 255)
BLACK: Final = (0, 0, 0)


class Colour(NamedTuple):
    red: int
    green: int
    blue: int

    def text(self) -> str:
        return f"#{self.red:02x}{self.green:02x}{self.blue:02x}"


def read(text: str) -> Colour:
    """Of what HEX matches."""
    return Colour(*(int(text[start : start + 2], 16) for start in (1, 3, 5)))


def stylesheet(accent: str) -> str:
    """The three tokens that the accent makes, for light and for dark pages."""
    chosen = read(accent)
    light = _darkened(chosen)
    dark = _lightened(chosen)
    return (
        f":root {{\n{_tokens(light, LIGHT_SURFACES[0])}}}\n"
        f"@media (prefers-color-scheme: dark) {{\n:root {{\n{_tokens(dark, DARK_SURFACES[0])}}}\n}}\n"
    )


def _tokens(accent: Colour, surface: tuple[int, int, int]) -> str:
    ink = WHITE if contrast(accent, WHITE) >= contrast(accent, BLACK) else BLACK
    return (
        f"--accent: {accent.text()};\n"
        f"--accent-ink: {Colour(*ink).text()};\n"
        f"--accent-soft: {_mixed(Colour(*surface), accent, SOFT).text()};\n"
    )


def _darkened(colour: Colour) -> Colour:
    return _until_readable(colour, BLACK, LIGHT_SURFACES)


def _lightened(colour: Colour) -> Colour:
    return _until_readable(colour, WHITE, DARK_SURFACES)


def _until_readable(
    colour: Colour, towards: tuple[int, int, int], surfaces: tuple[tuple[int, int, int], ...]
) -> Colour:
    for percent in range(0, 101, 2):
        mixed = _mixed(colour, Colour(*towards), percent / 100)
        if all(contrast(mixed, surface) >= READABLE for surface in surfaces):
            return mixed
    return Colour(*towards)


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    return Colour(*(round(a + (b - a) * share) for a, b in zip(one, other, strict=True)))


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """As WCAG 2 counts it: from 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: tuple[int, int, int]) -> float:
    red, green, blue = (_linear(channel / 255) for channel in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
