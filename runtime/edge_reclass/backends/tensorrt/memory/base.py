"""What a CUDA binding has to do for the TensorRT backend, and what a failure of CUDA means for a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import DeviceError, EngineError


@dataclass(eq=False)
class Resource:
    """Something that a binding has acquired; ``owner`` is what the binding itself needs to use and to free it."""

    owner: Any


@dataclass(eq=False)
class DeviceBuffer(Resource):
    """Bytes on the device."""

    address: int
    nbytes: int


@dataclass(eq=False)
class PinnedArray(Resource):
    """Page-locked host memory as float32[rows, width]; ``address`` is the device's, and 0 unless it is mapped."""

    array: NDArray[np.float32]
    address: int


@dataclass(eq=False)
class Stream(Resource):
    """A stream that is not the default one; ``handle`` is its ``cudaStream_t``."""

    handle: int


class Event(Resource):
    """A point on a stream whose time the device notes."""


class CapturedGraph(Resource):
    """Work that was captured and can be launched again with the same addresses."""


class CudaMemory(ABC):
    """The first GPU's primary context: buffers, copies, events and captured graphs.

    Everything but :meth:`close` has to be called inside :meth:`current`, on any thread. Every CUDA status is checked.
    The caller frees each resource exactly once, before :meth:`close`.

    Raises (all methods):
        MemoryError: the device (or its page-locked memory) is exhausted.
        DeviceError: the device cannot be used or was lost; it fails for every later call too.
        EngineError: any other CUDA error.
    """

    name: str
    captures: bool = False
    """Whether :meth:`capture` works with this binding."""
    integrated: bool
    """Whether the GPU shares the host's memory, as on a Jetson."""

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Make the device current on the calling thread."""

    @abstractmethod
    def new_stream(self) -> Stream:
        """Make a stream that does not wait for the default one."""

    @abstractmethod
    def allocate(self, nbytes: int) -> DeviceBuffer:
        """Allocate memory of the device, with any content."""

    @abstractmethod
    def allocate_pinned(self, rows: int, width: int, *, mapped: bool) -> PinnedArray:
        """Allocate zeroed float32[rows, width]; with ``mapped``, the device can read and write it too."""

    @abstractmethod
    def copy_in(self, target: DeviceBuffer, source: NDArray[np.float32], stream: Stream) -> None:
        """Put a copy of ``source`` (pinned, contiguous) to the device on the stream; returns before it is done."""

    @abstractmethod
    def copy_out(self, target: NDArray[np.float32], source: DeviceBuffer, stream: Stream) -> None:
        """Put a copy into ``target`` (pinned, contiguous) on the stream; returns before it is done."""

    @abstractmethod
    def synchronize(self, stream: Stream) -> None:
        """Wait until the stream is done, without holding Python's lock."""

    @abstractmethod
    def new_event(self) -> Event:
        """Make an event that can be timed."""

    @abstractmethod
    def record(self, event: Event, stream: Stream) -> None:
        """Put the event on the stream."""

    @abstractmethod
    def seconds_between(self, start: Event, end: Event) -> float:
        """Device time between two recorded events whose stream has been synchronised."""

    @abstractmethod
    def free(self, resource: Resource) -> None:
        """Free what one of these methods gave; a pinned array must not be touched afterwards."""

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> CapturedGraph:  # noqa: ARG002
        """Capture what ``enqueue`` puts on the stream. The stream is out of capture mode again, whatever happens."""
        raise EngineError(f"{self.name} cannot capture CUDA graphs")

    def launch(self, graph: CapturedGraph, stream: Stream) -> None:  # noqa: ARG002
        """Put the captured work on the stream."""
        raise EngineError(f"{self.name} cannot launch CUDA graphs")

    def close(self) -> None:  # noqa: B027 - cuda-bindings holds nothing
        """Release the device; closing twice is allowed."""


OUT_OF_MEMORY = "cudaErrorMemoryAllocation"

DEVICE_LOST = {
    "cudaErrorInitializationError": "initialization error",
    "cudaErrorCudartUnloading": "driver shutting down",
    "cudaErrorStubLibrary": "CUDA driver is a stub library",
    "cudaErrorInsufficientDriver": "CUDA driver version is insufficient for CUDA runtime version",
    "cudaErrorCallRequiresNewerDriver": None,
    "cudaErrorDevicesUnavailable": "CUDA-capable device(s) is/are busy or unavailable",
    "cudaErrorNoDevice": "no CUDA-capable device is detected",
    "cudaErrorInvalidDevice": "invalid device ordinal",
    "cudaErrorDeviceNotLicensed": None,
    "cudaErrorDeviceUninitialized": "invalid device context",
    "cudaErrorECCUncorrectable": "uncorrectable ECC error encountered",
    "cudaErrorNvlinkUncorrectable": "uncorrectable NVLink error detected during the execution",
    "cudaErrorContained": None,
    "cudaErrorIllegalAddress": "an illegal memory access was encountered",
    "cudaErrorLaunchTimeout": "the launch timed out and was terminated",
    "cudaErrorContextIsDestroyed": "context is destroyed",
    "cudaErrorAssert": "device-side assert triggered",
    "cudaErrorHardwareStackError": "hardware stack error",
    "cudaErrorIllegalInstruction": "an illegal instruction was encountered",
    "cudaErrorMisalignedAddress": "misaligned address",
    "cudaErrorInvalidAddressSpace": "operation not supported on global/shared address space",
    "cudaErrorInvalidPc": "invalid program counter",
    "cudaErrorLaunchFailure": "unspecified launch failure",
    "cudaErrorTensorMemoryLeak": None,
    "cudaErrorExternalDevice": None,
    "cudaErrorMpsConnectionFailed": None,
    "cudaErrorMpsRpcFailure": None,
    "cudaErrorMpsServerNotReady": None,
    "cudaErrorMpsMaxClientsReached": None,
    "cudaErrorMpsMaxConnectionsReached": None,
    "cudaErrorMpsClientTerminated": None,
    "cudaErrorSystemNotReady": "system not yet initialized",
    "cudaErrorSystemDriverMismatch": "system has unsupported display driver / cuda driver combination",
    "cudaErrorCompatNotSupportedOnDevice": "forward compatibility was attempted on non supported HW",
    "cudaErrorOperatingSystem": "OS call failed or operation not supported on this OS",
    "cudaErrorUnknown": "unknown error",
}
"""cudaError_t in driver_types.h after which the context is gone ("sticky"), or without a usable device from the start.

Each with what cuGetErrorString says of it, by which PyCUDA's errors are known, where that text was seen.
"""


def cuda_failure(name: str, text: str, operation: str) -> DeviceError | EngineError | MemoryError:
    """The exception for CUDA error ``name`` (such as ``cudaErrorIllegalAddress``), described by ``text``."""
    message = f"{operation}: {name} ({text})"
    if name == OUT_OF_MEMORY:
        return MemoryError(f"{message}; stop other programs that use the GPU, or use a smaller batch")
    if name == "cudaErrorInsufficientDriver":
        return DeviceError(
            f"{message}; there is no driver, or it is older than cuda-bindings (JetPack 6 takes version 12)"
        )
    if name in DEVICE_LOST:
        return DeviceError(f"{message}; the GPU cannot be used or was lost: edge-reclass doctor  says more")
    return EngineError(message)
