"""YAMNet (tensorflow/models, research/audioset/yamnet) as one torch module, made for export.

Front end: 16 kHz, frames of 400 samples, periodic Hann, hop 160, DFT of 512, magnitude, 64 HTK bands of 125 to 7500 Hz,
ln(x + 0.001). 96 frames (0.96 s) are a patch, which the network hears alone; a window holds several patches, end to
end, and the embedding is their mean. The network is MobileNet v1: its widths come from the weights, the strides from
the release. TensorFlow pads an even image of stride 2 at its ends only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_reclass_export.frontend import hann, htk_mel_filters
from edge_reclass_export.precision import EncoderModule
from edge_reclass_export.torch_frontend import PowerSpectrum

SAMPLE_RATE = 16_000
N_FFT = 512
FRAME = 400
FRAME_HOP = 160
BANDS = 64
PATCH_FRAMES = 96
PATCH_SAMPLES = PATCH_FRAMES * FRAME_HOP

Embedding = Literal["pooled", "logits"]
EMBEDDINGS: tuple[Embedding, ...] = get_args(Embedding)

FLOAT32_REGIONS = (("0", "1"), ("[0-4]",), ("[0-9]",), ("*",))
"""What stays float32, tried in turn where plain float16 does not hold."""

STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
"""Of layer1 to layer14. The first is one convolution, each other a depthwise and a pointwise one."""

_LOW_HZ, _HIGH_HZ = 125.0, 7_500.0
_LOG_OFFSET = 0.001


class Convolution(NamedTuple):
    """``kernel[out, in / groups, height, width]`` and ``bias[out]`` in float64; the batch norm is inside."""

    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True)
class YamnetWeights:
    """The network's convolutions by their ``names``, and its dense layer: ``[classes, channels]`` and ``[classes]``."""

    convolutions: Mapping[str, Convolution]
    kernel: NDArray[np.float64]
    bias: NDArray[np.float64]

    def dim(self, embedding: Embedding) -> int:
        """Number of values of the embedding."""
        classes, channels = self.kernel.shape
        return int({"pooled": channels, "logits": classes}[embedding])

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        arrays = [array for one in self.convolutions.values() for array in one]
        return sum(array.size for array in [*arrays, self.kernel, self.bias])


def names() -> list[str]:
    """Names of the 27 convolutions in Keras, in the order of their computation."""
    later = [f"layer{n}/{part}_conv" for n in range(2, len(STRIDES) + 1) for part in ("depthwise", "pointwise")]
    return ["layer1/conv", *later]


def window_samples(patches: int) -> int:
    """Length of a window of ``patches``: their frames lie inside of it."""
    return patches * PATCH_SAMPLES + FRAME - FRAME_HOP


class LogMel(nn.Module):
    """``waveform[batch, samples]`` to the patches ``[batch · patches, 1, 96, 64]``; always float32."""

    def __init__(self) -> None:
        super().__init__()
        filters = htk_mel_filters(SAMPLE_RATE, N_FFT, BANDS, _LOW_HZ, _HIGH_HZ)
        used = np.flatnonzero(filters.any(axis=0))
        self.power = PowerSpectrum(hann(FRAME), N_FFT, FRAME_HOP, used)
        self.register_buffer("bands", torch.from_numpy(filters[:, used].T.astype(np.float32)), persistent=False)
        self.bands: torch.Tensor

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """See the class."""
        mel = torch.matmul(torch.sqrt(self.power(waveform)), self.bands)
        return torch.log(mel + _LOG_OFFSET).reshape(-1, 1, PATCH_FRAMES, BANDS)


def _convolution(weights: Convolution, stride: int, groups: int) -> nn.Sequential:
    outputs, inputs, size, _ = weights.kernel.shape
    inside = 0 if stride == 2 else size // 2
    made = nn.Conv2d(inputs * groups, outputs, size, stride, inside, groups=groups, device="meta")
    made.weight, made.bias = _parameter(weights.kernel), _parameter(weights.bias)
    ends = nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else nn.Identity()
    return nn.Sequential(ends, made, nn.ReLU())


class _Pool(nn.Module):
    """Mean over bands, frames and patches, then the dense layer, if any."""

    def __init__(self, patches: int, dense: nn.Module) -> None:
        super().__init__()
        self.patches, self.dense = patches, dense

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        channels, places = values.shape[1], values.shape[2] * values.shape[3]
        mean = values.reshape(-1, self.patches, channels, places).mean((1, 3))
        out: torch.Tensor = self.dense(mean)
        return out


def _parameter(values: NDArray[np.float64]) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(values.astype(np.float32)))


def build(weights: YamnetWeights, embedding: Embedding = "pooled", patches: int = 3) -> EncoderModule:
    """``waveform[batch, window_samples(patches)]`` at 16 kHz to ``embedding[batch, dim]``, ready for export."""
    layers: list[nn.Module] = []
    for name, convolution in weights.convolutions.items():
        number, part = name.removeprefix("layer").split("/")
        stride = 1 if part == "pointwise_conv" else STRIDES[int(number) - 1]
        layers.append(_convolution(convolution, stride, len(convolution.kernel) if part == "depthwise_conv" else 1))
    dense: nn.Module = nn.Identity()
    if embedding == "logits":
        dense = nn.Linear(weights.dim("pooled"), weights.dim("logits"), device="meta")
        dense.weight, dense.bias = _parameter(weights.kernel), _parameter(weights.bias)
    return EncoderModule(LogMel(), nn.Sequential(*layers), _Pool(patches, dense))
