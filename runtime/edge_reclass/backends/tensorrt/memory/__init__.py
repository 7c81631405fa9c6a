"""Memory of the GPU from Python, through whichever binding is installed: PyCUDA, else NVIDIA's cuda-bindings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal

from edge_reclass.backends.tensorrt.memory.base import CudaMemory
from edge_reclass.errors import MissingExtraError, UsageError
from edge_reclass.installing import pip_command

__all__ = ["CudaMemory", "open_cuda_memory"]

CUDA_MEMORY_VARIABLE = "EDGE_RECLASS_CUDA_MEMORY"
CUDA_BINDINGS: dict[Literal["pycuda", "cuda-bindings"], str] = {
    "pycuda": "pycuda.driver",
    "cuda-bindings": "cuda.bindings.runtime",
}
"""Distribution and module of each binding, the preferred first."""


def installed_bindings() -> tuple[str, ...]:
    """Those of ``pycuda`` and ``cuda-bindings`` that are installed, the preferred first. Nothing is loaded."""
    return tuple(name for name, module in CUDA_BINDINGS.items() if _is_installed(module))


def open_cuda_memory(environ: Mapping[str, str] = os.environ) -> CudaMemory:
    """Open the first GPU through the binding that EDGE_RECLASS_CUDA_MEMORY names, else the first that is installed.

    Raises:
        UsageError: no such binding, or pycuda is asked for and not installed.
        MissingExtraError: cuda-bindings is not installed.
        DeviceError: it cannot reach a GPU.
    """
    wanted = environ.get(CUDA_MEMORY_VARIABLE)
    if wanted and wanted not in CUDA_BINDINGS:
        raise UsageError(f"{CUDA_MEMORY_VARIABLE}: expected {' or '.join(CUDA_BINDINGS)}, got {wanted!r}")
    installed = installed_bindings()
    if not wanted and not installed:
        raise MissingExtraError("the device tensorrt needs cuda-bindings or pycuda", "tensorrt")
    if wanted == "pycuda" and wanted not in installed:
        raise UsageError(
            f"pycuda is asked for and not installed: {pip_command()} install pycuda,"
            f" or leave {CUDA_MEMORY_VARIABLE} out"
        )
    if wanted and wanted not in installed:
        raise MissingExtraError(f"{wanted} is asked for and not installed", "tensorrt")
    if (wanted or installed[0]) == "pycuda":
        from edge_reclass.backends.tensorrt.memory.pycuda import PycudaMemory

        return PycudaMemory()
    from edge_reclass.backends.tensorrt.memory.cuda_bindings import CudaBindingsMemory

    return CudaBindingsMemory()


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a package above it is missing, or is a namespace of something else
        return False
