"""The range test: how likely it is that a sound is no music at all, as numbers and as a graph.

Fitted with made nonsense beside the clips ("outlier exposure", Hendrycks et al., ICLR 2019): a logistic regression on
the standardised features and on their absolute values, so that a feature can be too large, too small or too far from
the middle. What lies far from all clips in a way that none of the made signals has is caught by the absolute values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_reclass_export.graph import GraphBuilder
from edge_reclass_export.heads import LinearLayer, Scaler
from edge_reclass_export.onnx_writer import BATCH, GraphInterface, TensorSpec
from edge_reclass_learn.fit.heads import Array, fit_scaler, standardised

_CLIP: Final = 8.0
_STRENGTH: Final = 0.03
"""scikit-learn's C for weights of mean 1."""


@dataclass(frozen=True)
class RangeTest:
    """Standardise with ``scaler``, append the absolute values, then ``layer`` and the logistic function."""

    scaler: Scaler
    layer: LinearLayer

    def distance(self, features: NDArray[np.floating]) -> Array:
        """float[n, k] → float64[n], from 0 (music) to 1 (none)."""
        logits = _both(features, self.scaler) @ self.layer.kernel[:, 0] + self.layer.bias[0]
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float64)

    def graph(self) -> onnx.ModelProto:
        """``features[batch, k] → distance[batch, 1]``."""
        graph = GraphBuilder("range")
        features = graph.input("features", (BATCH, len(self.scaler.mean)))
        mean, factor = graph.weight(self.scaler.mean, "mean"), graph.weight(1.0 / self.scaler.scale, "factor")
        low, high = graph.weight(-self.scaler.clip, "low"), graph.weight(self.scaler.clip, "high")
        scaled = graph.op("Mul", graph.op("Sub", features, mean, name="centred"), factor, name="scaled")
        clipped = graph.op("Clip", scaled, low, high, name="clipped")
        both = graph.op("Concat", clipped, graph.op("Abs", clipped, name="absolute"), axis=1, name="both")
        kernel, bias = graph.weight(self.layer.kernel, "kernel"), graph.weight(self.layer.bias, "bias")
        logit = graph.op("Gemm", both, kernel, bias, name="logit")
        graph.output(graph.op("Sigmoid", logit, name="likely"), "distance", (BATCH, 1))
        return graph.model()

    @property
    def interface(self) -> GraphInterface:
        """Inputs and outputs of :meth:`graph`."""
        return GraphInterface((TensorSpec("features", (len(self.scaler.mean),)),), (TensorSpec("distance", (1,)),))


def fit_range(music: NDArray[np.floating], weights: Array, nonsense: NDArray[np.floating]) -> RangeTest:
    """Fit to rows of features, float[n, k], of music and of nonsense.

    Music has a weight each; the nonsense as a whole counts the same as all music.
    """
    from sklearn.linear_model import LogisticRegression

    scaler = replace(fit_scaler(music, weights), clip=_CLIP)
    share = np.concatenate([weights / weights.sum(), np.full(len(nonsense), 1.0 / len(nonsense))])
    labels = np.repeat([0, 1], [len(music), len(nonsense)])
    rows = _both(np.concatenate([music, nonsense]), scaler)
    model = LogisticRegression(C=_STRENGTH, max_iter=1000)
    model.fit(rows, labels, sample_weight=share / share.mean())
    return RangeTest(scaler, LinearLayer(model.coef_.T, model.intercept_))


def _both(features: NDArray[np.floating], scaler: Scaler) -> Array:
    standard = standardised(features, scaler)
    return np.concatenate([standard, np.abs(standard)], axis=1)
