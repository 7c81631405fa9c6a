"""Shares and means over genres, with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass_learn.evaluate.record import Figure

CONFIDENCE: Final = 0.95
DRAWS: Final = 1000
"""Of a bootstrap."""

Numbers = NDArray[np.intp]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def share(right: int, of: int) -> Figure | None:
    """``right`` of ``of`` tracks with Wilson's interval (JASA 22, 1927); None of no tracks."""
    from scipy.stats import binomtest

    if not of:
        return None
    found = binomtest(right, of).proportion_ci(CONFIDENCE, method="wilson")
    return Figure(value=right / of, low=float(found.low), high=float(found.high), of=of, interval="wilson")


def share_of(right: Flags) -> Figure:
    """The share of True among at least one value."""
    found = share(int(right.sum()), len(right))
    if found is None:
        raise ValueError("expected at least one track")
    return found


def bootstrap(
    groups: Sequence[str], statistic: Callable[[Floats], Floats], *, seed: int, draws: int = DRAWS
) -> list[Figure]:
    """Figures with the percentiles 2.5 and 97.5 of a bootstrap that draws groups with replacement.

    Tracks of one artist are right or wrong together, so that an interval over single tracks would be too narrow
    (Davison and Hinkley, Bootstrap Methods and their Application, 1997, 3.8).

    Args:
        groups: of each track
        statistic: from how often each track was drawn, float64[n], to the figures, float64[k]
    """
    of = np.unique(np.asarray(groups), return_inverse=True)[1]
    total = int(of.max()) + 1
    random = np.random.default_rng(seed)
    found = np.array([statistic(_counts(random, total)[of]) for _ in range(draws)])
    lows, highs = np.nanpercentile(found, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)], axis=0)
    values = statistic(np.ones(len(of)))
    return [
        Figure(value=float(value), low=float(low), high=float(high), of=len(of), interval="bootstrap")
        for value, low, high in zip(values, lows, highs, strict=True)
    ]


def _counts(random: np.random.Generator, total: int) -> Floats:
    return np.bincount(random.integers(0, total, total), minlength=total).astype(np.float64)


@dataclass(frozen=True)
class Worth:
    """What answers are worth: accuracy (Wilson), the mean of the genres' recalls and of their F1 (bootstrap).

    f1: of each genre
    """

    accuracy: Figure
    balanced: Figure
    macro_f1: Figure
    f1: Sequence[Figure]


def worth(
    labels: Numbers, said: Numbers, groups: Sequence[str], classes: int, *, seed: int, draws: int = DRAWS
) -> Worth:
    """What the answers ``said`` are worth, with intervals.

    Args:
        labels: the number of each track's genre, intp[n], n > 0
        said: what is said of it; numbers from ``classes`` on are answers that no label has
        classes: how many genres there are. The means are over those that ``labels`` have.
    """
    present = np.unique(labels)

    def statistic(weights: Floats) -> Floats:
        right = np.bincount(labels, weights * (labels == said), classes)[present]
        have = np.bincount(labels, weights, classes)[present]
        told = np.bincount(said, weights, classes)[present]
        # A genre of which no group was drawn has no recall in this draw.
        recall = np.divide(right, have, out=np.full(len(present), np.nan), where=have > 0)
        f1 = np.divide(2 * right, have + told, out=np.full(len(present), np.nan), where=have + told > 0)
        return np.array([np.nanmean(recall), np.nanmean(np.where(have > 0, f1, np.nan)), *f1])

    balanced, macro, *f1 = bootstrap(groups, statistic, seed=seed, draws=draws)
    return Worth(share_of(labels == said), balanced, macro, f1)
