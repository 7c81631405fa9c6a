"""Who is timed: the project's graphs, and the same networks in torch, as a user would run them instead.

All begin with the batch in (pinned) host memory and end with the embeddings there: that is the host's time. The
device's time is that of the computation alone, by CUDA events. All have the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from edge_reclass.backends import Graph
from edge_reclass_export.precision import EncoderModule, half_precision
from gpu_check.geometry import Encoder
from gpu_check.timing import Times

__all__ = ["Contender", "GraphContender", "TorchContender", "torch_contenders", "with_sdpa"]

Rows = NDArray[np.float32]


class Contender(Protocol):
    """One thing to time."""

    def prepare(self, rows: Rows) -> None:
        """Take the batch and warm up: whatever is done once is done here."""

    def once(self) -> Times:
        """One run of the prepared batch."""

    def answer(self) -> Rows:
        """The embeddings of the last run."""


class GraphContender:
    """A graph of one of the project's backends."""

    def __init__(self, graph: Graph, warm_up: int = 3) -> None:
        self._graph, self._warm_up = graph, warm_up
        self._batch = 0
        self._result: Rows = np.empty((0, 0), np.float32)

    def prepare(self, rows: Rows) -> None:
        self._batch = len(rows)
        self._graph.input[: self._batch] = rows
        for _ in range(self._warm_up):
            self.once()

    def once(self) -> Times:
        began = time.perf_counter()
        self._result = self._graph.run(self._batch)
        host = time.perf_counter() - began
        times = self._graph.device_times()
        if times is None:
            return Times(host)
        return Times(host, times.compute, times.copy_in, times.copy_out)

    def answer(self) -> Rows:
        answer: Rows = self._result.copy()
        return answer


class TorchContender:
    """A torch module on ``device``; ``compiled`` names torch.compile's mode or backend."""

    def __init__(self, module: EncoderModule, device: str, warm_up: int = 3, compiled: Any = None) -> None:
        self._module: Callable[[torch.Tensor], torch.Tensor] = module.to(device)
        if compiled is not None:
            self._module = compiled(self._module)
        self._device, self._warm_up = device, warm_up
        self._host = self._input = self._output = torch.empty(0)

    def prepare(self, rows: Rows) -> None:
        self._host = torch.from_numpy(rows.copy())
        if self._device == "cuda":
            self._host = self._host.pin_memory()
        self._input = torch.empty_like(self._host, device=self._device)
        with torch.inference_mode():
            self._input.copy_(self._host)
            shape = self._module(self._input).shape
        self._output = torch.empty(shape, pin_memory=self._device == "cuda")
        for _ in range(self._warm_up):
            self.once()

    @torch.inference_mode()
    def once(self) -> Times:
        if self._device != "cuda":
            began = time.perf_counter()
            self._input.copy_(self._host)
            self._output.copy_(self._module(self._input))
            return Times(time.perf_counter() - began)
        event: Any = torch.cuda.Event
        marks = [event(enable_timing=True) for _ in range(4)]
        torch.cuda.synchronize()
        began = time.perf_counter()
        marks[0].record()
        self._input.copy_(self._host, non_blocking=True)
        marks[1].record()
        result = self._module(self._input)
        marks[2].record()
        self._output.copy_(result, non_blocking=True)
        marks[3].record()
        torch.cuda.synchronize()
        host = time.perf_counter() - began
        copy_in, compute, copy_out = (marks[i].elapsed_time(marks[i + 1]) / 1e3 for i in range(3))
        return Times(host, compute, copy_in, copy_out)

    def answer(self) -> Rows:
        answer: Rows = self._output.float().numpy().copy()
        return answer


def torch_contenders(encoder: Encoder, device: str, compile_mode: str) -> dict[str, Callable[[], TorchContender]]:
    """By name, how to make each; float32 is plain, TF32 off."""

    def half(sdpa: bool) -> EncoderModule:
        module = encoder.module()
        return half_precision(with_sdpa(module) if sdpa else module)

    made: dict[str, Callable[[], TorchContender]] = {
        "torch eager fp32": lambda: TorchContender(encoder.module(), device),
        "torch eager fp16": lambda: TorchContender(half(sdpa=False), device),
        "torch sdpa fp16": lambda: TorchContender(half(sdpa=True), device),
    }
    if compile_mode:
        # On a CPU inductor would spend a minute in a C++ compiler to prove nothing about a GPU.
        options: dict[str, Any] = {"mode": compile_mode} if device == "cuda" else {"backend": "aot_eager"}

        def compiled(module: nn.Module) -> Any:
            torch._dynamo.reset()
            return torch.compile(module, dynamic=False, fullgraph=True, **options)

        made["torch compile fp16"] = lambda: TorchContender(half(sdpa=True), device, compiled=compiled)
    return made


def with_sdpa(module: EncoderModule) -> EncoderModule:
    """``module`` with torch's fused attention in place of the eager one that is exported.

    Raises:
        ValueError: it has no attention that is known.
    """
    changed = 0
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            for known in (_FusedAttention, _FusedHubertAttention):
                if all(hasattr(child, each) for each in known.PARTS):
                    setattr(part, name, known(child))
                    changed += 1
    if not changed:
        raise ValueError("this module has no attention that could be replaced")
    return module


class _FusedAttention(nn.Module):
    """OpenJMLA's attention by ``scaled_dot_product_attention``."""

    PARTS = ("qkv", "proj", "heads")

    def __init__(self, eager: Any) -> None:
        super().__init__()
        self.heads: int = eager.heads
        self.qkv: nn.Linear = eager.qkv
        self.proj: nn.Linear = eager.proj

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(tokens).chunk(3, dim=-1))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        out: torch.Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class _FusedHubertAttention(nn.Module):
    """MERT's attention by ``scaled_dot_product_attention``; its query projection holds the scale already."""

    PARTS = ("q_proj", "k_proj", "v_proj", "out_proj", "heads")

    def __init__(self, eager: Any) -> None:
        super().__init__()
        self.heads: int = eager.heads
        self.projections = nn.ModuleList((eager.q_proj, eager.k_proj, eager.v_proj))
        self.out_proj: nn.Linear = eager.out_proj

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        q, k, v = (project(hidden).unflatten(2, (self.heads, -1)).transpose(1, 2) for project in self.projections)
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=1.0)
        out: torch.Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out
