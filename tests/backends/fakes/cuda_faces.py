"""The two bindings as far as edge-reclass uses them, over one :class:`FakeCuda`: ``cuda.bindings.runtime``, PyCUDA."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from backends.fakes.cuda import CODES, SUCCESS, TEXTS, CudaStatus, FakeCuda

cudaError_t = enum.IntEnum("cudaError_t", {**CODES, "cudaErrorDeviceUninitialized": 201})


class _Handle:
    """cuda-bindings wraps handles in objects that ``int`` unwraps."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __int__(self) -> int:
        return self._value


def bindings_module(cuda: FakeCuda) -> ModuleType:
    """``cuda.bindings.runtime``: each function gives (status,) or (status, value), the value None on failure."""
    module = ModuleType("cuda.bindings.runtime")

    def add(name: str, function: Callable[..., Any], *, gives: bool = False, device: bool = True) -> None:
        def call(*arguments: Any) -> tuple[Any, ...]:
            if device and cuda.devices == 0:
                return (cudaError_t["cudaErrorNoDevice"], *([None] if gives else []))
            try:
                value = function(name, *arguments)
            except CudaStatus as status:
                return (cudaError_t[status.name], *([None] if gives else []))
            return (cudaError_t[SUCCESS], *([value] if gives else []))

        setattr(module, name, call)

    def address_of(memory: Any) -> int:
        return int(memory.addresses[0])

    def count(name: str) -> int:
        cuda.enter(name)
        return cuda.devices

    def device_pointer(name: str, host: int, flags: int) -> int:
        cuda.enter(name)
        memory = next(m for m in cuda._memory if not m.freed and m.addresses[0] == host)
        if len(memory.addresses) < 2:
            raise CudaStatus("cudaErrorInvalidValue")
        return memory.addresses[1]

    def copy(name: str, target: int, source: int, nbytes: int, kind: int, stream: _Handle) -> None:
        cuda.copy(name, target, source, nbytes, int(stream), inward=kind == 1)

    add("cudaGetDeviceCount", count, gives=True)
    add("cudaSetDevice", lambda name, device: cuda.enter(name, captures=True))
    add("cudaDeviceGetAttribute", lambda name, attribute, device: int(cuda.integrated), gives=True)
    add("cudaStreamCreateWithFlags", lambda n, flags: _Handle(cuda.new_stream(n).handle), gives=True)
    add("cudaStreamDestroy", lambda n, stream: cuda.destroy_stream(n, int(stream)))
    add("cudaStreamSynchronize", lambda n, stream: cuda.synchronize(n, int(stream)))
    add("cudaMalloc", lambda n, nbytes: address_of(cuda.allocate(n, "device", nbytes)), gives=True)
    add("cudaFree", lambda n, address: cuda.free(n, "device", address))
    add(
        "cudaHostAlloc",
        lambda n, nbytes, flags: address_of(cuda.allocate(n, "pinned", nbytes, mapped=flags == 2)),
        gives=True,
    )
    add("cudaFreeHost", lambda n, address: cuda.free(n, "pinned", address))
    add("cudaHostGetDevicePointer", device_pointer, gives=True)
    add("cudaMemcpyAsync", copy)
    add("cudaEventCreate", lambda n: _Handle(cuda.new_event(n)), gives=True)
    add("cudaEventDestroy", lambda n, event: cuda.destroy_event(n, int(event)))
    add("cudaEventRecord", lambda n, event, stream: cuda.record(n, int(event), int(stream)))
    add("cudaEventElapsedTime", lambda n, start, end: cuda.elapsed(n, int(start), int(end)), gives=True)
    add("cudaStreamBeginCapture", lambda n, stream, mode: cuda.begin_capture(n, int(stream)))
    add("cudaStreamEndCapture", lambda n, stream: _Handle(cuda.end_capture(n, int(stream))), gives=True)
    add("cudaGraphInstantiate", lambda n, graph, flags: _Handle(cuda.instantiate(n, int(graph))), gives=True)
    add("cudaGraphLaunch", lambda n, executable, stream: cuda.launch(n, int(executable), int(stream)))
    add("cudaGraphDestroy", lambda n, graph: cuda.destroy(n, cuda.graphs, int(graph)))
    add("cudaGraphExecDestroy", lambda n, graph: cuda.destroy(n, cuda.executables, int(graph)))
    add("cudaGetErrorString", lambda n, status: TEXTS.get(status.name, "an error").encode(), gives=True, device=False)
    module.cudaError_t = cudaError_t
    module.cudaDeviceAttr = SimpleNamespace(cudaDevAttrIntegrated=18)
    module.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    module.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    module.cudaStreamNonBlocking, module.cudaHostAllocDefault, module.cudaHostAllocMapped = 1, 0, 2
    return module


def pycuda_module(cuda: FakeCuda) -> ModuleType:
    """``pycuda.driver``: objects that own what they stand for, exceptions with a text and no code.

    PyCUDA is native code: an exception's traceback keeps none of its objects alive, hence each ``del`` before a call.
    """
    module = ModuleType("pycuda.driver")

    class Error(Exception):
        pass

    kinds = {"cudaErrorMemoryAllocation": type("MemoryError", (Error,), {})}
    logic = type("LogicError", (Error,), {})

    def checked(routine: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return function(routine, *arguments, **named)
        except CudaStatus as status:
            text = "invalid device context" if status.name == "cudaErrorDeviceUninitialized" else TEXTS[status.name]
            raise kinds.get(status.name, logic)(f"{routine} failed: {text}") from None

    def init() -> None:
        cuda.context_needed = True
        if cuda.devices == 0:
            raise logic(f"cuInit failed: {TEXTS['cudaErrorNoDevice']}")

    class Context:
        def push(self) -> None:
            thread = threading.get_ident()
            cuda.contexts[thread] = cuda.contexts.get(thread, 0) + 1
            try:
                checked("cuCtxPushCurrent", lambda name: cuda.enter(name, captures=True))
            except Error:
                cuda.contexts[thread] -= 1
                raise

        @staticmethod
        def pop() -> None:
            thread = threading.get_ident()
            if not cuda.contexts.get(thread):
                raise logic("context::pop failed: invalid device context - cannot pop non-current context")
            cuda.contexts[thread] -= 1

        def detach(self) -> None:
            if not cuda.contexts.get(threading.get_ident()):
                cuda.violations.append("a PyCUDA context was detached by a thread on which it was not current")
                return
            Context.pop()

    class Device:
        def __init__(self, number: int) -> None:
            self.number = number

        def get_attribute(self, attribute: int) -> int:
            return int(cuda.integrated)

        def retain_primary_context(self) -> Context:
            return Context()

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            self.handle = 0
            self.handle = checked("cuStreamCreate", cuda.new_stream).handle

        def synchronize(self) -> None:
            handle = self.handle
            del self
            checked("cuStreamSynchronize", cuda.synchronize, handle)

        def __del__(self) -> None:
            _destroy(cuda, self.handle, lambda: cuda.destroy_stream("cuStreamDestroy", self.handle))

    class Event:
        def __init__(self) -> None:
            self.handle = 0
            self.handle = checked("cuEventCreate", cuda.new_event)

        def record(self, stream: Stream) -> None:
            handles = self.handle, stream.handle
            del self, stream
            checked("cuEventRecord", cuda.record, *handles)

        def time_since(self, start: Event) -> float:
            handles = start.handle, self.handle
            del self, start
            return float(checked("cuEventElapsedTime", cuda.elapsed, *handles))

        def __del__(self) -> None:
            _destroy(cuda, self.handle, lambda: cuda.destroy_event("cuEventDestroy", self.handle))

    class DeviceAllocation:
        def __init__(self, nbytes: int) -> None:
            self._memory = checked("cuMemAlloc", cuda.allocate, "device", nbytes)

        def __int__(self) -> int:
            return int(self._memory.addresses[0])

        def free(self) -> None:
            checked("cuMemFree", cuda.free, "device", int(self))

    class PagelockedHostAllocation:
        def __init__(self, nbytes: int, *, mapped: bool) -> None:
            self.memory = checked("cuMemHostAlloc", cuda.allocate, "pinned", nbytes, mapped=mapped)

        def free(self) -> None:
            checked("cuMemFreeHost", cuda.free, "pinned", self.memory.addresses[0])

        def get_device_pointer(self) -> int:
            checked("cuMemHostGetDevicePointer", cuda.enter)
            return int(self.memory.addresses[1])

        @property
        def __array_interface__(self) -> dict[str, Any]:
            return self.memory.content.__array_interface__

    def pagelocked_empty(shape: tuple[int, int], dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        owner = PagelockedHostAllocation(int(np.prod(shape)) * 4, mapped=mem_flags == 2)
        array = np.ndarray(shape, dtype, buffer=owner.memory.content)
        return _Owned(array, owner)

    def memcpy_htod_async(target: int, source: np.ndarray, stream: Stream) -> None:
        put = target, _address(source), source.nbytes, stream.handle
        del source, stream
        checked("cuMemcpyHtoDAsync", cuda.copy, *put, inward=True)

    def memcpy_dtoh_async(target: np.ndarray, source: int, stream: Stream) -> None:
        put = _address(target), source, target.nbytes, stream.handle
        del target, stream
        checked("cuMemcpyDtoHAsync", cuda.copy, *put, inward=False)

    module.init, module.Device, module.Context, module.Stream, module.Event = init, Device, Context, Stream, Event
    module.Error, module.mem_alloc, module.pagelocked_empty = Error, DeviceAllocation, pagelocked_empty
    module.memcpy_htod_async, module.memcpy_dtoh_async = memcpy_htod_async, memcpy_dtoh_async
    module.device_attribute = SimpleNamespace(INTEGRATED=18)
    module.host_alloc_flags = SimpleNamespace(DEVICEMAP=2)
    return module


class _Owned(np.ndarray):
    """An array whose ``base`` is the allocation, as PyCUDA's are."""

    def __new__(cls, array: np.ndarray, owner: Any) -> _Owned:
        made = np.asarray(array).view(cls)
        made._owner = owner
        return made

    def __array_finalize__(self, other: Any) -> None:
        self._owner = getattr(other, "_owner", None)

    @property
    def base(self) -> Any:
        return self._owner


def _address(array: np.ndarray) -> int:
    return int(np.asarray(array).__array_interface__["data"][0])


def _destroy(cuda: FakeCuda, handle: int, destroy: Callable[[], None]) -> None:
    """PyCUDA's destructors only warn; without the context they leak."""
    if not handle:
        return
    if cuda.sticky is None and not cuda.is_current():
        cuda.violations.append("a PyCUDA object was destroyed while its context was not current")
        return
    try:
        destroy()
    except CudaStatus as status:
        if cuda.sticky is None:
            cuda.violations.append(f"a PyCUDA object could not be destroyed: {status.name}")
