"""The one writer: its rules, its bytes, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_reclass.errors import UsageError
from edge_reclass_export.errors import GraphError
from edge_reclass_export.graph import GraphBuilder
from edge_reclass_export.onnx_writer import BATCH, GraphInterface, TensorSpec, check_interface, model_bytes, write_bytes

INTERFACE = GraphInterface.encoder(6, 3)


def small_model(weights: np.ndarray | None = None) -> onnx.ModelProto:
    graph = GraphBuilder("small")
    waveform = graph.input("waveform", (BATCH, 6))
    kernel = np.arange(18.0).reshape(6, 3) if weights is None else weights
    graph.output(graph.op("MatMul", waveform, graph.weight(kernel, "kernel"), name="product"), "embedding", (BATCH, 3))
    return graph.model()


def test_a_good_graph_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "encoder.onnx"
    write_bytes(model_bytes(small_model(), expect=INTERFACE), path)
    assert [file.name for file in path.parent.iterdir()] == ["encoder.onnx"]
    model = onnx.load(path)
    assert model.ir_version == 10
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


def test_bytes_do_not_depend_on_who_made_the_graph() -> None:
    plain = small_model()
    noisy = small_model()
    noisy.producer_name, noisy.producer_version, noisy.doc_string = "exporter", "2.13.0", "Tuesday"
    noisy.graph.doc_string = "made at 12:00"
    noisy.graph.node[0].doc_string = "File model.py, line 7"
    helper.set_model_props(noisy, {"time": "12:00"})
    noisy.graph.value_info.append(helper.make_tensor_value_info("product", TensorProto.FLOAT, [BATCH, 3]))
    assert model_bytes(plain, expect=INTERFACE) == model_bytes(noisy, expect=INTERFACE)
    assert noisy.doc_string == "Tuesday"  # the given model is kept as it is


def test_notice_travels_in_the_file() -> None:
    content = model_bytes(small_model(), expect=INTERFACE, notice="Copyright (c) somebody")
    assert onnx.load_model_from_string(content).doc_string == "Copyright (c) somebody"


def _set_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 17


def _add_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _set_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 11


def _rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "audio"
    model.graph.node[0].input[0] = "audio"


def _static_batch(model: onnx.ModelProto) -> None:
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def _other_batch_name(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"


def _dynamic_samples(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "samples"


def _half(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def _second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("product", TensorProto.FLOAT, [BATCH, 3]))


def _other_dim(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4


def _function(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function("local", "F", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [])
    )


def _external(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def _not_finite(model: onnx.ModelProto) -> None:
    values = np.full((6, 3), np.nan, "<f4")
    model.graph.initializer[0].raw_data = values.tobytes()


def _unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Frobnicate"


def _broken_shapes(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [3, 6]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_set_opset, r"\{'ai.onnx': 17\}, expected \{'ai.onnx': 18\}"),
        (_add_domain, "com.microsoft"),
        (_set_ir, "IR version 11, expected 10"),
        (_rename_input, r"audio: float32\[batch, 6\].*expected.*waveform"),
        (_static_batch, r"float32\[1, 6\].*expected.*float32\[batch, 6\]"),
        (_other_batch_name, r"float32\[n, 6\]"),
        (_dynamic_samples, r"float32\[batch, samples\]"),
        (_half, r"float16\[batch, 3\]"),
        (_second_output, "product"),
        (_other_dim, r"float32\[batch, 4\]"),
        (_function, "1 local functions"),
        (_external, "'kernel' lies in another file"),
        (_not_finite, "'kernel' holds NaN or infinity"),
        (_unknown_operator, "Frobnicate"),
        (_broken_shapes, "not valid ONNX"),
    ],
)
def test_broken_rules_are_refused_and_leave_nothing(
    spoil: Callable[[onnx.ModelProto], None], message: str, tmp_path: Path
) -> None:
    model = small_model()
    spoil(model)
    with pytest.raises(GraphError, match=message):
        model_bytes(model, expect=INTERFACE)
    assert list(tmp_path.iterdir()) == []


def test_extra_outputs_are_part_of_the_interface() -> None:
    model = small_model()
    with pytest.raises(GraphError, match="tags"):
        check_interface(model, GraphInterface.encoder(6, 3, TensorSpec("tags", (2,))))


def test_a_failed_export_keeps_the_file_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(b"before")
    with pytest.raises(GraphError):
        write_bytes(model_bytes(small_model(), expect=GraphInterface.encoder(6, 4)), path)
    assert path.read_bytes() == b"before"


def test_an_impossible_path_is_a_usage_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot write"):
        write_bytes(model_bytes(small_model(), expect=INTERFACE), tmp_path / "file" / "encoder.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        write_bytes(model_bytes(small_model(), expect=INTERFACE), tmp_path / "folder.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.onnx"]


def test_names_are_used_once() -> None:
    graph = GraphBuilder("twice")
    graph.weight(1.0, "a")
    with pytest.raises(ValueError, match="already taken"):
        graph.weight(2.0, "a")


def test_equal_integers_are_stored_once() -> None:
    graph = GraphBuilder("integers")
    assert graph.integers(1, -2) == graph.integers(1, -2) != graph.integers(1, 2)
