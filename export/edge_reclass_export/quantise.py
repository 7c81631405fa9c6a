"""INT8 for CPUs: weights of matrix products as 8-bit integers, activations quantised while the graph runs."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx

from edge_reclass_export.onnx_writer import GraphContract, model_bytes
from edge_reclass_export.parity import Agreement, Tolerance, require_parity, run_graph
from edge_reclass_export.torch_export import TorchExport, plain_agreement

__all__ = ["INT8", "quantised"]

INT8 = Tolerance(cosine=0.99, relative=0.2, max_abs=float("inf"))
"""Dynamic quantisation changes the numbers; whether the answers stay is for an evaluation to say."""


def quantised(export: TorchExport) -> tuple[bytes, Mapping[str, Mapping[str, float]]]:
    """The float32 graph of ``export`` with its MatMul weights in 8 bits, and its agreement with the reference.

    Convolutions stay in float32: ONNX Runtime has no fast dynamic form of them. Raises ``ParityError`` where the
    graph is not even near.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="edge-reclass-") as folder, _no_warnings():
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(export.models["fp32"])
        quantize_dynamic(source, target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
        model = onnx.load_model(target)
    for entry in [entry for entry in model.opset_import if entry.domain not in ("", "ai.onnx")]:
        model.opset_import.remove(entry)
    width = export.reference.embedding.shape[1]
    content = model_bytes(
        model, expect=GraphContract.encoder(export.reference.samples, width), notice=model.doc_string, consume=True
    )
    inputs = export.reference.inputs()
    found: Agreement = require_parity(
        export.reference.embedding, run_graph(content, inputs)[0], INT8, "the int8 graph of the float32 one"
    )
    return content, {f"batch_{len(inputs)}": plain_agreement(found)}


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """It recommends its own preparation (folding, inferred shapes), which torch's exporter has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
