"""Mel spectrum and its cosine transform (MFCC), as librosa's defaults define them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_reclass.features.framing import BINS, F32, F64, FRAME

MEL_BANDS: Final = 128
COEFFICIENTS: Final = 20

_GROUP: Final = 8
"""Neighbouring bands that share one matrix product: a dense product over all would be mostly zeros."""

# Slaney's mel scale (Auditory Toolbox): linear to 1 kHz with 200/3 Hz per mel, then 27 steps per factor of 6.4.
_HZ_PER_MEL: Final = 200.0 / 3.0
_LOG_START_HZ: Final = 1000.0
_LOG_START_MEL: Final = _LOG_START_HZ / _HZ_PER_MEL
_LOG_STEP: Final = np.log(6.4) / 27.0


def _mel_to_hz(mel: F64) -> F64:
    hz: F64 = np.where(
        mel < _LOG_START_MEL,
        mel * _HZ_PER_MEL,
        _LOG_START_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _LOG_START_MEL) - _LOG_START_MEL)),
    )
    return hz


def _hz_to_mel(hz: float) -> float:
    if hz < _LOG_START_HZ:
        return hz / _HZ_PER_MEL
    return float(_LOG_START_MEL + np.log(hz / _LOG_START_HZ) / _LOG_STEP)


def mel_filters(rate: float) -> F32:
    """Triangular mel filters of unit area, [128, 1025] float32, from 0 Hz to half of ``rate`` (in Hz)."""
    bins = np.arange(BINS) * (rate / FRAME)
    corners = _mel_to_hz(np.linspace(0.0, _hz_to_mel(rate / 2), MEL_BANDS + 2))
    widths = np.diff(corners)
    rising = (bins - corners[:-2, None]) / widths[:-1, None]
    falling = (corners[2:, None] - bins) / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: F32 = (triangles * (2.0 / (corners[2:] - corners[:-2]))[:, None]).astype(np.float32)
    return filters


def cosine_transform() -> F32:
    """Orthonormal DCT-II that takes 128 bands in decibels to 20 coefficients, [20, 128] float32."""
    band = np.arange(MEL_BANDS)
    order = np.arange(COEFFICIENTS)[:, None]
    basis: F64 = np.cos(np.pi * (2 * band + 1) * order / (2 * MEL_BANDS)) * np.sqrt(2.0 / MEL_BANDS)
    basis[0] *= np.sqrt(0.5)
    return basis.astype(np.float32)


@dataclass(frozen=True)
class _Group:
    bands: slice
    bins: slice
    weights: F32  # [bins, bands]


class MelBands:
    """The mel filters of one rate, cut into groups of neighbouring bands so that zeros are not multiplied."""

    def __init__(self, rate: float) -> None:
        filters = mel_filters(rate)
        groups = []
        for first in range(0, MEL_BANDS, _GROUP):
            bands = slice(first, first + _GROUP)
            touched = np.flatnonzero(filters[bands].any(axis=0))
            if len(touched):
                bins = slice(int(touched[0]), int(touched[-1]) + 1)
                groups.append(_Group(bands, bins, np.ascontiguousarray(filters[bands, bins].T)))
        self._groups = tuple(groups)
        covered = {group.bands.start for group in groups}
        # At low rates the lowest bands lie between two bins and stay empty.
        self._empty = tuple(slice(b, b + _GROUP) for b in range(0, MEL_BANDS, _GROUP) if b not in covered)

    def apply(self, power: F32, out: F32) -> None:
        """Mel power [frames, 128] of the power spectrum [frames, 1025], into ``out``."""
        for bands in self._empty:
            out[:, bands] = 0
        for group in self._groups:
            np.matmul(power[:, group.bins], group.weights, out=out[:, group.bands])
