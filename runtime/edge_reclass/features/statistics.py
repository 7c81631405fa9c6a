"""The seven statistics over the frames of each row."""

from __future__ import annotations

from typing import Final

import numpy as np

from edge_reclass.features.framing import F32, F64
from edge_reclass.features.layout import STATISTICS

SCRATCH_VALUES: Final = 1 << 16
"""float64 values that the caller lends to :func:`row_statistics`, twice."""

_CONSTANT: Final = 1e-6
"""A row whose standard deviation is at most this part of its mean is constant: scipy's rule for float32."""


def row_statistics(rows: F32, scratch: F64) -> F64:
    """Kurtosis (Fisher, biased), max, mean, median, min, skew (biased) and std (ddof 0) of every row.

    ``rows`` is [rows, frames] float32, contiguous along the frames; it is **reordered** (the median is selected in
    place). ``scratch`` is [2, SCRATCH_VALUES] float64. Moments are taken in float64 around the mean. A constant row
    has no skew and no kurtosis (0/0): both are 0 here, where scipy gives nan. Returns [rows, 7] float64.
    """
    count, frames = rows.shape
    table = np.empty((count, len(STATISTICS)))
    step = min(frames, scratch.shape[1])
    group = max(1, scratch.shape[1] // step)
    for first in range(0, count, group):
        part = rows[first : first + group]
        _moments(part, scratch, step, table[first : first + group])
    table[:, 1] = rows.max(axis=1)
    table[:, 4] = rows.min(axis=1)
    half = frames // 2
    rows.partition(half, axis=1)
    table[:, 3] = rows[:, half]
    if frames % 2 == 0:
        table[:, 3] = (rows[:, :half].max(axis=1) + rows[:, half]) * np.float32(0.5)
    return table


def _moments(rows: F32, scratch: F64, step: int, table: F64) -> None:
    count, frames = rows.shape
    mean = rows.sum(axis=1, dtype=np.float64) / frames
    sums = np.zeros((3, count))
    for start in range(0, frames, step):
        part = rows[:, start : start + step]
        centred = scratch[0, : part.size].reshape(part.shape)
        squared = scratch[1, : part.size].reshape(part.shape)
        np.subtract(part, mean[:, None], out=centred)
        np.multiply(centred, centred, out=squared)
        sums[0] += squared.sum(axis=1)
        sums[1] += np.einsum("ij,ij->i", squared, centred)
        sums[2] += np.einsum("ij,ij->i", squared, squared)
    second, third, fourth = sums / frames
    constant = second <= (_CONSTANT * mean) ** 2
    safe = np.where(constant, 1.0, second)
    table[:, 0] = np.where(constant, 0.0, fourth / safe**2 - 3.0)
    table[:, 2] = mean
    table[:, 5] = np.where(constant, 0.0, third / safe**1.5)
    table[:, 6] = np.sqrt(second)
