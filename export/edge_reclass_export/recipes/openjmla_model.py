"""OpenJMLA as one torch module: waveform → SpectPrompt's log-mel image → ViT → one embedding.

Front end (SpectPrompt's ``wav_to_mel.py`` and ``transforms.py``): 16 kHz, frames of 400 samples, periodic Hann, hop
160, centred, power, 80 Slaney bands of 50 to 8000 Hz, ln(x + float32 epsilon), (x + 4.5) / 4.5, three equal channels.
The ViT is MMSelfSup's ``VisionTransformer`` without what only training needs: patches row-major over mel, then time;
pre-norm layers; a LayerNorm ``ln1`` behind the last one. Submodules are called as the checkpoint's tensors are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edge_reclass_export.frontend import dft_basis, mel_filters
from edge_reclass_export.precision import EncoderModule

SAMPLE_RATE = 16_000
N_FFT = 400
FRAME_HOP = 160
BANDS = 80
CHANNELS = 3
HEAD_WIDTH = 64
"""Width of one attention head in MMSelfSup's ViT-S, -B and -L; the number of heads stands in no tensor."""

Pool = Literal["mean", "cls"]
POOLS: tuple[Pool, ...] = get_args(Pool)

FLOAT32_REGIONS = (("layers.*.ffn",), ("layers.*.attn",), ("layers.*.ffn", "layers.*.attn"))
"""What stays float32, tried in turn where plain float16 does not hold: hidden units overflow first."""

_LOW_HZ, _HIGH_HZ = 50.0, 8_000.0
_SHIFT = _SCALE = 4.5
_LAYER_NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class Geometry:
    """Sizes of the encoder. ``rows`` × ``columns`` patches of ``patch`` × ``patch`` cover mel bands × frames."""

    width: int
    layers: int
    hidden: int
    patch: int
    rows: int
    columns: int

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return self.width // HEAD_WIDTH

    @property
    def tokens(self) -> int:
        """The class token and the patches."""
        return 1 + self.rows * self.columns

    @property
    def frames(self) -> int:
        """Spectrogram frames of a window."""
        return self.columns * self.patch

    @property
    def window_samples(self) -> int:
        """The fewest samples that hold the last frame, which is centred on sample ``(frames - 1) · hop``."""
        return (self.frames - 1) * FRAME_HOP + N_FFT // 2


@dataclass(frozen=True)
class OpenJmlaWeights:
    """The encoder's tensors in float32 by their names without prefix; ``others``: how many tensors are not its own."""

    geometry: Geometry
    tensors: Mapping[str, torch.Tensor]
    prefix: str
    others: int


class SpectPrompt(nn.Module):
    """``waveform[batch, samples]`` to the image ``[batch, 3, 80, frames]`` of equal channels; always float32.

    Frame t is centred on sample t · 160. The first two frames reach behind the first sample, which is mirrored there;
    the last frame ends with the last sample, so nothing is mirrored at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        filters = mel_filters(SAMPLE_RATE, N_FFT, BANDS, _LOW_HZ, _HIGH_HZ)
        used = np.flatnonzero(filters.any(axis=0))  # the other bins need no transform
        basis = dft_basis(N_FFT, used).T[:, None, :]
        # |X|² is the sum of the squared cosine and sine parts; the bands' sum includes that sum.
        bands = np.concatenate([filters[:, used], filters[:, used]], axis=1)
        self.register_buffer("basis", torch.from_numpy(basis.astype(np.float32)), persistent=False)
        self.register_buffer("bands", torch.from_numpy(bands.astype(np.float32)), persistent=False)
        self.basis: torch.Tensor
        self.bands: torch.Tensor

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """See the class."""
        padded = functional.pad(waveform.unsqueeze(1), (N_FFT // 2, 0), mode="reflect")
        spectrum = functional.conv1d(padded, self.basis, stride=FRAME_HOP)
        power = torch.matmul(self.bands, spectrum * spectrum)
        mel = (torch.log(power + torch.finfo(torch.float32).eps) + _SHIFT) / _SCALE
        return torch.stack([mel] * CHANNELS, dim=1)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # Scaling q before the product keeps the scores small in half precision.
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(tokens).chunk(3, dim=-1))
        scores = torch.matmul(q * self.scale, k.transpose(2, 3))
        mixed = torch.matmul(torch.softmax(scores, dim=-1), v)
        out: torch.Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(width, hidden), nn.GELU()), nn.Linear(hidden, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(tokens)
        return out


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(width, eps=_LAYER_NORM_EPSILON)
        self.attn = _Attention(width, heads)
        self.ln2 = nn.LayerNorm(width, eps=_LAYER_NORM_EPSILON)
        self.ffn = _FeedForward(width, hidden)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = tokens + self.attn(self.ln1(tokens))
        out: torch.Tensor = mixed + self.ffn(self.ln2(mixed))
        return out


class _PatchEmbedding(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(CHANNELS, width, kernel_size=patch, stride=patch)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``[batch, 3, mel, time]`` to ``[batch, patches, width]``; all patches of the lowest bands first."""
        patches: torch.Tensor = self.projection(image)
        return patches.flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """``image[batch, 3, mel, time]`` to tokens ``[batch, 1 + patches, width]``, the class token first."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, geometry.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, geometry.tokens, geometry.width))
        self.patch_embed = _PatchEmbedding(geometry.width, geometry.patch)
        self.layers = nn.Sequential(
            *(_Layer(geometry.width, geometry.heads, geometry.hidden) for _ in range(geometry.layers))
        )
        self.ln1 = nn.LayerNorm(geometry.width, eps=_LAYER_NORM_EPSILON)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """See the class."""
        # Room for the class token by padding: no node of the graph has to know the batch size.
        tokens = functional.pad(self.patch_embed(image), (0, 0, 1, 0))
        first = self.cls_token + self.pos_embed[:, :1]
        tokens = tokens + torch.cat([first, self.pos_embed[:, 1:]], dim=1)
        out: torch.Tensor = self.ln1(self.layers(tokens))
        return out


def tensor_shapes(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the encoder, in the order of the network."""
    with torch.device("meta"):
        state = VisionTransformer(geometry).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


class _MeanOfPatches(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 1:].mean(dim=1)


class _ClassToken(nn.Module):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]


_POOL_MODULES: dict[Pool, type[nn.Module]] = {"mean": _MeanOfPatches, "cls": _ClassToken}


def build(weights: OpenJmlaWeights, pool: Pool = "mean") -> EncoderModule:
    """``waveform[batch, window_samples]`` at 16 kHz to ``embedding[batch, width]``, ready for export.

    The tensors are taken over, not copied.
    """
    with torch.device("meta"):
        body = VisionTransformer(weights.geometry)
    body.load_state_dict(dict(weights.tensors), assign=True)
    return EncoderModule(SpectPrompt(), body, _POOL_MODULES[pool]())
