"""Parts of the examples that share no group, each with about as much of every genre."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def deal(
    labels: NDArray[np.intp],
    groups: Sequence[str],
    folds: int,
    seed: int,
    some: NDArray[np.intp] | None = None,
    fixed: NDArray[np.intp] | None = None,
) -> NDArray[np.intp]:
    """The fold of each example, intp[n]; groups stay together.

    The largest groups come first, and each goes to the fold that has the least of its genres. So a genre whose groups
    have no other genre lies in as many folds as it has groups, as far as there are folds. scikit-learn's
    StratifiedGroupKFold does not promise that, and a genre that lies in one fold alone has no judge.

    Args:
        some: numbers of the examples that are dealt; the others are in fold -1.
        fixed: folds that stand already, intp[n], the same within a group; -1: is to be dealt.
    """
    every = np.arange(len(labels)) if some is None else some
    names, group = np.unique(np.asarray(groups)[every], return_inverse=True)
    table = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(table, (group, labels[every]), 1.0)
    shares = table / np.maximum(table.sum(axis=0), 1.0)  # of each genre: a small one counts as much as a large one
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-shares[order].sum(axis=1), kind="stable")]
    filled, fold_of = np.zeros((folds, table.shape[1])), np.zeros(len(names), np.intp)
    stands = np.full(len(names), -1, np.intp)
    if fixed is not None:
        np.maximum.at(stands, group, fixed[every])
    order = order[np.argsort(stands[order] < 0, kind="stable")]
    for number in order:
        own = shares[number]
        fold_of[number] = stands[number] if stands[number] >= 0 else np.lexsort((filled.sum(axis=1), filled @ own))[0]
        filled[fold_of[number]] += own
    dealt = np.full(len(labels), -1, np.intp)
    dealt[every] = fold_of[group]
    return dealt
