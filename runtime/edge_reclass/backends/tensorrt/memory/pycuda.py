"""CUDA through PyCUDA, which many Jetsons have: the driver API with objects that own what they stand for."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends.tensorrt.memory.base import (
    DEVICE_LOST,
    OUT_OF_MEMORY,
    CudaMemory,
    DeviceBuffer,
    Event,
    PinnedArray,
    Resource,
    Stream,
    cuda_failure,
)
from edge_reclass.errors import DeviceError, EngineError

# PyCUDA's exceptions have no code, only cuGetErrorString's text after "failed: ": the texts that mean something here.
_NAMES = {text: name for name, text in DEVICE_LOST.items() if text is not None} | {
    "out of memory": OUT_OF_MEMORY,
    "invalid argument": "cudaErrorInvalidValue",
    "invalid resource handle": "cudaErrorInvalidResourceHandle",
    "operation not supported": "cudaErrorNotSupported",
    "too many resources requested for launch": "cudaErrorLaunchOutOfResources",
}


class PycudaMemory(CudaMemory):
    """See :class:`CudaMemory`. PyCUDA cannot capture graphs."""

    name = "pycuda"

    def __init__(self) -> None:
        with suppress(OSError):  # PyCUDA's module finds the driver's symbols in what is loaded already, on some systems
            ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
        try:
            cuda = import_module("pycuda.driver")
        except ImportError as error:
            raise DeviceError(
                f"pycuda is installed but cannot be imported: {error};"
                " is the GPU's driver installed? EDGE_RECLASS_CUDA_MEMORY=cuda-bindings  takes the other binding"
            ) from error
        self._cuda: Any = cuda
        self._context: Any = None
        with self._checked():
            cuda.init()
            device = cuda.Device(0)
            self.integrated = bool(device.get_attribute(cuda.device_attribute.INTEGRATED))
            # TensorRT works in the primary context, too: another one could not share its buffers.
            self._context = device.retain_primary_context()

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except self._cuda.Error as error:
            operation, found, text = str(error).partition(" failed: ")
            if not found:
                operation, text = "PyCUDA", str(error)
            name = _NAMES.get(text.partition(" - ")[0], "a CUDA error without a known name")
            raise cuda_failure(name, text, operation) from error

    @contextmanager
    def current(self) -> Iterator[None]:
        """Contexts are a thread's stack: push ours, so that any thread may run what another one opened."""
        if self._context is None:
            raise EngineError("the CUDA memory was closed")
        with self._checked():
            self._context.push()
        try:
            yield
        finally:
            with self._checked():
                self._cuda.Context.pop()

    def new_stream(self) -> Stream:
        """See :meth:`CudaMemory.new_stream`."""
        with self._checked():
            owner = self._cuda.Stream(1)  # CU_STREAM_NON_BLOCKING of cuda.h
        return Stream(owner, int(owner.handle))

    def allocate(self, nbytes: int) -> DeviceBuffer:
        """See :meth:`CudaMemory.allocate`."""
        with self._checked():
            owner = self._cuda.mem_alloc(nbytes)
        return DeviceBuffer(owner, int(owner), nbytes)

    def allocate_pinned(self, rows: int, width: int, *, mapped: bool) -> PinnedArray:
        """See :meth:`CudaMemory.allocate_pinned`."""
        flags = self._cuda.host_alloc_flags.DEVICEMAP if mapped else 0
        with self._checked():
            array = self._cuda.pagelocked_empty((rows, width), np.float32, mem_flags=flags)
            owner = array.base
            try:
                device_address = int(owner.get_device_pointer()) if mapped else 0
            except BaseException:
                owner.free()
                raise
        array.fill(0.0)
        return PinnedArray(owner, array, device_address)

    def copy_in(self, target: DeviceBuffer, source: NDArray[np.float32], stream: Stream) -> None:
        """See :meth:`CudaMemory.copy_in`."""
        with self._checked():
            self._cuda.memcpy_htod_async(target.address, source, stream.owner)

    def copy_out(self, target: NDArray[np.float32], source: DeviceBuffer, stream: Stream) -> None:
        """See :meth:`CudaMemory.copy_out`."""
        with self._checked():
            self._cuda.memcpy_dtoh_async(target, source.address, stream.owner)

    def synchronize(self, stream: Stream) -> None:
        """See :meth:`CudaMemory.synchronize`."""
        with self._checked():
            stream.owner.synchronize()

    def new_event(self) -> Event:
        """See :meth:`CudaMemory.new_event`."""
        with self._checked():
            return Event(self._cuda.Event())

    def record(self, event: Event, stream: Stream) -> None:
        """See :meth:`CudaMemory.record`."""
        with self._checked():
            event.owner.record(stream.owner)

    def seconds_between(self, start: Event, end: Event) -> float:
        """See :meth:`CudaMemory.seconds_between`."""
        with self._checked():
            return float(end.owner.time_since(start.owner)) / 1e3

    def free(self, resource: Resource) -> None:
        """Memory is freed by a call, a stream or an event with the last reference to it."""
        if isinstance(resource, DeviceBuffer | PinnedArray):
            with self._checked():
                resource.owner.free()
        else:
            resource.owner = None

    def close(self) -> None:
        """Give the primary context back."""
        context, self._context = self._context, None
        if context is None:
            return
        with self._checked():
            # PyCUDA detaches only a context that is current, or was made by this thread; this pops it, too.
            context.push()
            context.detach()
