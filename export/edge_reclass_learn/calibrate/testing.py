"""Is a risk at most ε? The exact binomial test, and testing several candidates in a fixed order.

Learn then Test (Angelopoulos, Bates, Candès, Jordan, Lei 2021, arXiv:2110.01052): each candidate has the null
hypothesis "its risk is above ε". Candidates are tested in an order that does not depend on the tracks they are tested
with, each at the level δ, up to the first whose null hypothesis stands. All before it are certified at once (Bauer
1991, Statistics in Medicine 10:871): with probability 1 − δ, none of them has a risk above ε.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import binom


def p_value(mistakes: int, tracks: int, epsilon: float) -> float:
    """The probability of at most so many mistakes in independent tracks, if the risk were ``epsilon``.

    It is at most δ exactly where the upper limit of Clopper and Pearson at the level 1 − δ is at most ε. 1 without
    tracks.
    """
    return float(binom.cdf(mistakes, tracks, epsilon)) if tracks else 1.0


def certified(mistakes: Sequence[int], tracks: Sequence[int], epsilon: float, delta: float) -> int:
    """How many of the candidates are certified, from the first in their order.

    Args:
        mistakes, tracks: of each candidate
    """
    for number, (wrong, many) in enumerate(zip(mistakes, tracks, strict=True)):
        if p_value(wrong, many, epsilon) > delta:
            return number
    return len(mistakes)


def fewest(epsilon: float, delta: float) -> int:
    """The fewest tracks that can certify anything: those of which (1 − ε)ⁿ ≤ δ, without a mistake."""
    found = math.ceil(math.log(delta) / math.log1p(-epsilon))
    # Rounding of the logarithms.
    return next(n for n in range(max(found - 1, 1), found + 2) if p_value(0, n, epsilon) <= delta)


def needed(share: float, epsilon: float, delta: float) -> int | None:
    """The fewest tracks that certify ε where this share of them are mistakes; None where no number does, or 10⁶.

    With so many tracks, about every second try succeeds.
    """
    if share >= epsilon:
        return None
    few, many = fewest(epsilon, delta), fewest(epsilon, delta)
    while p_value(math.ceil(share * many), many, epsilon) > delta:
        few, many = many, 2 * many
        if many > 1_000_000:
            return None
    while few < many:  # good enough: what is needed goes up and down by a few, as mistakes are whole
        middle = (few + many) // 2
        if p_value(math.ceil(share * middle), middle, epsilon) <= delta:
            many = middle
        else:
            few = middle + 1
    return many
