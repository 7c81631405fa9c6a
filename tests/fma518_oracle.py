"""What the tests of the 518 features share: synthesised music, librosa's result, and what counts as off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge_reclass.features import FEATURE_NAMES

if TYPE_CHECKING:
    from edge_reclass_bench.peers.librosa_fma518 import OracleResult

__all__ = ["CENS_DERIVED", "librosa_fma518", "numbers_off", "statistics_of", "synthetic_music"]

CENS_DERIVED = np.array([name.startswith(("chroma_cens/", "tonnetz/")) for name in FEATURE_NAMES])
"""Columns that a flip of one CENS threshold (a draw in the last bit) can move visibly."""


def librosa_fma518(samples: np.ndarray, rate: float) -> OracleResult:
    """See the peer of that name; the test is skipped where librosa is not installed."""
    return _peer().librosa_fma518(samples, rate)


def statistics_of(rows: dict[str, np.ndarray], dtype: type[np.floating] | None = None) -> np.ndarray:
    """See the peer of that name; the test is skipped where librosa is not installed."""
    return _peer().statistics_of(rows, dtype)


def _peer() -> Any:
    pytest.importorskip("librosa", reason="librosa, the oracle of the features, is not installed (extra [bench])")
    from edge_reclass_bench.peers import librosa_fma518

    return librosa_fma518


def synthetic_music(rate: int, seconds: float, seed: int = 0, cents: float = 0.0) -> np.ndarray:
    """Chords of decaying harmonics, a bass, noise bursts, vibrato and a second of silence; mono float32.

    ``cents`` detunes everything, so that the tuning estimate has something definite to find.
    """
    generator = np.random.default_rng(seed)
    count = int(rate * seconds)
    clock = np.arange(count) / rate
    signal = np.zeros(count)
    for beat in np.arange(0.0, seconds, 0.4):
        start, stop = int(beat * rate), min(count, int((beat + 1.2) * rate))
        local = clock[start:stop] - beat
        decay = np.exp(-3 * local)
        for note in generator.choice(40, size=3, replace=False):
            pitch = 110 * 2 ** ((note + cents / 100) / 12)
            for harmonic in range(1, 9):
                if pitch * harmonic < 0.45 * rate:
                    phase = 2 * np.pi * pitch * harmonic * local + 0.002 * np.sin(2 * np.pi * 5 * local)
                    signal[start:stop] += 0.1 * decay * np.sin(phase) / harmonic**1.3
        hit = min(count, start + int(0.1 * rate))
        signal[start:hit] += 0.05 * generator.standard_normal(hit - start) * np.exp(-40 * (clock[start:hit] - beat))
    signal += 1e-4 * generator.standard_normal(count)
    return signal.astype(np.float32)


def numbers_off(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mask of the numbers that differ by more than 1e-3 relative to max(|reference|, 1e-3).

    Where librosa and scipy give nan (skew and kurtosis of a constant row), 0 is right.
    """
    error = np.abs(values - reference) / np.maximum(np.abs(reference), 1e-3)
    return ~((error <= 1e-3) | (np.isnan(reference) & (values == 0)))
