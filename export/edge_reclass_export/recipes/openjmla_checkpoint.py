"""OpenJMLA's audio encoder (UniMus/OpenJMLA; arXiv 2310.10159): which tensors of a checkpoint it is, and its geometry.

The encoder is a ViT whose tensors have MMSelfSup's names. They stand in ``epoch_20.pth`` alone, and in the larger
checkpoint beside a language model, below a prefix such as ``backbone.``. Nothing about its size is assumed: width,
layers, patches and window come from the shapes of the tensors, and what does not fit together is refused with both
numbers. The network itself is in ``openjmla_model``.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from edge_reclass_export.checkpoints import Checkpoint
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.recipes.openjmla_model import (
    BANDS,
    CHANNELS,
    HEAD_WIDTH,
    Geometry,
    OpenJmlaWeights,
    tensor_shapes,
)

_PATCH_KERNEL = "patch_embed.projection.weight"
_FAMILIES = ("cls_token", "pos_embed", "patch_embed.", "layers.", "ln1.")
_TRAINING_ONLY = ("mask_token",)
_OTHER_NETWORKS = ("pre_norm.", "ln_pre.", "fc_norm.", "norm.", "dist_token", "register_tokens", "reg_token")
"""Tensors beside the encoder's, without a prefix, that mean another kind of ViT."""


FULL_SIZE = Geometry(width=768, layers=12, hidden=3072, patch=16, rows=5, columns=187)
"""The published encoder: ViT-B/16 on 80 × 2992, 86 366 208 parameters, a window of 478 760 samples (29.92 s)."""


def random_weights(geometry: Geometry = FULL_SIZE, seed: int = 0) -> OpenJmlaWeights:
    """Untrained weights of the given size, for measurements: normal with deviation 0.02, LayerNorms neutral."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in tensor_shapes(geometry).items():
        if re.search(r"\bln[12]\.weight$", name):
            tensors[name] = torch.ones(shape)
        elif name.endswith(".bias"):
            tensors[name] = torch.zeros(shape)
        else:
            tensors[name] = torch.randn(shape, generator=generator).mul_(0.02)
    return OpenJmlaWeights(geometry, tensors, "", 0)


def read_weights(checkpoint: Checkpoint) -> OpenJmlaWeights:
    """The encoder out of a checkpoint that may hold more, a language model for instance.

    Raises:
        CheckpointError: there is no encoder, tensors are missing or too many, shapes do not fit together, values are
            not finite.
    """
    inside = checkpoint.under(_PATCH_KERNEL)
    tensors = inside.tensors
    if not inside.prefix:
        # Without a prefix, the other parts of the checkpoint stand beside the encoder's tensors.
        tensors = {name: value for name, value in tensors.items() if name.startswith((*_FAMILIES, *_OTHER_NETWORKS))}
    encoder = replace(inside, tensors=tensors)
    geometry = _geometry(encoder)
    taken = encoder.take(tensor_shapes(geometry), ignore=_TRAINING_ONLY)
    return OpenJmlaWeights(geometry, taken, encoder.prefix, len(checkpoint.tensors) - len(taken))


def _geometry(encoder: Checkpoint) -> Geometry:
    width, channels, patch, across = encoder.shape(_PATCH_KERNEL, 4)
    if channels != CHANNELS or patch != across or BANDS % patch:
        raise CheckpointError(
            f"{encoder.path}: the patch kernel is {[width, channels, patch, across]}, expected"
            f" [width, {CHANNELS}, patch, patch] with a patch that divides {BANDS} mel bands"
        )
    if width % HEAD_WIDTH:
        raise CheckpointError(f"{encoder.path}: the width is {width}, expected a multiple of {HEAD_WIDTH} (one head)")
    layers = encoder.count("layers.{}.")
    if not layers:
        raise CheckpointError(f"{encoder.path}: expected at least one layer ({encoder.prefix}layers.0.*), got none")
    hidden, _ = encoder.shape("layers.0.ffn.layers.0.0.weight", 2)
    rows = BANDS // patch
    return Geometry(width, layers, hidden, patch, rows, _columns(encoder, width, rows))


def _columns(encoder: Checkpoint, width: int, rows: int) -> int:
    """Patches along time, from the number of position embeddings."""
    single, tokens, across = encoder.shape("pos_embed", 3)
    if single != 1 or across != width:
        raise CheckpointError(
            f"{encoder.path}: pos_embed is {[single, tokens, across]}, expected"
            f" [1, tokens, {width}], for the patch kernel's width is {width}"
        )
    patches = tokens - 1
    if patches < rows or patches % rows:
        raise CheckpointError(
            f"{encoder.path}: pos_embed has {tokens} rows: the class token and {patches} patches; {BANDS} mel bands"
            f" make {rows} rows of patches, and {patches} is no multiple of {rows}"
            f" (OpenJMLA: 1 + {FULL_SIZE.rows} · {FULL_SIZE.columns} = {FULL_SIZE.tokens})"
        )
    return patches // rows
