"""Embeddings → points whose distances mean something: standardised, stages weighted alike, main directions only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass_export.heads import Scaler
from edge_reclass_learn.fit.heads import fit_scaler, standardised

DIMENSIONS: Final = 20
"""Principal components that are kept. More change little; see docs/cluster.md."""
_BLOCK: Final = 8192

Points = NDArray[np.float32]


@dataclass(frozen=True)
class Space:
    """How embeddings become points.

    scalers: by stage
    weights: by stage, so that each has the same variance in sum, however wide it is
    mean, axes: of the standardised embeddings side by side, float64[width] and float64[width, dimensions]
    explained: share of their variance along the axes
    """

    scalers: Mapping[str, Scaler]
    weights: Mapping[str, float]
    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    explained: float

    def place(self, vectors: Mapping[str, NDArray[np.floating]]) -> Points:
        """float[n, dim] by stage → float32[n, dimensions]; block by block, so that little memory is needed."""
        total = len(next(iter(vectors.values())))
        points = np.empty((total, self.axes.shape[1]), np.float32)
        for begin in range(0, total, _BLOCK):
            some = {stage: vectors[stage][begin : begin + _BLOCK] for stage in self.scalers}
            points[begin : begin + _BLOCK] = (_wide(some, self.scalers, self.weights) - self.mean) @ self.axes
        return points


def make_space(vectors: Mapping[str, NDArray[np.float32]], stages: Sequence[str], some: NDArray[np.intp]) -> Space:
    """The space of the embeddings of ``stages``, as those of the tracks ``some`` lie."""
    from sklearn.decomposition import PCA

    sample = {stage: vectors[stage][some] for stage in stages}
    narrowest = min(one.shape[1] for one in sample.values())
    scalers = {stage: fit_scaler(one, np.ones(len(one))) for stage, one in sample.items()}
    weights = {stage: float(np.sqrt(narrowest / one.shape[1])) for stage, one in sample.items()}
    wide = _wide(sample, scalers, weights)
    if not wide.any():  # every track has the same embedding: there is no direction
        return Space(scalers, weights, np.zeros(wide.shape[1]), np.zeros((wide.shape[1], 1)), 0.0)
    found = PCA(min(DIMENSIONS, *wide.shape), svd_solver="full").fit(wide)
    return Space(scalers, weights, found.mean_, found.components_.T, float(found.explained_variance_ratio_.sum()))


def _wide(
    vectors: Mapping[str, NDArray[np.floating]], scalers: Mapping[str, Scaler], weights: Mapping[str, float]
) -> NDArray[np.float64]:
    return np.concatenate(
        [standardised(vectors[stage], scaler) * weights[stage] for stage, scaler in scalers.items()], axis=1
    )
