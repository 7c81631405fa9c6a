"""Makes tiny MERT checkpoint directories: real key names, real structure, random weights.

The weights come from transformers' own ``HubertModel`` (what the hub's checkpoints were saved from), so the names
are those that transformers gives them, not those that the recipe expects.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from transformers import HubertConfig, HubertModel

from edge_reclass_export.recipes.hubert import MertConfig

POSITION = "encoder.pos_conv_embed.conv"
OLD_NAMES = {
    f"{POSITION}.parametrizations.weight.original0": f"{POSITION}.weight_g",
    f"{POSITION}.parametrizations.weight.original1": f"{POSITION}.weight_v",
}
Architecture = Literal["95m", "330m"]
SHALLOW: dict[str, Any] = {"conv_dim": [16, 24, 32], "conv_kernel": [10, 8, 4], "conv_stride": [10, 8, 4]}
"""Three convolutions in place of seven, a frame as long: a change of ``config`` for tests of what comes behind them."""
OWN_OPTIONS = {"deepnorm", "attention_relax", "feature_extractor_cqt", "sample_rate"}


def config(architecture: Architecture = "95m", **changes: Any) -> dict[str, Any]:
    """``config.json`` of a tiny network of either published architecture."""
    stable = architecture == "330m"
    plain: dict[str, Any] = {
        "architectures": ["MERTModel"],
        "auto_map": {"AutoModel": "modeling_MERT.MERTModel"},
        "model_type": "mert_model",
        "hidden_size": 64 if stable else 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128 if stable else 96,
        "do_stable_layer_norm": stable,
        "attention_relax": 32.0 if stable else -1.0,
        "feat_extract_norm": "group",
        "feat_proj_layer_norm": True,
        "conv_bias": False,
        "conv_dim": [32] * 7,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "feature_extractor_cqt": False,
        "deepnorm": False,
        "sample_rate": 24_000,
        "torch_dtype": "float32",
    }
    return plain | changes


def hubert(plain: dict[str, Any], seed: int = 0) -> HubertModel:
    """transformers' network of that configuration, with random weights and norms that are not trivial."""
    shared = {key: plain[key] for key in HubertConfig().to_dict() if key in plain and key not in IGNORED_KEYS}
    torch.manual_seed(seed)
    model = HubertModel(HubertConfig(**shared, attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm.weight" in name:
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                tensor.normal_(0.0, 0.1)
            elif "layers" in name and "encoder" in name:
                tensor.normal_(0.0, tensor.shape[-1] ** -0.5)
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return model


def hubert_config(config: MertConfig) -> HubertConfig:
    """The same network as transformers' configuration: eager attention, nothing that only training needs."""
    shared: dict[str, Any] = {key: value for key, value in asdict(config).items() if key not in OWN_OPTIONS}
    options: dict[str, Any] = {**shared, "attn_implementation": "eager"}
    return HubertConfig(**options, apply_spec_augment=False, mask_time_prob=0.0, mask_feature_prob=0.0)


IGNORED_KEYS = ("architectures", "model_type", "torch_dtype", "dtype", "transformers_version")


def tensors(model: HubertModel, *, prefix: str = "", old_names: bool = False) -> dict[str, torch.Tensor]:
    """The model's state dict, with a prefix and a CTC head beside it, or bare."""
    state = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    if old_names:
        state = {OLD_NAMES.get(name, name): tensor for name, tensor in state.items()}
    state = {prefix + name: tensor for name, tensor in state.items()}
    if prefix:
        state["lm_head.weight"] = torch.zeros(4, 48)
    return state


def write(
    folder: Path,
    plain: dict[str, Any] | None = None,
    *,
    state: dict[str, torch.Tensor] | None = None,
    file: str = "model.safetensors",
    dtype: torch.dtype = torch.float32,
    do_normalize: bool = True,
    wrapper: str | None = None,
) -> Path:
    """A checkpoint directory. ``state`` is by default a random network's of the configuration."""
    plain = config() if plain is None else plain
    state = tensors(hubert(plain)) if state is None else state
    stored = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(plain))
    preprocessor = {"do_normalize": do_normalize, "feature_size": 1, "padding_value": 0.0, "sampling_rate": 24_000}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    if file.endswith(".safetensors"):
        save_file(stored, folder / file, metadata={"format": "pt"})
    else:
        torch.save({wrapper: stored, "epoch": 3} if wrapper else stored, folder / file)
    return folder


def write_head(path: Path, features: int, classes: int = 3, seed: int = 1) -> Path:
    """A head as the older project saved it: a bare state dict fc.0/3/6 of features → 256 → 128 → classes."""
    random = torch.Generator().manual_seed(seed)
    widths = (features, 256, 128, classes)
    state: dict[str, torch.Tensor] = {}
    for number, (inputs, outputs) in zip((0, 3, 6), pairwise(widths), strict=True):
        state[f"fc.{number}.weight"] = torch.randn(outputs, inputs, generator=random) * inputs**-0.5
        state[f"fc.{number}.bias"] = torch.randn(outputs, generator=random) * 0.1
    torch.save(state, path)
    return path
