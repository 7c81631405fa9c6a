"""Which tensors of a file are YAMNet: Google's ``yamnet.h5``, or the network as TensorFlow Lite files.

Quantised files of one network confine each weight to an interval, one step wide. Of two files with different steps the
intersection is narrower than either: its middle is nearer to the original, and an empty one means two networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_reclass_export.checkpoints import some
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.recipes.yamnet_model import Convolution, YamnetWeights, names
from edge_reclass_export.tflite_file import Layer, Stored, read_layers

_EPSILON = 1e-4  # of the batch norms, which have no scale
_ROUNDING = 1e-3  # of a step, and 1e-6 of the largest weight: what two converters may differ in
_SAME_BIAS = 1e-3
_TRAINING_ONLY = "optimizer_weights/"
_CONVOLUTION = re.compile(
    r"(?:.*/)?(layer\d+/(?:conv|depthwise_conv|pointwise_conv)(?:/bn)?)/"
    r"(?:depthwise_)?(kernel|beta|gamma|moving_mean|moving_variance)(?::0)?"
)
_DENSE = re.compile(r"(?:.*/)?[^/]+/(kernel|bias)(?::0)?")


def from_keras(path: Path) -> YamnetWeights:
    """The network of a Keras weights file, found by the names of its tensors.

    Raises:
        CheckpointError: the file is damaged, tensors are missing, too many, of another shape, or not finite.
    """
    from edge_reclass_export.keras_file import read_keras_weights

    found: dict[str, NDArray[np.float64]] = {}
    unexpected = []
    for full, values in read_keras_weights(path).items():
        if full.startswith(_TRAINING_ONLY):
            continue
        if match := _CONVOLUTION.fullmatch(full):
            name = f"{match[1]}/{match[2]}"
        elif match := _DENSE.fullmatch(full):
            name = f"dense/{match[1]}"
        else:
            unexpected.append(full)
            continue
        if name in found:
            raise CheckpointError(f"{path}: two tensors are {name}, one of them is called {full}")
        found[name] = values
    optional = {f"{name}/bn/gamma" for name in names()}
    wanted = [
        f"{name}/{part}" for name in names() for part in ("kernel", "bn/beta", "bn/moving_mean", "bn/moving_variance")
    ]
    missing = [name for name in [*wanted, "dense/kernel", "dense/bias"] if name not in found]
    unexpected += [name for name in found if name not in {*wanted, *optional, "dense/kernel", "dense/bias"}]
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: expected YAMNet's {len(wanted) + 2} tensors; missing: {some(missing)};"
            f" not expected: {some(unexpected)}"
        )

    def convolution(name: str) -> Convolution:
        kernel = found[f"{name}/kernel"]
        if kernel.ndim != 4:
            raise CheckpointError(f"{path}: {name}/kernel: expected 4 dimensions, got the shape {list(kernel.shape)}")
        kernel = kernel.transpose((2, 3, 0, 1) if "depthwise" in name else (3, 2, 0, 1))
        variance = _vector(path, found, f"{name}/bn/moving_variance", len(kernel))
        if (variance < 0).any():
            raise CheckpointError(f"{path}: {name}/bn/moving_variance has values below zero")
        scale = 1.0 / np.sqrt(variance + _EPSILON)
        if f"{name}/bn/gamma" in found:
            scale = scale * _vector(path, found, f"{name}/bn/gamma", len(kernel))
        mean, beta = (_vector(path, found, f"{name}/bn/{part}", len(kernel)) for part in ("moving_mean", "beta"))
        return Convolution(kernel * scale[:, None, None, None], beta - mean * scale)

    made = {name: convolution(name) for name in names()}
    return _checked(str(path), YamnetWeights(made, found["dense/kernel"].T, found["dense/bias"]))


def from_tflite(files: Sequence[tuple[Path, bytes]]) -> YamnetWeights:
    """The network of one or more TensorFlow Lite files, which are quantisations of the same weights.

    Raises:
        CheckpointError: a file is damaged or holds another network, or two files hold different weights.
    """
    read = [(path, _yamnet_layers(path, read_layers(path, content))) for path, content in files]
    for path, layers in read[1:]:
        _require_same(read[0][0], read[0][1], path, layers)
    merged = []
    for number, name in enumerate([*names(), "dense"]):
        kernel = _merge(files, name, [layers[number].kernel for _, layers in read])
        biases = [bias for _, layers in read if (bias := layers[number].bias) is not None]
        merged.append((kernel, np.mean(biases, axis=0)))
    *convolutions, (kernel, bias) = merged
    made = {
        name: Convolution(values.transpose((3, 0, 1, 2) if "depthwise" in name else (0, 3, 1, 2)), shift)
        for name, (values, shift) in zip(names(), convolutions, strict=True)
    }
    return _checked(" and ".join(str(path) for path, _ in files), YamnetWeights(made, kernel, bias))


def _yamnet_layers(path: Path, layers: Sequence[Layer]) -> list[Layer]:
    """The 27 convolutions and the last dense layer; those before the first convolution are a spectrogram's."""
    kinds = ["depthwise_conv" if "depthwise" in name else "conv" for name in names()]
    convolutions = [layer for layer in layers if layer.kind != "dense"]
    if [layer.kind for layer in convolutions] != kinds:
        raise CheckpointError(
            f"{path}: expected YAMNet's {len(kinds)} convolutions, depthwise and pointwise in turn,"
            f" got {len(convolutions)} ({sum(layer.kind == 'depthwise_conv' for layer in convolutions)} depthwise)"
        )
    if layers[-1].kind != "dense":
        raise CheckpointError(f"{path}: expected a dense layer (the classes) at the end, got a convolution")
    found = [*convolutions, layers[-1]]
    for name, layer in zip([*names(), "dense"], found, strict=True):
        if layer.bias is None or layer.kernel.values.ndim != (2 if name == "dense" else 4):
            raise CheckpointError(
                f"{path}: {name}: expected a kernel and a bias, got the shape {list(layer.kernel.values.shape)}"
                f" {'without' if layer.bias is None else 'with'} bias"
            )
    return found


def _require_same(first: Path, expected: Sequence[Layer], other: Path, got: Sequence[Layer]) -> None:
    """Shapes and biases of two files; the kernels are compared where they are merged."""
    for name, one, two in zip([*names(), "dense"], expected, got, strict=True):
        shapes = [list(layer.kernel.values.shape) for layer in (one, two)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(f"{other}: {name} is {shapes[1]}, in {first} it is {shapes[0]}: two networks")
        if one.bias is not None and two.bias is not None:
            apart = float(np.abs(one.bias - two.bias).max()) if one.bias.shape == two.bias.shape else np.inf
            if not apart <= _SAME_BIAS * max(1.0, float(np.abs(one.bias).max())):
                raise CheckpointError(
                    f"{other}: the biases of {name} are not those in {first} (up to {apart:.3g} apart):"
                    " expected two quantisations of the same weights"
                )


def _merge(files: Sequence[tuple[Path, bytes]], name: str, kernels: Sequence[Stored]) -> NDArray[np.float64]:
    low = reduce(np.maximum, [one.values - one.half_step for one in kernels])
    high = reduce(np.minimum, [one.values + one.half_step for one in kernels])
    slack = sum(one.half_step for one in kernels) * _ROUNDING + 1e-6 * np.abs(kernels[0].values).max()
    if outside := float(np.mean(low > high + slack)):
        raise CheckpointError(
            f"{', '.join(str(path) for path, _ in files)}: {outside:.2%} of the weights of {name} cannot be the same:"
            " expected quantisations of the same network"
        )
    merged: NDArray[np.float64] = (low + high) / 2
    return merged


def _vector(path: Path, found: Mapping[str, NDArray[np.float64]], name: str, length: int) -> NDArray[np.float64]:
    if found[name].shape != (length,):
        raise CheckpointError(f"{path}: {name}: expected [{length}], got {list(found[name].shape)}")
    return found[name]


def _checked(source: str, weights: YamnetWeights) -> YamnetWeights:
    """``weights``, whose shapes fit one another and whose values are finite. Raises ``CheckpointError`` otherwise."""
    channels = 1
    for name, (kernel, bias) in weights.convolutions.items():
        if "depthwise" in name:
            shape = (channels, 1, 3, 3)
        else:
            size = 3 if name == "layer1/conv" else 1
            shape = (len(kernel), channels, size, size)
        _require(source, f"{name}/kernel", kernel, shape)
        _require(source, f"{name}/bias", bias, shape[:1])
        channels = len(kernel)
    _require(source, "dense/kernel", weights.kernel, (len(weights.kernel), channels))
    _require(source, "dense/bias", weights.bias, (len(weights.kernel),))
    return weights


def _require(source: str, name: str, values: NDArray[np.float64], shape: tuple[int, ...]) -> None:
    if values.shape != shape or not values.size:
        raise CheckpointError(
            f"{source}: {name}: expected {list(shape)} (out, in, height, width), got {list(values.shape)}"
        )
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise CheckpointError(f"{source}: {name} holds values that do not fit float32")
