"""A small audio transformer in float16 with float32 ends: the operators of HuBERT and ViT, none of their weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WINDOW, DIM, HEADS = 3_200, 32, 4
TOKENS = 10


def tiny_transformer(*, layers: int = 2, half: bool = True, dim: int = DIM) -> onnx.ModelProto:
    """waveform[batch, 3200] → embedding[batch, dim]: strided Conv, InstanceNormalization, attention, feed-forward."""
    graph = _Graph(half)
    x = graph.op("Reshape", "waveform", graph.integers(0, 1, WINDOW))
    x = graph.op("Conv", x, graph.weight(dim, 1, 320, single=True), strides=[320], kernel_shape=[320])
    if half:
        x = graph.op("Cast", x, to=TensorProto.FLOAT16)
    ones, zeros = graph.constant(np.ones(dim)), graph.constant(np.zeros(dim))
    x = graph.op("InstanceNormalization", x, ones, zeros, epsilon=1e-5)
    x = graph.op("Transpose", x, perm=[0, 2, 1])
    for _ in range(layers):
        x = graph.op("Add", x, graph.attention(graph.norm(x, dim), dim))
        hidden = graph.op("MatMul", graph.norm(x, dim), graph.weight(dim, 4 * dim))
        x = graph.op("Add", x, graph.op("MatMul", graph.gelu(hidden), graph.weight(4 * dim, dim)))
    x = graph.norm(x, dim)
    if half:
        x = graph.op("Cast", x, to=TensorProto.FLOAT)
    pooled = graph.op("ReduceMean", x, graph.integers(1), keepdims=0)
    return graph.model(pooled, dim)


class _Graph:
    def __init__(self, half: bool) -> None:
        self._type: type = np.float16 if half else np.float32
        self._random = np.random.default_rng(4)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def _store(self, array: np.ndarray) -> str:
        name = f"constant_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, *numbers: int) -> str:
        return self._store(np.array(numbers, np.int64))

    def constant(self, values: Any) -> str:
        return self._store(np.asarray(values, self._type))

    def weight(self, *shape: int, single: bool = False) -> str:
        values = self._random.standard_normal(shape) / np.sqrt(shape[0] if len(shape) == 2 else shape[-1])
        return self._store(values.astype(np.float32 if single else self._type))

    def norm(self, x: str, dim: int) -> str:
        return self.op("LayerNormalization", x, self.constant(np.ones(dim)), self.constant(np.zeros(dim)), axis=-1)

    def gelu(self, x: str) -> str:
        error = self.op("Erf", self.op("Mul", x, self.constant(np.sqrt(0.5))))
        return self.op("Mul", self.op("Mul", x, self.constant(0.5)), self.op("Add", error, self.constant(1.0)))

    def attention(self, x: str, dim: int) -> str:
        split = self.integers(0, TOKENS, HEADS, dim // HEADS)
        query, key, value = (self.op("Reshape", self.op("MatMul", x, self.weight(dim, dim)), split) for _ in range(3))
        scores = self.op(
            "MatMul",
            self.op("Transpose", query, perm=[0, 2, 1, 3]),
            self.op("Transpose", key, perm=[0, 2, 3, 1]),
        )
        weights = self.op("Softmax", self.op("Mul", scores, self.constant((dim // HEADS) ** -0.5)), axis=-1)
        mixed = self.op("MatMul", weights, self.op("Transpose", value, perm=[0, 2, 1, 3]))
        joined = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.integers(0, TOKENS, dim))
        return self.op("MatMul", joined, self.weight(dim, dim))

    def model(self, result: str, dim: int) -> onnx.ModelProto:
        self._nodes.append(helper.make_node("Identity", [result], ["embedding"], name="embedding"))
        graph = helper.make_graph(
            self._nodes,
            "tiny",
            [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", WINDOW])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])],
            self._weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
