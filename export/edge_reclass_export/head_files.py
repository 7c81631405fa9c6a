"""Trained heads as people save them: torch and safetensors checkpoints, .npz, scikit-learn's .skops.

What a file does not say (the activation between two layers, their order where several fit) is asked for and never
guessed. One layout is documented with its activation, and so needs no question: ``msd_model.pth`` of the older
project, a dict with the state dict ``model`` (``net.0``, ``net.3``, ``net.6``), ``scaler_mean``, ``scaler_scale`` and
``genres``, trained with relu.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.bundle import file_entry
from edge_reclass.errors import UsageError
from edge_reclass_export.activations import Activation, parse_activation
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.heads import (
    Scaler,
    Step,
    agreed_activation,
    head_graph,
    head_interface,
    linear_layers,
    read_npz,
)
from edge_reclass_export.onnx_writer import model_bytes

if TYPE_CHECKING:
    from edge_reclass_export.checkpoints import Checkpoint

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")

_DOCUMENTED = frozenset(f"net.{number}.{kind}" for number in (0, 3, 6) for kind in ("weight", "bias"))
_DOCUMENTED_KEYS = frozenset({"scaler_mean", "scaler_scale", "genres"})


@dataclass(frozen=True)
class HeadOptions:
    """What the user says of a head: the activation between its layers, or its layers and activations in order."""

    activation: Activation | None = None
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainedHead:
    """What a file says about its head; ``scaler`` and ``genres`` are None where it does not say.

    ``notes`` are plain data for the provenance: ``epoch`` and ``accuracy`` as the checkpoint has them. ``said`` are
    lines for people: what was taken for granted. ``mix`` are tensors of a learned mix of hidden states.
    """

    path: Path
    sha256: str
    steps: tuple[Step, ...]
    scaler: Scaler | None
    genres: tuple[str, ...] | None
    notes: Mapping[str, object] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    mix: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """Number of features."""
        return int(linear_layers(self.steps)[0].kernel.shape[0])

    @property
    def classes(self) -> int:
        """Number of logits."""
        return int(linear_layers(self.steps)[-1].kernel.shape[1])


def parse_head_options(activation: str | None, head_layers: str | None) -> HeadOptions:
    """``--activation`` and ``--head-layers``. Raises ``UsageError`` where they are none, or both are given."""
    if activation and head_layers:
        raise UsageError("--head-layers names the activations too: leave --activation out")
    names = tuple(name.strip() for name in (head_layers or "").split(",") if name.strip())
    return HeadOptions(parse_activation(activation) if activation else None, names)


def read_trained_head(path: Path, options: HeadOptions | None = None) -> TrainedHead:
    """Reads a head's file; nothing in it is run.

    Raises:
        UsageError: the file cannot be read, is of no known kind, or does not say what only the user can say.
        CheckpointError: it is damaged, is no head, or its parts do not fit together.
    """
    options = options or HeadOptions()
    suffix = path.suffix.lower()
    if suffix in TORCH_SUFFIXES:
        return _torch_head(path, options)
    if suffix not in {".npz", ".skops"}:
        raise UsageError(_unknown_kind(path))
    if options.layers or (suffix == ".skops" and options.activation):
        raise UsageError(f"{path} says its layers itself: leave --activation and --head-layers out")
    try:
        digest = file_entry(path).sha256
    except OSError as error:
        raise UsageError(f"cannot read the head {path}: {error.strerror or error}") from error
    if suffix == ".npz":
        found = read_npz(path, options.activation)
    else:
        from edge_reclass_export.skops_file import read_skops

        found = read_skops(path)
    return TrainedHead(path, digest, found.steps, found.scaler, found.genres)


def head_file(
    path: Path, features: int, genres: Sequence[str], options: HeadOptions | None = None
) -> tuple[TrainedHead, bytes, list[str]]:
    """A head's file, its bytes as an ONNX head for ``features`` values, and its classes' names.

    A file that names its classes has to name them in the order of ``genres``, where those are given.

    Raises:
        UsageError: the file cannot be read, is of no known kind, or does not say what only the user can say.
        CheckpointError: it does not fit ``features`` and ``genres``.
    """
    head = read_trained_head(path, options)
    if head.inputs != features:
        raise CheckpointError(f"{path}: the head takes {head.inputs} values, the encoder gives {features}")
    names = agreed_genres(head, genres)
    model = head_graph(head.steps, head.scaler)
    return head, model_bytes(model, expect=head_interface(head.steps), notice=head_notice(head)), names


def head_notice(head: TrainedHead) -> str:
    """What stands in the graph of the head about its weights."""
    return f"Head made from {head.path.name} (sha256 {head.sha256}). The file states no licence: ask who trained it."


def agreed_genres(head: TrainedHead, given: Sequence[str]) -> list[str]:
    """Names of the head's classes: the file's, or those ``given`` (perhaps none) where it has none.

    Raises:
        UsageError: neither names them.
        CheckpointError: both do, and differ; or the number of names is not the number of classes.
    """
    if head.genres is not None and given and list(given) != list(head.genres):
        raise CheckpointError(
            f"{head.path}: its classes are {list(head.genres)}, expected {list(given)}; say with --map FILE what they"
            " are there"
        )
    names = list(head.genres or given)
    if not names:
        raise UsageError(
            f"{head.path} does not name its {head.classes} classes: name them with --genres A,B,...,"
            " or genres: [A, B, ...] in the file of export all"
        )
    if len(names) != head.classes:
        raise CheckpointError(f"{head.path}: the head has {head.classes} classes, but there are {len(names)} names")
    return names


def _torch_head(path: Path, options: HeadOptions) -> TrainedHead:
    from edge_reclass_export.checkpoints import load_state  # needs torch
    from edge_reclass_export.head_layout import arrange, arrange_as, head_modules
    from edge_reclass_export.layer_mix import split_mix

    checkpoint, mix = split_mix(load_state(path))
    modules, left_out = head_modules(checkpoint)
    said: list[str] = []
    if left_out:
        said.append(f"{path.name}: left out, as only training needs it: {', '.join(left_out)}")
    if options.layers:
        steps = arrange_as(checkpoint, modules, options.layers)
    else:
        count = sum(module.is_linear for module in modules)
        documented = set(checkpoint.tensors) == _DOCUMENTED and set(checkpoint.extras) >= _DOCUMENTED_KEYS
        stated = _stated_activation(checkpoint)
        if documented and stated is None and options.activation is None:
            activation = Activation("relu")
            said.append(f"{path.name}: the layout of msd_model.pth, which was trained with relu between its layers")
        else:
            activation = agreed_activation(path, count, stated, options.activation)
        steps = arrange(checkpoint, modules, activation)
    if any(not module.is_linear for module in modules):
        said.append(f"{path.name}: its norms are taken to have torch's usual eps, 1e-5, which no state dict holds")
    if not linear_layers(steps):
        raise CheckpointError(f"{path}: no linear layer among its {len(modules)} modules")
    notes = {key: _plain(checkpoint.extras[key]) for key in ("epoch", "accuracy") if key in checkpoint.extras}
    head = TrainedHead(path, checkpoint.sha256, tuple(steps), None, None, notes, tuple(said), mix)
    return replace(head, scaler=_scaler(checkpoint, head.inputs), genres=_genres(checkpoint, head.classes))


def _stated_activation(checkpoint: Checkpoint) -> str | None:
    """The key ``activation`` beside the state dict, or in the configuration that stands there."""
    places = [checkpoint.extras, *(checkpoint.extras.get(key) for key in ("config", "hyper_parameters", "hparams"))]
    for place in places:
        if isinstance(place, Mapping) and isinstance(found := place.get("activation"), str):
            return found
    return None


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
    """Names of the classes: ``genres``, else a list or a map under one of the names that training scripts use."""
    value = checkpoint.extras.get("genres")
    if value is None:
        return next(filter(None, (_class_names(checkpoint.extras.get(key), classes) for key in _CLASS_NAMES)), None)
    names = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise CheckpointError(f"{checkpoint.path}: genres is a {type(value).__name__}, expected a list of names")
    if len(names) != classes:
        raise CheckpointError(f"{checkpoint.path}: {len(names)} genres, but the last layer has {classes} outputs")
    return tuple(str(name) for name in names)


_CLASS_NAMES = ("classes", "class_names", "label_map", "label2id", "id2label")


def _class_names(value: Any, classes: int) -> tuple[str, ...] | None:
    """``value`` as names in order, if it is a list of them or a map between each name and its number."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        pairs = [(name, number) if isinstance(name, str) else (number, name) for name, number in value.items()]
        numbered = {number: name for name, number in pairs if type(number) is int}
        value = [numbered.get(number) for number in range(len(value))]
    good = isinstance(value, list | tuple) and len(value) == classes
    if not good or not all(isinstance(name, str) and name for name in value):
        return None
    return tuple(map(str, value))


def _plain(value: Any) -> object:
    """Something that YAML can say: a number or text."""
    if hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else str(value)


_PICKLES = (".joblib", ".pkl", ".pickle")
_SCALER_LINE = ", mean=m[0].mean_ if m[0].with_mean else 0.0, scale=m[0].scale_ if m[0].with_std else 1.0"


def _unknown_kind(path: Path) -> str:
    if path.suffix.lower() not in _PICKLES:
        return f"{path}: expected a head as .onnx, .npz, .skops, {', '.join(TORCH_SUFFIXES)}"
    return pickle_advice(path)


def pickle_advice(path: Path) -> str:
    """Why a pickle is not read, and the two lines of Python that save its head as .npz."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"cannot read the head {path}: {error.strerror or error}"
    target = path.with_suffix(".npz").name
    pipeline, network = b"sklearn.pipeline" in content, b"MLPClassifier" in content
    head, scaler = ("m[-1]", _SCALER_LINE if b"StandardScaler" in content else "") if pipeline else ("m", "")
    if network:
        arrays = (
            f"activation=c.activation{scaler}, **{{f'kernel_{{i}}': k for i, k in enumerate(c.coefs_)}},"
            " **{f'bias_{i}': b for i, b in enumerate(c.intercepts_)}"
        )
    else:
        arrays = f"kernel=c.coef_.T, bias=c.intercept_{scaler}"
    return (
        f"{path}: a pickle can run code when it is loaded, so it is not read."
        " Where you trust it, save its head as .npz with\n"
        f"import joblib, numpy; m = joblib.load({path.name!r}); c = {head}\n"
        f"numpy.savez({target!r}, genres=c.classes_.astype(str), {arrays})"
    )
