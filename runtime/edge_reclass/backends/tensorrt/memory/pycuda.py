"""CUDA through PyCUDA, which many Jetsons have: the driver API with objects that own what they stand for."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends.tensorrt.memory.base import (
    OUT_OF_MEMORY,
    CapturedGraph,
    DeviceBuffer,
    Event,
    PinnedArray,
    Stream,
    cuda_failure,
)
from edge_reclass.errors import DeviceError, EngineError

__all__ = ["PycudaMemory"]

# PyCUDA's exceptions have no code, only cuGetErrorString's text after "failed: ": the texts that mean something here.
_NAMES = {
    "out of memory": OUT_OF_MEMORY,
    "initialization error": "cudaErrorInitializationError",
    "driver shutting down": "cudaErrorCudartUnloading",
    "no CUDA-capable device is detected": "cudaErrorNoDevice",
    "invalid device ordinal": "cudaErrorInvalidDevice",
    "CUDA-capable device(s) is/are busy or unavailable": "cudaErrorDevicesUnavailable",
    "CUDA driver is a stub library": "cudaErrorStubLibrary",
    "CUDA driver version is insufficient for CUDA runtime version": "cudaErrorInsufficientDriver",
    "invalid device context": "cudaErrorDeviceUninitialized",
    "uncorrectable ECC error encountered": "cudaErrorECCUncorrectable",
    "uncorrectable NVLink error detected during the execution": "cudaErrorNvlinkUncorrectable",
    "an illegal memory access was encountered": "cudaErrorIllegalAddress",
    "the launch timed out and was terminated": "cudaErrorLaunchTimeout",
    "context is destroyed": "cudaErrorContextIsDestroyed",
    "device-side assert triggered": "cudaErrorAssert",
    "hardware stack error": "cudaErrorHardwareStackError",
    "an illegal instruction was encountered": "cudaErrorIllegalInstruction",
    "misaligned address": "cudaErrorMisalignedAddress",
    "operation not supported on global/shared address space": "cudaErrorInvalidAddressSpace",
    "invalid program counter": "cudaErrorInvalidPc",
    "unspecified launch failure": "cudaErrorLaunchFailure",
    "system not yet initialized": "cudaErrorSystemNotReady",
    "system has unsupported display driver / cuda driver combination": "cudaErrorSystemDriverMismatch",
    "forward compatibility was attempted on non supported HW": "cudaErrorCompatNotSupportedOnDevice",
    "OS call failed or operation not supported on this OS": "cudaErrorOperatingSystem",
    "unknown error": "cudaErrorUnknown",
    "invalid argument": "cudaErrorInvalidValue",
    "invalid resource handle": "cudaErrorInvalidResourceHandle",
    "operation not supported": "cudaErrorNotSupported",
    "too many resources requested for launch": "cudaErrorLaunchOutOfResources",
}


class PycudaMemory:
    """See :class:`edge_reclass.backends.tensorrt.memory.base.CudaMemory`. PyCUDA cannot capture graphs."""

    name = "pycuda"
    captures = False

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
            _raise(error)

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
        with self._checked():
            owner = self._cuda.Stream(1)  # CU_STREAM_NON_BLOCKING of cuda.h
        return Stream(int(owner.handle), owner)

    def free_stream(self, stream: Stream) -> None:
        stream.owner = None

    def allocate(self, nbytes: int) -> DeviceBuffer:
        with self._checked():
            owner = self._cuda.mem_alloc(nbytes)
        return DeviceBuffer(int(owner), nbytes, owner)

    def free(self, buffer: DeviceBuffer) -> None:
        with self._checked():
            buffer.owner.free()

    def allocate_pinned(self, rows: int, width: int, *, mapped: bool) -> PinnedArray:
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
        return PinnedArray(array, device_address, owner)

    def free_pinned(self, pinned: PinnedArray) -> None:
        with self._checked():
            pinned.owner.free()

    def copy_in(self, target: DeviceBuffer, source: NDArray[np.float32], stream: Stream) -> None:
        with self._checked():
            self._cuda.memcpy_htod_async(target.address, source, stream.owner)

    def copy_out(self, target: NDArray[np.float32], source: DeviceBuffer, stream: Stream) -> None:
        with self._checked():
            self._cuda.memcpy_dtoh_async(target, source.address, stream.owner)

    def synchronize(self, stream: Stream) -> None:
        with self._checked():
            stream.owner.synchronize()

    def new_event(self) -> Event:
        with self._checked():
            return Event(self._cuda.Event())

    def free_event(self, event: Event) -> None:
        event.owner = None

    def record(self, event: Event, stream: Stream) -> None:
        with self._checked():
            event.owner.record(stream.owner)

    def seconds_between(self, start: Event, end: Event) -> float:
        with self._checked():
            return float(end.owner.time_since(start.owner)) / 1e3

    def capture(self, *_: Any, **__: Any) -> CapturedGraph:
        """See the class."""
        raise EngineError("PyCUDA cannot capture CUDA graphs; EDGE_RECLASS_CUDA_MEMORY=cuda-bindings  can")

    def launch(self, *_: Any, **__: Any) -> None:
        """See the class."""
        raise EngineError("PyCUDA cannot launch CUDA graphs")

    def free_graph(self, *_: Any, **__: Any) -> None:
        """See the class."""
        raise EngineError("PyCUDA has no CUDA graphs to free")

    def close(self) -> None:
        """Gives the primary context back."""
        context, self._context = self._context, None
        if context is None:
            return
        with self._checked():
            # PyCUDA detaches only a context that is current, or was made by this thread; this pops it, too.
            context.push()
            context.detach()


def _raise(error: Exception) -> NoReturn:
    operation, found, text = str(error).partition(" failed: ")
    if not found:
        operation, text = "PyCUDA", str(error)
    name = _NAMES.get(text.partition(" - ")[0], "a CUDA error without a known name")
    raise cuda_failure(name, text, operation) from error
