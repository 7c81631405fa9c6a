"""musicnn, FCN and CRNN in numpy, float64, from the papers, the release's description and the tensors' names alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from export.numpy_layers import Array, convolve, max_pool, stft_power

POOLS = {
    "fcn": [(2, 4), (2, 4), (2, 4), (3, 5), (4, 4)],
    "crnn": [(2, 2), (3, 3), (4, 4), (4, 4)],
}


def bands() -> Array:
    """``[257, 96]``: triangles over Hz between points that are even in 2595 log10(1 + hz / 700)."""
    top = 2595 * np.log10(1 + 8000 / 700)
    points = [700 * (10 ** (top * k / 97 / 2595) - 1) for k in range(98)]
    made = np.zeros((257, 96))
    for band in range(96):
        left, middle, right = points[band : band + 3]
        for number in range(257):
            hz = number * 8000 / 256
            made[number, band] = max(0.0, min((hz - left) / (middle - left), (right - hz) / (right - middle)))
    return made


def image(audio: NDArray[np.floating], state: Mapping[str, Array]) -> Array:
    """``[96, frames]``: decibels, normalised."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    power = stft_power(np.pad(audio.astype(np.float64), 256, mode="reflect"), window, 512, 256) @ bands()
    decibels = 10 * np.log10(np.maximum(power, 1e-10)).T
    return normalised(decibels[None], state, "spec_bn")[0]


def normalised(x: Array, state: Mapping[str, Array], name: str) -> Array:
    shape = (-1, *[1] * (x.ndim - 1))
    weight, bias, mean, variance = (
        state[f"{name}.{part}"].reshape(shape) for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias


def block(x: Array, state: Mapping[str, Array], name: str, pad: tuple[int, int]) -> Array:
    """Convolution, batch norm, relu of ``[channels, height, width]``."""
    kernel = state[f"{name}.conv.weight"]
    kernel = kernel if kernel.ndim == 4 else kernel[:, :, None]
    y = convolve(x, kernel, pad=((pad[0], pad[0]), (pad[1], pad[1]))) + state[f"{name}.conv.bias"][:, None, None]
    return np.maximum(normalised(y, state, f"{name}.bn"), 0.0)


def gru(x: Array, state: Mapping[str, Array], layer: int) -> Array:
    """``[steps, inputs]`` to ``[steps, hidden]``."""
    w_in, w_own, b_in, b_own = (
        state[f"layer5.{part}_l{layer}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    size = w_own.shape[1]
    h, out = np.zeros(size), []
    for step in x:
        given, own = w_in @ step + b_in, w_own @ h + b_own
        r, z = expit(given[:size] + own[:size]), expit(given[size : 2 * size] + own[size : 2 * size])
        n = np.tanh(given[2 * size :] + r * own[2 * size :])
        h = (1 - z) * n + z * h
        out.append(h)
    return np.stack(out)


def answer(audio: NDArray[np.floating], state: Mapping[str, Array], kind: str) -> dict[str, Array]:
    """``penultimate`` and ``logits`` of one window."""
    x, last = image(audio, state)[None], "dense"
    if kind == "musicnn":
        last = "dense2"
        parts = [block(x, state, f"layers.{number}", (0, 3)).max(axis=1) for number in (0, 1)]
        mean = x.mean(axis=1, keepdims=True)
        for number in (2, 3, 4):
            edge = state[f"layers.{number}.conv.weight"].shape[2] // 2
            parts.append(block(mean, state, f"layers.{number}", (0, edge))[:, 0])
        front = np.concatenate(parts)[:, None]
        one = block(front, state, "layer1", (0, 3))
        two = block(one, state, "layer2", (0, 3)) + one
        three = block(two, state, "layer3", (0, 3)) + two
        every = np.concatenate([front, one, two, three])[:, 0]
        pooled = np.concatenate([every.max(axis=1), every.mean(axis=1)])
        hidden = normalised(state["dense1.weight"] @ pooled + state["dense1.bias"], state, "bn")
        hidden = np.maximum(hidden, 0.0)
    else:
        for number, (height, width) in enumerate(POOLS[kind], start=1):
            x = max_pool(block(x, state, f"layer{number}", (1, 1)), height, width)
        if kind == "fcn":
            hidden = x.reshape(-1)
        else:
            hidden = gru(gru(x[:, 0].T, state, 0), state, 1)[-1]
    return {"penultimate": hidden, "logits": state[f"{last}.weight"] @ hidden + state[f"{last}.bias"]}
