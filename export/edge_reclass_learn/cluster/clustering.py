"""Points → clusters. Larger libraries are clustered by a sample of their tracks; the others join what they lie near."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass_learn.cluster.space import Points

SAMPLE: Final = 10_000
"""Tracks that clusters are found with; HDBSCAN's time goes with their square."""
STARTS: Final = 10
"""Of K-Means; the best is taken."""
NEIGHBOURS: Final = 5
"""HDBSCAN's min_samples."""
BETWEEN: Final = 0.85
"""Distance to the own centre over that to the next one, above which a track lies between two clusters."""
_FAR: Final = 3.0
"""Robust standard deviations beyond the median distance of a cluster."""
_BLOCK: Final = 16_384

Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class Clusters:
    """Clusters, the largest first.

    labels: intp[n], the cluster of each track; -1: none
    centres: float64[clusters, dimensions]
    distances: float64[n] to the own centre; of a track without a cluster, to the nearest
    following: intp[n], the nearest centre that is not the track's own
    ratios: float64[n], distance to the own centre over that to the next one
    limits: float64[clusters], distances above which a track is far from its centre
    """

    labels: Numbers
    centres: NDArray[np.float64]
    distances: NDArray[np.float64]
    following: Numbers
    ratios: NDArray[np.float64]
    limits: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.centres)

    @property
    def far(self) -> NDArray[np.bool_]:
        """Which tracks lie far from the centre of their cluster, or in none: bool[n]."""
        return np.asarray((self.labels < 0) | (self.distances > self.limits[self.labels]), np.bool_)

    @property
    def between(self) -> NDArray[np.bool_]:
        """Which tracks lie about as near to the centre of another cluster: bool[n]."""
        return np.asarray((self.labels >= 0) & (self.ratios > BETWEEN), np.bool_)


def sampled(total: int, most: int, seed: int) -> Numbers:
    """Numbers of at most ``most`` of ``total`` tracks, drawn by ``seed``, in ascending order."""
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, most, replace=False))


def k_means(points: Points, clusters: int, seed: int, starts: int = STARTS) -> Numbers:
    """The cluster of each track by K-Means."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin

    some = sampled(len(points), SAMPLE, seed)
    found = KMeans(clusters, n_init=starts, random_state=seed).fit(points[some])
    if len(some) == len(points):
        return np.asarray(found.labels_, np.intp)
    return np.asarray(pairwise_distances_argmin(points, found.cluster_centers_), np.intp)


def hdbscan(points: Points, smallest: int, seed: int) -> Numbers:
    """The cluster of each track by HDBSCAN, -1 where there is none (Campello, Moulavi, Sander, PAKDD 2013).

    Clusters are the leaves of its tree: the usual choice ("excess of mass") is one or two clusters of nearly all music.
    ``smallest`` is the least size of a cluster, of all tracks.
    """
    from sklearn.cluster import HDBSCAN
    from sklearn.neighbors import KNeighborsClassifier

    some = sampled(len(points), SAMPLE, seed)
    least = max(2, round(smallest * len(some) / len(points)))
    model = HDBSCAN(least, min_samples=NEIGHBOURS, cluster_selection_method="leaf", copy=True)
    labels = model.fit_predict(points[some])
    if len(some) == len(points):
        return np.asarray(labels, np.intp)
    return np.asarray(KNeighborsClassifier(1).fit(points[some], labels).predict(points), np.intp)


def arranged(points: Points, labels: Numbers) -> Clusters:
    """Clusters of given labels (-1: none), numbered by size, with their centres and everyone's distances.

    At least one track has to have a cluster.
    """
    from scipy.spatial.distance import cdist

    known, first, sizes = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    order = known[np.lexsort((first, -sizes))]
    new = np.full(int(known.max()) + 2, -1, np.intp)
    new[order] = np.arange(len(order))
    labels = new[labels]  # -1 is the last of ``new``, which is -1
    centres = np.stack([points[labels == one].mean(axis=0, dtype=np.float64) for one in range(len(order))])
    distances, following, ratios = np.empty(len(points)), np.empty(len(points), np.intp), np.empty(len(points))
    for begin in range(0, len(points), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        far = cdist(points[block], centres)  # in float64
        own = np.where(labels[block] >= 0, labels[block], far.argmin(axis=1))
        rows = np.arange(len(far))
        distances[block] = far[rows, own]
        far[rows, own] = np.inf
        following[block] = far.argmin(axis=1)
        other = far[rows, following[block]]
        ratios[block] = distances[block] / np.where(other > 0, other, 1.0)  # 0 with one cluster: the other is far away
    limits = np.array([_limit(distances[labels == one]) for one in range(len(order))])
    return Clusters(labels, centres, distances, following, ratios, limits)


def _limit(distances: NDArray[np.float64]) -> float:
    """The median and _FAR robust standard deviations, from the median absolute deviation."""
    middle = float(np.median(distances))
    return middle + _FAR * 1.4826 * float(np.median(np.abs(distances - middle)))


@contextmanager
def reproducible() -> Iterator[None]:
    """To cluster in: one thread, so that sums are in one order and the seed decides.

    Copies of a track may leave K-Means fewer clusters than it was asked for; it need not warn.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
