"""Cells of CSV files that spreadsheets open without running anything. Pure."""

from typing import Final

STARTS_A_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def cell(value: object) -> str:
    """As text; one that a spreadsheet would take for a formula gets a leading apostrophe."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(STARTS_A_FORMULA) else text
