"""Measured values for people: with their units and intervals."""

from __future__ import annotations

from edge_reclass_bench.values import Estimate, Proportion, Summary
from edge_reclass_learn.pages.text import NOTHING, number, percent


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
