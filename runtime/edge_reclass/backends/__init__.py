"""Backends by device name. Each is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edge_reclass._lazy import lazy
from edge_reclass.backends.base import Backend, DeviceTimes, Graph, GraphFile, GraphSource, PlainFile
from edge_reclass.errors import DeviceError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from edge_reclass.backends.ort.cuda_device import CUDA_PROVIDER
    from edge_reclass.backends.tensorrt.api import TENSORRT_MODULES, Library, open_library
    from edge_reclass.backends.tensorrt.memory import CUDA_BINDINGS, CUDA_MEMORY_VARIABLE

__all__ = [
    "CUDA_BINDINGS",
    "CUDA_MEMORY_VARIABLE",
    "CUDA_PROVIDER",
    "DEVICES",
    "TENSORRT_MODULES",
    "Backend",
    "DeviceTimes",
    "Graph",
    "GraphFile",
    "GraphSource",
    "Library",
    "PlainFile",
    "backend_class",
    "backend_of",
    "open_backend",
    "open_library",
]

# What is known of the devices' libraries, for those who build engines or look at a machine.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "CUDA_PROVIDER": "edge_reclass.backends.ort.cuda_device",
        **dict.fromkeys(("TENSORRT_MODULES", "Library", "open_library"), "edge_reclass.backends.tensorrt.api"),
        **dict.fromkeys(("CUDA_BINDINGS", "CUDA_MEMORY_VARIABLE"), "edge_reclass.backends.tensorrt.memory"),
    },
)

DEVICES: dict[str, str] = {
    "tensorrt": "edge_reclass.backends.tensorrt:TensorRTBackend",
    "cuda": "edge_reclass.backends.ort.cuda:OrtCudaBackend",
    "cpu": "edge_reclass.backends.ort.cpu:OrtBackend",
}
"""The Backend of each device, in the order in which ``auto`` tries them."""


def backend_class(device: str) -> type[Backend]:
    """The Backend of ``device``, not opened.

    Raises:
        UsageError: no such device.
    """
    if device not in DEVICES:
        raise UsageError(f"no device {device!r}: expected one of auto, {', '.join(reversed(DEVICES))}")
    module, _, name = DEVICES[device].partition(":")
    found: type[Backend] = getattr(import_module(module), name)
    return found


def backend_of(device: str, precision: str, threads: int) -> Backend:
    """The backend of ``device``, taking the files of this precision alone: to compare precisions.

    Raises:
        UsageError, DeviceError: see :func:`open_backend`.
    """
    kind = backend_class(device)
    made: Backend = type(kind.__name__, (kind,), {"precisions": (precision,)})(threads)
    return made


def open_backend(device: str, *, threads: int, timed: bool = False, **own: Any) -> Backend:
    """Open the backend of ``device``.

    Args:
        device: one of ``DEVICES``.
        threads: threads of one graph's run, where the CPU runs it.
        timed: let the device's clock time every run (``Graph.device_times``).
        own: what this backend alone takes, such as ``flavour`` for ``tensorrt``.

    Raises:
        UsageError: no such device.
        DeviceError: the device cannot be used on this machine, or its packages are not installed.
    """
    try:
        return backend_class(device)(threads, timed=timed, **own)  # type: ignore[call-arg]  # the class says which
    except MissingExtraError as error:
        # Who asks for a device wants to know that it cannot be used, whatever the reason is.
        raise DeviceError(str(error)) from error
