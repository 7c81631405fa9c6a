"""MERT and OpenJMLA's encoder in torch, as one would run them without edge-reclass, with a bundle's untrained weights.

MERT is transformers' ``HubertModel``. The ViT is written here from its description (MMSelfSup's ViT-B/16 on 80 mel
bands): patches, positions, pre-norm layers; its log-mel front end is ``torch.stft`` and librosa's mel filters. Both
take their size and the seed of their weights from the bundle's provenance, so that the same network is measured on both
sides; the contest checks that the embeddings are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrize import remove_parametrizations
from transformers import HubertConfig, HubertModel

from edge_reclass.errors import UsageError

__all__ = ["Attention", "MertPeer", "OpenJmlaPeer", "seed_of"]

Attention = Literal["eager", "sdpa"]

_NOT_HUBERT = {"deepnorm", "attention_relax", "feature_extractor_cqt", "sample_rate"}
_MEL_SHIFT = _MEL_SCALE = 4.5


def seed_of(provenance: Mapping[str, Any]) -> int:
    """Seed of a stage's untrained weights. Raises ``UsageError`` where its weights are others."""
    found = re.search(r"\bseed (\d+)$", str(provenance.get("source", "")))
    if not provenance.get("random_init") or found is None:
        raise UsageError("the stage's weights are not the untrained ones of export --random-init, which a seed gives")
    return int(found[1])


class MertPeer:
    """``HubertModel`` from the published configuration: windows float32[n, samples] → their mean embedding."""

    def __init__(self, provenance: Mapping[str, Any], attention: Attention, dtype: torch.dtype) -> None:
        if provenance["layer"] != "last":
            raise UsageError(f"expected the last hidden state as embedding, got layer {provenance['layer']}")
        options = {key: value for key, value in provenance["network"].items() if key not in _NOT_HUBERT}
        # A dictionary, because the option of all of transformers' configurations is not among HuBERT's declared ones.
        options |= {"attn_implementation": attention, "apply_spec_augment": False}
        config = HubertConfig(**options, mask_time_prob=0.0, mask_feature_prob=0.0)
        model: Any = HubertModel(config)
        remove_parametrizations(model.encoder.pos_conv_embed.conv, "weight")
        _fill_as_the_export(model, seed_of(provenance))
        self._model = model.to(dtype).eval()
        self._normalise = bool(provenance["do_normalize"])
        self._dtype = dtype

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[dim]: the mean over time of the last hidden state, then over windows."""
        waveform = torch.from_numpy(windows)
        if self._normalise:
            variance, mean = torch.var_mean(waveform, dim=1, keepdim=True, correction=0)
            waveform = (waveform - mean) / torch.sqrt(variance + 1e-7)
        states = self._model(waveform.to(self._dtype)).last_hidden_state
        embedding: NDArray[np.float32] = states.float().mean(dim=(0, 1)).numpy()
        return embedding


def _fill_as_the_export(model: Any, seed: int) -> None:
    """The untrained weights of ``export mert --random-init``, by the rule of its recipe: same order, same generator."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "norm" in name:
                tensor.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias"):
                tensor.zero_()
            elif name != "masked_spec_embed":
                shape = tensor.shape
                deviation = 0.02 if len(shape) == 2 else (2.0 / (shape[1] * shape[2])) ** 0.5
                tensor.copy_(torch.randn(shape, generator=generator).mul_(deviation))


class OpenJmlaPeer:
    """The ViT of OpenJMLA: windows float32[n, 478 760] at 16 kHz → their mean embedding over the patches."""

    def __init__(self, provenance: Mapping[str, Any], attention: Attention, dtype: torch.dtype) -> None:
        network = provenance["network"]
        generator = torch.Generator().manual_seed(seed_of(provenance))
        with torch.device("meta"):
            model = _Vit(network, attention)
        weights = {name: _untrained(name, value.shape, generator) for name, value in model.state_dict().items()}
        model.load_state_dict(weights, assign=True)
        self._model = model.eval().to(dtype)
        self._dtype = dtype
        self._frames = network["columns"] * network["patch"]
        mel = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80, fmin=50.0, fmax=8_000.0)
        self._mel = torch.from_numpy(mel)
        self._window = torch.hann_window(400)

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[dim]: the mean over the patches, then over windows."""
        spectrum = torch.stft(
            torch.from_numpy(windows), 400, hop_length=160, window=self._window, center=True, return_complex=True
        )
        power = spectrum.abs().square()[..., : self._frames]
        mel = (torch.log(self._mel @ power + torch.finfo(torch.float32).eps) + _MEL_SHIFT) / _MEL_SCALE
        image = mel[:, None].expand(-1, 3, -1, -1)
        tokens = self._model(image.to(self._dtype))
        embedding: NDArray[np.float32] = tokens[:, 1:].float().mean(dim=(0, 1)).numpy()
        return embedding


def _untrained(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Normal with deviation 0.02, neutral LayerNorms, no biases: drawn in the order of the network."""
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if re.search(r"\bln[12]\.weight$", name):
        return torch.ones(shape)
    return torch.randn(shape, generator=generator).mul_(0.02)


class _Vit(nn.Module):
    """Parameters are declared in the order in which the untrained weights were drawn."""

    def __init__(self, network: Mapping[str, int], attention: Attention) -> None:
        super().__init__()
        width, patch = network["width"], network["patch"]
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + network["rows"] * network["columns"], width))
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.layers = nn.ModuleList(
            _Layer(width, network["heads"], network["hidden"], attention) for _ in range(network["layers"])
        )
        self.ln1 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed
        for layer in self.layers:
            tokens = layer(tokens)
        out: torch.Tensor = self.ln1(tokens)
        return out


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, attention: Attention) -> None:
        super().__init__()
        self.heads, self.attention = heads, attention
        self.ln1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.ln2 = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(self.ln1(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        if self.attention == "sdpa":
            mixed = functional.scaled_dot_product_attention(query, key, value)
        else:
            scores = (query @ key.transpose(2, 3)) * query.shape[-1] ** -0.5
            mixed = torch.softmax(scores, dim=-1) @ value
        tokens = tokens + self.proj(mixed.transpose(1, 2).flatten(2))
        out: torch.Tensor = tokens + self.down(functional.gelu(self.up(self.ln2(tokens))))
        return out
