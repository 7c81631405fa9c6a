"""HuBERT's parts in torch, under the names that its checkpoints have (Hsu et al. 2021; Baevski et al. 2020).

They are written here, and not taken from a library, so that no release of one can rename what a checkpoint's tensors
are loaded into. Dropout, masking and everything else that only training needs is left out. Tests hold
them against transformers' ``HubertModel``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}
_DEVIATION = 0.02  # of untrained linear layers
_DEEPNORM_FACTOR, _DEEPNORM_POWER = 2.0, 0.25  # alpha = (2 N)^(1/4) for N encoder layers (Wang et al. 2022, DeepNet)


@dataclass(frozen=True)
class MertConfig:
    """The keys of ``config.json`` that the network depends on, with the defaults of MERT's own configuration class."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    do_stable_layer_norm: bool = False
    feat_extract_norm: Literal["group", "layer"] = "group"
    feat_proj_layer_norm: bool = True
    conv_bias: bool = False
    conv_dim: tuple[int, ...] = (512, 512, 512, 512, 512, 512, 512)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    conv_pos_batch_norm: bool = False
    layer_norm_eps: float = 1e-5
    hidden_act: str = "gelu"
    feat_extract_activation: str = "gelu"
    deepnorm: bool = False
    attention_relax: float = -1.0
    feature_extractor_cqt: bool = False
    sample_rate: int = 24_000

    def frames(self, samples: int) -> int:
        """Number of frames that the convolutions make of ``samples`` samples."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples


class ConvLayer(nn.Module):
    """One convolution of the features, ``[batch, channels, time]``, with a norm over time, over channels, or none."""

    def __init__(self, config: MertConfig, number: int) -> None:
        super().__init__()
        inputs = config.conv_dim[number - 1] if number else 1
        width = config.conv_dim[number]
        self.conv = nn.Conv1d(
            inputs, width, config.conv_kernel[number], config.conv_stride[number], bias=config.conv_bias
        )
        self.layer_norm: nn.LayerNorm | nn.GroupNorm | None = None
        if config.feat_extract_norm == "layer":
            self.layer_norm = nn.LayerNorm(width)
        elif number == 0:
            self.layer_norm = nn.GroupNorm(width, width)
        self.activation = ACTIVATIONS[config.feat_extract_activation]()

    def normed(self, features: torch.Tensor) -> torch.Tensor:
        """Convolution and norm, without the activation."""
        features = self.conv(features)
        if isinstance(self.layer_norm, nn.LayerNorm):
            over_channels: torch.Tensor = self.layer_norm(features.transpose(1, 2))
            return over_channels.transpose(1, 2)
        return features if self.layer_norm is None else self.layer_norm(features)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[batch, channels, time]`` to fewer steps of time."""
        active: torch.Tensor = self.activation(self.normed(features))
        return active


class FeatureProjection(nn.Module):
    """The last convolution's channels ``[batch, time, channels]`` to the transformer's width."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        width = config.conv_dim[-1]
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps) if config.feat_proj_layer_norm else None
        self.projection = nn.Linear(width, config.hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``[batch, time, channels]`` to ``[batch, time, hidden_size]``."""
        projected: torch.Tensor = self.projection(features if self.layer_norm is None else self.layer_norm(features))
        return projected


class PositionalConv(nn.Module):
    """Positions by a grouped convolution over time, as long as its input; weight norm is multiplied out."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        taps, width = config.num_conv_pos_embeddings, config.hidden_size
        self.conv = nn.Conv1d(width, width, taps, padding=taps // 2, groups=config.num_conv_pos_embedding_groups)
        self.batch_norm = nn.BatchNorm1d(width) if config.conv_pos_batch_norm else None
        self.activation = ACTIVATIONS[config.feat_extract_activation]()
        self.surplus = 1 - taps % 2

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """What is to be added to ``hidden``, of the same shape."""
        hidden = hidden.transpose(1, 2)
        if self.batch_norm is not None:
            hidden = self.batch_norm(hidden)
        hidden = self.conv(hidden)
        if self.surplus:
            hidden = hidden[:, :, : -self.surplus]
        positions: torch.Tensor = self.activation(hidden).transpose(1, 2)
        return positions


class Attention(nn.Module):
    """Self-attention whose query projection holds the factor 1/√(width of a head) already (see ``fold_scale``).

    Scores are small in half precision so, and one multiplication over frames × frames less has to be done.
    """

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.num_attention_heads
        self.k_proj, self.v_proj, self.q_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)

    def fold_scale(self) -> None:
        """Multiplies the query projection, once; exact where the factor is a power of two, as for heads of 64."""
        factor = (self.q_proj.in_features // self.heads) ** -0.5
        with torch.no_grad():
            for name in ("weight", "bias"):
                folded = nn.Parameter(getattr(self.q_proj, name) * factor, requires_grad=False)
                setattr(self.q_proj, name, folded)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """``[batch, time, hidden_size]``, mixed over time."""
        query, key, value = (
            projection(hidden).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        weights = torch.softmax(torch.matmul(query, key.transpose(2, 3)), dim=-1)
        mixed: torch.Tensor = self.out_proj(torch.matmul(weights, value).transpose(1, 2).flatten(2))
        return mixed


class FeedForward(nn.Module):
    """Two linear layers with an activation between."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]()
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """``[batch, time, hidden_size]``, each step of time by itself."""
        result: torch.Tensor = self.output_dense(self.activation(self.intermediate_dense(hidden)))
        return result


class Layer(nn.Module):
    """One transformer layer, with the norms before its parts or behind the residual sums."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pre_norm = config.do_stable_layer_norm
        # attention_relax changes no number: softmax((x/r − max(x/r))·r) is softmax(x).
        self.alpha = (_DEEPNORM_FACTOR * config.num_hidden_layers) ** _DEEPNORM_POWER if config.deepnorm else 1.0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """``[batch, time, hidden_size]`` to the same shape."""
        result: torch.Tensor
        if self.pre_norm:
            hidden = hidden + self.attention(self.layer_norm(hidden))
            result = hidden + self.feed_forward(self.final_layer_norm(hidden))
        else:
            hidden = self.layer_norm(self._residual(hidden) + self.attention(hidden))
            result = self.final_layer_norm(self._residual(hidden) + self.feed_forward(hidden))
        return result

    def _residual(self, hidden: torch.Tensor) -> torch.Tensor:
        """Strengthened in deepnorm."""
        return hidden if self.alpha == 1.0 else hidden * self.alpha


class _FeatureExtractor(nn.Module):
    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(ConvLayer(config, number) for number in range(len(config.conv_dim)))

    @property
    def first(self) -> ConvLayer:
        """The layer whose norm runs over the whole window."""
        layer = self.conv_layers[0]
        if not isinstance(layer, ConvLayer):
            raise TypeError(type(layer).__name__)
        return layer


class _Encoder(nn.Module):
    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConv(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))


class Hubert(nn.Module):
    """All parts, called as the checkpoint's tensors are; it has no ``forward`` of its own."""

    def __init__(self, config: MertConfig) -> None:
        super().__init__()
        self.feature_extractor = _FeatureExtractor(config)
        self.feature_projection = FeatureProjection(config)
        self.encoder = _Encoder(config)


def hubert(config: MertConfig, weights: Mapping[str, torch.Tensor]) -> Hubert:
    """The parts with ``weights``, which are taken over and not copied, but for the query projections."""
    with torch.device("meta"):  # no memory before the weights are there
        model = Hubert(config)
    counters = {name: torch.zeros((), dtype=torch.int64) for name in model.state_dict() if name.endswith("_tracked")}
    model.load_state_dict({**weights, **counters}, strict=True, assign=True)
    for part in model.modules():
        if isinstance(part, Attention):
            part.fold_scale()
    return model


def weight_shapes(config: MertConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors, as ``HubertModel`` without weight norm has them."""
    with torch.device("meta"):
        state = Hubert(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith("_tracked")}


def random_weights(config: MertConfig, seed: int) -> dict[str, torch.Tensor]:
    """Untrained weights by their names, the same for the same seed and version of torch."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for name, shape in weight_shapes(config).items():
        if "norm" in name:
            weights[name] = torch.ones(shape) if name.endswith(("weight", "var")) else torch.zeros(shape)
        elif name.endswith("bias"):
            weights[name] = torch.zeros(shape)
        else:  # as large as the values that go in, through convolutions too
            deviation = _DEVIATION if len(shape) == 2 else (2.0 / (shape[1] * shape[2])) ** 0.5
            weights[name] = torch.randn(shape, generator=generator).mul_(deviation)
    return weights
