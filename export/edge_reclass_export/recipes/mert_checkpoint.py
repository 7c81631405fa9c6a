"""MERT (Li et al., "MERT: Acoustic Music Understanding Model with Large-Scale Self-supervised Training", 2023).

A checkpoint directory, read and checked: ``config.json`` and ``preprocessor_config.json`` say what the network is,
the weights' file has to agree. MERT is HuBERT with a few options; its tensors have the names of ``HubertModel`` in
transformers, perhaps under a prefix and beside other heads. The hub's own model code is never loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import torch

from edge_reclass.errors import UsageError
from edge_reclass_export.checkpoint_place import checkpoint_in
from edge_reclass_export.checkpoints import Checkpoint, load_state, some
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.layer_mix import MixKind
from edge_reclass_export.recipes.hubert import ACTIVATIONS, MertConfig, weight_shapes

_Named = Literal["last", "mean-of-all"]
_NAMED: tuple[_Named, ...] = get_args(_Named)
_MIXES: tuple[MixKind, ...] = get_args(MixKind)
Layer = int | _Named
"""Which hidden state becomes the embedding; 0 is before the first layer, the last is behind the final norm."""

_LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
_MODEL_TYPES = ("mert_model", "music_hubert", "hubert")
"""``music_hubert`` stands in the authors' own configurations and older copies; the network is the same."""
_ROOTS = ("feature_extractor.", "feature_projection.", "encoder.")
_ANCHOR = "feature_projection.projection.weight"
_POSITION = "encoder.pos_conv_embed.conv"
# torch.nn.utils.weight_norm's names in front, those of torch.nn.utils.parametrizations.weight_norm behind.
_WEIGHT_NORM = {
    rf"^{_POSITION}\.weight_g$": f"{_POSITION}.parametrizations.weight.original0",
    rf"^{_POSITION}\.weight_v$": f"{_POSITION}.parametrizations.weight.original1",
}
_MAGNITUDE, _DIRECTION = _WEIGHT_NORM.values()


RANDOM_CONFIGS: Mapping[str, MertConfig] = {
    "95m": MertConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
    "330m": MertConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        do_stable_layer_norm=True,
        attention_relax=32.0,
    ),
}
"""The published sizes, for untrained weights."""


@dataclass(frozen=True)
class Preprocessing:
    """``preprocessor_config.json``: the rate, and whether every window gets zero mean and unit variance."""

    sampling_rate: int
    do_normalize: bool


@dataclass(frozen=True)
class MertSource:
    """A checkpoint directory that fits together.

    ``weights`` has ``HubertModel``'s names and shapes in float32, weight norm removed. ``provenance`` is plain data
    for a manifest: where they came from. ``licence`` is the text that lies in the directory, if any.
    """

    config: MertConfig
    preprocessing: Preprocessing
    weights: Mapping[str, torch.Tensor]
    provenance: Mapping[str, object]
    licence: str = ""


def parse_layer(text: str) -> Layer | MixKind:
    """``last``, ``mean-of-all``, a kind of learned mix, or a number. Raises ``UsageError`` for anything else."""
    if text.isdecimal():
        return int(text)
    for name in (*_NAMED, *_MIXES):
        if text == name:
            return name
    raise UsageError(
        f"--layer: expected a number from 0 on, last, or mean-of-all, or {', '.join(_MIXES)}, got {text!r}"
    )


def read_source(place: Path) -> MertSource:
    """Reads and checks a checkpoint: a directory, the file with its weights, or a model's folder in the hub's cache.

    Raises:
        UsageError: there is no such directory, or a file in it cannot be opened.
        CheckpointError: a file is missing, damaged, of another architecture, asks for what this recipe cannot do, or
            contradicts another; the message has what each of them says.
    """
    file = checkpoint_in(place)
    folder = file.parent
    config = read_config(folder / "config.json")
    preprocessing = _read_preprocessing(folder / "preprocessor_config.json")
    if preprocessing.sampling_rate != config.sample_rate:
        said = "says" if "sample_rate" in _json(folder / "config.json") else "has no sample_rate, so MERT's default of"
        raise CheckpointError(
            f"{folder}: config.json {said} {config.sample_rate} Hz, preprocessor_config.json says"
            f" {preprocessing.sampling_rate} Hz"
        )
    source = _source(load_state(file), config, preprocessing)
    licence = next((folder / name for name in _LICENCE_FILES if (folder / name).is_file()), None)
    return replace(source, licence=licence.read_text(encoding="utf-8", errors="replace")) if licence else source


def _source(checkpoint: Checkpoint, config: MertConfig, preprocessing: Preprocessing) -> MertSource:
    inside = checkpoint.under(_ANCHOR)
    if cqt := [name for name in inside.tensors if name.startswith("feature_extractor_cqt")]:
        raise CheckpointError(f"{checkpoint.path}: {_NO_CQT}; the file has {some(cqt)}")
    ignored = tuple(name for name in inside.tensors if not name.startswith(_ROOTS)) + inside.outside
    network = Checkpoint(
        path=inside.path,
        sha256=inside.sha256,
        tensors={name: value for name, value in inside.tensors.items() if name.startswith(_ROOTS)},
        prefix=inside.prefix,
    ).renamed(_WEIGHT_NORM)
    _check_geometry(network, config)
    provenance: dict[str, object] = {
        "source": _name(checkpoint.path.absolute()),
        "source_sha256": checkpoint.sha256,
        "stored_dtypes": list(network.stored_dtypes),
        "licence": "that of the checkpoint: see its model card",
    }
    if ignored:  # other heads, or what stands beside the model's prefix
        provenance["ignored_tensors"] = list(ignored)
    return MertSource(config, preprocessing, _weights(network, config), provenance)


def _name(file: Path) -> str:
    """Folder and file; of the hub's cache the model's folder too, for a snapshot's is a checksum."""
    folders = file.parts[-4:-1] if file.parent.parent.name == "snapshots" else file.parts[-2:-1]
    return "/".join((*folders, file.name))


def read_config(path: Path) -> MertConfig:
    """``config.json`` as the network's options. Raises ``CheckpointError`` where it is not one that can be exported."""
    plain = _json(path)
    kind = plain.get("model_type")
    if kind not in _MODEL_TYPES:
        raise CheckpointError(f"{path}: model_type is {kind!r}, expected {', '.join(map(repr, _MODEL_TYPES))}")
    needed = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    if missing := [name for name in needed if name not in plain]:
        raise CheckpointError(f"{path}: the keys {', '.join(missing)} are missing")
    values: dict[str, Any] = {}
    for field in fields(MertConfig):
        if field.name in plain:
            wanted, words = _KINDS.get(str(field.type), (str, "text"))
            try:
                values[field.name] = msgspec.convert(plain[field.name], wanted)
            except msgspec.ValidationError as error:
                raise CheckpointError(f"{path}: {field.name} is {plain[field.name]!r}, expected {words}") from error
    config = MertConfig(**values)
    _check_config(path, config)
    return config


_Positive = Annotated[int, msgspec.Meta(gt=0)]
_KINDS: Mapping[str, tuple[Any, str]] = {
    "bool": (bool, "true or false"),
    "int": (_Positive, "a positive integer"),
    "float": (float, "a number"),
    "tuple[int, ...]": (tuple[_Positive, ...], "positive integers"),
}
"""What a field of ``MertConfig`` may hold, by its annotation; every other one is text."""

_NO_CQT = (
    "feature_extractor_cqt: this recipe has no CQT branch (a constant-Q spectrum of nnAudio, concatenated to the"
    " convolutions' features before the projection); export a checkpoint that was trained without it"
)


def _check_config(path: Path, config: MertConfig) -> None:
    if config.feature_extractor_cqt:
        raise CheckpointError(f"{path}: {_NO_CQT}")
    lengths = [len(config.conv_dim), len(config.conv_kernel), len(config.conv_stride)]
    if len(set(lengths)) != 1 or not lengths[0]:
        raise CheckpointError(
            f"{path}: conv_dim, conv_kernel and conv_stride have {lengths} entries, expected equal numbers"
        )
    if config.feat_extract_norm not in ("group", "layer"):
        raise CheckpointError(f"{path}: feat_extract_norm is {config.feat_extract_norm!r}, expected 'group' or 'layer'")
    for key in ("num_attention_heads", "num_conv_pos_embedding_groups"):
        if config.hidden_size % (parts := getattr(config, key)):
            raise CheckpointError(f"{path}: hidden_size {config.hidden_size} is no multiple of {key} {parts}")
    if config.deepnorm and config.do_stable_layer_norm:
        raise CheckpointError(f"{path}: deepnorm and do_stable_layer_norm exclude each other, both are true")
    for key in ("hidden_act", "feat_extract_activation"):
        if (found := getattr(config, key)) not in ACTIVATIONS:
            raise CheckpointError(f"{path}: {key} is {found!r}, expected one of {', '.join(ACTIVATIONS)}")


def _read_preprocessing(path: Path) -> Preprocessing:
    plain = _json(path)
    rate, normalise = plain.get("sampling_rate"), plain.get("do_normalize")
    if type(rate) is not int or not 8_000 <= rate <= 192_000:
        raise CheckpointError(f"{path}: sampling_rate is {rate!r}, expected a rate in Hz")
    if not isinstance(normalise, bool):
        raise CheckpointError(
            f"{path}: do_normalize is {normalise!r}, expected true or false: the embedding depends on it"
        )
    return Preprocessing(rate, normalise)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        plain = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: {path.name} is missing; it belongs to the checkpoint") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise CheckpointError(f"{path}: no JSON: {error}") from error
    if not isinstance(plain, dict):
        raise CheckpointError(f"{path}: expected an object with keys, got {type(plain).__name__}")
    return plain


def _check_geometry(network: Checkpoint, config: MertConfig) -> None:
    """The sizes that the file has against those that config.json says."""
    hidden, features = network.shape(_ANCHOR, 2)
    first = "encoder.layers.0.feed_forward.intermediate_dense.weight"
    position = _DIRECTION if _DIRECTION in network.tensors else f"{_POSITION}.weight"
    _, group_width, taps = network.shape(position, 3)
    found: dict[str, object] = {
        "hidden_size": hidden,
        "num_hidden_layers": network.count("encoder.layers.{}.attention.q_proj.weight"),
        "intermediate_size": network.shape(first, 2)[0],
        "num_conv_pos_embeddings": taps,
        "num_conv_pos_embedding_groups": hidden // group_width,
    }
    kernels = [
        network.shape(f"feature_extractor.conv_layers.{i}.conv.weight", 3)
        for i in range(network.count("feature_extractor.conv_layers.{}.conv.weight"))
    ]
    found["conv_dim"] = tuple(kernel[0] for kernel in kernels)
    found["conv_kernel"] = tuple(kernel[2] for kernel in kernels)
    wrong = [
        f"{key} is {_shown(getattr(config, key))} in config.json, {_shown(value)} in the file"
        for key, value in found.items()
        if getattr(config, key) != value
    ]
    if features != config.conv_dim[-1]:
        wrong.append(f"the last convolution gives {config.conv_dim[-1]}, {_ANCHOR} takes {features}")
    if wrong:
        raise CheckpointError(f"{network.path}: " + "; ".join(wrong))


def _shown(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _weights(network: Checkpoint, config: MertConfig) -> dict[str, torch.Tensor]:
    """Every tensor of the network, the weight norm of the positional convolution multiplied out."""
    shapes = weight_shapes(config)
    plain = f"{_POSITION}.weight"
    if plain in network.tensors or config.conv_pos_batch_norm:
        return network.take(shapes, ignore=("*.num_batches_tracked",))
    width, across, taps = shapes.pop(plain)
    # One magnitude per tap: the norm is over the two other dimensions.
    weights = network.take({**shapes, _MAGNITUDE: (1, 1, taps), _DIRECTION: (width, across, taps)})
    direction, magnitude = weights.pop(_DIRECTION), weights.pop(_MAGNITUDE)
    # The kernel that both of torch's implementations run, so the result is theirs to the last bit.
    weights[plain] = torch._weight_norm(direction, magnitude, 2)
    return weights
