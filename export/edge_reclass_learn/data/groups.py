"""Which tracks belong together: by artist, by album, or because they are the same recording.

The same recording under another name, at another rate or in another codec lies nearer in the embeddings than two
recordings do; see docs/fit.md for how the limits were measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass_learn.data.labelled import Belonging

NEAR: Final = 0.88
"""Cosine of standardised embeddings above which two tracks count as the same recording, if every stage finds it."""
NEAR_ALONE: Final = 0.995
"""The same, if one stage alone finds it: another may hear what a low rate took away."""
NEAR_LONE: Final = 0.98
"""Where there is one stage, whom no other can contradict: under it different tracks of a genre begin to look alike."""
SPREAD: Final = 20
"""Remembered tracks from which on their spread is known well enough to compare others with them by it."""
_LIMIT: Final = 4.0
_BLOCK: Final = 1024


@dataclass(frozen=True)
class Pair:
    """Two tracks, by number, that seem to be the same recording, and the mean cosine of their embeddings."""

    first: int
    second: int
    cosine: float


def near_duplicates(embeddings: Sequence[NDArray[np.float32]], remembered: int = 0) -> list[Pair]:
    """Pairs of tracks that seem to be the same recording, the nearest first.

    Args:
        embeddings: one float32[n, dim] per stage.
        remembered: how many of the tracks, the last ones, are those that a bundle remembers. The others are compared
            with these by the spread of these alone, if they are SPREAD or more: few tracks, or tracks that a codec
            changed alike, would shift a spread that they had a part in.
    """
    total = len(embeddings[0])
    if total < 2:
        return []
    own = total - remembered
    units = [_units(one, one) for one in embeddings]
    across = units if remembered < SPREAD else [_units(one, one[own:]) for one in embeddings]
    found = [pair for pair in _near(units, units) if pair.first < pair.second and not pair.first < own <= pair.second]
    found += [
        Pair(pair.first, own + pair.second, pair.cosine)
        for pair in _near([one[:own] for one in across], [one[own:] for one in across])
    ]
    return sorted(found, key=lambda pair: -pair.cosine)


def _near(some: Sequence[NDArray[np.float32]], others: Sequence[NDArray[np.float32]]) -> Iterator[Pair]:
    """Which of ``some`` lie near to which of ``others``."""
    near = NEAR if len(some) > 1 else NEAR_LONE
    for begin in range(0, len(some[0]), _BLOCK):
        alike = np.array([one[begin : begin + _BLOCK] @ other.T for one, other in zip(some, others, strict=True)])
        same = (alike.min(axis=0) > near) | (alike.max(axis=0) > NEAR_ALONE)
        for row, column in np.argwhere(same).tolist():
            yield Pair(begin + row, column, float(alike[:, row, column].mean()))


def _units(rows: NDArray[np.float32], spread: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standardised by mean and standard deviation of ``spread``, limited, of length 1."""
    wide, measured = rows.astype(np.float64), spread.astype(np.float64)
    scale = measured.std(axis=0)
    standard = np.clip((wide - measured.mean(axis=0)) / np.where(scale > 1e-12, scale, 1.0), -_LIMIT, _LIMIT)
    length = np.linalg.norm(standard, axis=1, keepdims=True)
    return np.asarray(standard / np.maximum(length, 1e-12), np.float32)


def group(belongs: Sequence[Sequence[Belonging]], same: Sequence[tuple[int, int]]) -> list[str]:
    """The group of each track: those that share an artist, an album or a recording, also through a third one.

    A group is named after its first track, so that the names depend on the order of the tracks alone.

    Args:
        belongs: what each track may have in common with others
        same: numbers of tracks that are the same recording
    """
    parent = list(range(len(belongs)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def join(one: int, other: int) -> None:
        first, second = sorted((root(one), root(other)))
        parent[second] = first

    seen: dict[Belonging, int] = {}
    for number, keys in enumerate(belongs):
        for key in keys:
            join(number, seen.setdefault(key, number))
    for one, other in same:
        join(one, other)
    return [f"group {root(number)}" for number in range(len(belongs))]
