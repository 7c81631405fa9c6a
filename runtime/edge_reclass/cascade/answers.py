"""What stages say of a track, for whoever fits heads or compares policies: without a vote or an early exit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reclass.verdict import ExcerptSeen, WindowsSeen


@dataclass(frozen=True)
class StageAnswer:
    """What one stage says of an excerpt, whatever the policy decides.

    embedding: float32[dim], a copy
    probabilities: over the genres, calibrated
    outside: the embedding is unlike anything that the head was fitted on
    windows: how many of the excerpt's windows it has heard by then, and how many there are
    abstains: its head, whose genres are its own, took the excerpt for one that the bundle does not have
    """

    name: str
    embedding: NDArray[np.float32]
    probabilities: tuple[float, ...]
    outside: bool
    windows: WindowsSeen
    abstains: bool = False


@dataclass(frozen=True)
class StepAnswer:
    """What one stage says of a file after so many of its windows, whatever the policy decides.

    probabilities: over the genres, calibrated; None where no window holds any sound
    embedding: float32[dim], a copy; None where no window holds any sound
    outside: the embedding is unlike anything that the head was fitted on
    complete: the stage has heard all of its windows
    milliseconds: what it took since the answer before, without resampling
    resample_milliseconds: what resampling took since then; 0 where an earlier stage had done it
    abstains: its head, whose genres are its own, took the excerpt for one that the bundle does not have
    """

    stage: str
    excerpt: ExcerptSeen
    windows: WindowsSeen
    complete: bool
    probabilities: tuple[float, ...] | None
    outside: bool
    milliseconds: float
    resample_milliseconds: float
    embedding: NDArray[np.float32] | None = None
    abstains: bool = False
