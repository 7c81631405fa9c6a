"""What the tests of the 518 features share: synthesised music, librosa's result, and what counts as apart from it.

The 518 numbers themselves cannot be held against librosa's on every CPU: the skew and the kurtosis of a nearly
symmetric row cancel, so that librosa's own differ by more than 1e-3 from one machine to another, or in float64. What
they are made of can be compared everywhere. Two rules stand for one tolerance on the numbers, and both are sharper:

1. The rows agree frame by frame, to ``ROW_TOLERANCE`` of the row's standard deviation. Rows of librosa in float64 are
   up to 6.5e-6 of it from those in float32, and ours up to 2.6e-5, with numpy's and OpenBLAS's AVX2 kernels or without.
2. The numbers are scipy's statistics of our own rows in float64, to ``NUMBER_TOLERANCE``: a float32's rounding.

Two steps decide between values that lie apart, and rounding decides where the sum all but meets the threshold: the bin
where spectral_rolloff passes 85 %, and the levels of CENS. Only a frame whose sum is that close
(``DECISION_TOLERANCE``) may be off by more, and only by one such step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest

from edge_reclass.features import FEATURE_NAMES, extractor, fma518
from edge_reclass.features.framing import DEFAULT_SR, FRAME, HOP
from edge_reclass.features.layout import EARLY_ROWS, row_slices
from edge_reclass.features.tuning import PeakStore

if TYPE_CHECKING:
    from edge_reclass_bench.peers.librosa_fma518 import OracleResult

__all__ = ["Result", "faults", "librosa_fma518", "row_faults", "synthetic_music", "traced_fma518"]

CENS_LEVELS = (0.05, 0.1, 0.2, 0.4)
CENS_REACH = 21
ROW_TOLERANCE = 1e-4
"""Share of a row's standard deviation by which one frame may be off, beside 1e-6 of the row's largest value."""
NUMBER_TOLERANCE = 1e-6
"""Relative to max(|number|, 1e-3)."""
DECISION_TOLERANCE = 1e-5
"""Relative: what a float32 sum of 1025 values can be off by (half a unit in the last place each: 6e-5 at worst)."""
STEP = {"spectral_rolloff": 1.01 * DEFAULT_SR / FRAME, "chroma_cens": 0.05, "tonnetz": 0.05}
"""How far a frame may be off after such a decision: one bin in Hz; a quarter through CENS's window of peak 1/21."""


@dataclass(frozen=True)
class Result:
    """The 518 numbers as the extractor gives them, its tuning estimates (constant-Q, chroma_stft), and its rows."""

    values: np.ndarray
    tunings: list[float]
    rows: dict[str, np.ndarray]


def traced_fma518(samples: np.ndarray, rate: int) -> Result:
    """Run :func:`fma518` and keep the rows that it takes its statistics of."""
    tunings: list[float] = []
    taken: list[np.ndarray] = []
    estimate, statistics = PeakStore.tuning, extractor.row_statistics

    def remember_tuning(store: PeakStore) -> float:
        tunings.append(estimate(store))
        return tunings[-1]

    def remember_rows(rows: np.ndarray, scratch: np.ndarray) -> np.ndarray:
        taken.append(rows.copy())
        return statistics(rows, scratch)

    with (
        mock.patch.object(PeakStore, "tuning", remember_tuning),
        mock.patch.object(extractor, "row_statistics", remember_rows),
    ):
        values = fma518(samples, rate)
    chroma_stft, mfcc, early, chroma_cqt, chroma_cens, tonnetz = taken
    rows = {name: early[place] for name, place in row_slices(EARLY_ROWS).items()}
    rows |= {"chroma_stft": chroma_stft, "mfcc": mfcc}
    rows |= {"chroma_cqt": chroma_cqt, "chroma_cens": chroma_cens, "tonnetz": tonnetz}
    return Result(values, tunings, rows)


def faults(result: Result, reference: OracleResult, samples: np.ndarray) -> list[str]:
    """In words, all that is apart from librosa: tuning estimates, rows, and numbers that are not our rows' statistics.

    Where scipy gives nan (skew and kurtosis of a constant row), 0 is right.
    """
    found = row_faults(result.rows, reference.rows, samples)
    tunings = [reference.tuning_cqt, reference.tuning_stft]
    if result.tunings != pytest.approx(tunings, abs=1e-9):
        found.append(f"tunings are {result.tunings}, librosa's {tunings}")
    expected = _peer().statistics_of(result.rows, np.float64)
    error = np.abs(result.values - expected) / np.maximum(np.abs(expected), 1e-3)
    off = ~((error <= NUMBER_TOLERANCE) | (np.isnan(expected) & (result.values == 0)))
    found += [f"{FEATURE_NAMES[c]} is {result.values[c]}, of these rows {expected[c]}" for c in np.flatnonzero(off)]
    return found


def row_faults(rows: dict[str, np.ndarray], reference: dict[str, np.ndarray], samples: np.ndarray) -> list[str]:
    """In words, the rows that are apart; ``samples`` are what both were computed from."""
    found = []
    undecided = _undecided(reference["chroma_cqt"], samples)
    for name, theirs in reference.items():
        ours = rows[name]
        if ours.shape != theirs.shape:
            found.append(f"{name} has shape {ours.shape}, expected {theirs.shape}")
            continue
        wanted = theirs.astype(np.float64)
        error = np.abs(ours - wanted)
        spread, largest = wanted.std(axis=1, keepdims=True), np.abs(wanted).max(axis=1, keepdims=True)
        allowed = np.broadcast_to(ROW_TOLERANCE * spread + 1e-6 * largest, error.shape)
        if name in STEP:
            allowed = np.where(undecided[name], np.maximum(allowed, STEP[name]), allowed)
        apart = ~(error <= allowed)
        for row in np.flatnonzero(apart.any(axis=1)):
            count, worst = int(apart[row].sum()), float(error[row].max())
            found.append(f"{name}/{row + 1:02d}: {count} of {error.shape[1]} frames are apart, by up to {worst:.3g}")
    return found


def _undecided(chroma_cqt: np.ndarray, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Feature → mask of the frames that a decision within DECISION_TOLERANCE has a part in."""
    import librosa

    magnitude = np.abs(librosa.stft(samples, n_fft=FRAME, hop_length=HOP)).astype(np.float64)
    sums = np.cumsum(magnitude, axis=0)
    rolloff = (np.abs(sums - 0.85 * sums[-1]) < DECISION_TOLERANCE * sums[-1]).any(axis=0)
    chroma = chroma_cqt.astype(np.float64)
    total = chroma.sum(axis=0)
    flips = [(np.abs(chroma - level * total) < DECISION_TOLERANCE * total).any(axis=0) for level in CENS_LEVELS]
    cens = np.convolve(np.any(flips, axis=0), np.ones(2 * CENS_REACH + 1), "full")[CENS_REACH:-CENS_REACH] > 0
    return {"spectral_rolloff": rolloff, "chroma_cens": cens, "tonnetz": cens}


def librosa_fma518(samples: np.ndarray, rate: float) -> OracleResult:
    """See the peer of that name; the test is skipped where librosa is not installed."""
    return _peer().librosa_fma518(samples, rate)


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
