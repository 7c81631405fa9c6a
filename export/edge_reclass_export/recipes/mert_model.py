"""MERT as a torch module for export: HuBERT's parts, composed here.

The order in which they are called stands here, so that layers behind the wanted one are left out. The pieces follow
Li et al. 2023 and HuBERT (Hsu et al. 2021).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from edge_reclass_export.layer_mix import LayerMix
from edge_reclass_export.precision import EncoderModule
from edge_reclass_export.recipes.hubert import Hubert, MertConfig, hubert
from edge_reclass_export.recipes.mert_checkpoint import Layer

NORMALISE_EPSILON = 1e-7
"""Added to a window's variance by ``Wav2Vec2FeatureExtractor``, which MERT's preprocessor is."""


def build(
    config: MertConfig, weights: Mapping[str, torch.Tensor], *, normalise: bool, layer: Layer | LayerMix
) -> EncoderModule:
    """``waveform[batch, samples] → embedding[batch, hidden_size]``; ``weights`` as ``recipes.mert`` gives them."""
    network = hubert(config, weights)
    states = config.num_hidden_layers + 1
    mix = LayerMix((1.0 / states,) * states) if layer == "mean-of-all" else layer
    return EncoderModule(
        _Front(network, normalise),
        _Body(network, config, mix),
        _Mix(mix) if isinstance(mix, LayerMix) else _MeanOverTime(),
    )


class _Front(nn.Module):
    """Normalisation of the window, then the first convolution and its norm, whose statistics run over the window.

    Both sum over thousands of samples, so both stay in float32; they are a thousandth of the network's work.
    """

    def __init__(self, network: Hubert, normalise: bool) -> None:
        super().__init__()
        self.normalise = normalise
        self.first = network.feature_extractor.first

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        if self.normalise:
            centred = waveform - waveform.mean(dim=1, keepdim=True)
            variance = (centred * centred).mean(dim=1, keepdim=True)
            waveform = centred / torch.sqrt(variance + NORMALISE_EPSILON)
        normed: torch.Tensor = self.first.normed(waveform.unsqueeze(1))
        return normed


class _Body(nn.Module):
    """The other convolutions, the projection and the transformer layers up to the wanted one."""

    def __init__(self, network: Hubert, config: MertConfig, layer: Layer | LayerMix) -> None:
        super().__init__()
        depth = layer if isinstance(layer, int) else config.num_hidden_layers
        complete = depth == config.num_hidden_layers
        self.activation: nn.Module = network.feature_extractor.first.activation
        self.conv_layers = network.feature_extractor.conv_layers[1:]
        self.feature_projection = network.feature_projection
        self.pos_conv_embed = network.encoder.pos_conv_embed
        self.pre_norm = config.do_stable_layer_norm
        self.layers = network.encoder.layers[:depth]
        # Pre-norm layers have it behind the last of them, post-norm layers before the first.
        self.layer_norm = network.encoder.layer_norm if complete or not self.pre_norm else nn.Identity()
        self.every_state = isinstance(layer, LayerMix)

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
        if self.every_state:
            return torch.stack([_mean_over_time(state) for state in states], dim=1)
        return states[-1]


class _MeanOverTime(nn.Module):
    """Tokens [batch, frames, width] to their mean."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return _mean_over_time(tokens)


class _Mix(nn.Module):
    """The states' means over time [batch, states, width] to their weighted sum; always float32."""

    def __init__(self, mix: LayerMix) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(mix.weights)[None, :, None], persistent=False)
        self.weights: torch.Tensor
        self.bias = mix.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        mixed = (states * self.weights).sum(dim=1)
        return mixed + self.bias if self.bias else mixed


def _mean_over_time(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.float().mean(dim=1)
