"""From the probabilities of a head with its own genres to probabilities over the bundle's genres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.bundle import HeadEntry

LEAST_MAPPED: Final = 0.5
"""Share of a head's probability that must lie on genres with a counterpart; below it the stage abstains.

Without such a limit, whatever small rest lies on the bundle's genres would be blown up to a whole opinion.
"""


class GenreMap:
    """Reads the answers of one head, whose genres are its own.

    says: numbers of the bundle's genres that the head can say
    """

    def __init__(self, head: HeadEntry, genres: Sequence[str]) -> None:
        """``head`` has ``genres`` and ``map``, which were validated with the bundle's ``genres``."""
        number = {genre: i for i, genre in enumerate(genres)}
        entries = [
            (row, number[to], share)
            for row, genre in enumerate(head.genres or ())
            for to, share in head.shares(genre).items()
        ]
        self._from = np.array([row for row, _, _ in entries], np.intp)
        self._to = np.array([to for _, to, _ in entries], np.intp)
        self._share = np.array([share for _, _, share in entries], np.float64)
        self._size = len(genres)
        self.says = frozenset(self._to.tolist())

    def __call__(self, own: Sequence[float] | NDArray[np.float64]) -> tuple[tuple[float, ...], bool]:
        """The probabilities over the bundle's genres, and whether the head abstains.

        Every genre of the head gives its probability to its counterparts, by their shares. What has no counterpart is
        taken off, and the rest is divided by its sum. Where no probability is left at all, all genres that the head
        can say get the same.

        Args:
            own: probabilities of the head's genres, after the temperature; they sum to 1.
        """
        mapped = np.bincount(self._to, np.asarray(own, np.float64)[self._from] * self._share, minlength=self._size)
        total = float(mapped.sum())
        if not total > 0.0:
            mapped[list(self.says)] = 1.0
        return tuple((mapped / mapped.sum()).tolist()), total < LEAST_MAPPED


def genre_map(head: HeadEntry, genres: Sequence[str]) -> GenreMap | None:
    """How the answers of ``head`` are read in a bundle with ``genres``; None where its genres are the bundle's."""
    return None if head.genres is None else GenreMap(head, genres)
