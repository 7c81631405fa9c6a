"""Constant-Q magnitudes folded to twelve pitch classes, octave by octave in streams.

librosa's ``cqt``: hop 512, 12 bins per octave, 84 bins from C1, norm 1, scaled, sparsity 0.01. All seven octaves use
the filters of the top one on a signal that is halved in rate from octave to octave (soxr HQ). A filter that librosa
applies to the spectrum of a rectangular frame is, moved to the time domain, one short complex kernel: a frame costs one
row of a matrix product. The signal is streamed through all octaves at once: memory does not grow with the excerpt.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
import soxr

from edge_reclass.features.chroma import PITCH_CLASSES
from edge_reclass.features.framing import F32, HOP, frame_count, hann

_OCTAVES: Final = 7
_LOWEST_HZ: Final = 440.0 * 2.0 ** ((24 - 69) / 12)  # C1
_SPARSITY: Final = 0.01
_HANN_BANDWIDTH: Final = 1.50018310546875
"""Equivalent noise bandwidth of the Hann window in bins, as librosa tabulates it."""
_RATIO: Final = 2.0 ** (1 / PITCH_CLASSES)
_QUALITY: Final = (_RATIO**2 + 1) / (_RATIO**2 - 1)
_QUALITY_NAME: Final = "HQ"

_CHUNK: Final = 1 << 17
"""Samples of the excerpt that are streamed at a time."""
_FRAMES: Final = 256
"""Frames of one matrix product, about."""
_MOST_FRAMES: Final = 2304
"""Frames that are taken together at most: at 768 kHz, a kernel of 1024 samples with a hop of one."""
_STRIDE: Final = 64
"""Samples between two rows of the product in the low octaves."""
_GROUP_LIMIT: Final = 8
_SLACK: Final = 8192
"""Room beyond a chunk: what is left of the last one (a kernel and a hop at most) and the zeros after the end."""
_CACHED_KERNELS: Final = 128
_COLUMNS: Final = 2 * PITCH_CLASSES


def early_halvings(rate: float, tuning: float) -> int:
    """How often librosa halves the rate before the first octave (0 to 3)."""
    cutoff = _LOWEST_HZ * 2.0 ** ((83 + tuning) / 12) * (1 + 0.5 * _HANN_BANDWIDTH / _QUALITY)
    return min(max(0, math.ceil(math.log2(rate / 2 / cutoff)) - 2), 3)


def cqt_frame_count(samples: int, halvings: int) -> int:
    """Frames of librosa's transform: halving rounds lengths up, so it can have one frame more than the spectrogram."""
    length = -(-samples // (1 << halvings))
    hop = HOP >> halvings
    frames = frame_count(samples) + 1
    for octave in range(_OCTAVES):
        frames = min(frames, 1 + length // (hop >> octave))
        length = -(-length // 2)
    return frames


def _kernel(rate: float, halvings: int, tuning: float) -> F32:
    """Time-domain kernel of the top octave, [samples, 24] float32: real parts for C … B, then imaginary parts."""
    rate /= 1 << halvings
    lowest = _LOWEST_HZ * 2.0 ** (tuning / PITCH_CLASSES)
    hertz = lowest * 2.0 ** (np.arange((_OCTAVES - 1) * PITCH_CLASSES, _OCTAVES * PITCH_CLASSES) / PITCH_CLASSES)
    lengths = _QUALITY * rate / hertz
    size = 1 << math.ceil(math.log2(lengths.max()))
    filters = np.zeros((PITCH_CLASSES, size), dtype=np.complex128)
    for row, length, frequency in zip(filters, lengths, hertz, strict=True):
        place = np.arange(-length // 2, length // 2)
        wave = np.exp(2j * np.pi * place * frequency / rate) * hann(len(place))
        start = (size - len(place)) // 2
        row[start : start + len(place)] = wave / np.abs(wave).sum()
    filters *= lengths[:, None] / size
    spectrum = np.fft.fft(filters, axis=1)[:, : size // 2 + 1]
    strength = np.abs(spectrum)
    ordered = np.sort(strength, axis=1)
    share = np.cumsum(ordered / strength.sum(axis=1, keepdims=True), axis=1)
    weakest = ordered[np.arange(PITCH_CLASSES), np.argmin(share < _SPARSITY, axis=1)]
    spectrum[strength < weakest[:, None]] = 0
    # sum_j F[k, j] · sum_n x[n] exp(-2πi j n / size) = sum_n x[n] · kernel[n, k]
    turns = np.outer(np.arange(size), np.arange(size // 2 + 1)) % size
    kernel = np.exp(-2j * np.pi * turns / size) @ spectrum.T
    kernel /= np.sqrt(lengths)
    return np.concatenate([kernel.real, kernel.imag], axis=1).astype(np.float32)


class _Scratch:
    """What one matrix product needs; the octaves take turns."""

    def __init__(self) -> None:
        self.products = np.empty(_MOST_FRAMES * _COLUMNS, dtype=np.float32)
        self.strength = np.empty((_MOST_FRAMES, PITCH_CLASSES), dtype=np.float32)


class _Octave:
    """Signal of one octave as it streams by, and the frames that can be taken from it."""

    def __init__(self, capacity: int, halve: bool, scratch: _Scratch) -> None:
        self._capacity = capacity
        self._signal = np.zeros(capacity + _SLACK, dtype=np.float32)
        self._scratch = scratch
        self._source: F32 | None = None
        self._hop = 0
        self.halver = soxr.ResampleStream(2, 1, 1, dtype="float32", quality=_QUALITY_NAME) if halve else None

    def start(self, kernel: F32, hop: int, length: int, frames: int) -> None:
        """Make ready for a signal of ``length`` samples, ``hop`` samples to a frame."""
        size = len(kernel)
        if self._source is not kernel or self._hop != hop:
            group = max(1, min(_GROUP_LIMIT, _STRIDE // hop))
            # Neighbouring frames of the low octaves overlap almost wholly: several share one row of the product.
            grouped = np.zeros((size + (group - 1) * hop, group * _COLUMNS), dtype=np.float32)
            for member in range(group):
                grouped[member * hop : member * hop + size, member * _COLUMNS : (member + 1) * _COLUMNS] = kernel
            # BLAS takes rows that lie apart, not rows that overlap: take every phases-th row, phases times.
            phases = 1
            while phases * group * hop < len(grouped):
                phases *= 2
            self._source, self._kernel, self._size, self._hop = kernel, grouped, size, hop
            self._group, self._phases, self._unit = group, phases, group * phases
        self._frames = frames
        self._missing = length
        self._next = 0
        self._signal[: size // 2] = 0
        self._filled = size // 2
        if self.halver is not None:
            self.halver.clear()

    def push(self, samples: F32, scale: float, last: bool, folded: F32) -> list[F32]:
        """Append samples (times ``scale``), add the frames that became complete to ``folded``; output of the halver."""
        if len(samples) > self._missing:
            samples = samples[: self._missing]
        elif last and len(samples) < self._missing:
            samples = np.concatenate([samples, np.zeros(self._missing - len(samples), dtype=np.float32)])
        halved = []
        done = 0
        while True:
            piece = samples[done : done + self._capacity]
            done += len(piece)
            ended = done >= len(samples)
            place = self._signal[self._filled : self._filled + len(piece)]
            if scale == 1:
                place[:] = piece
            else:
                np.multiply(piece, np.float64(scale), out=place, casting="same_kind")
            self._filled += len(piece)
            self._missing -= len(piece)
            if self.halver is not None:
                halved.append(self.halver.resample_chunk(place, last=last and ended))
            if last and ended:
                tail = self._size + self._unit * self._hop
                self._signal[self._filled : self._filled + tail] = 0
                self._filled += tail
            self._take_frames(folded, last and ended)
            if ended:
                return halved

    def _take_frames(self, folded: F32, last: bool) -> None:
        hop, unit = self._hop, self._unit
        frames = min((self._filled - self._size) // hop + 1, self._frames - self._next)
        if not last:
            frames = min(frames, self._filled // hop)
            frames -= frames % unit
        if frames <= 0:
            return
        step = max(unit, _FRAMES - _FRAMES % unit)
        for taken in range(0, frames, step):
            self._add_frames(taken, min(step, frames - taken), folded)
        used = min(frames * hop, self._filled)
        self._signal[: self._filled - used] = self._signal[used : self._filled]
        self._filled -= used
        self._next += frames

    def _add_frames(self, taken: int, frames: int, folded: F32) -> None:
        width, columns = self._kernel.shape
        phases = self._phases
        rows = -(-frames // self._unit)
        step = self._signal.itemsize
        stride = self._group * self._hop * step
        windows = np.ndarray(
            (phases, rows, width), np.float32, self._signal, taken * self._hop * step, (stride, phases * stride, step)
        )
        products = self._scratch.products[: rows * phases * columns]
        np.matmul(windows, self._kernel, out=products.reshape(rows, phases, columns).transpose(1, 0, 2))
        np.multiply(products, products, out=products)
        parts = products.reshape(-1, _COLUMNS)[:frames]
        strength = self._scratch.strength[:frames]
        np.add(parts[:, :PITCH_CLASSES], parts[:, PITCH_CLASSES:], out=strength)
        np.sqrt(strength, out=strength)
        start = self._next + taken
        folded[start : start + frames] += strength


class ConstantQ:
    """Folded constant-Q magnitudes of whole excerpts; owns the streams, their buffers and the kernels."""

    def __init__(self) -> None:
        scratch = _Scratch()
        self._octaves = [
            _Octave(max(1024, _CHUNK >> octave), octave < _OCTAVES - 1, scratch) for octave in range(_OCTAVES)
        ]
        self._early = {
            halvings: soxr.ResampleStream(1 << halvings, 1, 1, dtype="float32", quality=_QUALITY_NAME)
            for halvings in (1, 2, 3)
        }
        self._kernel = lru_cache(_CACHED_KERNELS)(_kernel)

    def close(self) -> None:
        """Release the streams; nothing can be folded afterwards."""
        self._octaves.clear()
        self._early.clear()

    def fold(self, samples: F32, rate: float, tuning: float, folded: F32) -> int:
        """Sum of |CQT| over the octaves, [frames, 12] from C, into the first rows of ``folded``; returns the frames.

        ``folded`` needs one row more than the spectrogram has frames (see :func:`cqt_frame_count`).
        """
        halvings = early_halvings(rate, tuning)
        self._halvings = halvings
        frames = cqt_frame_count(len(samples), halvings)
        folded[:frames] = 0
        kernel = self._kernel(rate, halvings, tuning)
        length = -(-len(samples) // (1 << halvings))
        for number, octave in enumerate(self._octaves):
            octave.start(kernel, HOP >> (halvings + number), length, frames)
            length = -(-length // 2)
        early = self._early.get(halvings)
        if early is not None:
            early.clear()
        for start in range(0, len(samples), _CHUNK):
            piece = samples[start : start + _CHUNK]
            last = start + _CHUNK >= len(samples)
            if early is not None:
                piece = early.resample_chunk(piece, last=last)
            self._push(0, piece, last, folded)
        return frames

    def _push(self, number: int, samples: F32, last: bool, folded: F32) -> None:
        # librosa's resampling with scale=True: sqrt(2) per halving keeps the energy. In float64, so that the signals
        # are librosa's to the bit: in digital silence all there is left is their rounding, and CENS looks at that too.
        # The filters' lengths double from octave to octave while the kernel stays; that is the other sqrt(2).
        scale = math.sqrt(2.0) if number else math.sqrt(1 << self._halvings)
        halved = self._octaves[number].push(samples, scale, last, folded)
        if number + 1 < _OCTAVES:
            for index, piece in enumerate(halved):
                self._push(number + 1, piece, last and index + 1 == len(halved), folded)
