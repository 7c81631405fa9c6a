"""MLP heads that were trained in torch: linear layers with relu (and dropout) between them.

Two layouts of the older project are known, and every ``nn.Sequential`` of that kind is read the same way:

* ``msd_model.pth``: a dict with the state dict ``model`` (``net.0.weight``, ``net.3.weight``, …), the scaler that
  stood in front of it (``scaler_mean``, ``scaler_scale``), the names of the classes (``genres``), ``epoch`` and
  ``accuracy``;
* a bare state dict (``fc.0.weight``, ``fc.3.weight``, …) without a scaler and without names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import UsageError
from edge_reclass_export.checkpoints import Checkpoint, load_state
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.heads import LinearLayer, Scaler, head_contract, head_mlp
from edge_reclass_export.onnx_writer import model_bytes

__all__ = ["TORCH_SUFFIXES", "MlpCheckpoint", "agreed_genres", "head_file", "read_mlp"]

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")

_PARAMETER = re.compile(r"(?P<sequence>.*?)(?P<number>\d+)\.(weight|bias)")


@dataclass(frozen=True)
class MlpCheckpoint:
    """What a checkpoint says about its head; ``scaler`` and ``genres`` are None where it does not say."""

    path: Path
    sha256: str
    layers: tuple[LinearLayer, ...]
    scaler: Scaler | None
    genres: tuple[str, ...] | None
    notes: Mapping[str, object]
    """``epoch`` and ``accuracy`` as the checkpoint has them."""

    @property
    def inputs(self) -> int:
        return int(self.layers[0].kernel.shape[0])

    @property
    def classes(self) -> int:
        return int(self.layers[-1].kernel.shape[1])


def read_mlp(path: Path) -> MlpCheckpoint:
    """Reads a head's checkpoint; nothing in it is run.

    Raises:
        UsageError: the file cannot be read.
        CheckpointError: it is damaged, is no MLP, or its parts do not fit together.
    """
    checkpoint = load_state(path)
    layers = tuple(_layers(checkpoint))
    scaler = _scaler(checkpoint, layers[0].kernel.shape[0])
    genres = _genres(checkpoint, layers[-1].kernel.shape[1])
    notes = {key: _plain(checkpoint.extras[key]) for key in ("epoch", "accuracy") if key in checkpoint.extras}
    return MlpCheckpoint(path, checkpoint.sha256, layers, scaler, genres, notes)


def head_file(path: Path, features: int, genres: Sequence[str]) -> tuple[bytes, list[str]]:
    """A torch or safetensors head as the bytes of an ONNX head for ``features`` values, and its classes' names.

    A checkpoint that names its classes has to name them in the order of ``genres``, where those are given.

    Raises:
        UsageError: the file cannot be read, or is of no known kind.
        CheckpointError: it does not fit ``features`` and ``genres``.
    """
    if path.suffix.lower() not in TORCH_SUFFIXES:
        raise UsageError(f"{path}: expected a head as .onnx, .npz, {', '.join(TORCH_SUFFIXES)}")
    head = read_mlp(path)
    if head.inputs != features:
        raise CheckpointError(f"{path}: the head takes {head.inputs} values, the encoder gives {features}")
    names = agreed_genres(head, genres)
    return model_bytes(head_mlp(head.layers, head.scaler), expect=head_contract(head.layers)), names


def agreed_genres(head: MlpCheckpoint, given: Sequence[str]) -> list[str]:
    """Names of the head's classes: the checkpoint's, or those ``given`` (perhaps none) where it has none.

    Raises:
        UsageError: neither names them.
        CheckpointError: both do, and differ; or the number of names is not the number of classes.
    """
    if head.genres is not None and given and list(given) != list(head.genres):
        raise CheckpointError(f"{head.path}: its classes are {list(head.genres)}, expected {list(given)}")
    names = list(head.genres or given)
    if not names:
        raise UsageError(
            f"{head.path} does not name its {head.classes} classes: name them with --genres A,B,...,"
            " or genres: [A, B, ...] in the file of export all"
        )
    if len(names) != head.classes:
        raise CheckpointError(f"{head.path}: the head has {head.classes} classes, but there are {len(names)} names")
    return names


def _layers(checkpoint: Checkpoint) -> list[LinearLayer]:
    """The linear layers in the order of their numbers in the sequence."""
    parts: dict[str, set[int]] = {}
    for name in checkpoint.tensors:
        match = _PARAMETER.fullmatch(name)
        if match is None:
            raise CheckpointError(
                f"{checkpoint.path}: {name!r} belongs to no sequence of linear layers (net.0.weight, net.0.bias, …)"
            )
        parts.setdefault(match["sequence"], set()).add(int(match["number"]))
    if len(parts) != 1:
        raise CheckpointError(
            f"{checkpoint.path}: expected one sequence of layers, got {len(parts)}: {', '.join(sorted(parts))}"
        )
    ((sequence, numbers),) = parts.items()
    shapes: dict[str, tuple[int, ...]] = {}
    for number in sorted(numbers):
        weight = f"{sequence}{number}.weight"
        outputs, inputs = checkpoint.shape(weight, 2)  # a normalisation between the layers has one dimension
        shapes |= {weight: (outputs, inputs), f"{sequence}{number}.bias": (outputs,)}
    taken = checkpoint.take(shapes)
    return [
        LinearLayer(taken[f"{sequence}{number}.weight"].numpy().T, taken[f"{sequence}{number}.bias"].numpy())
        for number in sorted(numbers)
    ]


def _scaler(checkpoint: Checkpoint, width: int) -> Scaler | None:
    found = [key for key in ("scaler_mean", "scaler_scale") if checkpoint.extras.get(key) is not None]
    if not found:
        return None
    if len(found) == 1:
        raise CheckpointError(f"{checkpoint.path}: it has {found[0]} alone; expected scaler_mean and scaler_scale")
    mean, scale = (_vector(checkpoint, key, width) for key in found)
    if not (scale > 0.0).all():
        worst = int(np.argmin(scale))
        raise CheckpointError(
            f"{checkpoint.path}: scaler_scale[{worst}] is {scale[worst]}, expected positive numbers"
            " (a constant feature has scale 1)"
        )
    return Scaler(mean, scale)


def _vector(checkpoint: Checkpoint, key: str, width: int) -> NDArray[np.float64]:
    try:
        values = np.asarray(checkpoint.extras[key], np.float64)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.path}: {key} holds no numbers: {error}") from error
    if values.shape != (width,):
        raise CheckpointError(f"{checkpoint.path}: {key} has the shape {list(values.shape)}, expected [{width}]")
    if not np.isfinite(values).all():
        raise CheckpointError(f"{checkpoint.path}: {key} holds NaN or infinity")
    return values


def _genres(checkpoint: Checkpoint, classes: int) -> tuple[str, ...] | None:
    value = checkpoint.extras.get("genres")
    if value is None:
        return None
    names = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise CheckpointError(f"{checkpoint.path}: genres is a {type(value).__name__}, expected a list of names")
    if len(names) != classes:
        raise CheckpointError(f"{checkpoint.path}: {len(names)} genres, but the last layer has {classes} outputs")
    return tuple(str(name) for name in names)


def _plain(value: Any) -> object:
    """Something that YAML can say: a number or text."""
    if hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else str(value)
