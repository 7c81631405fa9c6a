"""EfficientAT's MobileNetV3 (fschmid56/EfficientAT; arXiv 2211.04772) as one torch module, made for export.

Front end: 32 kHz, pre-emphasis 0.97, frames of 800 samples, symmetric Hann, hop 320, centred with reflected edges, DFT
of 1024, power, 128 Kaldi bands of 0 to 15 000 Hz, ln(x + 1e-5), (x + 4.5) / 5. The network is MobileNetV3-Large of one
channel; its widths come from the tensors' shapes, what stands in no tensor (strides, activations) is that of all files
of the release. Submodules are called as the checkpoint's tensors are. Batch norms join the convolutions before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edge_reclass_export.batch_norm import fold_batch_norms
from edge_reclass_export.checkpoints import Checkpoint
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.frontend import htk_mel_filters
from edge_reclass_export.precision import EncoderModule
from edge_reclass_export.torch_frontend import PowerSpectrum

SAMPLE_RATE = 32_000
N_FFT = 1024
FRAME = 800
FRAME_HOP = 320
BANDS = 128

Embedding = Literal["pooled", "penultimate", "logits"]
EMBEDDINGS: tuple[Embedding, ...] = get_args(Embedding)

FLOAT32_REGIONS = (("features.0", "features.1"), ("features.[0-3]",), ("features.[0-6]",), ("features", "classifier"))
"""What stays float32, tried in turn where plain float16 does not hold: the first layers' rounding is amplified most."""

_LOW_HZ, _HIGH_HZ = 0.0, 15_000.0
_EPSILON = 1e-3  # of the batch norms
_PREEMPHASIS = 0.97
_TRAINING_ONLY = ("*.num_batches_tracked",)


class _Kind(NamedTuple):
    """What a block's tensors do not say, or must say: MobileNetV3-Large's kernels, strides, gates, activations."""

    kernel: int
    stride: int
    gated: bool
    activation: type[nn.Module]


_BLOCKS = (
    _Kind(3, 1, False, nn.ReLU),
    _Kind(3, 2, False, nn.ReLU),
    _Kind(3, 1, False, nn.ReLU),
    _Kind(5, 2, True, nn.ReLU),
    _Kind(5, 1, True, nn.ReLU),
    _Kind(5, 1, True, nn.ReLU),
    _Kind(3, 2, False, nn.Hardswish),
    _Kind(3, 1, False, nn.Hardswish),
    _Kind(3, 1, False, nn.Hardswish),
    _Kind(3, 1, False, nn.Hardswish),
    _Kind(3, 1, True, nn.Hardswish),
    _Kind(3, 1, True, nn.Hardswish),
    _Kind(5, 2, True, nn.Hardswish),
    _Kind(5, 1, True, nn.Hardswish),
    _Kind(5, 1, True, nn.Hardswish),
)


class BlockWidths(NamedTuple):
    """Channels of one block. A block without expansion has as many inside as come in; ``squeeze`` 0 is no gate."""

    expands: bool
    inside: int
    squeeze: int
    out: int


@dataclass(frozen=True)
class Geometry:
    """Channels: of the first convolution, the blocks, the last convolution, the hidden layer; and the classes."""

    first: int
    blocks: tuple[BlockWidths, ...]
    last: int
    hidden: int
    classes: int

    @property
    def width(self) -> float:
        """Multiple of MobileNetV3-Large's channels: 0.4 for mn04."""
        return self.hidden / 1280

    def dim(self, embedding: Embedding) -> int:
        """Number of values of the embedding."""
        return {"pooled": self.last, "penultimate": self.hidden, "logits": self.classes}[embedding]


@dataclass(frozen=True)
class EfficientAtWeights:
    """The network's tensors in float32, by their names without prefix."""

    geometry: Geometry
    tensors: Mapping[str, torch.Tensor]
    prefix: str


def read_weights(checkpoint: Checkpoint) -> EfficientAtWeights:
    """The network out of a checkpoint of any width.

    Raises:
        CheckpointError: there is no such network, tensors are missing or too many, shapes do not fit together, values
            are not finite.
    """
    file = checkpoint.under("features.0.0.weight")
    geometry = _geometry(file)
    with torch.device("meta"):
        state = MobileNet(geometry).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.is_floating_point()}
    return EfficientAtWeights(geometry, file.take(shapes, ignore=_TRAINING_ONLY), file.prefix)


def _geometry(file: Checkpoint) -> Geometry:
    first, channels, *kernel = file.shape("features.0.0.weight", 4)
    if [channels, *kernel] != [1, 3, 3]:
        raise CheckpointError(
            f"{file.path}: features.0.0.weight is {[first, channels, *kernel]}, expected [channels, 1, 3, 3]: one"
            " channel of log-mel; is this a network for pictures?"
        )
    parts = file.count("features.{}.")
    if parts != len(_BLOCKS) + 2:
        raise CheckpointError(
            f"{file.path}: expected {len(_BLOCKS) + 2} parts (features.0 to features.{len(_BLOCKS) + 1}), as"
            f" MobileNetV3-Large has, got {parts}"
        )
    if "classifier.2.weight" not in file.tensors:
        found = [name for name in file.tensors if name.startswith("classifier.")]
        raise CheckpointError(
            f"{file.path}: expected a classifier of two linear layers, classifier.2 and classifier.5, got"
            f" {', '.join(found) or 'none'}; the mn*_fc files have another head"
        )
    blocks = tuple(_widths(file, number, kind) for number, kind in enumerate(_BLOCKS, start=1))
    last = file.shape(f"features.{len(_BLOCKS) + 1}.0.weight", 4)[0]
    hidden, _ = file.shape("classifier.2.weight", 2)
    classes, _ = file.shape("classifier.5.weight", 2)
    return Geometry(first, blocks, last, hidden, classes)


def _widths(file: Checkpoint, number: int, kind: _Kind) -> BlockWidths:
    block = f"features.{number}.block"
    inside, _, kernel, _ = file.shape(f"{block}.0.0.weight", 4)
    expands = kernel == 1
    after = 1 + expands  # the expansion and the depthwise convolution
    squeeze = file.shape(f"{block}.{after}.conc_se_layers.0.fc1.weight", 2)[0] if kind.gated else 0
    return BlockWidths(expands, inside, squeeze, file.shape(f"{block}.{after + kind.gated}.0.weight", 4)[0])


class LogMel(nn.Module):
    """``waveform[batch, samples]`` to the image ``[batch, 1, 128, frames]``; always float32."""

    def __init__(self) -> None:
        super().__init__()
        filters = htk_mel_filters(SAMPLE_RATE, N_FFT, BANDS, _LOW_HZ, _HIGH_HZ)
        used = np.flatnonzero(filters.any(axis=0))
        self.power = PowerSpectrum(np.hanning(FRAME), N_FFT, FRAME_HOP, used)
        self.register_buffer("bands", torch.from_numpy(filters[:, used].T.astype(np.float32)), persistent=False)
        self.bands: torch.Tensor

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """See the class."""
        steep = waveform[:, 1:] - _PREEMPHASIS * waveform[:, :-1]
        # The reference pads by half of 1024 and its window by zeros: the same frames.
        padded = functional.pad(steep.unsqueeze(1), (FRAME // 2, FRAME // 2), mode="reflect").squeeze(1)
        mel = torch.matmul(self.power(padded), self.bands)
        return ((torch.log(mel + 1e-5) + 4.5) / 5.0).transpose(1, 2).unsqueeze(1)


class _Mean(nn.Module):
    """Mean over bands and frames, ``[batch, channels, bands, frames]`` to ``[batch, channels]``."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        # Summed in float32 in half precision too: some thousand values.
        return values.mean((2, 3), dtype=torch.float32).to(values.dtype)


class _Gate(nn.Module):
    """Squeeze and excitation: every channel times a number from the means of all."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.mean = _Mean()
        self.fc1 = nn.Linear(channels, squeeze)
        self.fc2 = nn.Linear(squeeze, channels)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.fc2(torch.relu(self.fc1(self.mean(values)))))
        return values * gate[:, :, None, None]


class _Gates(nn.Module):
    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.Sequential(_Gate(channels, squeeze))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conc_se_layers(values)
        return out


def _convolution(
    inputs: int, outputs: int, kernel: int, activation: type[nn.Module], stride: int = 1, groups: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, eps=_EPSILON), activation())


class _Block(nn.Module):
    def __init__(self, inputs: int, widths: BlockWidths, kind: _Kind) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        if widths.expands:
            parts.append(_convolution(inputs, widths.inside, 1, kind.activation))
        inside = widths.inside
        parts.append(_convolution(inside, inside, kind.kernel, kind.activation, kind.stride, inside))
        if widths.squeeze:
            parts.append(_Gates(inside, widths.squeeze))
        parts.append(_convolution(inside, widths.out, 1, nn.Identity))
        self.block = nn.Sequential(*parts)
        self.residual = kind.stride == 1 and inputs == widths.out

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.block(values)
        return out + values if self.residual else out


class MobileNet(nn.Module):
    """``image[batch, 1, 128, frames]`` to ``logits[batch, classes]``, or to what an earlier layer gives."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        inputs = [geometry.first, *(block.out for block in geometry.blocks)]
        self.features = nn.Sequential(
            _convolution(1, geometry.first, 3, nn.Hardswish, stride=2),
            *(_Block(*each) for each in zip(inputs, geometry.blocks, _BLOCKS, strict=False)),
            _convolution(inputs[-1], geometry.last, 1, nn.Hardswish),
        )
        self.classifier = nn.Sequential(
            _Mean(),
            nn.Identity(),
            nn.Linear(geometry.last, geometry.hidden),
            nn.Hardswish(),
            nn.Identity(),
            nn.Linear(geometry.hidden, geometry.classes),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """See the class."""
        out: torch.Tensor = self.classifier(self.features(image))
        return out


_LAYERS: Mapping[Embedding, int] = {"pooled": 1, "penultimate": 4, "logits": 6}
"""How many of the classifier's layers an embedding takes."""


def build(weights: EfficientAtWeights, embedding: Embedding = "penultimate") -> EncoderModule:
    """``waveform[batch, window_samples]`` at 32 kHz to ``embedding[batch, dim]``, ready for export."""
    with torch.device("meta"):
        body = MobileNet(weights.geometry)
    body.load_state_dict(dict(weights.tensors), strict=False, assign=True)  # num_batches_tracked is left out
    fold_batch_norms(body)
    del body.classifier[_LAYERS[embedding] :]
    return EncoderModule(LogMel(), body, nn.Identity())
