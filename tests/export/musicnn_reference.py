"""musicnn in numpy float64, from the wheel's ``models.py`` layer by layer, nothing folded or reordered.

It is the oracle for the exported graph and shares with the recipe only the reader of the checkpoint. The
spectrogram is librosa's, cast to float16 as ``extractor.py`` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edge_reclass_export.tensorflow_bundle import TensorBundle

SAMPLE_RATE = 16_000
PATCH_FRAMES = 187
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """One patch: tags (50), penultimate (200), mean and maximum over time (753 each)."""

    tags: Array
    penultimate: Array
    mean_pool: Array
    max_pool: Array


def log_mel(
    audio: NDArray[np.float32],
    *,
    center: bool,
    float16: bool = True,
    dtype: type = np.float32,
    pad_mode: str = "reflect",
) -> Array:
    """``extractor.batch_data`` up to the patches: ``[frames, 96]``. librosa of 2019 mirrored the edges."""
    librosa = pytest.importorskip("librosa", reason="the oracle takes librosa's spectrogram")

    power = librosa.feature.melspectrogram(
        y=audio.astype(dtype),
        sr=SAMPLE_RATE,
        n_fft=512,
        hop_length=256,
        n_mels=96,
        center=center,
        pad_mode=pad_mode,
    ).T
    if float16:
        power = power.astype(np.float16)
    # numpy < 1.17 promoted integer × float16 to float32; numpy 2 would overflow in float16.
    return np.log10(10000 * power.astype(dtype) + 1).astype(np.float64)


def patches(mel: Array) -> Array:
    """Contiguous patches ``[patches, 187, 96]``; a partial last one is dropped."""
    count = len(mel) // PATCH_FRAMES
    return mel[: count * PATCH_FRAMES].reshape(count, PATCH_FRAMES, mel.shape[1])


def answer(bundle: TensorBundle, patch: Array) -> Answer:
    """The network on one patch ``[187, 96]``."""

    def get(name: str) -> Array:
        return bundle.tensor(name).astype(np.float64)

    def batch_norm(x: Array, number: int) -> Array:
        name = "batch_normalization" + (f"_{number}" if number else "")
        mean, variance = get(f"{name}/moving_mean"), get(f"{name}/moving_variance")
        return get(f"{name}/gamma") * (x - mean) / np.sqrt(variance + 1e-3) + get(f"{name}/beta")

    def conv_relu(x: Array, number: int, pad: tuple[int, int]) -> Array:
        name = "conv2d" + (f"_{number}" if number else "")
        kernel = get(f"{name}/kernel")
        view = sliding_window_view(np.pad(x, (pad, (0, 0))), kernel.shape[:2])
        return np.maximum(np.tensordot(view, kernel[:, :, 0, :], axes=([2, 3], [0, 1])) + get(f"{name}/bias"), 0.0)

    normalized = batch_norm(patch[:, :, None], 0)[:, :, 0]
    front = [
        batch_norm(conv_relu(normalized, number, pad), number + 1).max(axis=1)
        for number, pad in [(0, (3, 3)), (1, (3, 3)), (2, (63, 64)), (3, (31, 32)), (4, (15, 16))]
    ]
    features = np.concatenate(front, axis=1)
    cnn1 = batch_norm(conv_relu(features, 5, (3, 3)), 6)[:, 0, :]
    cnn2 = batch_norm(conv_relu(cnn1, 6, (3, 3)), 7)[:, 0, :] + cnn1
    cnn3 = batch_norm(conv_relu(cnn2, 7, (3, 3)), 8)[:, 0, :] + cnn2
    feature_map = np.concatenate([features, cnn1, cnn2, cnn3], axis=1)
    max_pool, mean_pool = feature_map.max(axis=0), feature_map.mean(axis=0)
    flat = np.stack([max_pool, mean_pool], axis=1).reshape(-1)
    dense = np.maximum(batch_norm(flat, 9) @ get("dense/kernel") + get("dense/bias"), 0.0)
    penultimate = batch_norm(dense, 10)
    logits = penultimate @ get("dense_1/kernel") + get("dense_1/bias")
    return Answer(1.0 / (1.0 + np.exp(-logits)), penultimate, mean_pool, max_pool)
