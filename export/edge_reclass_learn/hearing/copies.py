"""Changed copies of a track, so that heads do not learn the level, sampling rate or length that its genre came with.

A copy is softer, holds nothing above half of another sampling rate, and is a part of the track. All three are drawn
from the track's sound and the copy's number: the same track has the same copies wherever its file lies.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio import Resampler, resampled_length

RATES: Final = (11_025, 16_000, 22_050, 32_000, 44_100)
"""Hz; one that the track does not have stays out."""
SOFTEST: Final = -20.0
"""dB."""
SHORTEST: Final = 2.0
"""Seconds; a shorter track is not cut."""


def copy_key(sound: bytes, number: int) -> bytes:
    """Under which a cache keeps copy ``number`` of a sound: other rules for copies need another key."""
    rules = f"copy {number} {RATES} {SOFTEST} {SHORTEST}"
    return hashlib.blake2b(sound + rules.encode(), digest_size=24).digest()


def changed_copy(samples: NDArray[np.float32], rate: int, key: bytes) -> tuple[NDArray[np.float32], int]:
    """A copy of mono ``samples``, float32[n] at ``rate`` Hz, and its own rate; ``key`` says which (see copy_key).

    The gain in dB is uniform, the length is log-uniform between SHORTEST and the whole, the place uniform.
    """
    random = np.random.default_rng(np.frombuffer(key, np.uint8))
    gain = 10.0 ** (random.uniform(SOFTEST, 0.0) / 20.0)
    shortest = min(len(samples), round(SHORTEST * rate))
    count = round(np.exp(random.uniform(np.log(shortest), np.log(len(samples)))))
    start = int(random.integers(0, len(samples) - count + 1))
    part = np.asarray(gain * samples[start : start + count], np.float32)
    to = int(random.choice([one for one in RATES if one < rate] or [rate]))
    if to == rate:
        return part, rate
    out = np.empty(resampled_length(len(part), rate, to), np.float32)
    Resampler().resample(part, rate, to, out)
    return out, to
