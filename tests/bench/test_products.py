"""Products of matrices are counted as they are done, and one alone does what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_reclass.backends import PlainFile, open_backend
from edge_reclass.errors import EngineError
from edge_reclass_bench.products import Product, alone, products


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """waveform [batch, 80] → [batch, 2, 40] → convolution to [batch, 6, 38] → heads' attention → embedding."""
    generator = np.random.default_rng(0)
    weights = {
        "kernel": generator.standard_normal((6, 2, 3)).astype(np.float32),
        "project": generator.standard_normal((38, 16)).astype(np.float32),
        "signal": np.array([0, 2, 40], np.int64),
        "flat": np.array([0, 96], np.int64),
        "out": generator.standard_normal((5, 96)).astype(np.float32),
        "bias": np.zeros(5, np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["waveform", "signal"], ["x"]),
        helper.make_node("Conv", ["x", "kernel"], ["c"]),
        helper.make_node("MatMul", ["c", "project"], ["p"]),
        helper.make_node("Transpose", ["p"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["p", "t"], ["scores"]),
        helper.make_node("MatMul", ["scores", "p"], ["mixed"]),
        helper.make_node("Reshape", ["mixed", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "out", "bias"], ["embedding"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in (("waveform", 80), ("embedding", 5))
    ]
    made = helper.make_graph(
        nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(a, n) for n, a in weights.items()]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = tmp_path_factory.mktemp("graph") / "g.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", [1, 4])
def test_every_product_is_counted(graph: Path, batch: int) -> None:
    assert products(graph, batch, 80) == {
        Product(1, batch * 38, 6, 6, True): 1,  # 3 samples of 2 channels, to 6
        Product(1, batch * 6, 38, 16, True): 1,
        Product(batch, 6, 16, 6, False): 1,
        Product(batch, 6, 6, 16, False): 1,
        Product(1, batch, 96, 5, True): 1,
    }


def test_flops_are_two_per_term() -> None:
    assert Product(2, 3, 5, 7, True).flops == 2 * 2 * 3 * 5 * 7


@pytest.mark.parametrize("product", [Product(1, 12, 8, 4, True), Product(3, 6, 8, 6, False)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_one_alone_runs_on_a_backend(tmp_path: Path, product: Product, dtype: type[np.generic]) -> None:
    onnx.save(alone(product, 3, dtype), tmp_path / "p.onnx")
    with open_backend("cpu", threads=1) as backend:
        graph = backend.open_graph(
            PlainFile(tmp_path / "p.onnx"),
            input_name="waveform",
            output_name="embedding",
            width=1,
            output_width=1,
            max_batch=1,
        )
        graph.input[:] = 1.0
        first = graph.run(1).copy()
        graph.input[:] = 2.0  # the answer depends on the input: nothing was computed ahead
        assert np.isfinite(first).all() and not np.array_equal(first, graph.run(1))
        graph.close()


def test_a_shape_that_cannot_be_inferred_is_an_error(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("waveform", "embedding")]
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    nodes = [
        helper.make_node("Strange", ["waveform"], ["s"], domain="other"),
        helper.make_node("MatMul", ["s", "w"], ["embedding"]),
    ]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("other", 1)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), tmp_path / "g.onnx")
    with pytest.raises(EngineError, match="cannot be inferred"):
        products(tmp_path / "g.onnx", 2, 4)
