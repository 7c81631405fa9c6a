"""A small builder of ONNX graphs: values are names, constants are numpy arrays, the order is as written.

It adds nothing to ONNX; it only makes a recipe read like the network that it describes and keeps the names
deterministic, so that the same recipe and weights give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NewType

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_reclass_export.onnx_writer import IR_VERSION, OPSET

Value = NewType("Value", str)
"""Name of a tensor in the graph."""


class GraphBuilder:
    """Collects nodes and constants, then gives the model."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._taken: set[str] = set()
        self._integers: dict[tuple[int, ...], Value] = {}

    def input(self, name: str, shape: Sequence[int | str]) -> Value:
        """A float32 graph input; a dimension that is a string is dynamic."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return self._take(name)

    def output(self, value: Value, name: str, shape: Sequence[int | str]) -> None:
        """Declares ``value`` as the float32 graph output ``name``."""
        self._nodes.append(helper.make_node("Identity", [value], [self._take(name)], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def weight(self, array: ArrayLike, name: str) -> Value:
        """A float32 constant; rounding from float64 happens here and nowhere else."""
        values: NDArray[np.float32] = np.ascontiguousarray(array, dtype="<f4")
        self._constants.append(numpy_helper.from_array(values, self._take(name)))
        return Value(name)

    def integers(self, *numbers: int) -> Value:
        """A vector of int64 (axes, starts, shapes); equal vectors are stored once."""
        if numbers not in self._integers:
            name = self._take("integers_" + "_".join(str(number) for number in numbers).replace("-", "minus"))
            self._constants.append(numpy_helper.from_array(np.array(numbers, "<i8"), name))
            self._integers[numbers] = name
        return self._integers[numbers]

    def op(self, op_type: str, *inputs: Value, name: str, **attributes: Any) -> Value:
        """One node with one output, both called ``name``."""
        output = self._take(name)
        self._nodes.append(helper.make_node(op_type, list(inputs), [output], name=name, **attributes))
        return output

    def model(self) -> onnx.ModelProto:
        """The model: opset 18 of ai.onnx, the writer's IR version."""
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _take(self, name: str) -> Value:
        if name in self._taken:
            raise ValueError(f"the name {name!r} is already taken in graph {self._name!r}")
        self._taken.add(name)
        return Value(name)
