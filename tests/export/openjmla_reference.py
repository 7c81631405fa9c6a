"""OpenJMLA's encoder in numpy, float64, written from the papers and the checkpoint's names alone.

Independent of the recipe: frames are cut one by one, the spectrum is numpy's FFT, the mel bands are librosa's, patches
are cut out of the image and put in order here, attention runs head by head.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.special
from numpy.typing import NDArray

Array = NDArray[np.float64]
HEAD = 64
PATCH = 16


def frames_of(samples: int) -> int:
    """Centred frames that a spectrogram of ``samples`` samples has."""
    return samples // 160 + 1


def log_mel(audio: NDArray[np.floating], frames: int | None = None) -> Array:
    """SpectPrompt's spectrogram ``[80, frames]``: everything before the padding to 2992 frames."""
    import librosa

    filters = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80, fmin=50, fmax=8000, dtype=np.float64)
    padded = np.pad(audio.astype(np.float64), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    count = frames_of(len(audio))
    cut = np.stack([padded[t * 160 : t * 160 + 400] * window for t in range(count)])
    power = np.abs(np.fft.rfft(cut, axis=1)) ** 2
    mel = np.log(power @ filters.T + float(np.finfo(np.float32).eps))
    return ((mel + 4.5) / 4.5).T[:, :frames]


def circular(mel: Array, length: int) -> Array:
    """SpectPrompt's padding of a short spectrogram ``[80, n]`` to ``length`` frames: repeated, a copy in the middle."""
    n = mel.shape[1]
    repeats = length // n + 1
    repeats += 1 - repeats % 2
    shift = (n * repeats - length + 1) // 2
    return mel[:, (np.arange(length) + shift) % n]


def tokens(mel: Array, state: Mapping[str, Array]) -> Array:
    """Tokens ``[1 + patches, width]`` of one image ``[80, frames]``, the class token first."""
    kernel = state["patch_embed.projection.weight"].sum(axis=1)  # three equal channels
    rows, columns = mel.shape[0] // PATCH, mel.shape[1] // PATCH
    x = [state["cls_token"][0, 0]]
    for row in range(rows):  # all times of the lowest bands first
        for column in range(columns):
            patch = mel[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            x.append(np.einsum("oij,ij->o", kernel, patch) + state["patch_embed.projection.bias"])
    value = np.stack(x) + state["pos_embed"][0]
    layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers."))
    for number in range(layers):
        layer = {name.split(".", 2)[2]: w for name, w in state.items() if name.startswith(f"layers.{number}.")}
        value = value + attention(layer_norm(value, layer, "ln1"), layer)
        hidden = layer_norm(value, layer, "ln2") @ layer["ffn.layers.0.0.weight"].T + layer["ffn.layers.0.0.bias"]
        active = hidden * 0.5 * (1 + scipy.special.erf(hidden / np.sqrt(2)))
        value = value + active @ layer["ffn.layers.1.weight"].T + layer["ffn.layers.1.bias"]
    return layer_norm(value, state, "ln1")


def layer_norm(x: Array, state: Mapping[str, Array], name: str) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
    return centred / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention(x: Array, layer: Mapping[str, Array]) -> Array:
    width = x.shape[1]
    q, k, v = np.split(x @ layer["attn.qkv.weight"].T + layer["attn.qkv.bias"], 3, axis=1)
    out = np.empty_like(x)
    for first in range(0, width, HEAD):
        part = slice(first, first + HEAD)
        scores = q[:, part] @ k[:, part].T / np.sqrt(HEAD)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, part] = weights / weights.sum(axis=1, keepdims=True) @ v[:, part]
    return out @ layer["attn.proj.weight"].T + layer["attn.proj.bias"]


def embedding(audio: NDArray[np.floating], state: Mapping[str, Array], frames: int, pool: str = "mean") -> Array:
    """The embedding of one window whose spectrogram has (at least) ``frames`` frames."""
    found = tokens(log_mel(audio, frames), state)
    return found[0] if pool == "cls" else found[1:].mean(axis=0)
