"""EfficientAT checkpoints of any width with the names that the release's files have, written out a second time."""

from __future__ import annotations

from pathlib import Path

import torch

# Kernel, channels inside and behind, gate: MobileNetV3-Large's table.
TABLE = (
    (3, 16, 16, False),
    (3, 64, 24, False),
    (3, 72, 24, False),
    (5, 72, 40, True),
    (5, 120, 40, True),
    (5, 120, 40, True),
    (3, 240, 80, False),
    (3, 200, 80, False),
    (3, 184, 80, False),
    (3, 184, 80, False),
    (3, 480, 112, True),
    (3, 672, 112, True),
    (5, 672, 160, True),
    (5, 960, 160, True),
    (5, 960, 160, True),
)
State = dict[str, torch.Tensor]


def divisible(value: float) -> int:
    """The multiple of 8 that is nearest, but not under nine tenths: MobileNet's rule."""
    found = max(8, int(value + 4) // 8 * 8)
    return found + 8 if found < 0.9 * value else found


def state(width: float = 0.1, classes: int = 7, seed: int = 0) -> State:
    """Random tensors of the network of ``width``; no tensor is neutral."""
    generator = torch.Generator().manual_seed(seed)
    made: State = {}

    def draw(*shape: int, around: float = 0.0, spread: float = 1.0) -> torch.Tensor:
        return around + spread * torch.randn(shape, generator=generator)

    def convolution(name: str, outputs: int, inputs: int, kernel: int) -> None:
        made[f"{name}.0.weight"] = draw(outputs, inputs, kernel, kernel, spread=(inputs * kernel**2) ** -0.5)
        made[f"{name}.1.weight"] = draw(outputs, around=1.2, spread=0.2)
        made[f"{name}.1.bias"] = draw(outputs, spread=0.3)
        made[f"{name}.1.running_mean"] = draw(outputs, spread=0.2)
        made[f"{name}.1.running_var"] = draw(outputs, spread=0.2).exp()
        made[f"{name}.1.num_batches_tracked"] = torch.tensor(12)

    def linear(name: str, outputs: int, inputs: int) -> None:
        made[f"{name}.weight"] = draw(outputs, inputs, spread=2 * inputs**-0.5)
        made[f"{name}.bias"] = draw(outputs, spread=0.3)

    channels = divisible(16 * width)
    convolution("features.0", channels, 1, 3)
    for number, (kernel, inside, out, gated) in enumerate(TABLE, start=1):
        inside, out, part = divisible(inside * width), divisible(out * width), 0
        block = f"features.{number}.block"
        if inside != channels:
            convolution(f"{block}.0", inside, channels, 1)
            part = 1
        convolution(f"{block}.{part}", inside, 1, kernel)
        if gated:
            part += 1
            squeeze = divisible(inside // 4)
            linear(f"{block}.{part}.conc_se_layers.0.fc1", squeeze, inside)
            linear(f"{block}.{part}.conc_se_layers.0.fc2", inside, squeeze)
        convolution(f"{block}.{part + 1}", out, inside, 1)
        channels = out
    convolution("features.16", 6 * channels, channels, 1)
    hidden = divisible(1280 * width)
    linear("classifier.2", hidden, 6 * channels)
    linear("classifier.5", classes, hidden)
    return made


def write(path: Path, tensors: State | None = None) -> Path:
    torch.save(tensors or state(), path)
    return path
