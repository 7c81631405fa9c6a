"""Embeddings → heads: multinomial logistic regression, and a temperature.

Other heads: mlp.py, trees.py. All take a weight per row, so that a clip counts the same however many rows it gave, and
a genre the same however many clips it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp

from edge_reclass_export.activations import Activation
from edge_reclass_export.heads import LinearLayer, Scaler, head_answer, head_interface, head_mlp, with_activation
from edge_reclass_export.onnx_writer import GraphInterface

CLIP: Final = 5.0
"""Standardised features are limited to ± this many standard deviations."""

ABSENT: Final = -30.0
"""Bias of a genre that the rows hold no clip of."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """Standardise, clip, then linear layers with relu between them: ``hidden`` ones, and the last one."""

    scaler: Scaler
    layer: LinearLayer
    hidden: tuple[LinearLayer, ...] = ()

    def logits(self, features: NDArray[np.floating]) -> Array:
        """float[n, k] → float64[n, classes]."""
        return head_answer(with_activation([*self.hidden, self.layer], Activation("relu")), self.scaler, features)

    def graph(self) -> onnx.ModelProto:
        """``features[batch, k] → logits[batch, classes]``."""
        return head_mlp([*self.hidden, self.layer], self.scaler)

    @property
    def interface(self) -> GraphInterface:
        """Inputs and outputs of :meth:`graph`."""
        return head_interface([*self.hidden, self.layer])


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
    features: NDArray[np.floating],
    labels: NDArray[np.intp],
    weights: Array,
    classes: int,
    *,
    strength: float,
    widths: Sequence[int] = (),
) -> Head:
    """Multinomial logistic regression with an L2 penalty; ``strength`` is scikit-learn's C for weights of mean 1.

    A genre without rows never wins. Where the features are several embeddings of ``widths`` values, each has the same
    variance in sum, that of the narrowest: else the penalty favours the wider one for its width alone.
    """
    from sklearn.linear_model import LogisticRegression

    scaler = fit_scaler(features, weights)
    model = LogisticRegression(C=strength, max_iter=1000)
    share = _share(widths or (features.shape[1],))
    kernel, bias = np.zeros((features.shape[1], classes)), np.full(classes, ABSENT)
    known = np.unique(labels)
    bias[known] = 0.0
    if len(known) > 1:
        model.fit(standardised(features, scaler) * share, labels, sample_weight=weights)
        # Of two genres, scikit-learn gives the logit of the second alone.
        told = known if len(known) > 2 else known[1:]
        kernel[:, told], bias[told] = model.coef_.T * share[:, None], model.intercept_
    return Head(scaler, LinearLayer(kernel, bias))


def add_genres(
    head: Head,
    features: NDArray[np.floating],
    labels: NDArray[np.intp],
    weights: Array,
    new: NDArray[np.bool_],
    *,
    strength: float,
    widths: Sequence[int] = (),
) -> Head:
    """``head`` with the ``new`` genres (bool[classes]) fitted beside the others, which stay as they are.

    The same regression as :func:`fit_head`, but only over what is new: how likely one old genre is against another
    does not change.
    """
    share, names = _share(widths or (features.shape[1],)), np.flatnonzero(new)
    inputs = standardised(features, head.scaler) * share
    known = logsumexp(head.logits(features)[:, ~new], axis=1)
    # Column 0 is any old genre.
    wanted = np.concatenate([~new[labels][:, None], labels[:, None] == names], axis=1)

    def loss(values: Array) -> tuple[float, Array]:
        kernel, bias = values[: -len(names)].reshape(-1, len(names)), values[-len(names) :]
        told = log_softmax(np.column_stack([known, inputs @ kernel + bias]), axis=1)
        slope = strength * weights[:, None] * (np.exp(told) - wanted)[:, 1:]
        found = -strength * float(weights @ told[wanted]) + 0.5 * float((kernel**2).sum())
        return found, np.concatenate([(inputs.T @ slope + kernel).ravel(), slope.sum(axis=0)])

    start = np.zeros((inputs.shape[1] + 1) * len(names))
    values = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    kernel, bias = np.array(head.layer.kernel, np.float64), np.array(head.layer.bias, np.float64)
    kernel[:, names] = values[: -len(names)].reshape(-1, len(names)) * share[:, None]
    bias[names] = values[-len(names) :]
    return Head(head.scaler, LinearLayer(kernel, bias))


def _share(widths: Sequence[int]) -> Array:
    return np.concatenate([np.full(n, np.sqrt(min(widths) / n)) for n in widths])


def fit_temperature(logits: Array, labels: NDArray[np.intp], weights: Array) -> float:
    """The temperature that minimises the weighted cross entropy of logits from out of fold (Guo et al., ICML 2017)."""
    return fit_vote_temperature([logits], labels, weights)


def fit_vote_temperature(logits: Sequence[Array], labels: NDArray[np.intp], weights: Array) -> float:
    """As :func:`fit_temperature`, of the mean of the probabilities of several heads (float64[n, classes] each)."""
    share = weights / weights.sum()

    def loss(log_temperature: float) -> float:
        votes = np.stack([log_softmax(one / np.exp(log_temperature), axis=1) for one in logits])
        right = logsumexp(votes, axis=0)[np.arange(len(labels)), labels] - np.log(len(logits))
        return float(-(share @ right))

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def standardised(features: NDArray[np.floating], scaler: Scaler) -> Array:
    """Features as ``scaler`` leaves them, float64[n, k]."""
    return np.asarray(np.clip((features - scaler.mean) / scaler.scale, -scaler.clip, scaler.clip), np.float64)
