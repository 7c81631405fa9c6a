"""Gradient-boosted trees as a head: fitted by scikit-learn, written in plain ai.onnx.

The operators of ``ai.onnx.ml`` are no part of TensorRT. A tree of a fixed depth needs none of them: every question
``feature <= threshold`` is answered at once (Gather, LessOrEqual), a product with a fixed matrix counts for every leaf
how many answers lead to it (MatMul), and the leaf to which all lead has the tree's answer (Hummingbird's GEMM strategy;
Nakandala et al., OSDI 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_reclass_export.graph import GraphBuilder
from edge_reclass_export.onnx_writer import BATCH, GraphInterface
from edge_reclass_learn.fit.heads import ABSENT, Array

STRENGTHS: Final = (0.05, 0.15)
"""Learning rates that are tried."""
DEPTH: Final = 3
ROUNDS: Final = 80
_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class TreesHead:
    """Sums of perfect binary trees: a node's children are the nodes 2 i + 1 (answer yes) and 2 i + 2.

    inputs: how many features there are
    features: intp[trees, 2^DEPTH - 1], which feature each node looks at
    thresholds: float32 of that shape; the answer is yes where the feature is not above it
    values: float64[trees, 2^DEPTH], of the leaves
    classes: intp[trees], which genre each tree speaks for
    bias: float64[genres]
    """

    inputs: int
    features: NDArray[np.intp]
    thresholds: NDArray[np.float32]
    values: Array
    classes: NDArray[np.intp]
    bias: Array

    def logits(self, features: NDArray[np.floating]) -> Array:
        """float[n, k] → float64[n, genres]."""
        rows = np.asarray(features, np.float32)
        place = np.zeros((len(rows), len(self.values)), np.intp)
        every = np.arange(len(self.values))
        for _ in range(DEPTH):
            yes = rows[np.arange(len(rows))[:, None], self.features[every, place]] <= self.thresholds[every, place]
            place = 2 * place + np.where(yes, 1, 2)
        leaves = self.values[every, place - (2**DEPTH - 1)]
        votes = np.zeros((len(self.values), len(self.bias)))
        votes[every, self.classes] = 1.0
        return np.asarray(leaves @ votes + self.bias, np.float64)

    def graph(self) -> onnx.ModelProto:
        """``features[batch, k] → logits[batch, genres]``."""
        trees, nodes = self.features.shape
        genres, leaves = len(self.bias), nodes + 1
        graph = GraphBuilder("head")
        value = graph.input("features", (BATCH, self.inputs))
        value = graph.op("Gather", value, graph.integers(*self.features.ravel().tolist()), axis=1, name="looked_at")
        limits = graph.weight(self.thresholds.ravel(), "thresholds")
        yes = graph.op(
            "Cast", graph.op("LessOrEqual", value, limits, name="yes"), to=onnx.TensorProto.FLOAT, name="one"
        )
        sides = graph.op("Mul", yes, graph.weight(2.0, "two"), name="doubled")
        sides = graph.op("Sub", sides, graph.weight(1.0, "unit"), name="sides")
        sides = graph.op("Reshape", sides, graph.integers(-1, trees, nodes), name="by_tree")
        agree = graph.op("MatMul", sides, graph.weight(_paths(), "paths"), name="agree")
        there = graph.op("Greater", agree, graph.weight(DEPTH - 0.5, "nearly_all"), name="there")
        said = graph.op("Cast", there, to=onnx.TensorProto.FLOAT, name="leaf")
        said = graph.op("Mul", said, graph.weight(self.values, "values"), name="said")
        said = graph.op("Reshape", said, graph.integers(-1, trees * leaves), name="flat")
        votes = np.zeros((trees, genres))
        votes[np.arange(trees), self.classes] = 1.0
        kernel, bias = graph.weight(np.repeat(votes, leaves, axis=0), "votes"), graph.weight(self.bias, "bias")
        graph.output(graph.op("Gemm", said, kernel, bias, name="sum"), "logits", (BATCH, genres))
        return graph.model()

    @property
    def interface(self) -> GraphInterface:
        """Inputs and outputs of :meth:`graph`."""
        return GraphInterface.head(self.inputs, len(self.bias))


def fit_trees(
    features: NDArray[np.floating], labels: NDArray[np.intp], weights: Array, classes: int, *, strength: float
) -> TreesHead:
    """Stochastic gradient boosting (Friedman 2002): ROUNDS trees of DEPTH for each genre, a fixed seed.

    Each tree sees half of the rows, each question the square root of the features. ``strength``: the learning rate;
    ``weights``: per row. A genre without rows never wins.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    rows = np.asarray(features, np.float32)
    known = np.unique(labels)
    bias = np.full(classes, ABSENT)
    bias[known] = 0.0
    if len(known) < 2:
        nothing = np.zeros((1, 2**DEPTH))
        limits = np.full((1, 2**DEPTH - 1), _LARGEST, np.float32)
        return TreesHead(rows.shape[1], np.zeros(limits.shape, np.intp), limits, nothing, np.zeros(1, np.intp), bias)
    model = GradientBoostingClassifier(
        init="zero",
        learning_rate=strength,
        n_estimators=ROUNDS,
        max_depth=DEPTH,
        subsample=0.5,
        max_features="sqrt",
        random_state=0,
    )
    model.fit(rows, labels, sample_weight=weights)
    # Of two genres, scikit-learn's trees give the logit of the second alone.
    spoken_for = known if len(known) > 2 else known[1:]
    made = [_perfect(one.tree_) for one in model.estimators_.ravel()]
    return TreesHead(
        rows.shape[1],
        np.stack([one for one, _, _ in made]),
        np.stack([one for _, one, _ in made]),
        strength * np.stack([one for _, _, one in made]),
        np.tile(spoken_for, len(model.estimators_)),
        bias,
    )


def _perfect(tree: Any) -> tuple[NDArray[np.intp], NDArray[np.float32], Array]:
    """Features, thresholds and leaves of a scikit-learn tree, filled up to DEPTH: an early leaf is all leaves below."""
    features, limits = np.zeros(2**DEPTH - 1, np.intp), np.full(2**DEPTH - 1, _LARGEST, np.float32)
    leaves = np.zeros(2**DEPTH)

    def fill(place: int, node: int) -> None:
        leaf = tree.children_left[node] < 0
        if place >= 2**DEPTH - 1:
            leaves[place - (2**DEPTH - 1)] = tree.value[node, 0, 0]
            return
        if not leaf:
            features[place], limits[place] = tree.feature[node], _below(float(tree.threshold[node]))
        fill(2 * place + 1, node if leaf else int(tree.children_left[node]))
        fill(2 * place + 2, node if leaf else int(tree.children_right[node]))

    fill(0, 0)
    return features, limits, leaves


def _below(threshold: float) -> np.float32:
    """The largest float32 that is not above ``threshold``: the same float32 features lie on either side."""
    near = np.float32(threshold)
    below: np.float32 = np.nextafter(near, np.float32(-np.inf))
    return near if float(near) <= threshold else below


def _paths() -> NDArray[np.float32]:
    """float32[nodes, leaves]: 1 where a leaf lies on the yes side of a node, -1 on its other side, else 0."""
    found = np.zeros((2**DEPTH - 1, 2**DEPTH), np.float32)
    for leaf in range(2**DEPTH):
        place = leaf + 2**DEPTH - 1
        while place:
            above = (place - 1) // 2
            found[above, leaf] = 1.0 if place == 2 * above + 1 else -1.0
            place = above
    return found
