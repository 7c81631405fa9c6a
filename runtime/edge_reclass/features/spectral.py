"""One pass over the spectrogram, a block of frames at a time: all that does not need the whole excerpt.

The Fourier transform is float64, as in librosa (its window is): a float32 one moves contrast valleys by up to 7 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass.features.framing import BINS, DEFAULT_SR, F32, F64, FRAME, HOP, hann
from edge_reclass.features.layout import EARLY_ROWS, row_slices
from edge_reclass.features.mel import MelBands
from edge_reclass.features.tuning import PeakFinder, PeakStore

BLOCK: Final = 256
"""Frames of one block."""
_TRANSFORM: Final = 32
"""Frames that are transformed at a time: their spectra stay in the second-level cache until they are magnitudes."""
_TRANSFORM_INTO: Final = np.lib.NumpyVersion(np.__version__) >= "2.0.0"
"""numpy 2 transforms into a given array, which stays in the cache."""
CONTRAST_BANDS: Final = 7

_ROLLOFF: Final = np.float32(0.85)
_COARSE: Final = 32
"""Coarse steps of the rolloff search, and bins in each."""
_CENTRE: Final = FRAME // 2
_NYQUIST: Final = DEFAULT_SR / 2
_NEGATIVE: Final = np.float32(-1e-10)
"""librosa takes |x| ≤ 1e-10 for zero when it counts zero crossings."""
_CANCELLATION: Final = np.float32(4e-3)
"""Below this share of the squared centroid, a float32 second moment minus it has lost too many digits."""
_TINY: Final = np.finfo(np.float32).tiny

_ROW: Final = row_slices(EARLY_ROWS)


@dataclass(frozen=True)
class _Band:
    first: int
    last: int
    extremes: int

    @property
    def split(self) -> int:
        """Where the band is cut before sorting: a sorting network costs what the next power of two would cost."""
        width = self.last - self.first
        power = 1 << (width.bit_length() - 1)
        return self.first + power if power >= 128 and 0 < width - power <= power // 2 else self.last


def _contrast_bands() -> tuple[_Band, ...]:
    """Octave bands of spectral contrast (Jiang et al. 2002) as librosa cuts them; together they are all 1025 bins.

    A band begins one bin below its lower edge (but the first) and gives its own last bin away (but the last).
    """
    hertz = np.arange(BINS) * (DEFAULT_SR / FRAME)
    edges = np.concatenate([[0.0], 200.0 * 2.0 ** np.arange(CONTRAST_BANDS)])
    bands = []
    for number in range(CONTRAST_BANDS):
        inside = np.flatnonzero((hertz >= edges[number]) & (hertz <= edges[number + 1]))
        first = int(inside[0]) - (number > 0)
        last = BINS if number == CONTRAST_BANDS - 1 else int(inside[-1]) + 1
        extremes = max(1, round(0.02 * (last - first)))
        bands.append(_Band(first, last if number == CONTRAST_BANDS - 1 else last - 1, extremes))
    return tuple(bands)


def _transform(frames: F64, out: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Fourier transform of real frames in float64; ``out`` may be used."""
    return np.fft.rfft(frames, axis=1, out=out) if _TRANSFORM_INTO else np.fft.rfft(frames, axis=1)


class StaticTables:
    """Tables that do not depend on the rate."""

    def __init__(self) -> None:
        self.window: F64 = hann(FRAME)
        self.bands = _contrast_bands()
        position = np.arange(BINS) / (BINS - 1)
        # The sums of |S|, f|S| and f²|S|, with f as a part of Nyquist.
        self.sums: F32 = np.stack([np.ones(BINS), position, position**2], axis=1).astype(np.float32)
        self.position: F64 = position
        # Running sums of 32 values as a product: numpy's cumsum adds one number at a time.
        self.cumulate: F32 = np.triu(np.ones((_COARSE, _COARSE), dtype=np.float32))
        energy = np.full(BINS, 2.0 / FRAME**2)
        energy[[0, -1]] /= 2
        self.energy: F32 = energy.astype(np.float32)


class RateTables:
    """Tables for one sampling rate; their size does not depend on the excerpt."""

    def __init__(self, rate: float) -> None:
        self.mel = MelBands(rate)
        self.peaks = PeakFinder(rate)


@dataclass(frozen=True)
class SpectralOutput:
    """Where a pass over an excerpt writes; arrays of the caller's workspace, all with the excerpt's frames.

    ``rows`` is [12, frames] in the order of ``layout.EARLY_ROWS``, where the rows of spectral_contrast hold the
    peaks, and ``valleys`` is [7, frames]; ``mel`` is [frames, 128]; ``power`` is [frames, 1025] or None.
    """

    rows: F32
    valleys: F32
    mel: F32
    power: F32 | None
    peaks_at_rate: PeakStore
    peaks_at_default_sr: PeakStore


class SpectralBlock:
    """Scratch for one block of frames, and the computations on it. One object per thread."""

    def __init__(self, static: StaticTables) -> None:
        self._static = static
        samples = (BLOCK + FRAME // HOP - 1) * HOP
        self._signal = np.empty(samples, dtype=np.float64)
        self._frames = np.empty((_TRANSFORM, FRAME), dtype=np.float64)
        self._transformed = np.empty((_TRANSFORM, BINS), dtype=np.complex128)
        self._spectrum = np.empty((_TRANSFORM, BINS), dtype=np.complex64)
        self._magnitude = np.empty((BLOCK, BINS), dtype=np.float32)
        self._power = np.empty((BLOCK, BINS), dtype=np.float32)
        self._coarse = np.empty((BLOCK, _COARSE), dtype=np.float32)
        self._set_aside = np.empty(BLOCK * BINS, dtype=np.float32)
        self._masks = np.empty((2, BLOCK * BINS), dtype=np.bool_)
        self._negative = np.empty(samples, dtype=np.bool_)
        self._crossing = np.zeros(samples, dtype=np.bool_)
        self._row_start = np.arange(BLOCK) * BINS
        self._fine = np.arange(_COARSE)

    def analyse(self, samples: F32, start: int, stop: int, tables: RateTables, out: SpectralOutput) -> None:
        """Everything for frames ``start`` to ``stop`` (at most BLOCK of them, ``start`` a multiple of BLOCK)."""
        frames = slice(start, stop)
        rows = out.rows[:, frames]
        magnitude = self._magnitude[: stop - start]
        power = self._power[: stop - start] if out.power is None else out.power[frames]
        self.count_crossings(samples, start, stop, rows[_ROW["zcr"]][0])
        self.transform(samples, start, stop, magnitude)
        np.multiply(magnitude, magnitude, out=power)
        self.weigh_power(power, tables, rows, out.mel[frames])
        self.weigh_magnitude(magnitude, rows)
        # Contrast sorts the magnitudes where they lie: what the peaks are looked for in is set aside first.
        set_aside = magnitude[:, tables.peaks.bins]
        spectrum = self._set_aside[: set_aside.size].reshape(set_aside.shape)
        np.copyto(spectrum, set_aside)
        maximum = self.contrast(magnitude, rows[_ROW["spectral_contrast"]], out.valleys[:, frames])
        found = tables.peaks.find(spectrum, maximum, self._masks)
        for store, peaks in zip((out.peaks_at_rate, out.peaks_at_default_sr), found, strict=True):
            store.put(start // BLOCK, peaks)

    def power(self, samples: F32, start: int, stop: int) -> F32:
        """Power spectra of frames ``start`` to ``stop``; valid until the next call."""
        magnitude = self._magnitude[: stop - start]
        self.transform(samples, start, stop, magnitude)
        return np.multiply(magnitude, magnitude, out=self._power[: stop - start])

    def transform(self, samples: F32, start: int, stop: int, magnitude: F32) -> None:
        """Magnitudes |S| of the frames, with zeros outside the excerpt."""
        length = (stop - start - 1) * HOP + FRAME
        first = start * HOP - _CENTRE
        inside = slice(max(0, -first), min(length, len(samples) - first))
        signal = self._signal[:length]
        signal[: inside.start] = 0
        signal[inside] = samples[first + inside.start : first + inside.stop]
        signal[inside.stop :] = 0
        step = signal.itemsize
        for low in range(0, stop - start, _TRANSFORM):
            count = min(_TRANSFORM, stop - start - low)
            overlapping = np.ndarray((count, FRAME), np.float64, signal, low * HOP * step, (HOP * step, step))
            windowed = np.multiply(overlapping, self._static.window, out=self._frames[:count])
            transformed = _transform(windowed, self._transformed[:count])
            spectrum = self._spectrum[:count]
            np.copyto(spectrum, transformed, casting="same_kind")
            np.absolute(spectrum, out=magnitude[low : low + count])

    def count_crossings(self, samples: F32, start: int, stop: int, out: F32) -> None:
        """Zero-crossing rate: the excerpt's edges are repeated; a frame's first sample never counts."""
        frames = stop - start
        length = (frames - 1) * HOP + FRAME
        first = start * HOP - _CENTRE
        inside = slice(max(0, -first), min(length, len(samples) - first))
        negative, crossing = self._negative[:length], self._crossing[:length]
        np.less(samples[first + inside.start : first + inside.stop], _NEGATIVE, out=negative[inside])
        negative[: inside.start] = negative[inside.start]
        negative[inside.stop :] = negative[inside.stop - 1]
        np.not_equal(negative[1:], negative[:-1], out=crossing[1:])
        crossing[0] = False
        # Eight one-byte counters per word: at most 64 words are added, so that no counter overflows.
        counters = crossing.view(np.uint64).reshape(-1, HOP // 8).sum(axis=1)
        per_hop = counters.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int32)
        counts = per_hop[:frames] + per_hop[1 : frames + 1] + per_hop[2 : frames + 2] + per_hop[3 : frames + 3]
        counts -= crossing[: frames * HOP : HOP]
        np.multiply(counts, np.float32(1 / FRAME), out=out, casting="same_kind")

    def weigh_power(self, power: F32, tables: RateTables, rows: F32, mel: F32) -> None:
        """Mel power and rms."""
        tables.mel.apply(power, mel)
        np.sqrt(np.matmul(power, self._static.energy), out=rows[_ROW["rmse"]][0])

    def weigh_magnitude(self, magnitude: F32, rows: F32) -> None:
        """Centroid, bandwidth and rolloff, in Hz on the 22 050 Hz axis."""
        total, first, second = np.matmul(magnitude, self._static.sums).T
        self._rolloff(magnitude, total, rows[_ROW["spectral_rolloff"]][0])
        total[total < _TINY] = 1
        centroid = first / total
        square = centroid * centroid
        spread = second / total - square
        narrow = np.flatnonzero(spread < _CANCELLATION * square)
        if len(narrow):
            chosen = magnitude[narrow].astype(np.float64)
            chosen /= np.maximum(chosen.sum(axis=1, keepdims=True), _TINY)
            middle = chosen @ self._static.position
            centroid[narrow] = middle
            distance = self._static.position - middle[:, None]
            spread[narrow] = np.einsum("ij,ij,ij->i", chosen, distance, distance)
        np.multiply(centroid, np.float32(_NYQUIST), out=rows[_ROW["spectral_centroid"]][0])
        np.sqrt(np.maximum(spread, 0), out=spread)
        np.multiply(spread, np.float32(_NYQUIST), out=rows[_ROW["spectral_bandwidth"]][0])

    def _rolloff(self, magnitude: F32, total: F32, out: F32) -> None:
        frames = len(magnitude)
        cumulative = self._coarse[:frames]
        np.einsum("ijk->ij", magnitude[:, : BINS - 1].reshape(frames, -1, _COARSE), out=cumulative)
        cumulative = np.matmul(cumulative, self._static.cumulate)
        target = total * _ROLLOFF
        coarse = (cumulative < target[:, None]).sum(axis=1)
        np.minimum(coarse, _COARSE - 1, out=coarse)
        before = np.where(coarse > 0, cumulative[np.arange(frames), coarse - 1], np.float32(0))
        start = self._row_start[:frames] + coarse * _COARSE
        fine = magnitude.reshape(-1).take(start[:, None] + self._fine)
        fine = np.matmul(fine, self._static.cumulate)
        bins = coarse * _COARSE + (fine < (target - before)[:, None]).sum(axis=1)
        np.multiply(bins, np.float32(DEFAULT_SR / FRAME), out=out, casting="same_kind")

    def contrast(self, magnitude: F32, peaks: F32, valleys: F32) -> F32:
        """Mean of the largest and of the smallest 2 % of each octave band; **reorders** ``magnitude``.

        Returns the largest magnitude of each frame, which the sorting brings to light.
        """
        maximum = np.zeros(len(magnitude), dtype=np.float32)
        for number, band in enumerate(self._static.bands):
            extremes = band.extremes
            lower = magnitude[:, band.first : band.split]
            lower.sort(axis=1)
            smallest, largest = lower[:, :extremes], lower[:, -extremes:]
            np.maximum(maximum, lower[:, -1], out=maximum)
            if band.split < band.last:
                upper = magnitude[:, band.split : band.last]
                upper.sort(axis=1)
                np.maximum(maximum, upper[:, -1], out=maximum)
                # Of two sorted lists a and b, min(a[i], b[extremes - 1 - i]) are the smallest of both (bitonic merge).
                smallest = np.minimum(smallest, upper[:, extremes - 1 :: -1])
                largest = np.maximum(largest, upper[:, : -extremes - 1 : -1])
            if extremes == 1:
                valleys[number], peaks[number] = smallest[:, 0], largest[:, 0]
            else:
                mean = np.full(extremes, 1 / extremes, dtype=np.float32)
                np.matmul(smallest, mean, out=valleys[number])
                np.matmul(largest, mean, out=peaks[number])
        return maximum
