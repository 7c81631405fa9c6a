"""MERT and OpenJMLA's encoder in torch, as one would run them without edge-reclass, with a bundle's untrained weights.

MERT is transformers' ``HubertModel``. The ViT is written here from its description (MMSelfSup's ViT-B/16 on 80 mel
bands): patches, positions, pre-norm layers; its log-mel front end is ``torch.stft`` and Slaney's mel filters. Both
take their size, and unless they are given a rule the seed of their weights, from the bundle's provenance, so that the
same network is measured on both sides; the contest checks that the embeddings are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrize import remove_parametrizations

from edge_reclass.errors import UsageError

__all__ = ["Attention", "Draw", "mean_embedding", "seed_of", "torch_encoder"]

Attention = Literal["eager", "sdpa"]

Draw = Callable[[str, Sequence[int], float], torch.Tensor]
"""Untrained weights of a tensor of the checkpoint: takes its name, shape and deviation."""

_NOT_HUBERT = {"deepnorm", "attention_relax", "feature_extractor_cqt", "sample_rate"}
_MEL_SHIFT = _MEL_SCALE = 4.5
_CHECKPOINT_NAMES = {
    "patches.": "patch_embed.projection.",
    ".qkv.": ".attn.qkv.",
    ".proj.": ".attn.proj.",
    ".up.": ".ffn.layers.0.0.",
    ".down.": ".ffn.layers.1.",
}


def seed_of(provenance: Mapping[str, Any]) -> int:
    """Seed of a stage's untrained weights. Raises ``UsageError`` where its weights are others."""
    found = re.search(r"\bseed (\d+)$", str(provenance.get("source", "")))
    if not provenance.get("random_init") or found is None:
        raise UsageError("the stage's weights are not the untrained ones of export --random-init, which a seed gives")
    return int(found[1])


def torch_encoder(
    provenance: Mapping[str, Any], attention: Attention, dtype: torch.dtype, draw: Draw | None = None
) -> nn.Module:
    """Waveform float32[batch, samples] → embedding float32[batch, dim]; its ``body`` computes in ``dtype``.

    ``draw`` gives the weights; None: those of ``export --random-init``, by the seed that the provenance names.

    Raises:
        UsageError: no torch model is known for the recipe, or the weights cannot be made again.
    """
    kinds: dict[str, type[_Mert] | type[_OpenJmla]] = {"mert": _Mert, "openjmla": _OpenJmla}
    kind = kinds.get(str(provenance.get("recipe")))
    if kind is None:
        raise UsageError(f"no torch model is known for the recipe {provenance.get('recipe')!r}")
    return kind(provenance, attention, dtype, draw or _drawn_by_seed(seed_of(provenance))).eval().requires_grad_(False)


@torch.inference_mode()
def mean_embedding(encoder: nn.Module, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[dim]: the mean over the windows float32[n, samples], on the CPU."""
    embedding: NDArray[np.float32] = encoder(torch.from_numpy(windows)).mean(dim=0).numpy()
    return embedding


def _drawn_by_seed(seed: int) -> Draw:
    """By the rule of the recipes: one generator for all tensors, in the order of the network."""
    generator = torch.Generator().manual_seed(seed)
    return lambda _, shape, deviation: torch.randn(tuple(shape), generator=generator).mul_(deviation)


class _Mert(nn.Module):
    """``HubertModel`` from the published configuration; the mean over time of its last hidden state."""

    def __init__(self, provenance: Mapping[str, Any], attention: Attention, dtype: torch.dtype, draw: Draw) -> None:
        super().__init__()
        from transformers import HubertConfig, HubertModel

        if provenance["layer"] != "last":
            raise UsageError(f"expected the last hidden state as embedding, got layer {provenance['layer']}")
        options = {key: value for key, value in provenance["network"].items() if key not in _NOT_HUBERT}
        # A dictionary, because the option of all of transformers' configurations is not among HuBERT's declared ones.
        options |= {"attn_implementation": attention, "apply_spec_augment": False}
        body: Any = HubertModel(HubertConfig(**options, mask_time_prob=0.0, mask_feature_prob=0.0))
        remove_parametrizations(body.encoder.pos_conv_embed.conv, "weight")
        with torch.no_grad():
            for name, tensor in body.state_dict().items():
                if "norm" in name:
                    tensor.fill_(1.0 if name.endswith("weight") else 0.0)
                elif name.endswith("bias"):
                    tensor.zero_()
                elif name != "masked_spec_embed":
                    shape = tensor.shape
                    tensor.copy_(draw(name, shape, 0.02 if len(shape) == 2 else (2.0 / (shape[1] * shape[2])) ** 0.5))
        self.body = body.to(dtype)
        self.normalise, self.dtype = bool(provenance["do_normalize"]), dtype

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        if self.normalise:
            variance, mean = torch.var_mean(waveform, dim=1, keepdim=True, correction=0)
            waveform = (waveform - mean) / torch.sqrt(variance + 1e-7)
        states: torch.Tensor = self.body(waveform.to(self.dtype)).last_hidden_state
        return states.float().mean(dim=1)


class _OpenJmla(nn.Module):
    """The ViT of OpenJMLA behind its log-mel front end, at 16 kHz; the mean over its patches."""

    def __init__(self, provenance: Mapping[str, Any], attention: Attention, dtype: torch.dtype, draw: Draw) -> None:
        super().__init__()
        network = provenance["network"]
        with torch.device("meta"):
            body = _Vit(network, attention)
        weights = {name: _untrained(name, value.shape, draw) for name, value in body.state_dict().items()}
        body.load_state_dict(weights, assign=True)
        self.body, self.dtype = body.to(dtype), dtype
        self.frames = network["columns"] * network["patch"]
        self.register_buffer("mel", torch.from_numpy(_slaney_filters()), persistent=False)
        self.register_buffer("window", torch.hann_window(400), persistent=False)
        self.mel: torch.Tensor
        self.window: torch.Tensor

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(waveform, 400, hop_length=160, window=self.window, center=True, return_complex=True)
        power = spectrum.abs().square()[..., : self.frames]
        mel = (torch.log(self.mel @ power + torch.finfo(torch.float32).eps) + _MEL_SHIFT) / _MEL_SCALE
        tokens: torch.Tensor = self.body(mel[:, None].expand(-1, 3, -1, -1).to(self.dtype))
        return tokens[:, 1:].float().mean(dim=1)


def _slaney_filters() -> NDArray[np.float32]:
    """80 triangles of equal area from 50 to 8000 Hz, linear up to 1 kHz and logarithmic above: float32[80, 201]."""
    low, high = 3 * 50.0 / 200.0, 15.0 + 27.0 * np.log(8.0) / np.log(6.4)
    mel = np.linspace(low, high, 82)
    hz = np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * 6.4 ** ((mel - 15.0) / 27.0))
    bins, width = np.arange(201) * 40.0, np.diff(hz)[:, None]
    rising = (bins - hz[:-2, None]) / width[:-1]
    falling = (hz[2:, None] - bins) / width[1:]
    filters: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (hz[2:] - hz[:-2])[:, None]
    return filters.astype(np.float32)


def _untrained(name: str, shape: torch.Size, draw: Draw) -> torch.Tensor:
    """Normal with deviation 0.02, neutral LayerNorms, no biases: drawn in the order of the network."""
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if re.search(r"\bln[12]\.weight$", name):
        return torch.ones(shape)
    for ours, theirs in _CHECKPOINT_NAMES.items():
        name = name.replace(ours, theirs)
    return draw(name, shape, 0.02)


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
