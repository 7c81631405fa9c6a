"""Embeddings with their genre and group: what heads are fitted on and judged with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reclass_learn.hearing.listening import Asked, Given

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Facts:
    """What a file gives away without being listened to: seconds, Hz, dB of full scale, kbit/s."""

    seconds: float
    rate: int
    level: float
    kilobits: float


@dataclass(frozen=True)
class Example:
    """One track as the stages heard it.

    name: of the track; of what a bundle remembers, a number
    group: tracks of one group are never on both sides of a judgement
    embeddings: float32[dim] by stage and count of windows; where a track has no more windows, that of all
    windows: how many each stage has in the track; empty where that is not known
    facts: None where there was no file to look at
    source: where it comes from, as the user says
    sound: a digest of what was heard, the same for the same sound in the same codec; empty where it is not known
    remembered: it comes from the base bundle's memory, and the base's heads were fitted on it
    copies: as ``embeddings``, of changed copies of the track: heads are fitted on them too, nothing is judged by them
    """

    name: str
    genre: str
    group: str
    embeddings: Mapping[Asked, Vector]
    windows: Mapping[str, int]
    facts: Facts | None = None
    source: str | None = None
    sound: bytes = b""
    remembered: bool = False
    copies: Sequence[Mapping[Asked, Vector]] = ()

    def row(self, given: Given) -> Vector:
        """The embeddings that a head takes, one after another."""
        return np.concatenate([self.embeddings[asked] for asked in given])

    def more_windows(self, stage: str, count: int | None) -> bool:
        """Whether the stage has more windows in the track than ``count``."""
        return count is not None and self.windows.get(stage, 0) > count


def rows(examples: Sequence[Example], given: Given) -> NDArray[np.float32]:
    """What a head is given of each example: float32[n, width]."""
    return np.stack([example.row(given) for example in examples])


def numbers(examples: Sequence[Example], genres: Sequence[str]) -> NDArray[np.intp]:
    """The number of each example's genre."""
    number = {genre: i for i, genre in enumerate(genres)}
    return np.array([number[example.genre] for example in examples], np.intp)
