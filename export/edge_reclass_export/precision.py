"""Half precision inside the graph: the network's middle in float16, its two ends and chosen regions in float32.

An encoder for export is an ``EncoderModule``: ``front`` (waveform → features: normalisation, log-mel, whatever
sums over thousands of samples), ``body`` (the network), ``pool`` (tokens → embedding). In half precision only
the body's weights and arithmetic become float16; waveform and embedding stay float32. Strongly typed engines
take every precision from the graph, so nothing else has to be said to them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edge_reclass_export.errors import GraphError, ParityError

FLOAT16_MAX = 65_504.0


class EncoderModule(nn.Module):
    """``waveform[batch, window_samples] float32 → embedding[batch, dim] float32`` in three parts, made for export."""

    def __init__(self, front: nn.Module, body: nn.Module, pool: nn.Module) -> None:
        super().__init__()
        self.front, self.body, self.pool = front, body, pool
        self.eval()
        self.requires_grad_(False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """The embedding of each window."""
        embedding: torch.Tensor = self.pool(self.body(self.front(waveform)))
        return embedding


class HalfEncoderModule(EncoderModule):
    """The same with a float16 body."""

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """The embedding of each window; two casts around the body."""
        embedding: torch.Tensor = self.pool(self.body(self.front(waveform).half()).float())
        return embedding


class Float32Region(nn.Module):
    """A float32 module from tensor to tensor inside a float16 network: casts what comes in and what goes out."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """What ``inner`` makes of ``values``, computed in float32."""
        result: torch.Tensor = self.inner(values.float()).half()
        return result


def half_precision(module: EncoderModule, regions: Sequence[str] = ()) -> EncoderModule:
    """A copy of ``module`` whose body computes in float16; ``module`` stays as it is.

    ``regions``: patterns (``fnmatch``) of names of the body's submodules that stay float32, e.g.
    ``layers.*.attention``. Raises ``GraphError`` where a pattern matches none, and ``ParityError`` where a weight
    does not fit float16.
    """
    outermost = _outermost(module.body, regions)
    kept = {id(tensor) for name in outermost for tensor in _tensors(module.body.get_submodule(name))}
    # The memo makes deepcopy take the float16 tensors: no float32 copy of a large body ever exists.
    memo: dict[int, Any] = {}
    for tensor in _tensors(module.body):
        if tensor.is_floating_point() and id(tensor) not in kept:
            half = tensor.detach().half()
            if not torch.isfinite(half).all():
                raise ParityError(
                    f"a weight of {tensor.abs().max().item():.4g} does not fit float16, whose largest number is"
                    f" {FLOAT16_MAX:g}; keep its layer in float32"
                )
            memo[id(tensor)] = nn.Parameter(half, requires_grad=False) if isinstance(tensor, nn.Parameter) else half
    body = copy.deepcopy(module.body, memo)
    for name in outermost:
        parent, _, last = name.rpartition(".")
        setattr(body.get_submodule(parent), last, Float32Region(body.get_submodule(name)))
    return HalfEncoderModule(module.front, body, module.pool)


def largest_value(
    module: EncoderModule, features: torch.Tensor, regions: Sequence[str] = ()
) -> tuple[torch.Tensor, float]:
    """What the float32 body makes of ``features``, and the largest magnitude that it met outside ``regions``.

    Above ``FLOAT16_MAX`` the float16 body would overflow. That ONNX Runtime's CPU graph agrees proves nothing here: it
    computes float16 graphs in float32. NaN counts as infinite.
    """
    with (
        _Peak() as peak,
        peak.paused_in([module.body.get_submodule(name) for name in _outermost(module.body, regions)]),
    ):
        result: torch.Tensor = module.body(features)
    return result, float(peak.value)


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the result of every operator while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.value = 0.0
        self._paused = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._paused and not func.is_view:
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel():
                    low, high = (bound.item() for bound in torch.aminmax(tensor))
                    self.value = max(self.value, -low, high, math.inf if math.isnan(low) else 0.0)
        return result

    @contextmanager
    def paused_in(self, modules: Sequence[nn.Module]) -> Iterator[None]:
        def enter(*_: Any) -> None:
            self._paused += 1

        def leave(*_: Any) -> None:
            self._paused -= 1

        hooks = [module.register_forward_pre_hook(enter) for module in modules]
        hooks += [module.register_forward_hook(leave) for module in modules]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _outermost(body: nn.Module, regions: Sequence[str]) -> list[str]:
    """Names of the submodules that match a pattern and lie in no other that does."""
    names = [name for name, _ in body.named_modules() if name]
    for pattern in regions:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise GraphError(f"no submodule of the body matches the float32 region {pattern!r}; it has {names[:20]}")
    matching = [name for name in names if any(fnmatchcase(name, pattern) for pattern in regions)]
    return [name for name in matching if not any(name.startswith(other + ".") for other in matching)]


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]
