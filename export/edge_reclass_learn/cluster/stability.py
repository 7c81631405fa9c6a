"""How many clusters: as many as are found again in other tracks of the same music.

For each number of clusters k, pairs of random parts of the music are clustered, and the adjusted Rand index says how
well the two agree on the tracks that they share (Ben-Hur, Elisseeff, Guyon, PSB 2002). Few clusters agree well in any
data, so the same is done with points whose coordinates were shuffled, which have no clusters; that is taken off
(normalisation by a null distribution: von Luxburg, "Clustering stability", 2010, section 2.2). Parts are made of whole
groups: a cluster that is one artist is not found again without the artist.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_reclass_learn.cluster.clustering import k_means, sampled
from edge_reclass_learn.cluster.space import Points
from edge_reclass_learn.progress import Say

TRIED: Final = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 25, 30)
PAIRS: Final = 10
PART: Final = 0.8
"""Share of the groups that a part has."""
SAMPLE: Final = 3_000
_STARTS: Final = 2


class Stability(Struct, frozen=True, kw_only=True):
    """How well two parts of the music agree on ``clusters`` clusters.

    agreement: mean adjusted Rand index of the pairs; 1: the same clusters, 0: no more than by chance
    by_chance: the same of shuffled points
    error: standard error of ``agreement``
    silhouette: mean over the tracks, -1 to 1: how much nearer a track is to its own cluster than to the next
    """

    clusters: int
    agreement: float
    by_chance: float
    error: float
    silhouette: float

    @property
    def lead(self) -> float:
        """Agreement beyond that of shuffled points."""
        return self.agreement - self.by_chance


def tried(tracks: int) -> list[int]:
    """The numbers of clusters that are tried: of 4 tracks or more on average."""
    return [k for k in TRIED if k * 4 <= tracks * PART] or [2]


def stability_curve(
    points: Points, groups: Sequence[str], numbers: Sequence[int], seed: int, say: Say
) -> list[Stability]:
    """How stable each number of clusters is, on at most SAMPLE tracks.

    Args:
        groups: of the tracks; parts are made of whole groups
    """
    from sklearn.metrics import silhouette_score

    some = sampled(len(points), SAMPLE, seed)
    points = points[some]
    random = np.random.default_rng(seed)
    group = np.unique(np.asarray(groups)[some], return_inverse=True)[1]
    parts = [(_part(group, random), _part(group, random)) for _ in range(PAIRS)]
    shuffled = np.stack([random.permutation(column) for column in points.T], axis=1)
    found = []
    for k in numbers:
        say(f"how stable are {k} clusters?")
        real, chance = (_agreements(one, parts, k, seed) for one in (points, shuffled))
        labels = k_means(points, k, seed, _STARTS)
        apart = float(silhouette_score(points, labels)) if 1 < len(set(labels.tolist())) < len(points) else 0.0
        error = float(real.std(ddof=1) / np.sqrt(PAIRS))
        figures = (round(value, 4) for value in (float(real.mean()), float(chance.mean()), error, apart))
        agreement, by_chance, error, apart = figures
        found.append(Stability(clusters=k, agreement=agreement, by_chance=by_chance, error=error, silhouette=apart))
    return found


def choose(curve: Sequence[Stability]) -> int:
    """The largest number of clusters whose lead is within two standard errors (of the agreement) of the best.

    The largest, because two clusters of one genre can be given one name, and a cluster of two genres cannot be cut.
    """
    best = max(curve, key=lambda one: one.lead)
    return max(one.clusters for one in curve if one.lead >= best.lead - 2.0 * best.error)


def _part(group: NDArray[np.intp], random: np.random.Generator) -> NDArray[np.bool_]:
    """Which tracks belong to a part of the groups: bool[n]."""
    total = int(group.max()) + 1
    return np.isin(group, random.permutation(total)[: max(1, round(PART * total))])


def _agreements(
    points: Points, parts: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]], k: int, seed: int
) -> NDArray[np.float64]:
    from sklearn.metrics import adjusted_rand_score

    found = []
    for number, pair in enumerate(parts):
        labels = np.full((2, len(points)), -1, np.intp)
        for i, part in enumerate(pair):
            if part.sum() >= k:
                labels[i, part] = k_means(points[part], k, seed + 2 * number + i, _STARTS)
        both = (labels >= 0).all(axis=0)
        found.append(adjusted_rand_score(labels[0, both], labels[1, both]) if both.any() else 0.0)
    return np.array(found)
