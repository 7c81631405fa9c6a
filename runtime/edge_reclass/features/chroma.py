"""Chroma: pitch classes C … B from the power spectrum or from the constant-Q transform, CENS, and tonnetz.

The frames are processed in chunks, so that scratch does not grow with the excerpt. Rows are [pitch class, frame].
"""

from __future__ import annotations

from typing import Final

import numpy as np

from edge_reclass.features.framing import BINS, DEFAULT_SR, F32, F64, FRAME

PITCH_CLASSES: Final = 12

_CENTRE_OCTAVE: Final = 5.0
_OCTAVE_WIDTH: Final = 2.0
_TINY: Final = np.finfo(np.float32).tiny

_QUANTUM: Final = np.float32(0.25)
_THRESHOLDS: Final = tuple(np.float32(t) for t in (0.05, 0.1, 0.2, 0.4))

_CLASSES_AT_ONCE: Final = 4
"""A product with four columns streams the spectra through the cache once and packs nothing: twice as fast as twelve."""

_SMOOTHING: Final = 43
CENS_REACH: Final = _SMOOTHING // 2
"""Frames to either side that CENS smoothing looks at."""
_TILE: Final = 64


def chroma_filters(tuning: float) -> F32:
    """Chroma filters over the power spectrum for a tuning in semitones, [3, 1025, 4] float32: four classes each.

    Ellis's chroma filters as in librosa (centre octave 5, width 2 octaves, each bin of unit energy over the pitch
    classes, rows from C), on the 22 050 Hz axis that FMA's script uses whatever the true rate is.
    """
    reference = 440.0 * 2.0 ** (tuning / PITCH_CLASSES) / 16.0
    # One bin past the last: a bin's width is the distance to the next.
    hertz = np.arange(1, BINS + 1) * (DEFAULT_SR / FRAME)
    pitch = PITCH_CLASSES * np.log2(hertz / reference)
    # 0 Hz has no pitch: one and a half octaves below the first bin, so that it counts half everywhere.
    pitch = np.concatenate([[pitch[0] - 1.5 * PITCH_CLASSES], pitch])
    width = np.maximum(np.diff(pitch), 1.0)
    pitch = pitch[:BINS]
    half = PITCH_CLASSES / 2
    # Ellis counts pitch classes from A; rows here begin at C, three semitones up.
    classes = (np.arange(PITCH_CLASSES) + 3) % PITCH_CLASSES
    distance = np.remainder(pitch[:, None] - classes + half + 10 * PITCH_CLASSES, PITCH_CLASSES) - half
    weights = np.exp(-0.5 * (2 * distance / width[:, None]) ** 2)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    weights *= np.exp(-0.5 * ((pitch / PITCH_CLASSES - _CENTRE_OCTAVE) / _OCTAVE_WIDTH) ** 2)[:, None]
    return np.ascontiguousarray(weights.reshape(BINS, -1, _CLASSES_AT_ONCE).transpose(1, 0, 2), dtype=np.float32)


def project_power(power: F32, filters: F32, out: F32) -> None:
    """Chroma of the power spectra [frames, 1025], divided by each frame's largest value, into ``out`` [12, frames]."""
    for number, few in enumerate(filters):
        first = number * _CLASSES_AT_ONCE
        out[first : first + _CLASSES_AT_ONCE] = np.matmul(power, few).T
    normalise_peak(out)


def normalise_peak(chroma: F32) -> None:
    """Divide each frame of [12, frames] by its largest value, in place; frames of zeros stay zero."""
    peak = chroma.max(axis=0)
    peak[peak < _TINY] = 1
    chroma /= peak


def quantise(chroma: F32, out: F32) -> None:
    """CENS quantisation: of the L1-normalised frame, a quarter for each of 0.05, 0.1, 0.2 and 0.4 that is exceeded."""
    total = chroma.sum(axis=0)
    total[total < _TINY] = 1
    share = chroma / total
    out[:] = 0
    for threshold in _THRESHOLDS:
        out += share > threshold
    out *= _QUANTUM


class CensSmoother:
    """Smoothing over time and unit length, the second half of CENS (Müller & Ewert 2011).

    librosa's window is a symmetric Hann of 43 frames over its sum, whose ends are zero; outside the excerpt is zero.
    Smoothing is one matrix product over tiles of 64 frames with their surroundings.
    """

    def __init__(self) -> None:
        position = np.arange(_SMOOTHING) / (_SMOOTHING - 1)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * position)
        window /= window.sum()
        self._band = np.zeros((_TILE + 2 * CENS_REACH, _TILE), dtype=np.float32)
        for column in range(_TILE):
            self._band[column : column + _SMOOTHING, column] = window

    def apply(self, quantised: F32, out: F32) -> None:
        """Smooth ``quantised`` [12, frames + 42], which brings 21 frames of surroundings, into ``out`` [12, frames]."""
        frames = out.shape[1]
        tiles = -(-frames // _TILE)
        padded = np.zeros((PITCH_CLASSES, tiles * _TILE + 2 * CENS_REACH), dtype=np.float32)
        padded[:, : quantised.shape[1]] = quantised
        step = padded.itemsize
        windows = np.ndarray(
            (PITCH_CLASSES, tiles, len(self._band)), np.float32, padded, strides=(padded.strides[0], _TILE * step, step)
        )
        smooth = np.matmul(np.ascontiguousarray(windows), self._band).reshape(PITCH_CLASSES, -1)[:, :frames]
        length = np.sqrt(np.einsum("ij,ij->j", smooth, smooth))
        length[length < _TINY] = 1
        np.divide(smooth, length, out=out)


def tonnetz_basis() -> F32:
    """Tonal centroid projection of Harte, Sandler & Gasser (2006), [6, 12] float32: fifths, minor and major thirds."""
    intervals = np.array([7 / 6, 7 / 6, 3 / 2, 3 / 2, 2 / 3, 2 / 3])[:, None]
    quarter = np.array([0.5, 0.0, 0.5, 0.0, 0.5, 0.0])[:, None]
    turns = intervals * np.arange(PITCH_CLASSES) - quarter
    radius = np.array([1, 1, 1, 1, 0.5, 0.5])[:, None]
    basis: F64 = radius * np.cos(np.pi * turns)
    return basis.astype(np.float32)


def tonnetz(basis: F32, cens: F32, out: F32) -> None:
    """Tonal centroids [6, frames] of the L1-normalised ``cens`` [12, frames], into ``out``."""
    total = cens.sum(axis=0)
    total[total < _TINY] = 1
    np.matmul(basis, cens / total, out=out)
