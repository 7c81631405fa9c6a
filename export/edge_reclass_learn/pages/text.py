"""Numbers and names as people may read them."""

from __future__ import annotations

import math
from typing import Final

from edge_reclass.run import printable

NOTHING: Final = "–"
"""What stands in a cell that has no value."""


def number(value: float, digits: int = 3) -> str:
    """``value`` with ``digits`` digits that count, never in powers of ten below 10¹⁵: 0.0123, 4.57, 158, 12 300."""
    if value == 0.0 or not math.isfinite(value):
        return "0" if value == 0.0 else NOTHING
    if abs(value) >= 1e15 or abs(value) < 1e-9:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, decimals)
    # 9.996 becomes 10.0, which has one digit too many.
    if rounded and math.floor(math.log10(abs(rounded))) > math.floor(math.log10(abs(value))):
        decimals = max(0, decimals - 1)
    # A narrow no-break space parts thousands: it cannot be taken for a decimal point.
    return f"{value:,.{decimals}f}".replace(",", "\u202f")


def plain(value: float) -> str:
    """A number that was chosen, not measured (a tick, a setting): as few digits as say it, at most six."""
    return f"{value:,.6g}".replace(",", "\u202f") if abs(value) < 1e6 else number(value)


def count(value: int) -> str:
    """All digits, thousands apart: 12 345."""
    return f"{value:,}".replace(",", "\u202f")


def percent(share: float) -> str:
    """``49.4 %``; 0 and 100 only where it is exactly that."""
    rounded = f"{100 * share:.1f}"
    if rounded == "0.0":
        return "0\u00a0%" if share == 0.0 else "<\u202f0.1\u00a0%"
    if rounded == "100.0":
        return "100\u00a0%" if share == 1.0 else ">\u202f99.9\u00a0%"
    return f"{rounded}\u00a0%"


def readable(text: str) -> str:
    """``text`` that any reader can take: what could rewrite or reorder a line stands as escapes, as do surrogates."""
    lines = "\n".join(printable(line) for line in text.split("\n"))
    return lines.encode("utf-8", "backslashreplace").decode("utf-8")


def short(text: str, length: int) -> str:
    """``text`` made readable, on one line, cut to ``length`` characters."""
    line = readable(text).replace("\n", " ").strip(" ")
    return line if len(line) <= length else f"{line[: length - 1]}…"
