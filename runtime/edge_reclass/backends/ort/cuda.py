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

import json
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends.base import Backend, GraphFile, GraphSource, PlainFile, TensorSpec
from edge_reclass.backends.ort.cuda_device import CUDA_PROVIDER, CudaDevice, cause_of, import_onnxruntime
from edge_reclass.backends.ort.sessions import (
    SessionGraph,
    expect_signature,
    read_model,
    release_model,
    session_options,
)
from edge_reclass.errors import DeviceError, EngineError
from edge_reclass.host.gpu import probe_gpu

MAX_CUDA_GRAPHS = 8
"""Most CUDA graphs of one file; the last is kept for the full batch. Other batch sizes run plain."""

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


class OrtCudaBackend(Backend):
    """ONNX Runtime's CUDA provider on the first GPU.

    Args:
        threads: intra-op threads of a session, for what it does on the host.
        timed: has no effect; ``--device tensorrt`` has clocks.
        cuda_graphs: capture batch sizes that recur.

    Raises:
        MissingExtraError: ONNX Runtime is missing or has no CUDA provider.
        DeviceError: there is no GPU, or the provider or its CUDA libraries cannot be loaded.
        MemoryError: the GPU's memory is full.
    """

    name = "cuda"
    precisions: tuple[str, ...] = ("fp16", "fp32")
    shares_batches = True
    needs_nvidia_gpu = True

    def __init__(self, threads: int, *, timed: bool = False, cuda_graphs: bool = True) -> None:  # noqa: ARG002
        try:
            gpu = probe_gpu()  # first: without a GPU, another package helps nothing
        except DeviceError as error:
            raise DeviceError(
                f"--device cuda: {error}; nvidia-smi has to list the GPU, then this can be tried again; "
                "until then use --device cpu"
            ) from error
        self._ort = import_onnxruntime()
        self._device = CudaDevice(self._ort, gpu)
        self._threads = threads
        self._cuda_graphs = cuda_graphs
        with _DEVICE_LOCK:
            self._device.load_libraries()

    def open_graph(
        self, file: GraphSource, *, input_name: str, output_name: str, width: int, output_width: int, max_batch: int
    ) -> OrtCudaGraph:
        """See :meth:`Backend.open_graph`. Runs one full batch, so that what cannot work fails here."""
        opened = PlainFile(file) if isinstance(file, Path) else file
        file = opened.path
        with _DEVICE_LOCK, _scratch_folder(file) as scratch:
            self._device.check()
            refused = None
            try:
                session = self._open_session(opened, scratch, self._cuda_graphs)
            except _CaptureRefused as error:
                refused = str(error)
            if refused is not None:
                session = self._open_session(opened, scratch, False)
            source, target = TensorSpec(input_name, width), TensorSpec(output_name, output_width)
            expect_signature(file, session, source, target, max_batch)
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

    def _open_session(self, source: GraphFile, scratch: Path, capture: bool) -> Any:
        file, model = source.path, read_model(source)
        options = session_options(self._ort, self._threads)
        # A memory pattern per batch size would allocate anew at the second run of each, which a capture forbids.
        options.enable_mem_pattern = False
        # session.disable_cpu_ep_fallback is no proof that can be used: it also refuses the shape arithmetic that
        # the CUDA provider leaves to the CPU on purpose.
        options.enable_profiling = True
        options.profile_file_prefix = str(scratch / "warm-up")
        provider = (CUDA_PROVIDER, {**_PROVIDER_OPTIONS, "enable_cuda_graph": "1" if capture else "0"})
        try:
            # Without enable_fallback=0 its Python part prints to stdout and opens the file on the CPU.
            session = self._ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
            if capture and re.search(r"cannot use the (cuda graph|graph capture) feature", str(error), re.IGNORECASE):
                raise _CaptureRefused(cause_of(str(error))) from error
            what = f"{file}: ONNX Runtime {self._ort.__version__} cannot open it"
            raise self._device.translate(error, what) from error
        release_model(session)
        taken = session.get_providers()
        if CUDA_PROVIDER not in taken:
            raise DeviceError(
                f"{file}: ONNX Runtime {self._ort.__version__} fell back from the GPU to {', '.join(taken)} "
                f"without an error; {self._device.how_to_fix()}"
            )
        return session


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


class OrtCudaGraph(SessionGraph):
    """See :class:`edge_reclass.backends.base.Graph`."""

    def __init__(
        self,
        device: CudaDevice,
        session: Any,
        file: Path,
        source: TensorSpec,
        target: TensorSpec,
        max_batch: int,
        captures: bool,
    ) -> None:
        super().__init__(session, file, source, target, max_batch)
        self._device = device
        self._plain = session.io_binding()
        self._plain_options = device.run_options(_NO_CAPTURE)
        self._captures = captures
        self._seen: set[int] = set()
        self._slots: dict[int, _Captured] = {}
        self._mine = _ThreadState()
        self._count = 0

    def run(self, batch: int) -> NDArray[np.float32]:
        """See :meth:`Graph.run`. If a capture fails, this and all later runs go without, after one RuntimeWarning."""
        self._require_batch(batch)
        with _DEVICE_LOCK:
            self._require_open()
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
                    failed = cause_of(str(error))
                    self._captures = False
                    self._slots.clear()
            try:
                self._run_plain(batch)
            except Exception as error:
                raise self._translate(error, batch) from error
            if failed is not None:
                _warn_uncaptured(self._file, failed)
            return self._output[:batch]

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
        source = self._device.allocate((batch, self._source.width))
        target = self._device.allocate((batch, self._target.width))
        binding.bind_ortvalue_input(self._source.name, source)
        binding.bind_ortvalue_output(self._target.name, target)
        return _Captured(binding, source, target, self._device.run_options(str(batch)))

    def _run_plain(self, batch: int) -> None:
        self._plain.bind_cpu_input(self._source.name, self._input[:batch])
        self._bind(self._plain.bind_output, self._target, self._output, batch)
        self._plain.synchronize_inputs()
        self._session.run_with_iobinding(self._plain, self._plain_options)
        self._plain.synchronize_outputs()

    def _translate(self, error: Exception, batch: int) -> Exception:
        return self._device.translate(error, f"{self._file}: a batch of {batch} failed on the GPU")


class _CaptureRefused(Exception):
    """ONNX Runtime would open the file, but not with CUDA graphs."""


def _warn_uncaptured(file: Path, cause: str) -> None:
    warnings.warn(f"{file}: runs without CUDA graphs, each run costs more of the CPU: {cause}", RuntimeWarning, 3)


@contextmanager
def _scratch_folder(file: Path) -> Iterator[Path]:
    """Where ONNX Runtime writes the profile of the warm-up run; removed afterwards."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="edge-reclass-", ignore_cleanup_errors=True)
    except OSError as error:
        raise EngineError(
            f"{file}: the profile of a warm-up run can be written nowhere ({error}); set TMPDIR to a folder that can "
            "be written"
        ) from error
    with folder as path:
        yield Path(path)


def _prove_on_cuda(file: Path, profile: Path) -> None:
    """Check by the profile of a run that the GPU did it.

    The CPU may have done shape arithmetic: vectors. A matrix of floating-point numbers is an activation.
    """
    try:
        events = json.loads(profile.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{file}: the profile of a warm-up run, which shows where it ran, cannot be read ({error}); is "
            f"{profile.parent.parent} full? TMPDIR names another folder"
        ) from error
    kernels = [event["args"] for event in events if event.get("name", "").endswith("_kernel_time")]
    if not any(kernel.get("provider") == CUDA_PROVIDER for kernel in kernels):
        raise DeviceError(
            f"{file}: none of its {len(kernels)} kernels ran on the GPU, though the session has {CUDA_PROVIDER}"
        )
    strays = sorted(
        {k.get("op_name", "?") for k in kernels if k.get("provider") != CUDA_PROVIDER and _touches_activation(k)}
    )
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
