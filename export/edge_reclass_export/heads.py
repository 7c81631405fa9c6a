"""Heads as ONNX graphs: ``features[batch, k] → logits[batch, classes]`` from trained linear layers.

The scaler stays in front of the first layer as a subtraction and a multiplication and is not folded into
its weights. Folded, the bias has to cancel ``mean / scale · W`` in float32, which costs digits wherever a
feature's mean is large against its spread; ``docs/export.md`` has the measured difference.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from edge_reclass.errors import UsageError
from edge_reclass_export.errors import CheckpointError, ContractError
from edge_reclass_export.graph import GraphBuilder
from edge_reclass_export.onnx_writer import BATCH, GraphContract, model_bytes

__all__ = ["LinearLayer", "Scaler", "head_contract", "head_mlp", "head_shape", "read_head"]


@dataclass(frozen=True)
class LinearLayer:
    """``x @ kernel + bias``: kernel ``[inputs, outputs]``, bias ``[outputs]``."""

    kernel: NDArray[np.floating]
    bias: NDArray[np.floating]


@dataclass(frozen=True)
class Scaler:
    """``(x - mean) / scale``, both ``[inputs]``, limited to ±``clip``; every scale is positive."""

    mean: NDArray[np.floating]
    scale: NDArray[np.floating]
    clip: float = inf


def head_contract(layers: Sequence[LinearLayer]) -> GraphContract:
    """Inputs and outputs of the head that ``head_mlp`` makes of ``layers``."""
    return GraphContract.head(layers[0].kernel.shape[0], layers[-1].kernel.shape[1])


def head_mlp(layers: Sequence[LinearLayer], scaler: Scaler | None = None) -> onnx.ModelProto:
    """An MLP with relu between its layers; one layer makes a linear head.

    Raises ``CheckpointError`` where shapes do not fit together or a scale is not positive.
    """
    _check(layers, scaler)
    graph = GraphBuilder("head")
    width = layers[0].kernel.shape[0]
    value = graph.input("features", (BATCH, width))
    if scaler is not None:
        mean = graph.weight(scaler.mean, "scaler/mean")
        factor = graph.weight(1.0 / scaler.scale.astype(np.float64), "scaler/factor")
        value = graph.op("Mul", graph.op("Sub", value, mean, name="scaler/centred"), factor, name="scaler/scaled")
        if scaler.clip < inf:
            low, high = graph.weight(-scaler.clip, "scaler/low"), graph.weight(scaler.clip, "scaler/high")
            value = graph.op("Clip", value, low, high, name="scaler/clipped")
    for number, layer in enumerate(layers):
        name = f"layer_{number}"
        if number:
            value = graph.op("Relu", value, name=f"{name}/active")
        kernel, bias = graph.weight(layer.kernel, f"{name}/kernel"), graph.weight(layer.bias, f"{name}/bias")
        value = graph.op("Gemm", value, kernel, bias, name=f"{name}/linear")
    graph.output(value, "logits", (BATCH, layers[-1].kernel.shape[1]))
    return graph.model()


def read_head(path: Path, features: int, classes: int) -> bytes:
    """A head file as the bytes of an ONNX head that takes ``features`` values and gives ``classes`` logits.

    ``path`` is an ONNX file that keeps the contract, or an .npz with ``kernel`` [features, classes], ``bias``
    [classes] and, where the features are to be standardised, ``mean``, ``scale`` and perhaps ``clip``. Raises
    ``UsageError`` where it cannot be read and ``CheckpointError`` where it does not fit.
    """
    expect = GraphContract.head(features, classes)
    try:
        if path.suffix.lower() == ".npz":
            model = _linear_head(path)
        elif path.suffix.lower() == ".onnx":
            model = onnx.load_model(path)
        else:
            raise UsageError(f"{path}: expected a head as .onnx or .npz")
        return model_bytes(model, expect=expect, notice=model.doc_string)
    except OSError as error:
        raise UsageError(f"cannot read the head {path}: {error.strerror or error}") from error
    except DecodeError as error:
        raise CheckpointError(f"{path}: no ONNX file: {error}") from error
    except ContractError as error:
        raise CheckpointError(f"{path}: {error}") from error


def head_shape(head: bytes | Path) -> tuple[int, int]:
    """Number of features and of classes of an ONNX head, given as bytes or as its file.

    Raises ``UsageError`` where it cannot be read and ``CheckpointError`` where it is no head.
    """
    where = str(head) if isinstance(head, Path) else "the new head"
    try:
        graph = onnx.load_model_from_string(head if isinstance(head, bytes) else head.read_bytes()).graph
        (features,), (logits,) = graph.input, graph.output
        return _width(features), _width(logits)
    except OSError as error:
        raise UsageError(f"cannot read the head {where}: {error.strerror or error}") from error
    except (DecodeError, ValueError, IndexError) as error:
        raise CheckpointError(f"{where}: no head as ONNX, features[batch, k] to logits[batch, classes]") from error


def _width(value: onnx.ValueInfoProto) -> int:
    """The second dimension."""
    return int(value.type.tensor_type.shape.dim[1].dim_value)


def _linear_head(path: Path) -> onnx.ModelProto:
    try:
        # From memory: numpy leaves the file open where it is no archive.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], np.float64) for name in file.files}
        layer = LinearLayer(arrays["kernel"], arrays["bias"])
        scaler = None
        if {"mean", "scale", "clip"} & set(arrays):
            scaler = Scaler(arrays["mean"], arrays["scale"], float(arrays.get("clip", inf)))
    except KeyError as error:
        raise CheckpointError(
            f"{path}: no array {error}; expected kernel and bias, or these with mean and scale"
        ) from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: no head's weights: {error}") from error
    return head_mlp([layer], scaler)


def _check(layers: Sequence[LinearLayer], scaler: Scaler | None) -> None:
    if not layers:
        raise CheckpointError("a head needs at least one layer, got none")
    for number, layer in enumerate(layers):
        if layer.kernel.ndim != 2 or layer.bias.shape != layer.kernel.shape[1:]:
            raise CheckpointError(
                f"head layer {number}: expected kernel [inputs, outputs] and bias [outputs],"
                f" got {list(layer.kernel.shape)} and {list(layer.bias.shape)}"
            )
        if number and layer.kernel.shape[0] != layers[number - 1].kernel.shape[1]:
            raise CheckpointError(
                f"head layer {number} takes {layer.kernel.shape[0]} values,"
                f" layer {number - 1} gives {layers[number - 1].kernel.shape[1]}"
            )
    if scaler is not None:
        width = layers[0].kernel.shape[0]
        if scaler.mean.shape != (width,) or scaler.scale.shape != (width,):
            raise CheckpointError(
                f"head scaler: expected mean and scale of {width} values,"
                f" got {list(scaler.mean.shape)} and {list(scaler.scale.shape)}"
            )
        if not (scaler.scale > 0.0).all():
            raise CheckpointError("head scaler: every scale has to be positive (a constant feature has scale 1)")
        if not scaler.clip > 0.0:
            raise CheckpointError(f"head scaler: expected a positive clip, got {scaler.clip}")
