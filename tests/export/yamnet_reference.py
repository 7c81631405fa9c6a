"""YAMNet in numpy, float64, from the release's description and the tensors' names alone; nothing is folded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from export.numpy_layers import Array, convolve, stft_power

STRIDE_TWO = {1, 3, 5, 7, 13}


def log_mel(audio: NDArray[np.floating]) -> Array:
    """``[frames, 64]``: natural logarithms of HTK bands of the magnitude, 125 to 7500 Hz."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    return np.log(np.sqrt(stft_power(audio, window, 512, 160)) @ bands().T + 0.001)


def bands() -> Array:
    """``[64, 257]``."""

    def mel(hz: float) -> float:
        return 1127 * np.log(1 + hz / 700)

    low, step = mel(125.0), (mel(7500.0) - mel(125.0)) / 65
    made = np.zeros((64, 257))
    for band in range(64):
        left, middle, right = (low + (band + k) * step for k in range(3))
        for number in range(1, 257):
            at = mel(number * 16_000 / 512)
            made[band, number] = max(0.0, min((at - left) / (middle - left), (right - at) / (right - middle)))
    return made


def answer(audio: NDArray[np.floating], tensors: Mapping[str, Array]) -> dict[str, Array]:
    """``pooled`` and ``logits``: means over the patches of 96 frames that the window holds."""
    frames = log_mel(audio)
    patches = [_patch(frames[first : first + 96], tensors) for first in range(0, len(frames) - 95, 96)]
    pooled = np.mean(patches, axis=0)
    return {"pooled": pooled, "logits": pooled @ tensors["logits/logits/kernel:0"] + tensors["logits/logits/bias:0"]}


def _patch(frames: Array, tensors: Mapping[str, Array]) -> Array:
    def convolution(x: Array, layer: str, stride: int = 1) -> Array:
        return normalised(same_convolution(x, layer, tensors, stride), layer, tensors)

    x = convolution(frames[None], "layer1/conv", 2)
    for number in range(2, 15):
        x = convolution(x, f"layer{number}/depthwise_conv", 2 if number in STRIDE_TWO else 1)
        x = convolution(x, f"layer{number}/pointwise_conv")
    return x.mean(axis=(1, 2))


def same_convolution(x: Array, layer: str, tensors: Mapping[str, Array], stride: int) -> Array:
    """With TensorFlow's padding ``SAME``."""
    depthwise = layer.endswith("depthwise_conv")
    part, order = ("depthwise_kernel", (2, 3, 0, 1)) if depthwise else ("kernel", (3, 2, 0, 1))
    kernel = tensors[f"{layer}/{layer}/{part}:0"].transpose(order)
    pads = []
    for size in x.shape[1:]:
        total = max((-(-size // stride) - 1) * stride + kernel.shape[2] - size, 0)
        pads.append((total // 2, total - total // 2))
    return convolve(x, kernel, stride=stride, pad=pads, groups=len(x) if depthwise else 1)


def normalised(x: Array, layer: str, tensors: Mapping[str, Array]) -> Array:
    """Batch norm without scale, then relu."""
    beta, mean, variance = (
        tensors[f"{layer}/bn/{layer}/bn/{part}:0"][:, None, None] for part in ("beta", "moving_mean", "moving_variance")
    )
    return np.maximum((x - mean) / np.sqrt(variance + 1e-4) + beta, 0.0)
