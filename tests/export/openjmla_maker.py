"""Small OpenJMLA checkpoints with the names, the nesting and the neighbours that the real files have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

WIDTH, LAYERS, HIDDEN, PATCH, ROWS, COLUMNS = 128, 2, 192, 16, 5, 6
TOKENS = 1 + ROWS * COLUMNS
WINDOW = (COLUMNS * PATCH - 1) * 160 + 200


def encoder_state(
    *, width: int = WIDTH, layers: int = LAYERS, columns: int = COLUMNS, seed: int = 0
) -> dict[str, torch.Tensor]:
    """The encoder's tensors by MMSelfSup's names, written out here a second time. No tensor is neutral."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, around: float = 0.0, spread: float = 0.05) -> torch.Tensor:
        return around + spread * torch.randn(shape, generator=generator)

    state = {
        "cls_token": draw(1, 1, width, spread=0.5),
        "pos_embed": draw(1, 1 + ROWS * columns, width, spread=0.5),
        "patch_embed.projection.weight": draw(width, 3, PATCH, PATCH),
        "patch_embed.projection.bias": draw(width),
        "ln1.weight": draw(width, around=1.0, spread=0.2),
        "ln1.bias": draw(width, spread=0.2),
    }
    for number in range(layers):
        for name, shape in {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "ffn.layers.0.0": (HIDDEN, width),
            "ffn.layers.1": (width, HIDDEN),
        }.items():
            state[f"layers.{number}.{name}.weight"] = draw(*shape, spread=0.12)
            state[f"layers.{number}.{name}.bias"] = draw(shape[0], spread=0.1)
        for name in ("ln1", "ln2"):
            state[f"layers.{number}.{name}.weight"] = draw(width, around=1.0, spread=0.2)
            state[f"layers.{number}.{name}.bias"] = draw(width, spread=0.2)
    return state


def language_model_state(seed: int = 1) -> dict[str, torch.Tensor]:
    """What stands beside the encoder in the large checkpoint, some of it with names that sound alike."""
    generator = torch.Generator().manual_seed(seed)
    names = (
        "language_decoder.model.decoder.embed_tokens.weight",
        "language_decoder.model.decoder.layers.0.self_attn.q_proj.weight",
        "language_decoder.model.decoder.layers.0.ln1.weight",
        "proj.layers.0.weight",
    )
    return {name: torch.randn((8, 8), generator=generator) for name in names}


def write_encoder_file(path: Path, state: Mapping[str, torch.Tensor] | None = None) -> Path:
    """Like ``epoch_20.pth``: the encoder under ``state_dict``, with the trainer's ``meta`` beside it."""
    torch.save({"meta": {"epoch": 20, "iter": 1000}, "state_dict": dict(state or encoder_state())}, path)
    return path


def write_large_file(path: Path, state: Mapping[str, torch.Tensor] | None = None, prefix: str = "backbone.") -> Path:
    """Like the large checkpoint: prefix, language model, and the old (not zipped) file format."""
    named = {prefix + name: value for name, value in (state or encoder_state()).items()}
    torch.save({**language_model_state(), **named}, path, _use_new_zipfile_serialization=False)
    return path


def write_half_safetensors(path: Path, state: Mapping[str, torch.Tensor] | None = None) -> Path:
    """The encoder in float16, as safetensors."""
    save_file({name: value.half() for name, value in (state or encoder_state()).items()}, path)
    return path
