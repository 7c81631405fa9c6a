"""Stage ``ceilings``: the fastest matrix product and the fastest copies that this machine gives, through torch.

Everything else is held against these, not against a datasheet. Data is random: a product of zeros runs faster.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from gpu_check.journal import Journal, NotHere
from gpu_check.settings import Settings
from gpu_check.timing import device_timer

__all__ = ["MATMULS", "plain_float32", "run"]

MATMULS = {
    "fp16": (torch.float16, "highest"),
    "bf16": (torch.bfloat16, "highest"),
    "tf32": (torch.float32, "high"),
    "fp32": (torch.float32, "highest"),
}
"""Name → dtype, and torch's float32 matmul precision: "high" is TF32, "highest" is float32 as it is."""


def plain_float32() -> None:
    """Float32 as it is, in products and in convolutions, where torch would take TF32 by itself."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def run(settings: Settings, journal: Journal) -> None:
    """See the module."""
    size, megabytes = (192, 4) if settings.tiny else (8192, 1024)
    for name in MATMULS:
        journal.do(f"matmul {name}", partial(_matmul, settings, name, size))
    for name, copy in _COPIES.items():
        journal.do(f"copy {name}", partial(_copy, settings, copy, megabytes << 20))
    for name, item in journal.items.items():
        if item["status"] == "ok":
            print(f"  {name}: {item['result']['value']:.4g} {item['result']['unit']}")


def _matmul(settings: Settings, name: str, size: int) -> dict[str, Any]:
    dtype, precision = MATMULS[name]
    if settings.device == "cpu" and name == "tf32":
        raise NotHere("a CPU has no TF32")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        generator = torch.Generator(settings.device).manual_seed(1)
        left, right = (torch.randn(size, size, device=settings.device, generator=generator).to(dtype) for _ in range(2))
        out = torch.empty(size, size, device=settings.device, dtype=dtype)
        times = device_timer(settings.device, lambda: torch.matmul(left, right, out=out), 3 if settings.tiny else 20)
    finally:
        torch.set_float32_matmul_precision(before)
    return {
        "value": 2 * size**3 / statistics.median(times) / 1e12,
        "unit": "TFLOP/s",
        "size": size,
        "samples": times,
    }


def _copy(settings: Settings, make: Callable[[int, str], Callable[[], object]], size: int) -> dict[str, Any]:
    times = device_timer(settings.device, make(size, settings.device), 3 if settings.tiny else 12)
    moved = 2 * size if make is _on_device else size
    return {
        "value": moved / statistics.median(times) / 1e9,
        "unit": "GB/s (read and written)" if make is _on_device else "GB/s",
        "bytes": size,
        "samples": times,
    }


def _random(size: int, device: str, pinned: bool = False) -> torch.Tensor:
    data = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    return data.pin_memory() if pinned else data


def _copier(source: torch.Tensor, target: torch.Tensor) -> Callable[[], object]:
    return lambda: target.copy_(source, non_blocking=True)


def _require_gpu(device: str) -> None:
    if device != "cuda":
        raise NotHere("there is no second memory without a GPU")


def _in_pinned(size: int, device: str) -> Callable[[], object]:
    _require_gpu(device)
    return _copier(_random(size, "cpu", pinned=True), torch.empty(size, dtype=torch.uint8, device=device))


def _in_pageable(size: int, device: str) -> Callable[[], object]:
    _require_gpu(device)
    return _copier(_random(size, "cpu"), torch.empty(size, dtype=torch.uint8, device=device))


def _out_pinned(size: int, device: str) -> Callable[[], object]:
    _require_gpu(device)
    return _copier(_random(size, device), torch.empty(size, dtype=torch.uint8).pin_memory())


def _out_pageable(size: int, device: str) -> Callable[[], object]:
    _require_gpu(device)
    return _copier(_random(size, device), torch.empty(size, dtype=torch.uint8))


def _on_device(size: int, device: str) -> Callable[[], object]:
    return _copier(_random(size, device), torch.empty(size, dtype=torch.uint8, device=device))


_COPIES = {
    "host to device, pinned": _in_pinned,
    "host to device, pageable": _in_pageable,
    "device to host, pinned": _out_pinned,
    "device to host, pageable": _out_pageable,
    "within the device": _on_device,
}
