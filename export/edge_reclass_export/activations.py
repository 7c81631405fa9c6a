"""The activations of heads: their names, their ONNX operators (opset 18), and their formulas in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, nan, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit

from edge_reclass.errors import UsageError
from edge_reclass_export.graph import GraphBuilder, Value


@dataclass(frozen=True)
class Activation:
    """One of ``ACTIVATIONS``; ``slope`` belongs to leaky-relu."""

    name: str
    slope: float = 0.01


def parse_activation(text: str) -> Activation:
    """The activation of that name: one of ``ACTIVATIONS``, ``leaky-relu:SLOPE``, or as torch writes it (``nn.GELU()``).

    Raises ``UsageError`` where there is none.
    """
    name, _, slope = text.strip().lower().partition(":")
    name = name.removeprefix("torch.").removeprefix("nn.").removesuffix("()").replace("_", "-")
    name = _ALIASES.get(name, name)
    try:
        value = float(slope) if slope else Activation.slope
    except ValueError:
        value = nan
    if name not in ACTIVATIONS or not isfinite(value) or (slope and name != "leaky-relu"):
        raise UsageError(
            f"no activation {text!r}; choose one of {', '.join(ACTIVATIONS)}"
            " (leaky-relu:SLOPE where the slope is not 0.01)"
        )
    return Activation(name, value)


_Graphed = Callable[[GraphBuilder, Value, str, Activation], Value]


def _one(op: str, **attributes: float) -> _Graphed:
    return lambda graph, value, name, _: graph.op(op, value, name=f"{name}/active", **attributes)


def _leaky(graph: GraphBuilder, value: Value, name: str, step: Activation) -> Value:
    return graph.op("LeakyRelu", value, name=f"{name}/active", alpha=step.slope)


def _silu(graph: GraphBuilder, value: Value, name: str, _: Activation) -> Value:
    return graph.op("Mul", value, graph.op("Sigmoid", value, name=f"{name}/gate"), name=f"{name}/active")


def _gelu(graph: GraphBuilder, value: Value, name: str, _: Activation) -> Value:
    """Compute x · (1 + erf(x / √2)) · ½: opset 18 has no operator of its own for it."""
    scaled = graph.op("Mul", value, graph.weight(sqrt(0.5), f"{name}/root"), name=f"{name}/scaled")
    return _gated(graph, value, graph.op("Erf", scaled, name=f"{name}/erf"), name)


def _gelu_tanh(graph: GraphBuilder, value: Value, name: str, _: Activation) -> Value:
    """Compute x · (1 + tanh(√(2/π) · (x + 0.044715 x³))) · ½, torch's ``approximate="tanh"``."""
    square = graph.op("Mul", value, value, name=f"{name}/square")
    factor = graph.op("Mul", square, graph.weight(_CUBE, f"{name}/cube"), name=f"{name}/cubed")
    inner = graph.op("Add", factor, graph.weight(1.0, f"{name}/unit"), name=f"{name}/inner")
    scaled = graph.op("Mul", value, graph.weight(sqrt(2.0 / pi), f"{name}/root"), name=f"{name}/scaled")
    inner = graph.op("Mul", scaled, inner, name=f"{name}/argument")
    return _gated(graph, value, graph.op("Tanh", inner, name=f"{name}/tanh"), name)


def _gated(graph: GraphBuilder, value: Value, gate: Value, name: str) -> Value:
    gate = graph.op("Add", gate, graph.weight(1.0, f"{name}/one"), name=f"{name}/gate")
    half = graph.op("Mul", value, graph.weight(0.5, f"{name}/half"), name=f"{name}/halved")
    return graph.op("Mul", half, gate, name=f"{name}/active")


_CUBE = 0.044715
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
GRAPHS: Mapping[str, _Graphed] = {
    "relu": _one("Relu"),
    "gelu": _gelu,
    "gelu-tanh": _gelu_tanh,
    "tanh": _one("Tanh"),
    "sigmoid": _one("Sigmoid"),
    "leaky-relu": _leaky,
    "elu": _one("Elu", alpha=1.0),
    "selu": _one("Selu", alpha=_SELU_ALPHA, gamma=_SELU_SCALE),
    "silu": _silu,
    "none": lambda _graph, value, _name, _step: value,
}
ACTIVATIONS = tuple(GRAPHS)
"""What ``--activation`` takes; ``gelu`` is the exact one, by erf."""

_ALIASES = {
    "leakyrelu": "leaky-relu",
    "swish": "silu",
    "identity": "none",
    "logistic": "sigmoid",
    "gelu-new": "gelu-tanh",
    "gelu-pytorch-tanh": "gelu-tanh",
}

_Array = NDArray[np.float64]
FORMULAS: Mapping[str, Callable[[_Array, Activation], _Array]] = {
    "relu": lambda x, _: np.maximum(x, 0.0),
    "gelu": lambda x, _: 0.5 * x * (1.0 + erf(x * sqrt(0.5))),
    "gelu-tanh": lambda x, _: 0.5 * x * (1.0 + np.tanh(sqrt(2.0 / pi) * (x + _CUBE * x**3))),
    "tanh": lambda x, _: np.tanh(x),
    "sigmoid": lambda x, _: expit(x),
    "leaky-relu": lambda x, step: np.where(x < 0.0, step.slope * x, x),
    "elu": lambda x, _: np.where(x < 0.0, np.expm1(np.minimum(x, 0.0)), x),
    "selu": lambda x, _: _SELU_SCALE * np.where(x < 0.0, _SELU_ALPHA * np.expm1(np.minimum(x, 0.0)), x),
    "silu": lambda x, _: x * expit(x),
    "none": lambda x, _: x,
}
