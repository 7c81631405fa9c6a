"""The products of matrices in an ONNX graph, and a graph that does one of them alone.

A convolution counts as the product that it is after unfolding: rows of output positions, kernel × input channels wide.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edge_reclass.errors import EngineError

_OPSET, _IR = 18, 8


class Product(NamedTuple):
    """``groups`` products of [rows, inner] by [inner, columns]; ``weights``: the right one is constant."""

    groups: int
    rows: int
    inner: int
    columns: int
    weights: bool

    @property
    def flops(self) -> float:
        """A multiplication and an addition are two."""
        return 2.0 * self.groups * self.rows * self.inner * self.columns


def products(path: Path, batch: int, width: int) -> Counter[Product]:
    """The products that a graph waveform[batch, width] → embedding does in one run, and how often each.

    Raises:
        EngineError: a shape cannot be inferred.
    """
    model = onnx.load(path)
    shape = model.graph.input[0].type.tensor_type.shape
    for axis, size in enumerate((batch, width)):
        shape.dim[axis].Clear()
        shape.dim[axis].dim_value = size
    model = shape_inference.infer_shapes(model, data_prop=True)
    shapes: dict[str, list[int]] = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        shapes.setdefault(value.name, [dim.dim_value for dim in value.type.tensor_type.shape.dim])
    constant = {tensor.name for tensor in model.graph.initializer}
    constant |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    found: Counter[Product] = Counter()
    for node in model.graph.node:
        if node.op_type in {"MatMul", "Gemm", "Conv"}:
            found[_product(node, shapes, constant, path)] += 1
    return found


def _product(node: onnx.NodeProto, shapes: Mapping[str, list[int]], constant: set[str], path: Path) -> Product:
    left, right, out = (shapes.get(name, []) for name in (node.input[0], node.input[1], node.output[0]))
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if not all(left) or not all(right) or not all(out) or not left or not right or not out:
        raise EngineError(f"{path}: the shapes of {node.op_type} {node.name} cannot be inferred")
    weights = node.input[1] in constant
    if node.op_type == "Conv":
        groups = attributes.get("group", 1)
        inner = math.prod(right[1:])
        return Product(groups, out[0] * math.prod(out[2:]), inner, out[1] // groups, weights)
    inner = left[0] if attributes.get("transA") else left[-1]
    if weights and len(right) == 2:
        return Product(1, math.prod(out[:-1]), inner, out[-1], weights)
    return Product(math.prod(out[:-2]), out[-2] if len(out) > 1 else 1, inner, out[-1], weights)


def alone(product: Product, times: int, dtype: type[np.generic], seed: int = 0) -> onnx.ModelProto:
    """A graph waveform[1, 1] → embedding[1, 1] that does ``product`` ``times`` times, on data that it makes itself.

    Nothing but two numbers is copied in and out, so that (time of many − time of one) / the difference is the product's
    own, on any device. Data is random: a product of zeros runs faster.
    """
    generator = np.random.default_rng(seed)
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes: list[Any] = [helper.make_node("Cast", ["waveform"], ["one"], to=elem)]
    constants = [numpy_helper.from_array(np.array([0], np.int64), "first")]

    def data(name: str, shape: Sequence[int], dynamic: bool) -> str:
        values = generator.standard_normal(shape, np.float32).astype(dtype)
        constants.append(numpy_helper.from_array(values, name))
        if not dynamic:
            return name
        # Not known before the run, so that nothing can be computed ahead.
        nodes.append(helper.make_node("Add", [name, "one"], [f"{name}_now"]))
        return f"{name}_now"

    groups = () if product.groups == 1 else (product.groups,)
    left = data("left", (*groups, product.rows, product.inner), dynamic=True)
    picked = []
    for i in range(times):
        right = data(f"right{i}", (*groups, product.inner, product.columns), dynamic=not product.weights)
        nodes.append(helper.make_node("MatMul", [left, right], [f"product{i}"]))
        axes = len(groups) + 2
        name = f"product{i}"
        for axis in range(axes):
            nodes.append(helper.make_node("Gather", [name, "first"], [f"pick{i}_{axis}"], axis=axis))
            name = f"pick{i}_{axis}"
        picked.append(name)
    nodes.append(helper.make_node("Sum", picked, ["sum"]))
    constants.append(numpy_helper.from_array(np.array([1, 1], np.int64), "shape"))
    nodes += [
        helper.make_node("Reshape", ["sum", "shape"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["embedding"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in ("waveform", "embedding")]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
