"""MERT as a torch module for export: transformers' HuBERT parts, composed here.

``HubertModel`` gives the parts and their names. The order in which they are called stands here, so that MERT's own
options (``deepnorm``) fit in, layers behind the wanted one are left out, and nothing depends on how a version of
transformers collects hidden states. The pieces follow Li et al. 2023 and HuBERT (Hsu et al. 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import HubertConfig, HubertModel

from edge_reclass_export.precision import EncoderModule
from edge_reclass_export.recipes.mert import Layer, MertConfig

__all__ = ["NORMALISE_EPSILON", "build", "hubert_config", "random_weights"]

NORMALISE_EPSILON = 1e-7
"""Added to a window's variance by ``Wav2Vec2FeatureExtractor``, which MERT's preprocessor is."""

_DEEPNORM_FACTOR, _DEEPNORM_POWER = 2.0, 0.25  # alpha = (2 N)^(1/4) for N encoder layers (Wang et al. 2022, DeepNet)


def build(config: MertConfig, weights: Mapping[str, torch.Tensor], *, normalise: bool, layer: Layer) -> EncoderModule:
    """``waveform[batch, samples] → embedding[batch, hidden_size]``; ``weights`` as ``recipes.mert`` gives them."""
    hubert = _hubert(config, weights)
    return EncoderModule(
        _Front(hubert.feature_extractor.conv_layers[0], normalise),
        _Body(hubert, config, layer),
        nn.Identity() if layer == "mean-of-all" else _MeanOverTime(),
    )


def hubert_config(config: MertConfig) -> HubertConfig:
    """The same network as transformers' configuration: eager attention, nothing that only training needs."""
    own = {"deepnorm", "attention_relax", "feature_extractor_cqt", "sample_rate"}
    shared = {key: value for key, value in asdict(config).items() if key not in own}
    # A dictionary, because the option of all of transformers' configurations is not among HuBERT's declared ones.
    options: dict[str, Any] = {**shared, "attn_implementation": "eager"}
    return HubertConfig(**options, apply_spec_augment=False, mask_time_prob=0.0, mask_feature_prob=0.0)


def random_weights(config: MertConfig, seed: int) -> dict[str, torch.Tensor]:
    """Untrained weights as ``HubertModel`` initialises them, the same for the same seed and versions."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = HubertModel(hubert_config(config))
    _without_weight_norm(model)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def _hubert(config: MertConfig, weights: Mapping[str, torch.Tensor]) -> Any:
    with torch.device("meta"):  # no memory before the weights are there
        model = HubertModel(hubert_config(config))
    _without_weight_norm(model)
    counters = {name: torch.zeros((), dtype=torch.int64) for name in model.state_dict() if name.endswith("_tracked")}
    model.load_state_dict({**weights, **counters}, strict=True, assign=True)
    return model


def _without_weight_norm(model: Any) -> None:
    conv = model.encoder.pos_conv_embed.conv
    if parametrize.is_parametrized(conv, "weight"):
        parametrize.remove_parametrizations(conv, "weight", leave_parametrized=True)


class _Front(nn.Module):
    """Normalisation of the window, then the first convolution and its norm, whose statistics run over the window.

    Both sum over thousands of samples, so both stay in float32; they are a thousandth of the network's work.
    """

    def __init__(self, first: Any, normalise: bool) -> None:
        super().__init__()
        self.normalise = normalise
        self.conv: nn.Conv1d = first.conv
        self.layer_norm: nn.LayerNorm | nn.GroupNorm = first.layer_norm

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        if self.normalise:
            centred = waveform - waveform.mean(dim=1, keepdim=True)
            variance = (centred * centred).mean(dim=1, keepdim=True)
            waveform = centred / torch.sqrt(variance + NORMALISE_EPSILON)
        features: torch.Tensor = self.conv(waveform.unsqueeze(1))
        over_channels = isinstance(self.layer_norm, nn.LayerNorm)
        normed: torch.Tensor = self.layer_norm(features.transpose(1, 2) if over_channels else features)
        return normed.transpose(1, 2) if over_channels else normed


class _Body(nn.Module):
    """The other convolutions, the projection and the transformer layers up to the wanted one."""

    def __init__(self, hubert: Any, config: MertConfig, layer: Layer) -> None:
        super().__init__()
        depth = layer if isinstance(layer, int) else config.num_hidden_layers
        complete = depth == config.num_hidden_layers
        self.activation: nn.Module = hubert.feature_extractor.conv_layers[0].activation
        self.conv_layers: nn.ModuleList = hubert.feature_extractor.conv_layers[1:]
        self.feature_projection: nn.Module = hubert.feature_projection
        self.pos_conv_embed: nn.Module = hubert.encoder.pos_conv_embed
        self.pre_norm = config.do_stable_layer_norm
        # attention_relax changes no number: softmax((x/r − max(x/r))·r) is softmax(x).
        alpha = (_DEEPNORM_FACTOR * config.num_hidden_layers) ** _DEEPNORM_POWER if config.deepnorm else 1.0
        self.layers = nn.ModuleList(
            _PreNormLayer(part) if self.pre_norm else _PostNormLayer(part, alpha)
            for part in hubert.encoder.layers[:depth]
        )
        # Pre-norm layers have it behind the last of them, post-norm layers before the first.
        self.layer_norm: nn.Module = hubert.encoder.layer_norm if complete or not self.pre_norm else nn.Identity()
        self.mean_of_all = layer == "mean-of-all"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.activation(features)
        for conv in self.conv_layers:
            features = conv(features)
        hidden: torch.Tensor = self.feature_projection(features.transpose(1, 2))
        hidden = hidden + self.pos_conv_embed(hidden)
        if not self.pre_norm:
            hidden = self.layer_norm(hidden)
        states = [hidden]
        for layer in self.layers:
            hidden = layer(hidden)
            states.append(hidden)
        if self.pre_norm:
            states[-1] = self.layer_norm(hidden)
        if self.mean_of_all:
            return torch.stack([_mean_over_time(state) for state in states]).mean(dim=0)
        return states[-1]


class _Layer(nn.Module):
    """The parts of one of HuBERT's transformer layers, of either kind."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.attention: nn.Module = part.attention
        self.layer_norm: nn.Module = part.layer_norm
        self.feed_forward: nn.Module = part.feed_forward
        self.final_layer_norm: nn.Module = part.final_layer_norm


class _PreNormLayer(_Layer):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden + self.attention(self.layer_norm(hidden))[0]
        result: torch.Tensor = hidden + self.feed_forward(self.final_layer_norm(hidden))
        return result


class _PostNormLayer(_Layer):
    """``alpha`` strengthens the residual connections (deepnorm); it is 1 otherwise."""

    def __init__(self, part: Any, alpha: float) -> None:
        super().__init__(part)
        self.alpha = alpha

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.layer_norm(self._residual(hidden) + self.attention(hidden)[0])
        result: torch.Tensor = self.final_layer_norm(self._residual(hidden) + self.feed_forward(hidden))
        return result

    def _residual(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden if self.alpha == 1.0 else hidden * self.alpha


class _MeanOverTime(nn.Module):
    """Tokens [batch, frames, width] to their mean."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return _mean_over_time(tokens)


def _mean_over_time(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.float().mean(dim=1)
