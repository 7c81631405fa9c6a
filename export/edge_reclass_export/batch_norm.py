"""Batch norms of a trained network as what they are then: a part of the layer before them."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils import fusion


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Multiplies each batch norm of ``module`` into the convolution or linear layer before it, in float64; in place.

    Before it means: the child before it of the same parent. An identity takes the norm's place.
    """
    for parent in list(module.modules()):
        for (name, layer), (norm_name, norm) in pairwise(list(parent.named_children())):
            layer, norm = layer.double().eval(), norm.double().eval()
            if isinstance(layer, nn.Conv1d | nn.Conv2d) and isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                folded: nn.Module = fusion.fuse_conv_bn_eval(layer, norm)
            elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
                folded = fusion.fuse_linear_bn_eval(layer, norm)
            else:
                continue
            setattr(parent, name, folded)
            setattr(parent, norm_name, nn.Identity())
    return module.float()
