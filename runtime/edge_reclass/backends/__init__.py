"""Backends by device name. Each is imported only when it is asked for."""

from __future__ import annotations

from edge_reclass.backends.base import Backend, Graph
from edge_reclass.errors import DeviceError, UsageError

__all__ = ["DEVICES", "Backend", "Graph", "open_backend"]

DEVICES = ("cpu", "cuda", "tensorrt")
"""All device names; this version runs ``cpu`` and refuses the others, saying so."""


def open_backend(device: str, *, threads: int) -> Backend:
    """Open the backend of ``device`` with ``threads`` intra-op threads.

    Raises:
        UsageError: no such device.
        DeviceError: the device cannot be used on this machine or by this version.
        MissingExtraError: ONNX Runtime is not installed.
    """
    if device not in DEVICES:
        raise UsageError(f"no device {device!r}: expected one of {', '.join(DEVICES)}")
    if device != "cpu":
        raise DeviceError(f"the device {device!r} has no backend in this version of edge-reclass; use --device cpu")
    from edge_reclass.backends.ort import OrtBackend

    return OrtBackend(threads)
