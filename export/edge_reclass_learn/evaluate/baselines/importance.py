"""How much a fitted approach rests on each group of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.features import FEATURE_NAMES
from edge_reclass_learn.evaluate.baselines.models import Fold, Labels, Rows

REPEATS: Final = 10

Columns = NDArray[np.intp]


def feature_groups() -> dict[str, Columns]:
    """The columns of each of the 518 features' groups, as ``mfcc``."""
    names = np.array([name.split("/")[0] for name in FEATURE_NAMES])
    return {group: np.flatnonzero(names == group) for group in dict.fromkeys(names.tolist())}


def importance(
    fitted: Sequence[Fold], rows: Rows, labels: Labels, groups: Mapping[str, Columns], seed: int, repeats: int = REPEATS
) -> dict[str, float]:
    """The accuracy that is lost where the columns of a group are those of other tracks, the largest loss first.

    Permutation importance (Breiman, Machine Learning 45, 2001), out of fold: a group's columns are permuted together
    over the tracks of a fold, so that features that say the same do not stand in for each other within a group.
    """
    random = np.random.default_rng(seed)
    right = sum(int((fold.predict(rows[fold.inside]) == labels[fold.inside]).sum()) for fold in fitted)
    total = sum(len(fold.inside) for fold in fitted)
    lost = {}
    for group, columns in groups.items():
        found = 0
        for fold in fitted:
            for _ in range(repeats):
                mixed = rows[fold.inside]
                mixed[:, columns] = mixed[random.permutation(len(mixed))][:, columns]
                found += int((fold.predict(mixed) == labels[fold.inside]).sum())
        lost[group] = (right - found / repeats) / total
    return dict(sorted(lost.items(), key=lambda one: -one[1]))
