"""Two bundles on the same tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_reclass_learn.evaluate.intervals import Flags, Floats, bootstrap, share_of
from edge_reclass_learn.evaluate.record import Comparison
from edge_reclass_learn.fit.gain import gain


def compare(
    names: tuple[str, str],
    right: tuple[Flags, Flags],
    same: Flags,
    groups: Sequence[str],
    genres: Sequence[str],
    *,
    seed: int,
    draws: int,
) -> Comparison:
    """The second bundle against the first.

    Args:
        names: of the bundles
        right: whether each finds the genre of each track, bool[n], n > 0
        same: whether both say the same genre
        groups: of the tracks
        genres: that both bundles know
    """
    first, second = right
    found = gain(first.tolist(), second.tolist())
    better = second.astype(np.float64) - first

    def statistic(weights: Floats) -> Floats:
        return np.array([weights @ better / weights.sum()])

    both = int((first & second).sum())
    return Comparison(
        a=names[0],
        b=names[1],
        tracks=found.tracks,
        genres=list(genres),
        both_right=both,
        only_a=found.only_base,
        only_b=found.only_new,
        both_wrong=found.tracks - both - found.only_base - found.only_new,
        same=int(same.sum()),
        accuracy_a=share_of(first),
        accuracy_b=share_of(second),
        difference=bootstrap(groups, statistic, seed=seed, draws=draws)[0],
        p=found.p,
    )
