"""The one way in which an ONNX file gets onto the disk.

Every file keeps the same rules, whatever built the graph: opset 18 of ``ai.onnx`` and nothing else, IR
version 10 (onnxruntime 1.23.2, the last one for JetPack 6's Python 3.10, refuses IR 12 and newer), float32
inputs and outputs of agreed names, only the batch dynamic, weights inside the file and finite. The bytes are
a function of the graph alone: no producer version, no doc strings, no exporter's stack traces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edge_reclass.bundle import refuse_external_data
from edge_reclass.errors import EngineError, UsageError
from edge_reclass.host import replace_whole
from edge_reclass_export.errors import GraphError

OPSET = 18
IR_VERSION = 10
BATCH = "batch"
"""Name of the only dimension that may be dynamic, always the first."""

_MAX_BYTES = 2**31 - 1  # protobuf's limit for one message


@dataclass(frozen=True)
class TensorSpec:
    """Name and shape of one float32 input or output; the shape is without the leading dynamic batch."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphInterface:
    """What a graph must take and give."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    def encoder(cls, window_samples: int, dim: int, *extra_outputs: TensorSpec) -> GraphInterface:
        """``waveform[batch, window_samples] → embedding[batch, dim]``, then optional further outputs."""
        return cls(
            (TensorSpec("waveform", (window_samples,)),),
            (TensorSpec("embedding", (dim,)), *extra_outputs),
        )

    @classmethod
    def head(cls, features: int, classes: int) -> GraphInterface:
        """``features[batch, features] → logits[batch, classes]``."""
        return cls((TensorSpec("features", (features,)),), (TensorSpec("logits", (classes,)),))


def model_bytes(model: onnx.ModelProto, *, expect: GraphInterface, notice: str = "", consume: bool = False) -> bytes:
    """The file of ``model``, a function of graph and notice alone, checked against the rules and ``expect``.

    Args:
        model: stays as it is, unless ``consume`` allows it to be cleaned in place, which spares a copy of the weights.
        expect: its inputs and outputs.
        notice: copyright and licence of the weights, which then travel inside the file.
        consume: see ``model``.

    Raises:
        GraphError: the graph breaks the rules.
    """
    clean = model if consume else _copied(model)
    _clean(clean, notice)
    check_interface(clean, expect)
    content: bytes = clean.SerializeToString(deterministic=True)
    try:
        refuse_external_data(content, f"graph {clean.graph.name!r}")
    except EngineError as error:
        raise GraphError(str(error)) from error
    return content


def write_bytes(content: bytes, path: Path) -> None:
    """Writes ``content`` as a whole: there is never half a file. Folders above ``path`` are made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(path, content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def check_interface(model: onnx.ModelProto, expect: GraphInterface) -> None:
    """Raises ``GraphError`` where ``model`` breaks the rules or differs from ``expect``."""
    name = model.graph.name
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if opsets != {"ai.onnx": OPSET}:
        raise GraphError(f"graph {name!r} imports the operator sets {opsets}, expected {{'ai.onnx': {OPSET}}}")
    if model.ir_version != IR_VERSION:
        raise GraphError(f"graph {name!r} has IR version {model.ir_version}, expected {IR_VERSION}")
    if model.functions:
        raise GraphError(f"graph {name!r} has {len(model.functions)} local functions, expected none: inline them")
    _check_io(name, "inputs", model.graph.input, expect.inputs)
    _check_io(name, "outputs", model.graph.output, expect.outputs)
    _check_weights(name, model.graph)
    if model.ByteSize() > _MAX_BYTES:
        raise GraphError(f"graph {name!r} has {model.ByteSize()} bytes, one file holds at most {_MAX_BYTES}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"graph {name!r} is not valid ONNX: {error}") from error


def _check_io(graph: str, kind: str, found: object, expected: tuple[TensorSpec, ...]) -> None:
    got = [_describe(value) for value in found]  # type: ignore[attr-defined]
    want = [f"{spec.name}: float32[{', '.join([BATCH, *map(str, spec.shape)])}]" for spec in expected]
    if got != want:
        raise GraphError(f"graph {graph!r} has the {kind} {got}, expected {want}")


def _describe(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    dtype = "float32" if tensor.elem_type == TensorProto.FLOAT else TensorProto.DataType.Name(tensor.elem_type).lower()
    dims = [str(dim.dim_value) if dim.HasField("dim_value") else (dim.dim_param or "?") for dim in tensor.shape.dim]
    return f"{value.name}: {dtype}[{', '.join(dims)}]"


def _check_weights(name: str, graph: onnx.GraphProto) -> None:
    for tensor in _tensors(graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise GraphError(f"graph {name!r}: weight {tensor.name!r} lies in another file, expected it inside")
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            values = numpy_helper.to_array(tensor)
            if not np.isfinite(values).all():
                raise GraphError(f"graph {name!r}: weight {tensor.name!r} holds NaN or infinity")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _clean(model: onnx.ModelProto, notice: str) -> None:
    """Removes everything that is not the graph: producer, doc strings, metadata, inferred shapes."""
    model.producer_name = "edge-reclass"
    for field in ("producer_version", "doc_string", "domain", "metadata_props", "model_version"):
        model.ClearField(field)
    for field in ("doc_string", "metadata_props", "value_info"):
        model.graph.ClearField(field)
    for element in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        element.ClearField("doc_string")
        element.ClearField("metadata_props")
    model.doc_string = notice
