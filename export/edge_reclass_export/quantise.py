"""INT8 for CPUs: weights of matrix products as 8-bit integers, activations quantised while the graph runs."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from edge_reclass_export.errors import ParityError
from edge_reclass_export.onnx_writer import GraphContract, model_bytes
from edge_reclass_export.parity import agreement, run_graph
from edge_reclass_export.torch_export import TorchExport, plain_agreement

__all__ = ["quantised"]

LEAST_MEDIAN = 0.98
"""Least cosine of the median reference input. The worst one is only written down: near silence, a network's layer norms
enlarge the steps of 8 bits at will, and untrained networks fall apart there."""


def quantised(export: TorchExport) -> tuple[bytes, Mapping[str, Mapping[str, float]]]:
    """The float32 graph of ``export`` with its MatMul weights in 8 bits, and its agreement with the reference.

    Convolutions stay in float32: ONNX Runtime has no fast dynamic form of them. Raises ``ParityError`` where the
    graph is not even near. Whether its answers are good enough is for an evaluation to say.
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
    expected, inputs = export.reference.embedding, export.reference.inputs()
    got = run_graph(content, inputs)[0]
    median = float(
        np.median([agreement(want[None], have[None]).cosine for want, have in zip(expected, got, strict=True)])
    )
    if not median >= LEAST_MEDIAN:
        raise ParityError(
            f"the int8 graph is not the float32 one: median cosine {median:.4f}, expected at least {LEAST_MEDIAN};"
            " leave --int8 out"
        )
    figures = plain_agreement(agreement(expected, got))
    return content, {f"batch_{len(inputs)}": {**figures, "median_cosine": round(median, 9)}}


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """It recommends its own preparation (folding, inferred shapes), which torch's exporter has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
