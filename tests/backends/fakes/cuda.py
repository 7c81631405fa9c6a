"""A GPU that is none: memory, streams, events and graphs that hold a program to CUDA's rules.

It is asynchronous in effect: what is put on a stream happens when the stream is synchronised and no earlier, so that a
missing synchronise leaves old numbers, and what is freed or overwritten too early is missed. Fresh and freed memory is
filled with NaN. An error that real CUDA reports is a status here too (sticky ones stay); what real CUDA would silently
let happen (a leak, freeing under queued work) is noted in ``violations``.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

SUCCESS = "cudaSuccess"
ILLEGAL = "cudaErrorIllegalAddress"
STICKY = {
    ILLEGAL,
    "cudaErrorLaunchFailure",
    "cudaErrorLaunchTimeout",
    "cudaErrorMisalignedAddress",
    "cudaErrorECCUncorrectable",
    "cudaErrorHardwareStackError",
}
CODES = {
    SUCCESS: 0,
    "cudaErrorInvalidValue": 1,
    "cudaErrorMemoryAllocation": 2,
    "cudaErrorInsufficientDriver": 35,
    "cudaErrorNoDevice": 100,
    "cudaErrorECCUncorrectable": 214,
    "cudaErrorInvalidResourceHandle": 400,
    "cudaErrorNotReady": 600,
    ILLEGAL: 700,
    "cudaErrorLaunchOutOfResources": 701,
    "cudaErrorLaunchTimeout": 702,
    "cudaErrorHardwareStackError": 714,
    "cudaErrorMisalignedAddress": 716,
    "cudaErrorLaunchFailure": 719,
    "cudaErrorNotSupported": 801,
    "cudaErrorStreamCaptureUnsupported": 900,
    "cudaErrorStreamCaptureInvalidated": 901,
}
TEXTS = {
    "cudaErrorMemoryAllocation": "out of memory",
    "cudaErrorInvalidValue": "invalid argument",
    "cudaErrorInvalidResourceHandle": "invalid resource handle",
    "cudaErrorNoDevice": "no CUDA-capable device is detected",
    "cudaErrorECCUncorrectable": "uncorrectable ECC error encountered",
    ILLEGAL: "an illegal memory access was encountered",
    "cudaErrorLaunchFailure": "unspecified launch failure",
    "cudaErrorLaunchTimeout": "the launch timed out and was terminated",
    "cudaErrorHardwareStackError": "hardware stack error",
    "cudaErrorMisalignedAddress": "misaligned address",
    "cudaErrorNotSupported": "operation not supported",
    "cudaErrorLaunchOutOfResources": "too many resources requested for launch",
}

Work = Callable[[], str]
"""One piece of queued work: runs, and gives a status."""


@dataclass
class Memory:
    """Bytes on the device or page-locked ones; ``addresses`` are where it starts (host, and device where mapped)."""

    kind: str
    content: np.ndarray
    addresses: tuple[int, ...]
    freed: bool = False


@dataclass
class FakeStream:
    """Queued work, or (while capturing) what is being captured, by which thread, and whether that still holds."""

    handle: int
    queue: list[Work] = field(default_factory=list)
    captured: list[Work] | None = None
    valid: bool = True
    thread: int = 0


class CudaStatus(Exception):
    """A status that is no success; ``name`` is CUDA's."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


class FakeCuda:
    """The device. Methods are called by the two faces (:mod:`cuda_faces`) and raise :class:`CudaStatus`."""

    def __init__(self, *, integrated: bool = False, devices: int = 1) -> None:
        self.integrated, self.devices = integrated, devices
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.sticky: str | None = None
        self.clock = 0.0  # seconds of device time
        self.copies_broken = False  # copies give success and do nothing
        self.synchronize_broken = False  # synchronising gives success and does nothing
        self.mapped_delay = 0.0  # device seconds of each access to mapped memory, slept too
        self._faults: dict[tuple[str, int], str] = {}
        self._memory: list[Memory] = []
        self._next = itertools.count(0x7F00_0000_0000, 0x1000_0000)
        self._handles = itertools.count(0x5000)
        self.streams: dict[int, FakeStream] = {}
        self.events: dict[int, float | None] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.contexts: dict[int, int] = {}  # thread → contexts pushed; only the PyCUDA face counts them
        self.context_needed = False

    def fail(self, function: str, status: str, nth: int = 1) -> None:
        """The ``nth`` call of ``function`` from now on gives ``status``."""
        self._faults[function, self.counts[function] + nth] = status

    def enter(self, function: str, *, captures: bool = False) -> None:
        """Every function begins here: planned faults, the sticky error, the thread's context, the rules of capture."""
        self.counts[function] += 1
        status = self._faults.pop((function, self.counts[function]), None)
        if status is not None:
            self.sticky = status if status in STICKY else self.sticky
            raise CudaStatus(status)
        if self.sticky is not None:
            raise CudaStatus(self.sticky)
        if not self.is_current():
            raise CudaStatus("cudaErrorDeviceUninitialized")
        for stream in self.streams.values():
            if stream.captured is not None and stream.thread == threading.get_ident() and not captures:
                stream.valid = False
                raise CudaStatus("cudaErrorStreamCaptureUnsupported")

    def is_current(self) -> bool:
        """Whether the calling thread has the device's context."""
        return not self.context_needed or self.contexts.get(threading.get_ident(), 0) > 0

    def allocate(self, function: str, kind: str, nbytes: int, *, mapped: bool = False) -> Memory:
        self.enter(function)
        content = np.full(nbytes, 0xFF, np.uint8)
        addresses = (content.ctypes.data,) if kind == "pinned" else (next(self._next),)
        if mapped:
            addresses += (next(self._next),)
        memory = Memory(kind, content, addresses)
        self._memory.append(memory)
        return memory

    def free(self, function: str, kind: str, address: int) -> None:
        self.enter(function)
        known = [m for m in self._memory if m.kind == kind and m.addresses[0] == address]
        memory = next((m for m in known if not m.freed), None)
        if memory is None:
            self.violations.append(f"{function} of {address:#x}: {'freed twice' if known else 'never allocated'}")
            raise CudaStatus("cudaErrorInvalidValue")
        if any(stream.queue for stream in self.streams.values()):
            self.violations.append(f"{function} while work is queued")
        memory.freed = True
        memory.content.fill(0xFF)

    def bytes_at(self, address: int, nbytes: int) -> np.ndarray | None:
        """Memory that the device can reach at ``address``, or None."""
        for memory in self._memory:
            for start in memory.addresses[-1:] if memory.kind == "device" or len(memory.addresses) > 1 else ():
                if not memory.freed and start <= address and address + nbytes <= start + len(memory.content):
                    if memory.kind == "pinned":
                        self._touch_mapped()
                    return memory.content[address - start : address - start + nbytes]
        return None

    def host_at(self, address: int, nbytes: int) -> np.ndarray | None:
        """Page-locked memory at the host's ``address``, or None."""
        for memory in self._memory:
            start = memory.addresses[0]
            inside = start <= address and address + nbytes <= start + len(memory.content)
            if memory.kind == "pinned" and not memory.freed and inside:
                return memory.content[address - start : address - start + nbytes]
        return None

    def _touch_mapped(self) -> None:
        if self.mapped_delay:
            self.clock += self.mapped_delay
            threading.Event().wait(self.mapped_delay)

    def put(self, handle: int, work: Work) -> None:
        """Queue ``work`` on a stream, or capture it."""
        stream = self.stream(handle)
        (stream.queue if stream.captured is None else stream.captured).append(work)

    def stream(self, handle: int) -> FakeStream:
        if handle not in self.streams:
            raise CudaStatus("cudaErrorInvalidResourceHandle")
        return self.streams[handle]

    def new_stream(self, function: str) -> FakeStream:
        self.enter(function)
        stream = FakeStream(next(self._handles))
        self.streams[stream.handle] = stream
        return stream

    def destroy_stream(self, function: str, handle: int) -> None:
        self.enter(function)
        if self.stream(handle).queue:
            self.violations.append("a stream was destroyed with work queued")
        del self.streams[handle]

    def copy(self, function: str, target: int, source: int, nbytes: int, handle: int, *, inward: bool) -> None:
        self.enter(function, captures=True)
        if self.host_at(source if inward else target, nbytes) is None:
            self.violations.append(f"{function}: the host's memory is not page-locked, or was freed")

        def work() -> str:
            to = self.bytes_at(target, nbytes) if inward else self.host_at(target, nbytes)
            start = self.host_at(source, nbytes) if inward else self.bytes_at(source, nbytes)
            if to is None or start is None:
                return ILLEGAL
            self.clock += nbytes * 1e-9
            if not self.copies_broken:
                to[:] = start
            return SUCCESS

        self.put(handle, work)

    def synchronize(self, function: str, handle: int) -> None:
        self.enter(function)
        stream = self.stream(handle)
        if self.synchronize_broken:
            return
        while stream.queue:
            status = stream.queue.pop(0)()
            if status != SUCCESS:
                self.sticky = status
                stream.queue.clear()
                raise CudaStatus(status)

    def new_event(self, function: str) -> int:
        self.enter(function)
        handle = next(self._handles)
        self.events[handle] = None
        return handle

    def destroy_event(self, function: str, handle: int) -> None:
        self.enter(function)
        if self.events.pop(handle, "none") == "none":
            self.violations.append("an event was destroyed twice")

    def record(self, function: str, handle: int, stream: int) -> None:
        self.enter(function, captures=True)
        self.events[handle] = None

        def work() -> str:
            self.events[handle] = self.clock
            return SUCCESS

        self.put(stream, work)

    def elapsed(self, function: str, start: int, end: int) -> float:
        """Milliseconds."""
        self.enter(function)
        first, last = self.events[start], self.events[end]
        if first is None or last is None:
            raise CudaStatus("cudaErrorNotReady")
        return (last - first) * 1e3

    def begin_capture(self, function: str, handle: int) -> None:
        self.enter(function)
        stream = self.stream(handle)
        stream.captured, stream.valid, stream.thread = [], True, threading.get_ident()

    def end_capture(self, function: str, handle: int) -> int:
        stream = self.stream(handle)
        captured, stream.captured = stream.captured, None  # whatever status follows
        self.enter(function, captures=True)
        if captured is None or not stream.valid:
            raise CudaStatus("cudaErrorStreamCaptureInvalidated")
        graph = next(self._handles)
        self.graphs[graph] = captured
        return graph

    def instantiate(self, function: str, graph: int) -> int:
        self.enter(function)
        executable = next(self._handles)
        self.executables[executable] = list(self.graphs[graph])
        return executable

    def launch(self, function: str, executable: int, stream: int) -> None:
        self.enter(function)
        if executable not in self.executables:
            raise CudaStatus("cudaErrorInvalidResourceHandle")
        for work in self.executables[executable]:
            self.put(stream, work)

    def destroy(self, function: str, table: dict[int, list[Work]], handle: int) -> None:
        self.enter(function)
        if table.pop(handle, None) is None:
            self.violations.append(f"{function}: destroyed twice")

    def held(self) -> list[str]:
        """Everything that has not been freed."""
        left = [f"{m.kind} memory of {len(m.content)} bytes" for m in self._memory if not m.freed]
        for name in ("streams", "events", "graphs", "executables"):
            left += [f"{name}: {len(table)}"] if (table := getattr(self, name)) else []
        left += [f"a context is still pushed on thread {thread}" for thread, n in self.contexts.items() if n]
        return left
