"""CUDA through NVIDIA's ``cuda-bindings``: the runtime API, every call of which gives (status, values…)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends.tensorrt.memory.base import (
    CapturedGraph,
    CudaMemory,
    DeviceBuffer,
    Event,
    PinnedArray,
    Resource,
    Stream,
    cuda_failure,
)
from edge_reclass.errors import DeviceError, EngineError

_DEVICE = 0
_FREE: dict[type[Resource], str] = {
    DeviceBuffer: "cudaFree",
    PinnedArray: "cudaFreeHost",
    Stream: "cudaStreamDestroy",
    Event: "cudaEventDestroy",
    CapturedGraph: "cudaGraphExecDestroy",
}


class CudaBindingsMemory(CudaMemory):
    """See :class:`CudaMemory`."""

    name = "cuda-bindings"
    captures = True

    def __init__(self) -> None:
        try:
            cudart: Any = import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise DeviceError(f"cuda-bindings is installed but cannot be imported: {error}") from error
        self._cudart = cudart
        count = self._call("cudaGetDeviceCount")
        if count < 1:
            raise cuda_failure("cudaErrorNoDevice", "the driver counts no GPU", "cudaGetDeviceCount")
        with self.current():
            attribute = cudart.cudaDeviceAttr.cudaDevAttrIntegrated
            self.integrated = bool(self._call("cudaDeviceGetAttribute", attribute, _DEVICE))

    def _call(self, function: str, *arguments: Any) -> Any:
        """The value that ``function`` gives, or None; a status other than success is raised."""
        try:
            status, *values = getattr(self._cudart, function)(*arguments)
        except RuntimeError as error:  # versions below 12.9 raise it where the driver's library is missing
            raise cuda_failure("cudaErrorInsufficientDriver", str(error), function) from error
        if status != self._cudart.cudaError_t.cudaSuccess:
            raise cuda_failure(status.name, self._text(status), function)
        return values[0] if values else None

    def _text(self, status: Any) -> str:
        _, text = self._cudart.cudaGetErrorString(status)
        return text.decode() if isinstance(text, bytes) else str(text)

    @contextmanager
    def current(self) -> Iterator[None]:
        """The device of a thread is a setting of that thread; it stays set."""
        self._call("cudaSetDevice", _DEVICE)
        yield

    def new_stream(self) -> Stream:
        """See :meth:`CudaMemory.new_stream`."""
        owner = self._call("cudaStreamCreateWithFlags", self._cudart.cudaStreamNonBlocking)
        return Stream(owner, int(owner))

    def allocate(self, nbytes: int) -> DeviceBuffer:
        """See :meth:`CudaMemory.allocate`."""
        address = int(self._call("cudaMalloc", nbytes))
        return DeviceBuffer(address, address, nbytes)

    def allocate_pinned(self, rows: int, width: int, *, mapped: bool) -> PinnedArray:
        """See :meth:`CudaMemory.allocate_pinned`."""
        flags = self._cudart.cudaHostAllocMapped if mapped else self._cudart.cudaHostAllocDefault
        address = int(self._call("cudaHostAlloc", rows * width * 4, flags))
        device_address = 0
        if mapped:
            try:
                device_address = int(self._call("cudaHostGetDevicePointer", address, 0))
            except BaseException:
                self._call("cudaFreeHost", address)
                raise
        memory = (ctypes.c_float * (rows * width)).from_address(address)
        array = np.ctypeslib.as_array(memory).reshape(rows, width)
        array.fill(0.0)
        return PinnedArray(address, array, device_address)

    def copy_in(self, target: DeviceBuffer, source: NDArray[np.float32], stream: Stream) -> None:
        """See :meth:`CudaMemory.copy_in`."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target.address, _address(source), source.nbytes, kind, stream.owner)

    def copy_out(self, target: NDArray[np.float32], source: DeviceBuffer, stream: Stream) -> None:
        """See :meth:`CudaMemory.copy_out`."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", _address(target), source.address, target.nbytes, kind, stream.owner)

    def synchronize(self, stream: Stream) -> None:
        """See :meth:`CudaMemory.synchronize`."""
        self._call("cudaStreamSynchronize", stream.owner)

    def new_event(self) -> Event:
        """See :meth:`CudaMemory.new_event`."""
        return Event(self._call("cudaEventCreate"))

    def record(self, event: Event, stream: Stream) -> None:
        """See :meth:`CudaMemory.record`."""
        self._call("cudaEventRecord", event.owner, stream.owner)

    def seconds_between(self, start: Event, end: Event) -> float:
        """See :meth:`CudaMemory.seconds_between`."""
        return float(self._call("cudaEventElapsedTime", start.owner, end.owner)) / 1e3

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> CapturedGraph:
        """See :meth:`CudaMemory.capture`."""
        # Only this thread's calls may not break the rules of capturing; other threads allocate as they like.
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream.owner, mode)
        try:
            enqueue()
        except BaseException:
            self._leave_capture(stream)
            raise
        captured = self._call("cudaStreamEndCapture", stream.owner)
        try:
            return CapturedGraph(self._call("cudaGraphInstantiate", captured, 0))
        finally:
            self._call("cudaGraphDestroy", captured)

    def _leave_capture(self, stream: Stream) -> None:
        try:
            captured = self._call("cudaStreamEndCapture", stream.owner)
        except EngineError:  # the capture was invalidated, which is known and being raised already
            return
        self._call("cudaGraphDestroy", captured)

    def launch(self, graph: CapturedGraph, stream: Stream) -> None:
        """See :meth:`CudaMemory.launch`."""
        self._call("cudaGraphLaunch", graph.owner, stream.owner)

    def free(self, resource: Resource) -> None:
        """See :meth:`CudaMemory.free`."""
        self._call(_FREE[type(resource)], resource.owner)


def _address(array: NDArray[np.float32]) -> int:
    """``array.ctypes.data`` without the reference cycle that it leaves behind."""
    return int(array.__array_interface__["data"][0])
