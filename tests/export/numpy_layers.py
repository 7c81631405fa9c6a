"""Layers of convolutional networks in numpy, float64, for references: one image ``[channels, height, width]`` each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]


def convolve(
    x: Array, kernel: Array, *, stride: int = 1, pad: Sequence[Sequence[int]] = ((0, 0), (0, 0)), groups: int = 1
) -> Array:
    """Cross-correlation with ``kernel[out, in / groups, height, width]``; ``groups`` is 1 or all channels."""
    padded = np.pad(x, ((0, 0), *pad))
    windows = sliding_window_view(padded, kernel.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    if groups == 1:
        return np.einsum("chwij,ocij->ohw", windows, kernel, optimize=True)
    assert groups == len(x) == len(kernel)
    return np.einsum("chwij,cij->chw", windows, kernel[:, 0], optimize=True)


def max_pool(x: Array, height: int, width: int) -> Array:
    """Maxima of blocks; what is left over at the ends is dropped."""
    channels, rows, columns = x.shape[0], x.shape[1] // height, x.shape[2] // width
    cut = x[:, : rows * height, : columns * width]
    return cut.reshape(channels, rows, height, columns, width).max(axis=(2, 4))


def stft_power(audio: NDArray[np.floating], window: Array, n_fft: int, hop: int) -> Array:
    """|FFT|² ``[frames, n_fft // 2 + 1]`` of frames inside ``audio``, cut one by one."""
    count = (len(audio) - len(window)) // hop + 1
    frames = [audio[hop * t : hop * t + len(window)].astype(np.float64) * window for t in range(count)]
    return np.abs(np.fft.rfft(np.stack(frames), n=n_fft, axis=1)) ** 2
