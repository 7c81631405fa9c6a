"""musicnn, FCN and CRNN of minzwon/sota-music-tagging-models (arXiv 2006.00751) as torch modules, made for export.

Front end: 16 kHz, centred frames of 512 samples with reflected edges, Hann, hop 256, power, 96 bands of 0 to 8000 Hz on
HTK's scale, decibels, one batch norm. Submodules are called as the checkpoint's tensors are; the widths come from their
shapes, pooling and padding are the release's. Batch norms join the layers before them. Over all bands the maximum of
relu is relu of the maximum, which is taken first. The GRU's steps are written out: its window is static.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from edge_reclass_export.batch_norm import fold_batch_norms
from edge_reclass_export.checkpoints import Checkpoint, some
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.frontend import hann, triangles
from edge_reclass_export.precision import EncoderModule
from edge_reclass_export.torch_frontend import PowerSpectrum

SAMPLE_RATE = 16_000
N_FFT = 512
FRAME_HOP = 256
BANDS = 96

Variant = Literal["musicnn", "fcn", "crnn"]
Embedding = Literal["penultimate", "logits"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
EMBEDDINGS: tuple[Embedding, ...] = get_args(Embedding)

TRAINED_SECONDS: Mapping[Variant, float] = {"musicnn": 3.0, "fcn": 29.0, "crnn": 29.0}
"""Length of the pieces on which each was trained."""

FRAMES: Mapping[Variant, tuple[int, int]] = {"musicnn": (8, 4_000), "fcn": (1_280, 2_559), "crnn": (96, 4_000)}
"""Fewest and most frames of a window: the FCN's pooling leaves exactly one place, the CRNN's at least one."""

FLOAT32_REGIONS: Mapping[Variant, tuple[tuple[str, ...], ...]] = {
    "musicnn": (("layers.*",), ("layers.*", "layer[1-3]")),
    "fcn": (("layer1",), ("layer[1-5]",)),
    "crnn": (("layer1",), ("layer[1-5]",)),
}
"""What stays float32, tried in turn where plain float16 does not hold."""

_ANCHOR = "spec_bn.weight"
_TELLING: Mapping[str, Variant] = {
    "layers.0.conv.weight": "musicnn",
    "layer5.conv.weight": "fcn",
    "layer5.weight_ih_l0": "crnn",
}
_FILTERS, _WINDOW = "spec.mel_scale.fb", "spec.spectrogram.window"
_TRAINING_ONLY = ("*.num_batches_tracked",)
_EPSILON = 1e-5  # of the batch norms
_FLOOR = 1e-10
_POOLING: Mapping[Variant, tuple[tuple[int, int], ...]] = {
    "fcn": ((2, 4), (2, 4), (2, 4), (3, 5), (4, 4)),
    "crnn": ((2, 2), (3, 3), (4, 4), (4, 4)),
}
"""Bands and frames of each block's pooling; the bands become one."""


@dataclass(frozen=True)
class TaggerWeights:
    """A network's tensors in float32 by their names without prefix, and the bands ``[257, 96]`` of its spectrogram."""

    variant: Variant
    tensors: Mapping[str, torch.Tensor]
    filters: NDArray[np.float64]
    prefix: str

    def dim(self, embedding: Embedding) -> int:
        """Number of values of the embedding."""
        last = self.tensors["dense2.weight" if self.variant == "musicnn" else "dense.weight"]
        return int(last.shape[0 if embedding == "logits" else 1])

    @property
    def parameters(self) -> int:
        """Number of weights and biases, those of the batch norms among them."""
        return sum(tensor.numel() for name, tensor in self.tensors.items() if ".running_" not in name)


def read_weights(checkpoint: Checkpoint) -> TaggerWeights:
    """The network out of a checkpoint of any of the three kinds.

    Raises:
        CheckpointError: there is none of them, tensors are missing or too many, shapes do not fit together, values are
            not finite.
    """
    file = checkpoint.under(_ANCHOR)
    kinds = [kind for name, kind in _TELLING.items() if name in file.tensors]
    if len(kinds) != 1:
        raise CheckpointError(
            f"{file.path}: expected the tensors of musicnn, FCN or CRNN (one of {', '.join(_TELLING)}),"
            f" got {some(file.tensors)}"
        )
    if _FILTERS in file.tensors and not file.tensors[_FILTERS].numel():  # made at the first use, and never saved
        file = replace(file, tensors={name: value for name, value in file.tensors.items() if name != _FILTERS})
    with torch.device("meta"):
        state = _NETWORKS[kinds[0]](file).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.is_floating_point()}
    shapes |= {f"spec_bn.{part}": (1,) for part in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {_WINDOW: (N_FFT,), _FILTERS: (N_FFT // 2 + 1, BANDS)}
    tensors = file.take(shapes, ignore=_TRAINING_ONLY, optional=(_WINDOW, _FILTERS))
    window, filters = tensors.pop(_WINDOW, None), tensors.pop(_FILTERS, None)
    if window is not None and not np.allclose(window.numpy(), hann(N_FFT), atol=1e-3):
        raise CheckpointError(f"{file.path}: {_WINDOW}: expected a periodic Hann window of {N_FFT} samples")
    for name, tensor in tensors.items():
        if name.endswith(".running_var") and (tensor < 0).any():
            raise CheckpointError(f"{file.path}: {file.prefix}{name} has values below zero")
    bands = filters.double().numpy() if filters is not None else mel_filters()
    if not bands.any():
        raise CheckpointError(f"{file.path}: {_FILTERS} holds zeros only")
    return TaggerWeights(kinds[0], tensors, bands, file.prefix)


def mel_filters() -> NDArray[np.float64]:
    """Bands as torchaudio makes them, ``[257, 96]``: triangles over Hz, whose edges are even on HTK's mel scale."""
    edges = 700.0 * (10.0 ** (np.linspace(0.0, 2595.0 * np.log10(1.0 + 8_000.0 / 700.0), BANDS + 2) / 2595.0) - 1.0)
    bands: NDArray[np.float64] = triangles(edges, np.linspace(0.0, 8_000.0, N_FFT // 2 + 1)).T
    return bands


class LogMel(nn.Module):
    """``waveform[batch, samples]`` to the image ``[batch, 1, 96, frames]``; always float32."""

    def __init__(self, weights: TaggerWeights) -> None:
        super().__init__()
        used = np.flatnonzero(weights.filters.any(axis=1))
        self.power = PowerSpectrum(hann(N_FFT), N_FFT, FRAME_HOP, used)
        self.register_buffer("bands", torch.from_numpy(weights.filters[used].astype(np.float32)), persistent=False)
        self.bands: torch.Tensor
        scale, bias, mean, variance = (
            float(weights.tensors[f"spec_bn.{part}"]) for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = scale / (variance + _EPSILON) ** 0.5
        self.gain, self.shift = gain * 10.0 / log(10.0), bias - mean * gain

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """See the class."""
        edge = N_FFT // 2
        padded = functional.pad(waveform.unsqueeze(1), (edge, edge), mode="reflect").squeeze(1)
        power = torch.matmul(self.power(padded), self.bands).clamp(min=_FLOOR)
        image: torch.Tensor = (torch.log(power) * self.gain + self.shift).transpose(1, 2).unsqueeze(1)
        return image


class _Block(nn.Module):
    """Convolution, batch norm, relu, pooling."""

    def __init__(self, convolution: nn.Module, norm: nn.Module, pooling: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.conv, self.bn = convolution, norm
        self.pool = nn.MaxPool2d(pooling) if pooling else nn.Identity()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.pool(torch.relu(self.bn(self.conv(values))))
        return out


class _Vertical(_Block):
    """``image[batch, 1, bands, frames]`` to ``[batch, filters, frames]``, the maximum over the bands."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.relu(self.bn(self.conv(values)).amax(2))
        return out


class _Horizontal(_Block):
    """``image[batch, 1, bands, frames]`` to ``[batch, filters, frames]``, of the mean over the bands."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = super().forward(values.mean(2))
        return out


def _blocks(file: Checkpoint, variant: Variant) -> dict[str, nn.Module]:
    """``layer1`` and so on, with the convolutions' widths in the file."""
    made: dict[str, nn.Module] = {}
    before = 1
    for number, pooling in enumerate(_POOLING[variant], start=1):
        after = file.shape(f"layer{number}.conv.weight", 4)[0]
        made[f"layer{number}"] = _Block(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), pooling)
        before = after
    return made


class _Fcn(nn.Module):
    def __init__(self, file: Checkpoint) -> None:
        super().__init__()
        for name, block in _blocks(file, "fcn").items():
            self.add_module(name, block)
        classes, _ = file.shape("dense.weight", 2)
        self.dense = nn.Linear(file.shape("layer5.conv.weight", 4)[0], classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        for number in range(1, 6):
            image = getattr(self, f"layer{number}")(image)
        out: torch.Tensor = self.dense(image.flatten(1))
        return out


class _Crnn(nn.Module):
    def __init__(self, file: Checkpoint) -> None:
        super().__init__()
        for name, block in _blocks(file, "crnn").items():
            self.add_module(name, block)
        classes, hidden = file.shape("dense.weight", 2)
        self.layer5 = _Gru(file.shape("layer4.conv.weight", 4)[0], hidden)
        self.dense = nn.Linear(hidden, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        for number in range(1, 5):
            image = getattr(self, f"layer{number}")(image)
        out: torch.Tensor = self.dense(self.layer5(image.squeeze(2).transpose(1, 2)))
        return out


class _Gru(nn.GRU):
    """``values[batch, steps, inputs]`` to the last state of the second layer, ``[batch, hidden]``; no loop operator."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, num_layers=2, batch_first=True)

    def forward(self, values: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """See the class."""
        gates = 2 * self.hidden_size
        for layer in range(2):
            weight, bias = getattr(self, f"weight_hh_l{layer}"), getattr(self, f"bias_hh_l{layer}")
            given = functional.linear(values, getattr(self, f"weight_ih_l{layer}"), getattr(self, f"bias_ih_l{layer}"))
            state = torch.zeros_like(given[:, 0, : self.hidden_size])
            states = []
            for step in range(values.shape[1]):
                own, outer = functional.linear(state, weight, bias), given[:, step]
                reset, update = torch.sigmoid(own[:, :gates] + outer[:, :gates]).chunk(2, 1)
                new = torch.tanh(outer[:, gates:] + reset * own[:, gates:])
                state = new + update * (state - new)
                states.append(state)
            values = torch.stack(states, 1)
        return state


class _Musicnn(nn.Module):
    def __init__(self, file: Checkpoint) -> None:
        super().__init__()
        front: list[nn.Module] = []
        for number in range(2):
            filters, _, height, length = file.shape(f"layers.{number}.conv.weight", 4)
            if not 1 <= height <= BANDS or length % 2 != 1:
                raise CheckpointError(
                    f"{file.path}: layers.{number}.conv.weight: expected a kernel of at most {BANDS} bands and an odd"
                    f" number of frames, got {[height, length]}"
                )
            convolution = nn.Conv2d(1, filters, (height, length), padding=(0, length // 2))
            front.append(_Vertical(convolution, nn.BatchNorm2d(filters)))
        for number in range(2, 5):
            front.append(_Horizontal(*_convolution(file, f"layers.{number}.conv.weight", 1)))
        self.layers = nn.ModuleList(front)
        width = sum(file.shape(f"layers.{number}.conv.weight")[0] for number in range(5))
        inside = file.shape("layer1.conv.weight", 3)[0]
        self.layer1 = _Block(*_convolution(file, "layer1.conv.weight", width))
        self.layer2 = _Block(*_convolution(file, "layer2.conv.weight", inside))
        self.layer3 = _Block(*_convolution(file, "layer3.conv.weight", inside))
        hidden = file.shape("dense1.weight", 2)[0]
        self.dense1 = nn.Linear(2 * (width + 3 * inside), hidden)
        self.bn = nn.BatchNorm1d(hidden)
        self.relu = nn.ReLU()
        self.dense2 = nn.Linear(hidden, file.shape("dense2.weight", 2)[0])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        front = torch.cat([layer(image) for layer in self.layers], 1)
        first = self.layer1(front)
        second = self.layer2(first) + first
        third = self.layer3(second) + second
        every = torch.cat([front, first, second, third], 1)
        # Summed in float32 in half precision too.
        mean = every.mean(2, dtype=torch.float32).to(every.dtype)
        hidden = self.relu(self.bn(self.dense1(torch.cat([every.amax(2), mean], 1))))
        out: torch.Tensor = self.dense2(hidden)
        return out


def _convolution(file: Checkpoint, name: str, inputs: int) -> tuple[nn.Module, nn.Module]:
    """Over time, without a change of the length, and its batch norm."""
    outputs, _, length = file.shape(name, 3)
    if length % 2 != 1:
        raise CheckpointError(f"{file.path}: {name}: expected an odd number of frames, got {length}")
    return nn.Conv1d(inputs, outputs, length, padding=length // 2), nn.BatchNorm1d(outputs)


_NETWORKS: Mapping[Variant, type[_Fcn | _Crnn | _Musicnn]] = {"musicnn": _Musicnn, "fcn": _Fcn, "crnn": _Crnn}


def build(weights: TaggerWeights, embedding: Embedding = "penultimate") -> EncoderModule:
    """``waveform[batch, window_samples]`` at 16 kHz to ``embedding[batch, dim]``, ready for export."""
    with torch.device("meta"):
        body = _NETWORKS[weights.variant](Checkpoint(Path(), "", weights.tensors))
    body.load_state_dict(
        {name: tensor for name, tensor in weights.tensors.items() if not name.startswith("spec_bn.")},
        strict=False,  # num_batches_tracked is left out
        assign=True,
    )
    fold_batch_norms(body)
    if embedding == "penultimate":
        setattr(body, "dense2" if weights.variant == "musicnn" else "dense", nn.Identity())
    return EncoderModule(LogMel(weights), body, nn.Identity())
