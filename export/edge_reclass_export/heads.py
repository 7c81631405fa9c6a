"""Heads as ONNX graphs: ``features[batch, k] → logits[batch, classes]`` from trained layers.

The scaler stays in front of the first layer as a subtraction and a multiplication and is not folded into
its weights. Folded, the bias has to cancel ``mean / scale · W`` in float32, which costs digits wherever a
feature's mean is large against its spread; ``docs/notes/musicnn.md`` has the measured difference. Batch norms stay
explicit for the same reason.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from edge_reclass.errors import UsageError
from edge_reclass_export.activations import ACTIVATIONS, FORMULAS, GRAPHS, Activation, parse_activation
from edge_reclass_export.errors import CheckpointError, GraphError
from edge_reclass_export.graph import GraphBuilder
from edge_reclass_export.onnx_writer import BATCH, GraphInterface, model_bytes

RANDOM_WIDTHS = (256, 128)
"""Hidden layers of the older project's heads, and so of an untrained one."""

_RANDOM_SEED = 20_231_016


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


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm as it is at inference: ``(x - mean) · factor + shift``, each ``[width]``."""

    mean: NDArray[np.floating]
    factor: NDArray[np.floating]
    shift: NDArray[np.floating]


@dataclass(frozen=True)
class LayerNorm:
    """A layer norm over the values of one row; ``weight`` and ``bias`` are ``[width]``."""

    weight: NDArray[np.floating]
    bias: NDArray[np.floating]
    epsilon: float = 1e-5


Step = LinearLayer | BatchNorm | LayerNorm | Activation


def linear_layers(steps: Sequence[Step]) -> list[LinearLayer]:
    """The linear layers among ``steps``."""
    return [step for step in steps if isinstance(step, LinearLayer)]


def with_activation(layers: Sequence[LinearLayer], activation: Activation) -> list[Step]:
    """``layers`` with ``activation`` between each two of them."""
    steps: list[Step] = []
    for layer in layers:
        steps += [activation, layer] if steps else [layer]
    return steps


def head_interface(steps: Sequence[Step]) -> GraphInterface:
    """Inputs and outputs of the head that ``steps`` make."""
    layers = linear_layers(steps)
    return GraphInterface.head(layers[0].kernel.shape[0], layers[-1].kernel.shape[1])


def head_mlp(layers: Sequence[LinearLayer], scaler: Scaler | None = None) -> onnx.ModelProto:
    """``head_graph`` of an MLP with relu between its layers; one layer makes a linear head."""
    return head_graph(with_activation(layers, Activation("relu")), scaler)


def random_head(features: int, classes: int) -> bytes:
    """An untrained head features → 256 → 128 → classes as ONNX bytes, for measurements."""
    random = np.random.default_rng(_RANDOM_SEED)
    widths = (features, *RANDOM_WIDTHS, classes)
    layers = [
        LinearLayer(random.standard_normal((inputs, outputs)) / np.sqrt(inputs), np.zeros(outputs))
        for inputs, outputs in pairwise(widths)
    ]
    return model_bytes(head_mlp(layers), expect=head_interface(layers))


def head_graph(steps: Sequence[Step], scaler: Scaler | None = None) -> onnx.ModelProto:
    """The graph of ``steps`` in their order, behind the ``scaler``.

    Raises ``CheckpointError`` where shapes do not fit together or a scale is not positive.
    """
    _check(steps, scaler)
    graph = GraphBuilder("head")
    layers = linear_layers(steps)
    value = graph.input("features", (BATCH, layers[0].kernel.shape[0]))
    if scaler is not None:
        mean = graph.weight(scaler.mean, "scaler/mean")
        factor = graph.weight(1.0 / scaler.scale.astype(np.float64), "scaler/factor")
        value = graph.op("Mul", graph.op("Sub", value, mean, name="scaler/centred"), factor, name="scaler/scaled")
        if scaler.clip < inf:
            low, high = graph.weight(-scaler.clip, "scaler/low"), graph.weight(scaler.clip, "scaler/high")
            value = graph.op("Clip", value, low, high, name="scaler/clipped")
    number = 0
    for place, step in enumerate(steps):
        if isinstance(step, LinearLayer):
            name = f"layer_{number}"
            kernel, bias = graph.weight(step.kernel, f"{name}/kernel"), graph.weight(step.bias, f"{name}/bias")
            value = graph.op("Gemm", value, kernel, bias, name=f"{name}/linear")
            number += 1
        elif isinstance(step, Activation):
            value = GRAPHS[step.name](graph, value, f"layer_{number}", step)
        elif isinstance(step, BatchNorm):
            name = f"norm_{place}"
            centred = graph.op("Sub", value, graph.weight(step.mean, f"{name}/mean"), name=f"{name}/centred")
            scaled = graph.op("Mul", centred, graph.weight(step.factor, f"{name}/factor"), name=f"{name}/scaled")
            value = graph.op("Add", scaled, graph.weight(step.shift, f"{name}/shift"), name=f"{name}/shifted")
        else:
            name = f"norm_{place}"
            weight, bias = graph.weight(step.weight, f"{name}/weight"), graph.weight(step.bias, f"{name}/bias")
            value = graph.op(
                "LayerNormalization", value, weight, bias, name=f"{name}/normed", axis=-1, epsilon=step.epsilon
            )
    graph.output(value, "logits", (BATCH, layers[-1].kernel.shape[1]))
    return graph.model()


def head_answer(steps: Sequence[Step], scaler: Scaler | None, features: NDArray[np.floating]) -> NDArray[np.float64]:
    """What ``head_graph`` has to give for ``features`` [rows, k]: the same arithmetic in float64."""
    value = features.astype(np.float64)
    if scaler is not None:
        value = np.clip((value - scaler.mean) / scaler.scale, -scaler.clip, scaler.clip)
    for step in steps:
        if isinstance(step, LinearLayer):
            value = value @ step.kernel.astype(np.float64) + step.bias
        elif isinstance(step, Activation):
            value = FORMULAS[step.name](value, step)
        elif isinstance(step, BatchNorm):
            value = (value - step.mean) * step.factor + step.shift
        else:
            centred = value - value.mean(axis=1, keepdims=True)
            deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + step.epsilon)
            value = centred / deviation * step.weight + step.bias
    return value


def read_head(path: Path, features: int, classes: int) -> bytes:
    """An ONNX head that takes ``features`` values and gives ``classes`` logits, as bytes.

    Raises ``UsageError`` where it cannot be read and ``CheckpointError`` where it does not fit, or breaks the rules of
    ``onnx_writer``.
    """
    try:
        model = onnx.load_model(path)
        return model_bytes(model, expect=GraphInterface.head(features, classes), notice=model.doc_string)
    except OSError as error:
        raise UsageError(f"cannot read the head {path}: {error.strerror or error}") from error
    except DecodeError as error:
        raise CheckpointError(f"{path}: no ONNX file: {error}") from error
    except GraphError as error:
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


@dataclass(frozen=True)
class HeadParts:
    """What an .npz says of a head; ``scaler`` and ``genres`` are None where it does not say."""

    steps: tuple[Step, ...]
    scaler: Scaler | None
    genres: tuple[str, ...] | None


def read_npz(path: Path, given: Activation | None = None) -> HeadParts:
    """A head from an .npz: ``kernel`` [features, classes] and ``bias`` [classes].

    Beside them may be ``mean``, ``scale`` and ``clip`` of a scaler, and ``genres``. Several layers are ``kernel_0``,
    ``bias_0``, ``kernel_1``, … with the name of their ``activation``, unless it is ``given``. One output is the logit
    of the second of two classes, as scikit-learn has it. Raises ``UsageError`` where the activation is missing, and
    ``CheckpointError`` where the file does not hold this.
    """
    try:
        # From memory: numpy leaves the file open where it is no archive.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays: dict[str, NDArray[np.generic]] = {name: np.asarray(file[name]) for name in file.files}
        numbered = "kernel_0" in arrays
        names = [f"_{i}" for i in range(sum(name.startswith("kernel_") for name in arrays))] if numbered else [""]
        layers = [LinearLayer(_floats(arrays, "kernel" + n), _floats(arrays, "bias" + n)) for n in names]
        scaler = None
        if {"mean", "scale", "clip"} & set(arrays):
            clip = float(_floats(arrays, "clip")) if "clip" in arrays else inf
            mean, scale = _floats(arrays, "mean"), _floats(arrays, "scale")
            width = layers[0].kernel.shape[:1]  # one number may stand for all
            scaler = Scaler(
                mean if mean.ndim else np.full(width, mean), scale if scale.ndim else np.full(width, scale), clip
            )
    except KeyError as error:
        raise CheckpointError(
            f"{path}: no array {error}; expected kernel and bias (of several layers kernel_0, bias_0, kernel_1, …),"
            " or these with mean and scale"
        ) from error
    except (TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: no head's weights: {error}") from error
    said = str(arrays["activation"]) if "activation" in arrays else None
    activation = agreed_activation(path, len(layers), said, given)
    genres = tuple(map(str, arrays["genres"].ravel())) if "genres" in arrays else None
    return HeadParts(tuple(two_classes(with_activation(layers, activation))), scaler, genres)


def _floats(arrays: Mapping[str, NDArray[np.generic]], name: str) -> NDArray[np.float64]:
    return arrays[name].astype(np.float64)


def agreed_activation(path: Path, layers: int, said: str | None, given: Activation | None) -> Activation:
    """The activation between ``layers`` linear layers: what the file ``said`` or what was ``given``, never a guess.

    Raises ``UsageError`` where it is needed and neither says it, and ``CheckpointError`` where the two differ.
    """
    if said is not None:
        try:
            found = parse_activation(said)
        except UsageError as error:
            raise CheckpointError(f"{path}: {error}") from error
        if given is not None and given != found:
            raise CheckpointError(f"{path}: its activation is {found.name}, --activation says {given.name}")
        return found
    if given is None and layers > 1:
        raise UsageError(
            f"{path}: it has {layers} linear layers and does not say what stands between them: give --activation"
            f" {'|'.join(ACTIVATIONS)} (activation: in the file of export all)"
        )
    return given or Activation("none")


def two_classes(steps: Sequence[Step]) -> list[Step]:
    """``steps`` whose last layer gives one logit z, made to give (0, z): softmax(0, z) is sigmoid(z)."""
    *before, last = steps
    if isinstance(last, LinearLayer) and last.kernel.ndim == 2 and last.kernel.shape[1] == 1:
        zeros = np.zeros_like(last.kernel)
        last = LinearLayer(np.concatenate([zeros, last.kernel], axis=1), np.concatenate([[0.0], last.bias.ravel()]))
    return [*before, last]


def _check(steps: Sequence[Step], scaler: Scaler | None) -> None:
    layers = linear_layers(steps)
    if not layers:
        raise CheckpointError("a head needs at least one layer, got none")
    number, width = 0, layers[0].kernel.shape[0] if layers[0].kernel.ndim == 2 else 0
    for step in steps:
        if isinstance(step, LinearLayer):
            if step.kernel.ndim != 2 or step.bias.shape != step.kernel.shape[1:]:
                raise CheckpointError(
                    f"head layer {number}: expected kernel [inputs, outputs] and bias [outputs],"
                    f" got {list(step.kernel.shape)} and {list(step.bias.shape)}"
                )
            if step.kernel.shape[0] != width:
                raise CheckpointError(
                    f"head layer {number} takes {step.kernel.shape[0]} values, layer {number - 1} gives {width}"
                )
            width = step.kernel.shape[1]
            number += 1
        elif not isinstance(step, Activation):
            sizes = [list(array.shape) for array in vars(step).values() if isinstance(array, np.ndarray)]
            if any(size != [width] for size in sizes):
                raise CheckpointError(f"head norm before layer {number}: expected {width} values, got {sizes}")
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
