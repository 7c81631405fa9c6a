"""What a CUDA binding has to do for the TensorRT backend, and what a failure of CUDA means for a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_reclass.errors import DeviceError, EngineError

__all__ = [
    "CapturedGraph",
    "CudaMemory",
    "DeviceBuffer",
    "Event",
    "PinnedArray",
    "Stream",
    "cuda_failure",
]


@dataclass(eq=False)
class DeviceBuffer:
    """Bytes on the device. ``owner`` is the binding's own object in this and the following classes."""

    address: int
    nbytes: int
    owner: Any = None


@dataclass(eq=False)
class PinnedArray:
    """Page-locked host memory as float32[rows, width]; ``address`` is the device's, and 0 unless it is mapped."""

    array: NDArray[np.float32]
    address: int
    owner: Any = None


@dataclass(eq=False)
class Stream:
    """A stream that is not the default one; ``handle`` is its ``cudaStream_t``."""

    handle: int
    owner: Any = None


@dataclass(eq=False)
class Event:
    """A point on a stream whose time the device notes."""

    owner: Any = None


@dataclass(eq=False)
class CapturedGraph:
    """Work that was captured and can be launched again with the same addresses."""

    owner: Any = None


class CudaMemory(Protocol):
    """The first GPU's primary context: buffers, copies, events and captured graphs.

    Everything but :meth:`close` has to be called inside :meth:`current`, on any thread. Every CUDA status is checked.
    What is allocated is freed by the caller, each exactly once, before :meth:`close`.

    Raises (all methods):
        MemoryError: the device (or its page-locked memory) is exhausted.
        DeviceError: the device cannot be used or was lost; it fails for every later call too.
        EngineError: any other CUDA error.
    """

    name: str
    captures: bool
    """Whether :meth:`capture` works with this binding."""
    integrated: bool
    """Whether the GPU shares the host's memory, as on a Jetson."""

    def current(self) -> AbstractContextManager[None]:
        """Makes the device current on the calling thread."""

    def new_stream(self) -> Stream:
        """A stream that does not wait for the default one."""

    def free_stream(self, stream: Stream) -> None: ...

    def allocate(self, nbytes: int) -> DeviceBuffer: ...

    def free(self, buffer: DeviceBuffer) -> None: ...

    def allocate_pinned(self, rows: int, width: int, *, mapped: bool) -> PinnedArray:
        """Zeroed float32[rows, width]; with ``mapped``, the device can read and write it too."""

    def free_pinned(self, pinned: PinnedArray) -> None:
        """The array must not be touched afterwards."""

    def copy_in(self, target: DeviceBuffer, source: NDArray[np.float32], stream: Stream) -> None:
        """Put a copy of ``source`` (pinned, contiguous) to the device on the stream; returns before it is done."""

    def copy_out(self, target: NDArray[np.float32], source: DeviceBuffer, stream: Stream) -> None:
        """Put a copy into ``target`` (pinned, contiguous) on the stream; returns before it is done."""

    def synchronize(self, stream: Stream) -> None:
        """Wait until the stream is done, without holding Python's lock."""

    def new_event(self) -> Event: ...

    def free_event(self, event: Event) -> None: ...

    def record(self, event: Event, stream: Stream) -> None: ...

    def seconds_between(self, start: Event, end: Event) -> float:
        """Device time between two recorded events whose stream has been synchronised."""

    def capture(self, stream: Stream, enqueue: Callable[[], None]) -> CapturedGraph:
        """Capture what ``enqueue`` puts on the stream. The stream is out of capture mode again, whatever happens."""

    def launch(self, graph: CapturedGraph, stream: Stream) -> None: ...

    def free_graph(self, graph: CapturedGraph) -> None: ...

    def close(self) -> None:
        """Let go of the device; closing twice is allowed."""


OUT_OF_MEMORY = "cudaErrorMemoryAllocation"

# cudaError_t in driver_types.h: the context is gone after these ("sticky"), or there never was a usable device.
_DEVICE_LOST = frozenset(
    {
        "cudaErrorInitializationError",
        "cudaErrorCudartUnloading",
        "cudaErrorStubLibrary",
        "cudaErrorInsufficientDriver",
        "cudaErrorCallRequiresNewerDriver",
        "cudaErrorDevicesUnavailable",
        "cudaErrorNoDevice",
        "cudaErrorInvalidDevice",
        "cudaErrorDeviceNotLicensed",
        "cudaErrorDeviceUninitialized",
        "cudaErrorECCUncorrectable",
        "cudaErrorNvlinkUncorrectable",
        "cudaErrorContained",
        "cudaErrorIllegalAddress",
        "cudaErrorLaunchTimeout",
        "cudaErrorContextIsDestroyed",
        "cudaErrorAssert",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalInstruction",
        "cudaErrorMisalignedAddress",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorTensorMemoryLeak",
        "cudaErrorExternalDevice",
        "cudaErrorMpsConnectionFailed",
        "cudaErrorMpsRpcFailure",
        "cudaErrorMpsServerNotReady",
        "cudaErrorMpsMaxClientsReached",
        "cudaErrorMpsMaxConnectionsReached",
        "cudaErrorMpsClientTerminated",
        "cudaErrorSystemNotReady",
        "cudaErrorSystemDriverMismatch",
        "cudaErrorCompatNotSupportedOnDevice",
        "cudaErrorOperatingSystem",
        "cudaErrorUnknown",
    }
)


def cuda_failure(name: str, text: str, operation: str) -> DeviceError | EngineError | MemoryError:
    """The exception for CUDA error ``name`` (such as ``cudaErrorIllegalAddress``), described by ``text``."""
    message = f"{operation}: {name} ({text})"
    if name == OUT_OF_MEMORY:
        return MemoryError(f"{message}; stop other programs that use the GPU, or use a smaller batch")
    if name == "cudaErrorInsufficientDriver":
        return DeviceError(
            f"{message}; there is no driver, or it is older than cuda-bindings (JetPack 6 takes version 12)"
        )
    if name in _DEVICE_LOST:
        return DeviceError(f"{message}; the GPU cannot be used or was lost: edge-reclass doctor  says more")
    return EngineError(message)
