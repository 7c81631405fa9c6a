"""A learned mix of an encoder's hidden states: one weight for each, and perhaps a bias.

MERT's model card recommends ``nn.Conv1d(13, 1, 1)`` over the states' means over time; others learn a vector of
weights, which they use as it is or after a softmax. Only the convolution says by itself which of the two it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import UsageError
from edge_reclass_export.checkpoints import Checkpoint, load_state, some
from edge_reclass_export.errors import CheckpointError

MixKind = Literal["mix", "mix-plain", "mix-softmax"]
"""``mix`` is a convolution's; a vector of weights is used as it is (``plain``), or after a softmax."""

_VECTOR = re.compile(r"(layer|mix|aggregat|hidden)\w*", re.I)

Tensors = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class LayerMix:
    """``Σ weights[i] · state[i] + bias``, from the state before the first layer to the last."""

    weights: tuple[float, ...]
    bias: float = 0.0


def split_mix(checkpoint: Checkpoint) -> tuple[Checkpoint, dict[str, NDArray[np.float64]]]:
    """A head's checkpoint without the tensors of a layer mix, and those tensors.

    They are a convolution of kernel 1 to one channel (``[1, states, 1]``) with its bias, or a vector that is called
    after layers, a mix or an aggregation.
    """
    names: set[str] = set()
    for name, tensor in checkpoint.tensors.items():
        shape, parent = tuple(tensor.shape), name.rpartition(".")[0]
        if len(shape) == 3 and shape[0] == shape[2] == 1 and name.endswith("weight"):
            names |= {name, f"{parent}.bias" if parent else "bias"} & set(checkpoint.tensors)
        elif len(shape) == 1 and shape[0] > 1 and _VECTOR.search(name.rpartition(".")[2]):
            names.add(name)
    mix = {name: checkpoint.tensors[name].double().numpy() for name in checkpoint.tensors if name in names}
    rest = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in names}
    return replace(checkpoint, tensors=rest), mix


def read_mix(path: Path, kind: MixKind, states: int) -> LayerMix:
    """The mix in a file: a torch or safetensors checkpoint, an .npy or .npz of plain arrays.

    Raises ``UsageError`` and ``CheckpointError`` as ``mix_of`` does, and where the file cannot be read.
    """
    if path.suffix.lower() in {".npy", ".npz"}:
        try:
            loaded = np.load(path, allow_pickle=False)
            arrays = {"weights": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
            tensors = {name: np.asarray(value, np.float64) for name, value in arrays.items()}
        except OSError as error:
            raise UsageError(f"cannot read --layer-weights {path}: {error.strerror or error}") from error
        except (TypeError, ValueError, EOFError) as error:
            raise CheckpointError(f"{path}: no layer weights: {error}") from error
    else:
        tensors = {name: tensor.double().numpy() for name, tensor in load_state(path).tensors.items()}
    return mix_of(path, tensors, kind, states)


def mix_of(path: Path, tensors: Tensors, kind: MixKind, states: int) -> LayerMix:
    """The mix of ``states`` hidden states that ``tensors`` are.

    Raises:
        UsageError: it is a vector, and ``kind`` does not say whether a softmax belongs to it.
        CheckpointError: it is none, or of another number of states.
    """
    wide = {name: value for name, value in tensors.items() if value.size > 1}
    single = [value for value in tensors.values() if value.size == 1]
    if len(wide) != 1 or len(single) > 1:
        raise CheckpointError(
            f"{path}: expected the weights of {states} hidden states, and perhaps one bias; it has"
            f" {some(f'{name} {list(value.shape)}' for name, value in tensors.items())}"
        )
    ((name, value),) = wide.items()
    if value.size != states or max(value.shape) != states:
        raise CheckpointError(
            f"{path}: {name} has the shape {list(value.shape)}, the encoder has {states} hidden states"
        )
    weights, bias = value.ravel(), float(single[0].item()) if single else 0.0
    if not np.isfinite(weights).all() or not np.isfinite(bias):
        raise CheckpointError(f"{path}: {name} holds NaN or infinity")
    if kind == "mix" and value.ndim != 3:
        raise UsageError(
            f"{path}: {name} is a vector of {states} weights; say whether a softmax belongs to it:"
            " --layer mix-softmax or --layer mix-plain"
        )
    if kind == "mix-softmax":
        powers = np.exp(weights - weights.max())
        weights = powers / powers.sum()
    return LayerMix(tuple(map(float, weights)), bias)
