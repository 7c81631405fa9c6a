"""Small checkpoints of musicnn, FCN and CRNN with the names of the release's files, written out a second time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch

from export.musicnn_torch_reference import bands

State = dict[str, torch.Tensor]
KINDS = ("musicnn", "fcn", "crnn")


def state(kind: str, seed: int = 0, classes: int = 7) -> State:
    """Random tensors; no tensor is neutral. Embeddings: musicnn 12, FCN 6, CRNN 8."""
    generator = torch.Generator().manual_seed(seed)
    made: State = {
        "spec.spectrogram.window": torch.hann_window(512),
        "spec.mel_scale.fb": torch.from_numpy(bands()).float(),
        "spec_bn.weight": torch.tensor([0.3]),
        "spec_bn.bias": torch.tensor([0.1]),
        "spec_bn.running_mean": torch.tensor([5.0]),
        "spec_bn.running_var": torch.tensor([300.0]),
        "spec_bn.num_batches_tracked": torch.tensor(12),
    }

    def draw(*shape: int, around: float = 0.0, spread: float = 1.0) -> torch.Tensor:
        return around + spread * torch.randn(shape, generator=generator)

    def linear(name: str, outputs: int, inputs: int) -> None:
        made[f"{name}.weight"] = draw(outputs, inputs, spread=inputs**-0.5)
        made[f"{name}.bias"] = draw(outputs, spread=0.2)

    def norm(name: str, channels: int) -> None:
        made[f"{name}.weight"] = draw(channels, around=1.2, spread=0.2)
        made[f"{name}.bias"] = draw(channels, around=0.5, spread=0.3)
        made[f"{name}.running_mean"] = draw(channels, spread=0.2)
        made[f"{name}.running_var"] = draw(channels, spread=0.2).exp()
        made[f"{name}.num_batches_tracked"] = torch.tensor(12)

    def block(name: str, outputs: int, *kernel: int) -> None:
        inputs = torch.Size(kernel).numel()
        made[f"{name}.conv.weight"] = draw(outputs, *kernel, around=0.3 / inputs, spread=inputs**-0.5)
        made[f"{name}.conv.bias"] = draw(outputs, spread=0.2)
        norm(f"{name}.bn", outputs)

    if kind == "musicnn":
        for number, (filters, *kernel) in enumerate(
            [(6, 1, 67, 7), (5, 1, 38, 7), (4, 1, 129), (3, 1, 65), (2, 1, 33)]
        ):
            block(f"layers.{number}", filters, *kernel)
        for number, inputs in enumerate((20, 9, 9), start=1):
            block(f"layer{number}", 9, inputs, 7)
        linear("dense1", 12, 2 * (20 + 27))
        norm("bn", 12)
        linear("dense2", classes, 12)
        return made
    widths = (1, 4, 8, 8, 8) if kind == "crnn" else (1, 4, 8, 8, 8, 6)
    for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        block(f"layer{number}", outputs, inputs, 3, 3)
    if kind == "crnn":
        for layer in range(2):
            made[f"layer5.weight_ih_l{layer}"] = draw(24, 8, spread=0.5)
            made[f"layer5.weight_hh_l{layer}"] = draw(24, 8, spread=0.5)
            made[f"layer5.bias_ih_l{layer}"] = draw(24, spread=0.2)
            made[f"layer5.bias_hh_l{layer}"] = draw(24, spread=0.2)
    linear("dense", classes, 8 if kind == "crnn" else 6)
    return made


def write(path: Path, tensors: State) -> Path:
    torch.save(tensors, path)
    return path
