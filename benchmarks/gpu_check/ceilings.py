"""Stage ``ceilings``: the fastest product of matrices and the fastest copies that this machine gives, through torch.

Shares are held against these and not against a datasheet. A ceiling is the best run that was seen, for nothing on the
same machine may be faster. Data is random: a product of zeros runs faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from edge_reclass_bench.products import Product
from edge_reclass_bench.record import Measure
from gpu_check.journal import Begun, Item, NotHere, Work

_RUNS, _CPU_SECONDS = 12, 0.5
MATMULS = {"fp16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}
_COPIES = {
    "host to device, pinned": ("pinned", "device"),
    "host to device, pageable": ("host", "device"),
    "device to host, pinned": ("device", "pinned"),
    "within the device, read and written": ("device", "device"),
}


def run(work: Work) -> Iterator[Begun | Item]:
    """See the module."""
    torch.set_num_threads(work.settings.threads)
    size, megabytes = (384, 4) if work.settings.tiny else (8192, 1024)
    for name in MATMULS:
        yield from work.do(f"matmul {name}", partial(_matmul, work.settings.device, name, size))
    for name, ends in _COPIES.items():
        yield from work.do(f"copy {name}", partial(_copy, work.settings.device, name, ends, megabytes << 20))


def seconds_of(product: Product, device: str) -> float:
    """The best time of one product in float16."""
    dtype = torch.float16
    groups = (product.groups,) if product.groups > 1 else ()
    left = torch.randn((*groups, product.rows, product.inner), device=device).to(dtype)
    right = torch.randn((*groups, product.inner, product.columns), device=device).to(dtype)
    out = torch.empty((*groups, product.rows, product.columns), device=device, dtype=dtype)
    return min(times(device, lambda: torch.matmul(left, right, out=out)))


def times(device: str, work: Callable[[], object]) -> list[float]:
    """Seconds of each of some runs, after three that are not counted: by CUDA events, on a CPU by the host's clock."""
    for _ in range(3):
        work()
    if device != "cuda":
        found: list[float] = []
        # Longer, for the best run has to be one that nobody disturbed.
        while len(found) < _RUNS or sum(found) < _CPU_SECONDS:
            began = time.perf_counter()
            work()
            found.append(time.perf_counter() - began)
        return found
    event: Any = torch.cuda.Event
    marks = [(event(enable_timing=True), event(enable_timing=True)) for _ in range(_RUNS)]
    torch.cuda.synchronize()
    for begin, end in marks:
        begin.record()
        work()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in marks]


def _matmul(device: str, name: str, size: int) -> dict[str, Any]:
    if device == "cpu" and name == "tf32":
        raise NotHere("a CPU has no TF32")
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    left, right = (torch.randn((size, size), device=device).to(MATMULS[name]) for _ in range(2))
    out = torch.empty_like(left)
    found = times(device, lambda: torch.matmul(left, right, out=out))
    torch.set_float32_matmul_precision("highest")
    rate = 2 * size**3 / min(found) / 1e12
    return {"values": {f"matmul {name} TFLOP/s": rate}, "measures": [_measure(f"matmul {name} {size}", device, found)]}


def _copy(device: str, name: str, ends: tuple[str, str], size: int) -> dict[str, Any]:
    if device != "cuda" and ends != ("device", "device"):
        raise NotHere("there is no second memory without a GPU")
    source, target = (
        torch.randint(0, 256, (size,), dtype=torch.uint8, device=device if end == "device" else "cpu") for end in ends
    )
    if ends[0] == "pinned":
        source = source.pin_memory()
    if ends[1] == "pinned":
        target = target.pin_memory()
    found = times(device, lambda: target.copy_(source, non_blocking=True))
    moved = size * (2 if ends == ("device", "device") else 1)
    return {"values": {f"copy {name} GB/s": moved / min(found) / 1e9}, "measures": [_measure(name, device, found)]}


def _measure(part: str, device: str, seconds: list[float]) -> Measure:
    return Measure(
        scenario="ceilings",
        subject="torch",
        part=part,
        unit="ms",
        clock="device" if device == "cuda" else "host",
        samples=[1e3 * each for each in seconds],
        passes=list(range(len(seconds))),
        processes=[0] * len(seconds),
    )
