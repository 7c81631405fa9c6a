"""Backends by device name. Each is imported only when it is asked for."""

from __future__ import annotations

from edge_reclass.backends.base import Backend, DeviceTimes, Graph, GraphFile, GraphSource, PlainFile
from edge_reclass.errors import DeviceError, MissingExtraError, UsageError

__all__ = ["DEVICES", "Backend", "DeviceTimes", "Graph", "GraphFile", "GraphSource", "PlainFile", "open_backend"]

DEVICES = ("cpu", "cuda", "tensorrt")


def open_backend(device: str, *, threads: int, timed: bool = False, flavour: str = "auto") -> Backend:
    """Open the backend of ``device``.

    Args:
        threads: threads of one graph's run, where the CPU runs it.
        timed: let the device's clock time every run (``Graph.device_times``).
        flavour: for ``tensorrt``: ``tensorrt``, ``tensorrt-rtx``, or ``auto`` for the first that is installed.

    Raises:
        UsageError: no such device.
        DeviceError: the device cannot be used on this machine, or its packages are not installed.
    """
    try:
        if device == "cpu":
            from edge_reclass.backends.ort.cpu import OrtBackend

            return OrtBackend(threads)
        if device == "cuda":
            from edge_reclass.backends.ort.cuda import OrtCudaBackend

            return OrtCudaBackend(threads, timed=timed)
        if device == "tensorrt":
            from edge_reclass.backends.tensorrt.backend import TensorRTBackend

            return TensorRTBackend(threads, timed=timed, flavour=flavour)
    except MissingExtraError as error:
        # Who asks for a device wants to know that it cannot be used, whatever the reason is.
        raise DeviceError(str(error)) from error
    raise UsageError(f"no device {device!r}: expected one of auto, {', '.join(DEVICES)}")
