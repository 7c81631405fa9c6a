"""Embeddings → heads: an MLP with strong regularisation, and a temperature.

Both take a weight per row, so that a clip counts the same however many cuts it gave, and a genre the same however
many clips it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from edge_reclass_export.heads import LinearLayer, Scaler

__all__ = ["Head", "balanced_weights", "fit_mlp", "fit_scaler", "fit_temperature", "softmax"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """Standardise, clip, then linear layers with ReLU between them."""

    scaler: Scaler
    layers: tuple[LinearLayer, ...]

    def logits(self, features: NDArray[np.floating]) -> Array:
        """float[n, k] → float64[n, classes]."""
        value = np.clip((features - self.scaler.mean) / self.scaler.scale, -self.scaler.clip, self.scaler.clip)
        for number, layer in enumerate(self.layers):
            value = (np.maximum(value, 0.0) if number else value) @ layer.kernel + layer.bias
        return np.asarray(value, np.float64)


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Row-wise exp(z/T) / Σ exp(z/T)."""
    scaled = logits / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def balanced_weights(labels: NDArray[np.intp], clips: NDArray[np.intp], classes: int) -> Array:
    """A weight per row: clips of a genre share one unit, rows of a clip share the clip's part; the mean is 1."""
    rows_per_clip = np.bincount(clips)
    first = np.unique(clips, return_index=True)[1]
    clips_per_class = np.bincount(labels[first], minlength=classes)
    weights = 1.0 / (rows_per_clip[clips] * clips_per_class[labels])
    return np.asarray(weights / weights.mean(), np.float64)


def fit_scaler(features: NDArray[np.floating], weights: Array, clip: float) -> Scaler:
    """Weighted mean and standard deviation per column; a constant column gets the scale 1."""
    wide = features.astype(np.float64)
    share = weights / weights.sum()
    mean = share @ wide
    scale = np.sqrt(share @ (wide - mean) ** 2)
    return Scaler(mean, np.where(scale > 1e-12, scale, 1.0), clip)


def fit_mlp(
    features: NDArray[np.floating],
    labels: NDArray[np.intp],
    weights: Array,
    classes: int,
    *,
    hidden: Sequence[int] = (256, 128),
    epochs: int = 60,
    decay: float = 0.1,
    dropout: float = 0.5,
    noise: float = 0.3,
    smoothing: float = 0.1,
    clip: float,
    seed: int,
) -> Head:
    """An MLP with ReLU, trained by AdamW with dropout, noise on its inputs, and label smoothing.

    One thread and one seed: the same rows give the same head on the same machine.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    scaler = fit_scaler(features, weights, clip)
    x = torch.from_numpy(np.clip((features - scaler.mean) / scaler.scale, -clip, clip).astype(np.float32))
    y, w = torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(weights.astype(np.float32))
    widths = [x.shape[1], *hidden, classes]
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]
    for layer in layers:
        bound = 1.0 / layer.in_features**0.5
        torch.nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        torch.nn.init.zeros_(layer.bias)
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=decay)
    batch = 128
    steps = -(-len(x) // batch) * epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    loss = torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=smoothing)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for first in range(0, len(x), batch):
            rows = order[first : first + batch]
            value = x[rows] + noise * torch.randn(x[rows].shape, generator=generator)
            for number, layer in enumerate(layers):
                if number:
                    value = torch.relu(value)
                    keep = torch.rand(value.shape, generator=generator) >= dropout
                    value = value * keep / (1.0 - dropout)
                value = layer(value)
            optimiser.zero_grad()
            (loss(value, y[rows]) * w[rows]).mean().backward()
            optimiser.step()
            schedule.step()
    torch.set_num_threads(threads)
    return Head(
        scaler,
        tuple(
            LinearLayer(
                layer.weight.detach().numpy().T.astype(np.float64), layer.bias.detach().numpy().astype(np.float64)
            )
            for layer in layers
        ),
    )


def fit_temperature(logits: Array, labels: NDArray[np.intp], weights: Array) -> float:
    """The temperature that minimises the weighted cross entropy of logits from out of fold (Guo et al., ICML 2017)."""
    share = weights / weights.sum()

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits, float(np.exp(log_temperature)))
        return float(-(share @ np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-300))))

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))
