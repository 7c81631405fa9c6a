"""Synthesised tracks on which a synthetic bundle is set where no audio is given: chords, drums, noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["RATE", "synthesised"]

RATE = 44_100


def synthesised(number: int, seconds: float = 30.0) -> NDArray[np.float32]:
    """Mono float32 at 44.1 kHz, the same for the same ``number``; tempo, key, brightness and noise differ between them.

    Peak at most 0.9 of full scale.
    """
    random = np.random.default_rng([518, number])
    samples = int(seconds * RATE)
    clock = np.arange(samples) / RATE
    beat = RATE * 60 // int(random.integers(60, 180))
    overtones = int(random.integers(1, 9))
    signal = random.uniform(0.0, 0.1) * random.standard_normal(samples)
    for begin in range(0, samples, beat):
        part = slice(begin, min(begin + beat, samples))
        for note in 82.4 * 2 ** (random.integers(0, 36, 3) / 12):
            for k in range(1, overtones + 1):
                signal[part] += np.sin(2 * np.pi * k * note * clock[part]) / (3 * k)
        length = min(beat, samples - begin, RATE // 8)
        decay = np.exp(-np.arange(length) / (0.02 * RATE))
        signal[begin : begin + length] += random.uniform(0.0, 1.5) * decay * random.standard_normal(length)
    scaled: NDArray[np.float32] = (0.9 * signal / np.abs(signal).max()).astype(np.float32)
    return scaled
