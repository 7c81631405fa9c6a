"""An ``onnxruntime`` with a CUDA provider for machines without one: computes through the real CPU session, and enforces
what CUDA enforces.

Modelled on ONNX Runtime 1.23–1.31 (cuda_execution_provider.cc, cuda_graph.cc, IOBinding.cc):

* memory on the device is limited, and a value there is written and read by copies alone;
* nothing is done before a synchronisation: kernels see an input only after ``synchronize_inputs``, the host an output
  only after ``synchronize_outputs`` (real copies from pageable memory may be earlier, never later);
* an input on the host is copied to the device when it is bound;
* a CUDA graph belongs to a session, an id and a thread; its first run is a plain run, then the capture; a replay uses
  the captured addresses, so another binding under the same id is an error here, where the real one ignores it;
* while a thread captures, work on the device by any other thread fails, and so does the capture;
* after a sticky error every call fails with it.

Faults are set on :class:`Faults` and may be changed while it runs.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as real

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# provider_bridge_ort.cc and cuda_execution_provider_info.cc know these among others, and refuse what they do not know.
PROVIDER_OPTIONS = {
    "device_id",
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "cudnn_conv_use_max_workspace",
    "enable_cuda_graph",
    "gpu_mem_limit",
    "use_tf32",
    "user_compute_stream",
}
NO_LIBRARY = (
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2465 onnxruntime::ProviderInfo_CUDA& "
    "onnxruntime::GetProviderInfo_CUDA() CUDA Provider not available, can't get interface for it\n"
)
ILLEGAL_ACCESS = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'m' Status Message: "
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=orin ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/gpu_data_transfer.cc ; line=63 ; expr=cudaMemcpyAsync(a); "
)
NO_MEMORY = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Name:'c' "
    "Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) "
    "Failed to allocate memory for requested buffer of size 939524096"
)
CAPTURING = (
    "CUDA failure 900: operation not permitted when stream is capturing ; GPU=0 ; hostname=orin ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_graph.cc ; line=9 ; expr=cudaStreamEndCapture(s, &g);"
)
NOT_ALL_ON_CUDA = (
    "[ONNXRuntimeError] : 1 : FAIL : This session cannot use the graph capture feature as requested by the user as all "
    "compute graph nodes have not been partitioned to the CUDAExecutionProvider"
)


@dataclass
class Faults:
    """What goes wrong, and when."""

    providers: tuple[str, ...] = ("TensorrtExecutionProvider", CUDA, CPU)
    no_library: bool = False
    """The CUDA provider's library cannot be loaded: no allocations, and sessions fall back without an error."""
    silent_fallback: bool = False
    """Sessions fall back, although allocations work."""
    idle_provider: bool = False
    """The session has the CUDA provider, but the CPU runs every node."""
    cpu_nodes: frozenset[str] = frozenset()
    """Operators that the CPU runs."""
    memory: int = 1 << 30
    """Bytes of the device."""
    refuse_capture: bool = False
    """Sessions with CUDA graphs cannot be opened."""
    capture: str | None = None
    """Error of every capture."""
    capture_seconds: float = 0.0
    """How long a capture takes at least."""
    runs: dict[int, str] = field(default_factory=dict)
    """Error of the n-th run of a session, from 1."""


class FakeOnnxruntime:
    """Stands in ``sys.modules`` for ``onnxruntime``."""

    __version__ = real.__version__
    cuda_version = "13.0"
    SessionOptions = real.SessionOptions
    RunOptions = real.RunOptions

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.used = 0
        """Bytes allocated on the device."""
        self.counts: dict[str, int] = {"plain": 0, "captured": 0, "replayed": 0}
        self.sessions: weakref.WeakSet[InferenceSession] = weakref.WeakSet()
        self._sticky: str | None = None
        self._capturing: int | None = None
        self._spoiled = False
        self.OrtValue = _OrtValues(self)

    def get_available_providers(self) -> list[str]:
        return list(self.faults.providers)

    def preload_dlls(self, cuda: bool = True, cudnn: bool = True, msvc: bool = True, directory: Any = None) -> None:
        if self.faults.no_library:
            print("Failed to load libcublasLt.so.13: libcublasLt.so.13: cannot open shared object file")
            print("Please follow https://onnxruntime.ai/docs/install/#cuda-and-cudnn to install CUDA.")

    def InferenceSession(self, path: str, options: Any = None, providers: Any = None, **named: Any) -> Any:
        """A session of the CUDA provider, or a real one where the CPU is asked for: heads stay there."""
        if providers == [CPU]:
            return real.InferenceSession(path, options, providers)
        return InferenceSession(self, path, options, providers, **named)

    def call(self) -> None:
        """What every CUDA call goes through."""
        if self._sticky is not None:
            raise RuntimeError(self._sticky)
        if self._capturing not in (None, threading.get_ident()):
            self._spoiled = True
            raise RuntimeError(CAPTURING)

    def fail(self, text: str) -> None:
        if "CUDA failure 700" in text:
            self._sticky = text
        raise RuntimeError(text)

    def allocate(self, size: int) -> None:
        self.call()
        if self._capturing is not None:
            raise RuntimeError(CAPTURING)
        if self.used + size > self.faults.memory:
            raise RuntimeError(NO_MEMORY)
        self.used += size

    def free(self, size: int) -> None:
        self.used -= size

    def capture(self) -> None:
        self.call()
        self._capturing, self._spoiled = threading.get_ident(), False
        try:
            time.sleep(self.faults.capture_seconds)
            if self.faults.capture is not None:
                self.fail(self.faults.capture)
            if self._spoiled:
                raise RuntimeError(CAPTURING)
        finally:
            self._capturing = None


class OrtValue:
    """A tensor on the device."""

    def __init__(self, ort: FakeOnnxruntime, shape: Sequence[int], dtype: Any) -> None:
        data = np.full(shape, np.nan, dtype)
        ort.allocate(data.nbytes)
        weakref.finalize(self, ort.free, data.nbytes)
        self._ort = ort
        self.data = data
        self.queued: np.ndarray[Any, Any] | None = None
        """Written, but not yet there."""

    def update_inplace(self, data: np.ndarray[Any, Any]) -> None:
        self._ort.call()
        if data.shape != self.data.shape or data.dtype != self.data.dtype:
            raise RuntimeError("The input size of numpy arrays does not match the size of the OrtValue.")
        if not data.flags.c_contiguous:
            raise AssertionError("ONNX Runtime copies a strided array wrongly (issue 13548)")
        self.queued = data.copy()

    def numpy(self) -> np.ndarray[Any, Any]:
        self._ort.call()
        if self.queued is not None:
            raise AssertionError("read before synchronize_outputs")
        return self.data.copy()

    def settle(self) -> None:
        if self.queued is not None:
            self.data[:] = self.queued
            self.queued = None


class _OrtValues:
    def __init__(self, ort: FakeOnnxruntime) -> None:
        self._ort = ort

    def ortvalue_from_shape_and_type(
        self, shape: Sequence[int], element_type: Any, device_type: str = "cpu", device_id: int = 0
    ) -> OrtValue:
        assert device_type == "cuda", "only the device's values are modelled"
        if self._ort.faults.no_library:
            raise RuntimeError(NO_LIBRARY)
        return OrtValue(self._ort, shape, element_type)


class IOBinding:
    """Inputs and outputs of the next run."""

    def __init__(self, session: InferenceSession) -> None:
        self.session = weakref.ref(session)
        self._ort = session.ort
        self.inputs: dict[str, OrtValue] = {}
        self.outputs: dict[str, OrtValue | tuple[tuple[int, ...], int]] = {}
        self.arrived: list[tuple[np.ndarray[Any, Any], int]] = []

    def bind_cpu_input(self, name: str, arr_on_cpu: np.ndarray[Any, Any]) -> None:
        copy = OrtValue(self._ort, arr_on_cpu.shape, arr_on_cpu.dtype)
        copy.update_inplace(arr_on_cpu)
        self.inputs[name] = copy

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        self.inputs[name] = ortvalue

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        self.outputs[name] = ortvalue

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Any = None,
        buffer_ptr: Any = None,
    ) -> None:
        assert (device_type, element_type) == ("cpu", np.float32), "only float32 into the host's memory is modelled"
        self.outputs[name] = (tuple(shape), buffer_ptr)

    def synchronize_inputs(self) -> None:
        self._ort.call()
        for value in self.inputs.values():
            value.settle()

    def synchronize_outputs(self) -> None:
        self._ort.call()
        for value in self.outputs.values():
            if isinstance(value, OrtValue):
                value.settle()
        for data, address in self.arrived:
            ctypes.memmove(address, data.ctypes.data, data.nbytes)
        self.arrived.clear()


class InferenceSession:
    """A session of the CUDA provider; the real CPU session computes."""

    def __init__(
        self,
        ort: FakeOnnxruntime,
        path_or_bytes: str,
        sess_options: Any = None,
        providers: Sequence[tuple[str, dict[str, str]]] | None = None,
        provider_options: Any = None,
        **named: Any,
    ) -> None:
        assert providers is not None and [name for name, _ in providers] == [CUDA]
        options = providers[0][1]
        if unknown := set(options) - PROVIDER_OPTIONS:
            raise ValueError(f"Unknown provider option: {unknown}")
        self.ort = ort
        self._graphs_enabled = options.get("enable_cuda_graph") == "1"
        if not (ort.faults.no_library or ort.faults.silent_fallback):
            ort.call()
            self._providers = [CUDA, CPU]
            if self._graphs_enabled and ort.faults.refuse_capture:
                raise RuntimeError(NOT_ALL_ON_CUDA)
        else:
            assert named.get("enable_fallback") == 0, "would print to stdout"
            self._providers = [CPU]
        self._real = real.InferenceSession(path_or_bytes, sess_options, providers=[CPU])
        self._runs = 0
        self._thread = threading.local()
        self._names = self._real.get_inputs()[0].name, self._real.get_outputs()[0].name
        ort.sessions.add(self)

    def get_providers(self) -> list[str]:
        return self._providers

    def get_inputs(self) -> Any:
        return self._real.get_inputs()

    def get_outputs(self) -> Any:
        return self._real.get_outputs()

    def io_binding(self) -> IOBinding:
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: Any = None) -> None:
        assert iobinding.session() is self, "IOBinding must be used with the session that created it."
        ort = self.ort
        ort.call()
        self._runs += 1
        if text := ort.faults.runs.get(self._runs):
            ort.fail(text)
        source, target = iobinding.inputs[self._names[0]], iobinding.outputs[self._names[1]]
        graph_id = run_options.get_run_config_entry("gpu_graph_id") if self._graphs_enabled else "-1"
        if graph_id == "-1":
            ort.counts["plain"] += 1
            self._compute(iobinding, source, target)
            return
        assert isinstance(target, OrtValue), "a replay copies nothing to the host"
        captured: dict[str, tuple[OrtValue, OrtValue]] = self._thread.__dict__.setdefault("captured", {})
        if graph_id not in captured:
            self._compute(iobinding, source, target)
            ort.capture()
            captured[graph_id] = source, target
            ort.counts["captured"] += 1
        else:
            ort.counts["replayed"] += 1
        if captured[graph_id] != (source, target):
            raise AssertionError("other addresses than at the capture: the replay would not see them")
        self._compute(iobinding, source, target)

    def _compute(self, binding: IOBinding, source: OrtValue, target: OrtValue | tuple[tuple[int, ...], int]) -> None:
        # A queued input has not arrived: the kernels see what was there before.
        (result,) = self._real.run([self._names[1]], {self._names[0]: source.data})
        shape = target.data.shape if isinstance(target, OrtValue) else target[0]
        if result.shape != shape:
            raise RuntimeError(f"[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : output {result.shape}, bound {shape}")
        if isinstance(target, OrtValue):
            target.queued = result
        else:
            binding.arrived.append((result, target[1]))

    def end_profiling(self) -> str:
        """The real profile, with the providers that it would name."""
        profile = Path(self._real.end_profiling())
        events = json.loads(profile.read_text("utf-8"))
        for event in events:
            arguments = event.get("args", {})
            on_cpu = self.ort.faults.idle_provider or arguments.get("op_name") in self.ort.faults.cpu_nodes
            if "provider" in arguments and not on_cpu:
                arguments["provider"] = CUDA
        profile.write_text(json.dumps(events), "utf-8")
        return str(profile)


def install(monkeypatch: Any, faults: Faults | None = None) -> FakeOnnxruntime:
    """Let ``import onnxruntime`` give a new fake for the rest of a test."""
    fake = FakeOnnxruntime(faults)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    return fake
