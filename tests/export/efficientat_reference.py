"""EfficientAT in numpy, float64, from the paper, the repository's description and the tensors' names alone.

Frames are cut one by one and transformed by numpy's FFT, after the reference's padding by half of 1024; nothing is
folded; the tensors are read in the order of their names.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from export.numpy_layers import Array, convolve, stft_power

STRIDE_TWO = {0, 2, 4, 7, 13}
FIRST_HARD = 7


def log_mel(audio: NDArray[np.floating]) -> Array:
    """``[128, frames]``."""
    x = audio.astype(np.float64)
    x = np.pad(x[1:] - 0.97 * x[:-1], 512, mode="reflect")
    window = np.zeros(1024)
    window[112:912] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799)
    power = stft_power(x, window, 1024, 320)
    return ((np.log(power @ kaldi_bands().T + 1e-5) + 4.5) / 5).T


def kaldi_bands() -> Array:
    """``[128, 513]``: Kaldi leaves the bin at half the rate out."""

    def mel(hz: float) -> float:
        return 1127 * np.log(1 + hz / 700)

    low, step = mel(0.0), (mel(15_000.0) - mel(0.0)) / 129
    bands = np.zeros((128, 513))
    for band in range(128):
        left, middle, right = (low + (band + k) * step for k in range(3))
        for number in range(512):
            at = mel(number * 32_000 / 1024)
            rising, falling = (at - left) / (middle - left), (right - at) / (right - middle)
            bands[band, number] = max(0.0, min(rising, falling))
    return bands


def answer(audio: NDArray[np.floating], state: Mapping[str, Array]) -> dict[str, Array]:
    """``pooled``, ``penultimate`` and ``logits`` of one window."""

    def convolution(x: Array, name: str, stride: int = 1) -> Array:
        kernel = state[f"{name}.0.weight"]
        edge = kernel.shape[2] // 2
        groups = len(kernel) if kernel.shape[1] == 1 and kernel.shape[2] > 1 and len(x) > 1 else 1
        y = convolve(x, kernel, stride=stride, pad=((edge, edge), (edge, edge)), groups=groups)
        scale = state[f"{name}.1.weight"] / np.sqrt(state[f"{name}.1.running_var"] + 1e-3)
        mean, bias = state[f"{name}.1.running_mean"], state[f"{name}.1.bias"]
        return (y - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]

    def linear(x: Array, name: str) -> Array:
        return state[f"{name}.weight"] @ x + state[f"{name}.bias"]

    x = hard_swish(convolution(log_mel(audio)[None], "features.0", 2))
    for number in range(1, 16):
        active = hard_swish if number >= FIRST_HARD else relu
        before, block = x, f"features.{number}.block"
        parts = sorted({int(name.split(".")[3]) for name in state if name.startswith(block + ".")})
        for part in parts:
            gate = f"{block}.{part}.conc_se_layers.0"
            if f"{gate}.fc1.weight" in state:
                g = expit(linear(relu(linear(x.mean(axis=(1, 2)), f"{gate}.fc1")), f"{gate}.fc2"))
                x = x * g[:, None, None]
                continue
            deep = state[f"{block}.{part}.0.weight"].shape[2] > 1
            x = convolution(x, f"{block}.{part}", 2 if deep and number in STRIDE_TWO else 1)
            x = x if part == parts[-1] else active(x)
        if number not in STRIDE_TWO and len(x) == len(before):
            x = x + before
    pooled = hard_swish(convolution(x, "features.16")).mean(axis=(1, 2))
    penultimate = hard_swish(linear(pooled, "classifier.2"))
    return {"pooled": pooled, "penultimate": penultimate, "logits": linear(penultimate, "classifier.5")}


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def hard_swish(x: Array) -> Array:
    return x * np.clip(x + 3, 0, 6) / 6
