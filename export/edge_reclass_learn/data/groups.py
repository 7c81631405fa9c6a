"""Which tracks belong together: by artist, by album, or because they are the same recording.

The same recording under another name, at another rate or in another codec lies nearer in the embeddings than two
recordings do; see docs/fit.md for how the limits were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
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
_LIMIT: Final = 4.0
_BLOCK: Final = 1024


@dataclass(frozen=True)
class Pair:
    """Two tracks, by number, that seem to be the same recording, and the mean cosine of their embeddings."""

    first: int
    second: int
    cosine: float


def near_duplicates(embeddings: Sequence[NDArray[np.float32]]) -> list[Pair]:
    """Pairs of tracks that seem to be the same recording, the nearest first.

    Args:
        embeddings: one float32[n, dim] per stage.
    """
    total = len(embeddings[0])
    if total < 2:
        return []
    near = NEAR if len(embeddings) > 1 else NEAR_LONE
    units = [_units(one) for one in embeddings]
    found = []
    for begin in range(0, total, _BLOCK):
        alike = np.array([one[begin : begin + _BLOCK] @ one.T for one in units])
        same = (alike.min(axis=0) > near) | (alike.max(axis=0) > NEAR_ALONE)
        for row, column in np.argwhere(same).tolist():
            if begin + row < column:
                found.append(Pair(begin + row, column, float(alike[:, row, column].mean())))
    return sorted(found, key=lambda pair: -pair.cosine)


def _units(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standardised over the tracks, limited, of length 1."""
    wide = rows.astype(np.float64)
    scale = wide.std(axis=0)
    standard = np.clip((wide - wide.mean(axis=0)) / np.where(scale > 1e-12, scale, 1.0), -_LIMIT, _LIMIT)
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
