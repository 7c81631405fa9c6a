"""Embeddings → a head with two hidden layers, 256 and 128 wide with relu: scikit-learn fits it, no torch is needed."""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass_export.heads import RANDOM_WIDTHS, LinearLayer, linear_layers, two_classes
from edge_reclass_learn.fit.heads import ABSENT, Array, Head, fit_scaler, standardised

STRENGTHS: Final = (0.01, 0.1, 1.0)
"""1 / alpha of scikit-learn's MLPClassifier: small ones hold the weights back more."""
EPOCHS: Final = 40
"""Without early stopping: scikit-learn's would keep tracks of one artist on both sides."""


def fit_mlp(
    features: NDArray[np.floating], labels: NDArray[np.intp], weights: Array, classes: int, *, strength: float
) -> Head:
    """Standardise, clip, k → 256 → 128 → classes; cross entropy with an L2 penalty, Adam, a fixed seed.

    Args:
        features: float[n, k]
        weights: per row, of mean 1
        strength: see STRENGTHS

    A genre without rows never wins.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    scaler = fit_scaler(features, weights)
    known = np.unique(labels)
    bias = np.full(classes, ABSENT)
    if len(known) < 2:
        bias[known] = 0.0
        return Head(scaler, LinearLayer(np.zeros((features.shape[1], classes)), bias))
    model = MLPClassifier(RANDOM_WIDTHS, alpha=1.0 / strength, max_iter=EPOCHS, n_iter_no_change=EPOCHS, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # EPOCHS are the end
        model.fit(standardised(features, scaler), labels, sample_weight=weights)
    layers = [LinearLayer(kernel, shift) for kernel, shift in zip(model.coefs_, model.intercepts_, strict=True)]
    *hidden, last = linear_layers(two_classes(layers))
    kernel = np.zeros((last.kernel.shape[0], classes))
    kernel[:, known], bias[known] = last.kernel, last.bias
    return Head(scaler, LinearLayer(kernel, bias), tuple(hidden))
