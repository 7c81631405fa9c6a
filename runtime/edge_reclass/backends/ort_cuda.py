"""ONNX Runtime on an NVIDIA GPU: its CUDA provider, proved to have done the work; CUDA graphs for recurring batches.

ONNX Runtime falls back to the CPU without raising. Here that is an error, looked for twice: the session has to have
taken the CUDA provider, and the profile of a warm-up run has to name it for every kernel that touched an activation.

A batch runs in one of two ways (facts: ONNX Runtime 1.23 to 1.31, docs/execution-providers/CUDA-ExecutionProvider.md,
cuda_execution_provider.cc, cuda_graph.cc, IOBinding.cc):

plain
    The host's rows are bound, run, and the result lands in the host's output. An input on the host is copied to the
    device *when it is bound*, so it is bound again for every run.
captured
    From its second appearance on, a batch size owns a pair of OrtValues on the device and a CUDA graph (run option
    ``gpu_graph_id``), replayed with one launch. A replay reads and writes the captured addresses and looks at no
    binding, so the host's rows are copied into the same OrtValue every time. ONNX Runtime keeps one graph per id *and
    thread*, and none can be given back before the session, so there are at most ``MAX_CUDA_GRAPHS``.

A capture forbids allocations and synchronous copies by every thread of the process (cudaStreamCaptureModeGlobal): one
lock serialises all work on the device, which one stream would do anyway. The stream is ONNX Runtime's own. There are no
clocks: it exposes no events, and an event around a whole run could not tell copies from kernels.
"""

from __future__ import annotations

import contextlib
import io
import json
import platform
import re
import tempfile
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends.base import DeviceTimes
from edge_reclass.engines import Gpu, probe_gpu
from edge_reclass.errors import DeviceError, EngineError, MissingExtraError

__all__ = ["MAX_CUDA_GRAPHS", "OrtCudaBackend", "OrtCudaGraph"]

MAX_CUDA_GRAPHS = 8
"""Most CUDA graphs of one file; the last is kept for the full batch. Other batch sizes run plain."""

_CUDA = "CUDAExecutionProvider"
_ORIN = "8.7"
_NO_CAPTURE = "-1"
_PROVIDER_OPTIONS = {
    "device_id": "0",
    # TF32 keeps 10 bits of a float32 product: an fp32 graph would no longer agree with its reference.
    "use_tf32": "0",
    # EXHAUSTIVE (the default) times every algorithm anew for each batch size, seconds each, and may choose another one
    # tomorrow; HEURISTIC asks cuDNN's model.
    "cudnn_conv_algo_search": "HEURISTIC",
    # The default doubles the arena at every growth: half of it may never be used.
    "arena_extend_strategy": "kSameAsRequested",
}
# One device, one queue: see the module's text.
_DEVICE_LOCK = threading.RLock()


class OrtCudaBackend:
    """ONNX Runtime's CUDA provider on the first GPU.

    Args:
        threads: intra-op threads of a session, for what it does on the host.
        timed: has no effect: :meth:`OrtCudaGraph.device_times` is None; ``--device tensorrt`` has clocks.
        cuda_graphs: capture batch sizes that recur.

    Raises:
        MissingExtraError: ONNX Runtime is missing or has no CUDA provider.
        DeviceError: there is no GPU, or the provider or its CUDA libraries cannot be loaded.
        MemoryError: the GPU's memory is full.
    """

    name = "cuda"
    precisions: tuple[str, ...] = ("fp16", "fp32")
    shares_batches = True

    def __init__(self, threads: int, timed: bool = False, *, cuda_graphs: bool = True) -> None:  # noqa: ARG002
        self._ort = _import_onnxruntime()
        try:
            gpu = probe_gpu()
        except DeviceError as error:
            raise DeviceError(
                f"--device cuda: {error}; nvidia-smi has to list the GPU, then this can be tried again; "
                "until then use --device cpu"
            ) from error
        self._device = _Device(self._ort, gpu)
        self._threads = threads
        self._cuda_graphs = cuda_graphs
        with _DEVICE_LOCK:
            self._device.load_libraries()

    def open_graph(
        self, file: Path, *, input_name: str, output_name: str, width: int, output_width: int, max_batch: int
    ) -> OrtCudaGraph:
        """See :meth:`Backend.open_graph`. Runs one full batch, so that what cannot work fails here."""
        with _DEVICE_LOCK, tempfile.TemporaryDirectory(prefix="edge-reclass-") as scratch:
            self._device.check()
            refused = None
            try:
                session = self._open_session(file, Path(scratch), self._cuda_graphs)
            except _CaptureRefused as error:
                refused = str(error)
            if refused is not None:
                session = self._open_session(file, Path(scratch), False)
            _expect(file, "input", session.get_inputs(), input_name, width, max_batch)
            _expect(file, "output", session.get_outputs(), output_name, output_width, max_batch)
            source, target = (input_name, width), (output_name, output_width)
            captures = self._cuda_graphs and refused is None
            graph = OrtCudaGraph(self._device, session, file, source, target, max_batch, captures)
            try:
                graph.run(max_batch)
                _prove_on_cuda(file, Path(session.end_profiling()))
            except BaseException:
                graph.close()
                raise
            if refused is not None:
                _warn_uncaptured(file, refused)
            return graph

    def _open_session(self, file: Path, scratch: Path, capture: bool) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # A memory pattern per batch size would allocate anew at the second run of each, which a capture forbids.
        options.enable_mem_pattern = False
        # session.disable_cpu_ep_fallback is no proof that can be used: it also refuses the shape arithmetic that
        # the CUDA provider leaves to the CPU on purpose.
        options.enable_profiling = True
        options.profile_file_prefix = str(scratch / "warm-up")
        provider = (_CUDA, {**_PROVIDER_OPTIONS, "enable_cuda_graph": "1" if capture else "0"})
        try:
            # Without enable_fallback=0 its Python part prints to stdout and opens the file on the CPU.
            session = self._ort.InferenceSession(str(file), options, providers=[provider], enable_fallback=0)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
            if capture and re.search(r"cannot use the (cuda graph|graph capture) feature", str(error), re.IGNORECASE):
                raise _CaptureRefused(_cause(str(error))) from error
            what = f"{file}: ONNX Runtime {self._ort.__version__} cannot open it"
            raise self._device.translate(error, what) from error
        taken = session.get_providers()
        if _CUDA not in taken:
            raise DeviceError(
                f"{file}: ONNX Runtime {self._ort.__version__} fell back from the GPU to {', '.join(taken)} "
                f"without an error; {self._device.mending()}"
            )
        return session

    def close(self) -> None:
        """Nothing is held besides the graphs."""

    def __enter__(self) -> OrtCudaBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class _Captured:
    """What a captured batch size owns: fixed addresses on the device, and the id of its CUDA graph."""

    binding: Any
    source: Any
    target: Any
    options: Any


@dataclass
class _ThreadState(threading.local):
    """Batch sizes whose CUDA graph the calling thread has captured: ONNX Runtime keeps them apart by thread."""

    captured: set[int] = field(default_factory=set)


class OrtCudaGraph:
    """See :class:`edge_reclass.backends.base.Graph`."""

    def __init__(
        self,
        device: _Device,
        session: Any,
        file: Path,
        source: tuple[str, int],
        target: tuple[str, int],
        max_batch: int,
        captures: bool,
    ) -> None:
        self._device = device
        self._session = session
        self._file = file
        self._source, self._target = source, target
        self._input = np.zeros((max_batch, source[1]), np.float32)
        self._output = np.empty((max_batch, target[1]), np.float32)
        self._plain = session.io_binding()
        self._plain_options = device.run_options(_NO_CAPTURE)
        self._captures = captures
        self._seen: set[int] = set()
        self._slots: dict[int, _Captured] = {}
        self._mine = _ThreadState()
        self._count = 0

    @property
    def input(self) -> NDArray[np.float32]:
        return self._input

    @property
    def cuda_graphs(self) -> int:
        """How many CUDA graphs have been captured."""
        return self._count

    def run(self, batch: int) -> NDArray[np.float32]:
        """See :meth:`Graph.run`. If a capture fails, this and all later runs go without, after one RuntimeWarning."""
        if not 1 <= batch <= len(self._input):
            raise ValueError(f"expected a batch of 1 to {len(self._input)}, got {batch}")
        with _DEVICE_LOCK:
            if self._session is None:
                raise EngineError(f"{self._file}: run after close")
            self._device.check()
            failed = None
            if self._uses_cuda_graph(batch):
                try:
                    self._run_captured(batch)
                    return self._output[:batch]
                except Exception as error:
                    if batch in self._mine.captured:
                        raise self._translate(error, batch) from error
                    # The first run of a CUDA graph is its capture. What fails there need not fail in a plain run, and
                    # a lost device fails there again. The error itself would keep the device's memory alive.
                    failed = _cause(str(error))
                    self._captures = False
                    self._slots.clear()
            try:
                self._run_plain(batch)
            except Exception as error:
                raise self._translate(error, batch) from error
            if failed is not None:
                _warn_uncaptured(self._file, failed)
            return self._output[:batch]

    def device_times(self) -> DeviceTimes | None:
        """None: ONNX Runtime has no clock for its parts."""
        return None

    def close(self) -> None:
        """See :meth:`Graph.close`."""
        with _DEVICE_LOCK:
            # What is bound goes before the session whose allocators may own it.
            self._slots.clear()
            self._plain = None
            self._session = None

    def _uses_cuda_graph(self, batch: int) -> bool:
        """Whether this run is to replay, or to make, a CUDA graph."""
        if not self._captures:
            return False
        if batch not in self._seen:
            self._seen.add(batch)
            return False
        room = MAX_CUDA_GRAPHS if batch == len(self._input) else MAX_CUDA_GRAPHS - 1
        return batch in self._mine.captured or self._count < room

    def _run_captured(self, batch: int) -> None:
        slot = self._slots.get(batch)
        if slot is None:
            slot = self._slots[batch] = self._make_slot(batch)
        slot.source.update_inplace(self._input[:batch])
        slot.binding.synchronize_inputs()
        self._session.run_with_iobinding(slot.binding, slot.options)
        slot.binding.synchronize_outputs()
        np.copyto(self._output[:batch], slot.target.numpy())
        if batch not in self._mine.captured:
            self._mine.captured.add(batch)
            self._count += 1

    def _make_slot(self, batch: int) -> _Captured:
        binding = self._session.io_binding()
        source = self._device.allocate((batch, self._source[1]))
        target = self._device.allocate((batch, self._target[1]))
        binding.bind_ortvalue_input(self._source[0], source)
        binding.bind_ortvalue_output(self._target[0], target)
        return _Captured(binding, source, target, self._device.run_options(str(batch)))

    def _run_plain(self, batch: int) -> None:
        self._plain.bind_cpu_input(self._source[0], self._input[:batch])
        self._plain.bind_output(
            self._target[0],
            device_type="cpu",
            device_id=0,
            element_type=np.float32,
            shape=(batch, self._target[1]),
            buffer_ptr=self._output.ctypes.data,
        )
        self._plain.synchronize_inputs()
        self._session.run_with_iobinding(self._plain, self._plain_options)
        self._plain.synchronize_outputs()

    def _translate(self, error: Exception, batch: int) -> Exception:
        return self._device.translate(error, f"{self._file}: a batch of {batch} failed on the GPU")


class _Device:
    """The GPU as ONNX Runtime shows it: its libraries, allocations and errors, and whether it was lost."""

    def __init__(self, ort: Any, gpu: Gpu) -> None:
        self._ort = ort
        self._gpu = gpu
        self._missing: tuple[str, ...] = ()
        self._lost: str | None = None

    def load_libraries(self) -> None:
        """Load CUDA and cuDNN from the nvidia-* wheels, if they are there, and allocate four bytes with them."""
        if preload := getattr(self._ort, "preload_dlls", None):
            # It tells of failures on stdout, where results belong.
            with contextlib.redirect_stdout(io.StringIO()) as told:
                preload()
            self._missing = tuple(re.findall(r"^Failed to load ([^\s:/]+):", told.getvalue(), re.MULTILINE))
        try:
            self.allocate((1,))
        except Exception as error:
            translated = self.translate(error, "--device cuda")
            if isinstance(translated, MemoryError):
                raise translated from error
            raise DeviceError(
                f"--device cuda: ONNX Runtime {self._ort.__version__} cannot use the {self._gpu.name} "
                f"({_cause(str(error))}); {self.mending()}"
            ) from error

    def allocate(self, shape: tuple[int, ...]) -> Any:
        """An OrtValue float32[shape] in device memory."""
        return self._ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.float32, "cuda", 0)

    def run_options(self, graph_id: str) -> Any:
        """Run options that capture or replay the CUDA graph of that id; -1: neither."""
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph_id)
        return options

    def check(self) -> None:
        """Raise ``DeviceError`` if the device was lost."""
        if self._lost is not None:
            raise DeviceError(f"the GPU was lost earlier in this process ({self._lost}); start the process again")

    def translate(self, error: Exception, what: str) -> Exception:
        """The error of this package that an error of ONNX Runtime stands for."""
        text, cause = str(error), _cause(str(error))
        if isinstance(error, MemoryError) or re.search(_OUT_OF_MEMORY, text):
            return MemoryError(f"{what}: too little GPU memory ({cause}); lower batch, or free memory of the GPU")
        code = int(found[1]) if (found := re.search(r"CUDA failure (\d+)", text)) else None
        if code in _UNUSABLE or re.search(_NOT_STARTED, text):
            return DeviceError(f"{what}: {cause}; {self.mending()}")
        if code in _CAPTURING:
            return DeviceError(
                f"{what}: {cause}; a capture failed and has not ended, or another library in this process captures: "
                "OrtCudaBackend(cuda_graphs=False) does without"
            )
        if re.search(_LIBRARY_LOST, text) or (code is not None and code not in _OF_THE_CALL):
            self._lost = cause
            return DeviceError(
                f"{what}: the GPU was lost ({cause}); nothing can run on it in this process any more: start it again, "
                "and look for Xid lines in the kernel's log (dmesg) if it comes back"
            )
        return EngineError(f"{what}: {cause}")

    def mending(self) -> str:
        """What to install where CUDA did not come up, for this version of ONNX Runtime and this machine."""
        if platform.machine() == "aarch64" and self._gpu.sm == _ORIN:
            return "PyPI's onnxruntime-gpu has no code for Orin (SM 8.7): use --device tensorrt, which JetPack brings"
        cuda = _cuda_major(self._ort)
        missing = f"not found: {', '.join(self._missing)}; " if self._missing else ""
        wheel = f"onnxruntime-gpu[cuda,cudnn]=={self._ort.__version__}"
        return (
            f"{missing}it needs CUDA {cuda}, cuDNN 9, a driver for them and code for this GPU (here: "
            f"{self._gpu.driver}, SM {self._gpu.sm}):  pip install '{wheel}'  brings the first two; onnxruntime-gpu "
            "up to 1.26 is for CUDA 12, from 1.27 on for CUDA 13"
        )


class _CaptureRefused(Exception):
    """ONNX Runtime would open the file, but not with CUDA graphs."""


# ONNX Runtime's texts: cudaError_t and cublasStatus_t by number, cudnnStatus_t by name.
_OUT_OF_MEMORY = r"Failed to allocate memory|CUDA failure 2\b|CUBLAS failure 3\b|ALLOC(ATION)?_FAILED|bad_alloc"
_NOT_STARTED = r"CUBLAS failure 1\b|CUDNN_STATUS_NOT_INITIALIZED|NoKernelImage"
_LIBRARY_LOST = r"CUBLAS failure 1[134]\b|CUDNN_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)"
# "/onnxruntime_src/…/file.cc:12 type function(arguments) [with …] " or "[ONNXRuntimeError] : 1 : FAIL : "
_PREFIX = r"^(?:/\S+:\d+ [^()]*\([^()]*\) (?:\[with [^\]]*\] )?|\[ONNXRuntimeError\] : \d+ : \w+ : )"
# Of cudaError_t: errors of a call that leave the context whole; no GPU, driver or binary that fits; a failed capture.
_OF_THE_CALL = frozenset({1})
_UNUSABLE = frozenset({34, 35, 46, 98, 100, 101, 209, 802, 803, 804})
_CAPTURING = frozenset(range(900, 909))


def _cause(text: str) -> str:
    """The part of ONNX Runtime's message that says what happened, without its source paths and stack."""
    if found := re.search(r"(?:(?:CUDA|CUBLAS|CUDNN\w*) (?:failure|error)|Failed to allocate)[^;\n]*", text):
        return found[0].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(_PREFIX, "", lines[0])[:400] if lines else "no message"


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(f"the device cuda needs onnxruntime-gpu ({error})", "gpu") from error
    providers = onnxruntime.get_available_providers()
    if _CUDA not in providers:
        jetson = "; on a Jetson use --device tensorrt instead" if platform.machine() == "aarch64" else ""
        raise MissingExtraError(
            f"the device cuda needs onnxruntime-gpu, but the installed ONNX Runtime {onnxruntime.__version__} is a "
            f"package without CUDA (providers: {', '.join(providers)}); onnxruntime and onnxruntime-gpu cannot be "
            f"installed side by side: first  pip uninstall -y onnxruntime onnxruntime-gpu{jetson}; then",
            "gpu",
        )
    return onnxruntime


def _cuda_major(ort: Any) -> str:
    """Major version of CUDA that this ONNX Runtime was built for: 12 up to 1.26, 13 from 1.27."""
    if built := getattr(ort, "cuda_version", ""):
        return str(built).split(".", 1)[0]
    return "13" if tuple(int(part) for part in ort.__version__.split(".")[:2]) >= (1, 27) else "12"


def _warn_uncaptured(file: Path, cause: str) -> None:
    warnings.warn(f"{file}: runs without CUDA graphs, each run costs more of the CPU: {cause}", RuntimeWarning, 3)


def _prove_on_cuda(file: Path, profile: Path) -> None:
    """Check by the profile of a run that the GPU did it.

    The CPU may have done shape arithmetic: vectors. A matrix of floating-point numbers is an activation.
    """
    kernels = [e["args"] for e in json.loads(profile.read_text("utf-8")) if e.get("name", "").endswith("_kernel_time")]
    if not any(kernel.get("provider") == _CUDA for kernel in kernels):
        raise DeviceError(f"{file}: none of its {len(kernels)} kernels ran on the GPU, though the session has {_CUDA}")
    strays = sorted({k.get("op_name", "?") for k in kernels if k.get("provider") != _CUDA and _touches_activation(k)})
    if strays:
        raise EngineError(
            f"{file}: {', '.join(strays)} ran on the CPU, which ONNX Runtime's CUDA provider does not know; export "
            "the file again without them, or use --device cpu"
        )


def _touches_activation(kernel: dict[str, Any]) -> bool:
    tensors = [*kernel.get("input_type_shape", ()), *kernel.get("output_type_shape", ())]
    return any(
        kind.endswith(("float", "float16", "double")) and len(shape) > 1
        for tensor in tensors
        for kind, shape in tensor.items()
    )


def _expect(file: Path, kind: str, found: list[Any], name: str, width: int, max_batch: int) -> None:
    """Check name, dtype and shape [batch, width] of a graph's only input, or of one of its outputs."""
    names = [arg.name for arg in found]
    if name not in names or (kind == "input" and len(names) != 1):
        raise EngineError(f"{file}: expected the {kind} {name!r}, got {', '.join(names)}; export it again")
    arg = found[names.index(name)]
    shape = list(arg.shape)
    if arg.type != "tensor(float)" or len(shape) != 2 or shape[1] != width:
        raise EngineError(f"{file}: {kind} {name!r}: expected float32[batch, {width}], got {arg.type}{shape}")
    if isinstance(shape[0], int) and shape[0] != max_batch:
        raise EngineError(f"{file}: {kind} {name!r}: expected a dynamic batch, got {shape}; export it again")
