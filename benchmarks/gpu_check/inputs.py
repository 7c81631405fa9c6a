"""Windows of audio for checks and measurements: never zeros, no two rows alike, made from a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_reclass.bundle import CASES, synthesise
from gpu_check.geometry import Encoder

__all__ = ["FRESH_SEED", "batch_of", "fresh", "names"]

FRESH_SEED = 20_261_120
"""Another seed than the reference vectors': what is right must be right on inputs that no export has seen."""


def fresh(encoder: Encoder) -> NDArray[np.float32]:
    """float32[cases, window] of the same kinds as the reference inputs."""
    return synthesise(encoder.rate, encoder.window, FRESH_SEED)


def names(reference_names: tuple[str, ...]) -> list[str]:
    """Names of the rows of the reference inputs followed by the fresh ones."""
    return [*reference_names, *(f"fresh {case}" for case in CASES)]


def batch_of(encoder: Encoder, batch: int) -> NDArray[np.float32]:
    """float32[batch, window]: the fresh inputs in turn, each turn shifted in time and a little quieter."""
    made = fresh(encoder)
    rows = np.empty((batch, encoder.window), np.float32)
    for number in range(batch):
        turn, case = divmod(number, len(made))
        rows[number] = np.roll(made[case], turn * 977) * np.float32(0.97**turn)
    return rows
