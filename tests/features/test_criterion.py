"""The criterion of parity is sharp: each of these small faults in the extractor is told from rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_reclass.features import chroma, cqt, extractor, layout, mel, spectral, statistics, tuning
from fma518_oracle import faults, librosa_fma518, synthetic_music, traced_fma518

RATE = 24000
MUSIC = synthetic_music(RATE, 2.5, seed=RATE, cents=17)


@pytest.fixture(scope="module")
def reference() -> Any:
    return librosa_fma518(MUSIC, RATE)


def rolled(original: Callable[..., np.ndarray], axis: int) -> Callable[..., np.ndarray]:
    return lambda *arguments: np.ascontiguousarray(np.roll(original(*arguments), 1, axis=axis))


def swapped(original: Callable[..., np.ndarray], one: int, other: int) -> Callable[..., np.ndarray]:
    def swap(*arguments: Any) -> np.ndarray:
        rows = original(*arguments).copy()
        rows[[one, other]] = rows[[other, one]]
        return rows

    return swap


def statistic(change: Callable[[np.ndarray, np.ndarray], None]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """row_statistics with its table [rows, 7] (kurtosis, max, mean, median, min, skew, std) changed."""
    original = statistics.row_statistics

    def changed(rows: np.ndarray, scratch: np.ndarray) -> np.ndarray:
        before = rows.copy()
        table = original(rows, scratch)
        change(table, before)
        return table

    return changed


def scale(column: int, factor: Callable[[int], float]) -> Callable[[np.ndarray, np.ndarray], None]:
    def change(table: np.ndarray, rows: np.ndarray) -> None:
        table[:, column] *= factor(rows.shape[1])

    return change


def pearson(table: np.ndarray, rows: np.ndarray) -> None:
    table[:, 0] += 3


def lower_median(table: np.ndarray, rows: np.ndarray) -> None:
    table[:, 3] = np.sort(rows, axis=1)[:, (rows.shape[1] - 1) // 2]


def last_frame_left_out(table: np.ndarray, rows: np.ndarray) -> None:
    table[:, 2] = rows[:, :-1].mean(axis=1, dtype=np.float64)


def bands(first: int, last: int) -> Callable[[], tuple[spectral._Band, ...]]:
    """Contrast bands without their edge rule: each begins or ends elsewhere by so many bins (the outer ends stay)."""
    original = spectral._contrast_bands()

    def moved() -> tuple[spectral._Band, ...]:
        return tuple(
            spectral._Band(b.first + first * (n > 0), b.last + last * (n < len(original) - 1), b.extremes)
            for n, b in enumerate(original)
        )

    return moved


def zeros_outside(block: spectral.SpectralBlock, samples: np.ndarray, start: int, stop: int, out: np.ndarray) -> None:
    """Zero crossings of an excerpt that is continued by zeros and not by its edges."""
    padded = np.pad(samples, spectral.FRAME // 2) < -1e-10
    frames = np.lib.stride_tricks.sliding_window_view(padded, spectral.FRAME)[:: spectral.HOP][start:stop]
    out[:] = (frames[:, 1:] != frames[:, :-1]).sum(axis=1) / np.float32(spectral.FRAME)


FAULTS: dict[str, tuple[Any, str, Any]] = {
    "wrong window: Hamming": (spectral, "hann", np.hamming),
    "wrong window: symmetric Hann": (spectral, "hann", np.hanning),
    "wrong bin: mel": (mel, "mel_filters", rolled(mel.mel_filters, 1)),
    "wrong bin: chroma": (extractor, "chroma_filters", rolled(extractor.chroma_filters, 1)),
    "wrong bin: centroid": (spectral, "_NYQUIST", spectral.DEFAULT_SR / 2 * 1024 / 1025),
    "off by one sample": (spectral, "_CENTRE", spectral._CENTRE + 1),
    "off by one frame": (spectral, "_CENTRE", spectral._CENTRE + spectral.HOP),
    "frames not centred": (spectral, "_CENTRE", 0),
    "true rate in the spectral features": (spectral, "DEFAULT_SR", float(RATE)),
    "true rate in chroma": (chroma, "DEFAULT_SR", float(RATE)),
    "true rate in chroma's tuning": (tuning, "DEFAULT_SR", float(RATE)),
    "rolloff at 85.1 %": (spectral, "_ROLLOFF", np.float32(0.851)),
    "rolloff at 84.9 %": (spectral, "_ROLLOFF", np.float32(0.849)),
    "zero crossings: edges not repeated": (spectral.SpectralBlock, "count_crossings", zeros_outside),
    "contrast: no bin below the edge": (spectral, "_contrast_bands", bands(1, 0)),
    "contrast: last bin kept": (spectral, "_contrast_bands", bands(0, 1)),
    "decibels: floor at 70 dB": (extractor, "_RANGE", np.float32(1e-7)),
    "decibels: natural logarithm": (extractor, "_DECIBEL", np.float32(10)),
    "cosine transform: rows not orthonormal": (extractor, "cosine_transform", lambda: mel.cosine_transform() * 1.0005),
    "swapped rows: mfcc 19 and 20": (extractor, "cosine_transform", swapped(mel.cosine_transform, 18, 19)),
    "swapped rows: tonnetz": (extractor, "tonnetz_basis", swapped(chroma.tonnetz_basis, 0, 1)),
    "swapped rows: chroma": (extractor, "chroma_filters", rolled(extractor.chroma_filters, 2)),
    "CENS: threshold 0.06": (chroma, "_THRESHOLDS", (0.06, 0.1, 0.2, 0.4)),
    "CENS: window of 41": (chroma, "_SMOOTHING", 41),
    "constant-Q: one pitch class too few": (cqt, "_LOWEST_HZ", cqt._LOWEST_HZ * 2 ** (1 / 12)),
    "constant-Q: out of tune by a cent": (cqt, "_LOWEST_HZ", cqt._LOWEST_HZ * 2 ** (1 / 1200)),
    "std with ddof 1": (extractor, "row_statistics", statistic(scale(6, lambda n: (n / (n - 1)) ** 0.5))),
    "skew without bias": (
        extractor,
        "row_statistics",
        statistic(scale(5, lambda n: (n * (n - 1)) ** 0.5 / (n - 2))),
    ),
    "kurtosis of Pearson": (extractor, "row_statistics", statistic(pearson)),
    "lower median": (extractor, "row_statistics", statistic(lower_median)),
    "mean without the last frame": (extractor, "row_statistics", statistic(last_frame_left_out)),
    "columns in another order": (extractor, "column_order", lambda names: sorted(layout.column_order(names))),
}


def test_rounding_is_no_fault(reference: Any) -> None:
    assert faults(traced_fma518(MUSIC, RATE), reference, MUSIC) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str, reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*FAULTS[name])
    assert faults(traced_fma518(MUSIC, RATE), reference, MUSIC) != []
