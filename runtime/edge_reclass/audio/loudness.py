"""How loud a window is, whether there is any sound in it, and how it is brought to a fixed loudness. Pure.

A window is judged by frames of 50 ms. What counts is a frame's energy without its mean and linear trend, so that
neither a constant offset nor a drift below hearing passes for sound. Loudness is the root mean square of the active
frames, gated twice as in ITU-R BS.1770 (by an absolute level, then relative to the loud frames), without its frequency
weighting: what matters is that the same music at any volume is heard at the same level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

FRAME_SECONDS: Final = 0.05

SILENCE_DB: Final = -92.0
"""Frames below this level (dB of full scale, RMS) hold no sound: 16-bit dither is at most at -96, rounded at -93."""

ACTIVE_FRAMES: Final = 5
"""A window with fewer active frames is silent: a single click fills at most two."""

_GATE: Final = 0.03
"""Frames 15 dB below the loud ones are pauses and do not count for the loudness."""

_DOUBTFUL: Final = 1e-3
"""Where offset and trend hold all but this share of a frame's energy, float32 sums cannot tell what is left."""


@dataclass(frozen=True)
class Level:
    """What a window holds: ``mean`` is its constant offset, ``rms`` its loudness (full scale 1), 0 if it is silent."""

    mean: float
    rms: float

    @property
    def silent(self) -> bool:
        """True if there is no sound in the window."""
        return self.rms == 0.0

    def gain(self, loudness: float) -> float:
        """The factor that brings the window to ``loudness``, in dB of full scale; 1 for a silent one.

        A window that is not silent lies above SILENCE_DB, so that the factor is bounded: dither is never amplified.
        """
        return 1.0 if self.silent else 10.0 ** (loudness / 20.0) / self.rms


def level(samples: NDArray[np.float32], rate: int) -> Level:
    """The level of ``samples`` (float32[n], mono, contiguous, full scale 1, n ≥ 1) at ``rate`` Hz."""
    size = max(1, min(len(samples), round(FRAME_SECONDS * rate)))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    basis = _trend(size)
    parts = frames @ basis
    squares = np.einsum("ij,ij->i", frames, frames, optimize=False)
    energy = squares - np.einsum("ij,ij->i", parts, parts, optimize=False)
    if len(doubtful := np.flatnonzero(energy < _DOUBTFUL * squares)):
        exact = frames[doubtful].astype(np.float64)
        exact -= exact.mean(axis=1, keepdims=True)
        slope = exact @ basis[:, 1].astype(np.float64)
        energy[doubtful] = np.maximum(np.einsum("ij,ij->i", exact, exact) - slope * slope, 0.0)
    mean = float(parts[:, 0].mean(dtype=np.float64)) / math.sqrt(size)
    active = energy[energy > size * 10.0 ** (SILENCE_DB / 10.0)]
    if len(active) < min(ACTIVE_FRAMES, len(frames)):
        return Level(mean, 0.0)
    # The mean of the energies weighted by themselves: it does not depend on how many quiet frames there are.
    active = active.astype(np.float64)
    loud = active[active >= _GATE * float(active @ active) / float(active.sum())]
    return Level(mean, math.sqrt(float(loud.mean()) / size))


def normalise(window: NDArray[np.float32], found: Level, loudness: float) -> None:
    """Take the offset off ``window`` (float32[n], in place) and bring it to ``loudness``, in dB of full scale."""
    window -= np.float32(found.mean)
    window *= np.float32(found.gain(loudness))


@lru_cache(maxsize=16)
def _trend(size: int) -> NDArray[np.float32]:
    """Orthonormal constant and line, float32[size, 2]."""
    line = np.arange(size, dtype=np.float64) - (size - 1) / 2
    norm = math.sqrt(float(line @ line)) or 1.0
    return np.ascontiguousarray(np.stack([np.full(size, size**-0.5), line / norm], axis=1), dtype=np.float32)
