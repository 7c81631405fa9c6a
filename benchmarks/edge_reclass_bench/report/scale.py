"""Axes: where a value lies in pixels, and at which values a reader is given a number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from edge_reclass_bench.report.text import plain, width_of

__all__ = ["Scale", "Tick", "from_zero", "suited"]

_LOG_FROM = 30.0
"""Largest over smallest value from which the distances between the small ones would not be seen on a linear axis."""
_LOG_UP_TO = 1e12
"""And from which the smallest is as good as zero."""
_ZERO = 1e-9


class Tick(NamedTuple):
    """A value, its pixel, its number, and where the number stands: middle, left and right."""

    value: float
    at: float
    text: str
    centre: float
    left: float
    right: float


@dataclass(frozen=True)
class Scale:
    """Values ``low`` to ``high`` as pixels ``left`` to ``right``; logarithmic where ``log``, then ``low`` > 0.

    ``whole``: only whole numbers are shown.
    """

    low: float
    high: float
    left: float
    right: float
    log: bool = False
    whole: bool = False

    def at(self, value: float) -> float:
        """The pixel of ``value``; what lies outside is drawn at the edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.left + share * (self.right - self.left)

    def ticks(self, size: float, edge: float = math.inf) -> list[Tick]:
        """Round values, so few that their numbers do not touch; numbers stay between 0 and the pixel ``edge``."""
        candidates = _log_ticks if self.log else _linear_ticks
        for values in candidates(self.low, self.high):
            inside = [value for value in values if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]
            if self.whole and any(value != round(value) for value in inside):
                continue
            ticks = [self._tick(value, size, edge) for value in inside]
            if ticks and all(a.right + size / 2 < b.left for a, b in pairwise(ticks)):
                return ticks
        return [self._tick(self.high, size, edge)]

    def _tick(self, value: float, size: float, edge: float) -> Tick:
        text, at = plain(value), self.at(value)
        half = width_of(text, size) / 2
        centre = min(max(at, half + 1.0), max(edge - half - 1.0, half + 1.0))
        return Tick(value, at, text, centre, centre - half, centre + half)


def from_zero(values: Iterable[float], left: float, right: float, *, whole: bool = False) -> Scale:
    """A linear axis from 0 to a little more than the largest of ``values``; to 1 where all are as good as 0."""
    largest = max(values, default=0.0)
    return Scale(0.0, largest * 1.02 if largest > _ZERO else 1.0, left, right, whole=whole)


def suited(values: Iterable[float], left: float, right: float) -> Scale:
    """Logarithmic where values are positive and lie far apart, else linear from 0."""
    known = list(values)
    smallest, largest = min(known), max(known)
    if smallest * _LOG_UP_TO > largest > smallest * _LOG_FROM:
        return Scale(smallest / 1.1, largest * 1.1, left, right, log=True)
    return from_zero(known, left, right)


def _linear_ticks(low: float, high: float) -> Iterable[list[float]]:
    """Ever fewer multiples of 1, 2 or 5 times a power of ten."""
    step = 10.0 ** math.floor(math.log10((high - low) / 10))
    for _ in range(4):
        for factor in (1, 2, 5):
            width = step * factor
            yield [i * width for i in range(math.ceil(low / width), math.floor(high / width + 1e-9) + 1)]
        step *= 10


def _log_ticks(low: float, high: float) -> Iterable[list[float]]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        yield [10.0**decade * factor for decade in decades for factor in factors]
    for stride in range(2, len(decades) + 1):
        yield [10.0**decade for decade in decades if decade % stride == 0]
