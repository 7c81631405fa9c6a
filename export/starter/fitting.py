"""Embeddings → heads: multinomial logistic regression, and a temperature.

Both take a weight per row, so that a clip counts the same however many rows it gave, and a genre the same however
many clips it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from edge_reclass_export.heads import LinearLayer, Scaler

CLIP: Final = 5.0
"""Standardised features are limited to ± this many standard deviations."""

_NEVER: Final = -30.0
"""Bias of a genre that the rows hold no clip of."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """Standardise, clip, then one linear layer."""

    scaler: Scaler
    layer: LinearLayer

    def logits(self, features: NDArray[np.floating]) -> Array:
        """float[n, k] → float64[n, classes]."""
        return np.asarray(standardised(features, self.scaler) @ self.layer.kernel + self.layer.bias, np.float64)


def balanced_weights(labels: NDArray[np.intp], clips: NDArray[np.intp], classes: int) -> Array:
    """A weight per row: clips of a genre share one unit, rows of a clip share the clip's part; the mean is 1."""
    rows_per_clip = np.bincount(clips)
    first = np.unique(clips, return_index=True)[1]
    clips_per_class = np.bincount(labels[first], minlength=classes)
    weights = 1.0 / (rows_per_clip[clips] * clips_per_class[labels])
    return np.asarray(weights / weights.mean(), np.float64)


def fit_scaler(features: NDArray[np.floating], weights: Array) -> Scaler:
    """Weighted mean and standard deviation per column; a constant column gets the scale 1."""
    wide = features.astype(np.float64)
    share = weights / weights.sum()
    mean = share @ wide
    scale = np.sqrt(share @ (wide - mean) ** 2)
    return Scaler(mean, np.where(scale > 1e-12, scale, 1.0), CLIP)


def fit_head(
    features: NDArray[np.floating], labels: NDArray[np.intp], weights: Array, classes: int, *, strength: float
) -> Head:
    """Multinomial logistic regression with an L2 penalty; ``strength`` is scikit-learn's C for weights of mean 1.

    A genre without rows never wins.
    """
    from sklearn.linear_model import LogisticRegression

    scaler = fit_scaler(features, weights)
    model = LogisticRegression(C=strength, max_iter=1000)
    model.fit(standardised(features, scaler), labels, sample_weight=weights)
    kernel, bias = np.zeros((features.shape[1], classes)), np.full(classes, _NEVER)
    kernel[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    return Head(scaler, LinearLayer(kernel, bias))


def fit_temperature(logits: Array, labels: NDArray[np.intp], weights: Array) -> float:
    """The temperature that minimises the weighted cross entropy of logits from out of fold (Guo et al., ICML 2017)."""
    share = weights / weights.sum()

    def loss(log_temperature: float) -> float:
        right = log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels]
        return float(-(share @ right))

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def standardised(features: NDArray[np.floating], scaler: Scaler) -> Array:
    """Features as ``scaler`` leaves them, float64[n, k]."""
    return np.asarray(np.clip((features - scaler.mean) / scaler.scale, -scaler.clip, scaler.clip), np.float64)
