"""Numbers and words for people: three digits that count, units, intervals."""

from __future__ import annotations

import math
import unicodedata

from edge_reclass_bench.values import Estimate, Proportion, Summary

NOTHING = "–"
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


def interval(estimate: Estimate, unit: str = "", factor: float = 1.0) -> str:
    """``12.3 [11.9, 12.8] ms``; without an interval where there were too few samples for one."""
    text = number(estimate.value * factor)
    if estimate.low is not None and estimate.high is not None:
        text += f" [{number(estimate.low * factor)}, {number(estimate.high * factor)}]"
    return f"{text}\u00a0{unit}" if unit else text


def optional(estimate: Estimate | None, unit: str = "") -> str:
    """As :func:`interval`; a dash where there is none."""
    return NOTHING if estimate is None else interval(estimate, unit)


def mean(summary: Summary) -> str:
    """``213 ± 0.7 %, across tracks [178, 243]``: the error of measuring it, and how far other tracks would move it."""
    text = number(summary.mean.value)
    if summary.error is not None:
        text += f" ±\u202f{100 * summary.error:.1f}\u00a0%"
    if summary.mean.low is not None and summary.mean.high is not None:
        text += f", across tracks [{number(summary.mean.low)}, {number(summary.mean.high)}]"
    return text


def share(value: Proportion | None) -> str:
    """``17 of 19, 89.5 % [68.6 %, 97.1 %]``."""
    if value is None:
        return NOTHING
    bounds = f"[{percent(value.low)}, {percent(value.high)}]"
    return f"{value.count} of {value.total}, {percent(value.share)} {bounds}"


def duration(estimate: Estimate) -> str:
    """Milliseconds with their interval, in µs, ms or s, whichever suits the size."""
    size = abs(estimate.value)
    if 0.0 < size < 0.1:
        return interval(estimate, "µs", 1e3)
    return interval(estimate, "s", 1e-3) if size >= 10_000.0 else interval(estimate, "ms")


def percent(share: float) -> str:
    """``49.4 %``; 0 and 100 only where it is exactly that."""
    rounded = f"{100 * share:.1f}"
    if rounded == "0.0":
        return "0\u00a0%" if share == 0.0 else "<\u202f0.1\u00a0%"
    if rounded == "100.0":
        return "100\u00a0%" if share == 1.0 else ">\u202f99.9\u00a0%"
    return f"{rounded}\u00a0%"


def readable(text: str) -> str:
    """``text`` with control characters and lone surrogates made visible, so that any reader can take it."""
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in {"Cc", "Cs"}
        else f"\\x{ord(character):02x}"
        for character in text
    )
