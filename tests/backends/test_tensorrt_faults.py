"""Every fault raises its own error, naming file, step and CUDA's name; nothing is left behind when opening fails."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bundles
from backends.fakes import FakeGpu, fake_gpu, write_plan
from backends.fakes.tensorrt import DataType, TensorIOMode
from edge_reclass.backends import PlainFile, open_library
from edge_reclass.backends.tensorrt.backend import TensorRTBackend
from edge_reclass.errors import DeviceError, EngineError

WIDTH, DIM = 800, 8
SHAPE: dict[str, Any] = {"input_name": "waveform", "output_name": "embedding", "width": WIDTH, "output_width": DIM}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    onnx = tmp_path / "mert.fp16.onnx"
    bundles.write_encoder(onnx, WIDTH, DIM)
    return write_plan(tmp_path / "work" / "engine.plan", onnx, width=WIDTH, max_batch=8)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    with fake_gpu(monkeypatch) as gpu:
        yield gpu


@pytest.fixture
def pycuda_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    with fake_gpu(monkeypatch, bindings=("pycuda",)) as gpu:
        yield gpu


MEMORY, ILLEGAL, OTHER = "cudaErrorMemoryAllocation", "cudaErrorIllegalAddress", "cudaErrorInvalidValue"
KINDS = {MEMORY: MemoryError, ILLEGAL: DeviceError, OTHER: EngineError}


@pytest.mark.parametrize("status", KINDS)
@pytest.mark.parametrize(
    ("function", "nth", "step"),
    [
        ("cudaMemcpyAsync", 1, "copy in"),
        ("cudaMemcpyAsync", 2, "copy out"),
        ("cudaStreamSynchronize", 1, "synchronise"),
        ("cudaEventRecord", 2, "record an event"),
    ],
)
def test_a_status_in_a_run(gpu: FakeGpu, plan: Path, function: str, nth: int, step: str, status: str) -> None:
    with TensorRTBackend(timed=True) as backend:
        graph = backend.open_graph(PlainFile(plan), **SHAPE, max_batch=4)
        graph.run(2)
        gpu.cuda.fail(function, status, nth)
        with pytest.raises(KINDS[status]) as caught:
            graph.run(3)
        assert str(caught.value).startswith(f"{plan}: {step}: {function}: {status} (")
        if status == ILLEGAL:  # every later use says that the device is lost
            with pytest.raises(DeviceError, match=ILLEGAL):
                graph.run(3)
        else:
            assert graph.run(3).shape == (3, DIM)
        graph.close()


PYCUDA_RUN = [
    ("cuMemcpyHtoDAsync", "copy in"),
    ("cuMemcpyDtoHAsync", "copy out"),
    ("cuStreamSynchronize", "synchronise"),
]


@pytest.mark.parametrize("status", KINDS)
@pytest.mark.parametrize(("function", "step"), PYCUDA_RUN)
def test_a_status_in_a_run_of_pycuda(pycuda_gpu: FakeGpu, plan: Path, function: str, step: str, status: str) -> None:
    """PyCUDA has exceptions without a code: the name is found by its text."""
    with TensorRTBackend() as backend:
        graph = backend.open_graph(PlainFile(plan), **SHAPE, max_batch=4)
        pycuda_gpu.cuda.fail(function, status)
        with pytest.raises(KINDS[status]) as caught:
            graph.run(3)
        assert str(caught.value).startswith(f"{plan}: {step}: {function}: {status} (")
        graph.close()


def test_an_asynchronous_fault_is_the_loss_of_the_device(gpu: FakeGpu, plan: Path) -> None:
    """A kernel that reads freed memory is reported by the next synchronise."""
    with TensorRTBackend() as backend:
        graph = backend.open_graph(PlainFile(plan), **SHAPE, max_batch=4)
        graph.run(1)
        device = next(m for m in gpu.cuda._memory if m.kind == "device" and len(m.content) == 4 * WIDTH * 4)
        device.freed = True
        with pytest.raises(DeviceError, match=f"synchronise: cudaStreamSynchronize: {ILLEGAL}"):
            graph.run(1)


def test_tensorrt_refuses_to_run(gpu: FakeGpu, plan: Path) -> None:
    with TensorRTBackend() as backend:
        graph = backend.open_graph(PlainFile(plan), **SHAPE, max_batch=4)
        gpu.tensorrt.fail("execute_async_v3", "Error Code 7: Internal Error (shuffle)")
        with pytest.raises(EngineError, match=r"engine\.plan: compute: TensorRT refuses to run: .*Internal Error"):
            graph.run(1)
        gpu.tensorrt.fail("execute_async_v3", "Error Code 1: Cuda Runtime (out of memory)")
        with pytest.raises(MemoryError, match="out of memory"):
            graph.run(1)
        gpu.tensorrt.fail("set_input_shape", "no such shape")
        with pytest.raises(EngineError, match=r"refuses the shape \[2, 800\] of waveform: no such shape"):
            graph.run(2)
        assert graph.run(2).shape == (2, DIM)


def test_a_refusal_because_the_device_is_lost(gpu: FakeGpu, plan: Path) -> None:
    """TensorRT only says false: what CUDA says next is what counts."""
    with TensorRTBackend() as backend:
        graph = backend.open_graph(PlainFile(plan), **SHAPE, max_batch=4)
        gpu.tensorrt.fail("execute_async_v3", "Error Code 1: Cuda Runtime (an illegal memory access was encountered)")
        gpu.cuda.fail("cudaStreamSynchronize", ILLEGAL)
        with pytest.raises(DeviceError, match=ILLEGAL):
            graph.run(1)


def test_a_batch_above_the_profile(gpu: FakeGpu, plan: Path) -> None:
    with (
        TensorRTBackend() as backend,
        pytest.raises(EngineError, match="takes at most 8 windows at a time, 9 are wanted; build it again: ") as caught,
    ):
        backend.open_graph(PlainFile(plan), **SHAPE, max_batch=9)
    assert str(caught.value).endswith("edge-reclass build BUNDLE --max-batch 9")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tensors": {"wave": TensorIOMode.INPUT, "embedding": TensorIOMode.OUTPUT}},
            "expected the tensors input wave",
        ),
        (
            {
                "tensors": {
                    "waveform": TensorIOMode.INPUT,
                    "embedding": TensorIOMode.OUTPUT,
                    "tags": TensorIOMode.OUTPUT,
                }
            },
            "expected the tensors input waveform, output embedding, got .*output tags",
        ),
        ({"dtypes": {"embedding": DataType.HALF}}, "output embedding: expected float32, got"),
        ({"shapes": {"waveform": (-1, 400)}}, r"input waveform: expected the shape \[batch, 800\], got \[-1, 400\]"),
        ({"shapes": {"embedding": (4, DIM)}}, r"output embedding: expected the shape \[batch, 8\], got \[4, 8\]"),
        ({"profiles": [{"waveform": [[2, 800], [2, 800], [8, 800]]}]}, "takes a batch of 1, got at least 2"),
        ({"profiles": [{"waveform": [[1, 800]] * 3}] * 2}, "one optimisation profile, got 2"),
    ],
)
def test_an_engine_of_another_shape(gpu: FakeGpu, plan: Path, changes: dict[str, Any], message: str) -> None:
    gpu.tensorrt.engine_changes = changes
    with TensorRTBackend() as backend:
        with pytest.raises(EngineError, match=message) as caught:
            backend.open_graph(PlainFile(plan), **SHAPE, max_batch=1)
        assert str(plan) in str(caught.value)
        assert gpu.tensorrt.held() == ["1 × TensorRT Runtime"]  # while the exception is still held, too


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Error Code 1: Serialization (Version tag does not match)", EngineError),
        ("Requested amount of GPU memory (8589934592 bytes) could not be allocated.", MemoryError),
        ("OutOfMemory", MemoryError),
    ],
)
def test_an_engine_that_cannot_be_loaded(gpu: FakeGpu, plan: Path, message: str, kind: type[Exception]) -> None:
    gpu.tensorrt.fail("deserialize_cuda_engine", message)
    with TensorRTBackend() as backend:
        with pytest.raises(kind) as caught:
            backend.open_graph(PlainFile(plan), **SHAPE, max_batch=1)
        assert str(caught.value) == f"{plan}: load the engine: TensorRT cannot load it: {message}"


def test_old_errors_are_not_repeated(gpu: FakeGpu, plan: Path) -> None:
    with TensorRTBackend() as backend:
        for message in ("the first reason", "the second reason"):
            gpu.tensorrt.fail("deserialize_cuda_engine", message)
            with pytest.raises(EngineError) as caught:
                backend.open_graph(PlainFile(plan), **SHAPE, max_batch=1)
            assert str(caught.value).endswith(f": {message}")


def test_the_first_logger_stays(gpu: FakeGpu, plan: Path) -> None:
    """TensorRT keeps a pointer to the first logger of the process, whatever becomes of its runtime."""
    TensorRTBackend().close()
    gc.collect()
    with TensorRTBackend() as backend:
        gpu.tensorrt.fail("deserialize_cuda_engine", "logged by the first logger")
        with pytest.raises(EngineError, match="logged by the first logger"):
            backend.open_graph(PlainFile(plan), **SHAPE, max_batch=1)


def test_no_plan(gpu: FakeGpu, tmp_path: Path) -> None:
    with (
        TensorRTBackend() as backend,
        pytest.raises(EngineError, match=r"no record of an engine \(.*No such file .*edge-reclass build BUNDLE"),
    ):
        backend.open_graph(tmp_path / "work" / "engine.plan", **SHAPE, max_batch=1)


@pytest.mark.parametrize("max_batch", [0, -3])
def test_a_batch_of_none(gpu: FakeGpu, plan: Path, max_batch: int) -> None:
    with TensorRTBackend() as backend, pytest.raises(ValueError, match="at least 1"):
        backend.open_graph(PlainFile(plan), **SHAPE, max_batch=max_batch)


ACQUIRING = {
    "cuda-bindings": ("cudaStreamCreateWithFlags", "cudaMalloc", "cudaHostAlloc", "cudaEventCreate"),
    "pycuda": ("cuStreamCreate", "cuMemAlloc", "cuMemHostAlloc", "cuEventCreate"),
}
MEASURING = {
    "cuda-bindings": ("cudaHostGetDevicePointer", "cudaMemcpyAsync", "cudaStreamSynchronize", "cudaEventElapsedTime"),
    "pycuda": ("cuMemHostGetDevicePointer", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuStreamSynchronize"),
}
TENSORRT_CALLS = ("create_execution_context", "set_tensor_address", "set_input_shape", "execute_async_v3")


def open_graph(plan: Path, binding: str, integrated: bool, fault: tuple[str, str, int] | None) -> dict[str, int]:
    """Open on a fresh device with a fault; nothing may be left of it. Gives how often each function was called."""
    with (
        pytest.MonkeyPatch.context() as patch,
        fake_gpu(patch, bindings=(binding,), integrated=integrated) as gpu,
        TensorRTBackend(timed=True) as backend,
    ):
        before = gpu.cuda.counts + gpu.tensorrt.counts
        if fault is None:
            backend.open_graph(PlainFile(plan), **SHAPE, max_batch=4).close()
            return dict(gpu.cuda.counts + gpu.tensorrt.counts - before)
        function, status, nth = fault
        (gpu.cuda if function.startswith("cu") else gpu.tensorrt).fail(function, status, nth)
        mapping = integrated and status == OTHER and ("GetDevicePointer" in function or "HostAlloc" in function)
        if mapping and not (nth <= 2 and "HostAlloc" in function):
            graph = backend.open_graph(PlainFile(plan), **SHAPE, max_batch=4)
            assert graph.buffers == "copied" and status in graph.buffer_note
            return {}
        with pytest.raises(KINDS.get(status, EngineError)) as caught:
            backend.open_graph(PlainFile(plan), **SHAPE, max_batch=4)
        assert str(plan) in str(caught.value) and status in str(caught.value)
        return {}  # the fake looks for what is left while the exception and its traceback are still held


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
@pytest.mark.parametrize("binding", ["cuda-bindings", "pycuda"])
def test_opening_that_fails_half_way_leaves_nothing(plan: Path, binding: str, integrated: bool) -> None:
    """Each allocation is made to fail in turn, in every way; and the first, second and last of the other calls."""
    calls = open_graph(plan, binding, integrated, None)
    faults = [
        (function, status, nth)
        for function in ACQUIRING[binding]
        for nth in range(1, calls[function] + 1)
        for status in (KINDS if nth == 1 else (MEMORY,))
    ]
    for function in (*MEASURING[binding], *TENSORRT_CALLS):
        if n := calls.get(function, 0):
            status = OTHER if function.startswith("cu") else "TensorRT's reason"
            faults += [(function, status, nth) for nth in sorted({1, min(2, n), n})]
    assert len(faults) > (30 if integrated else 20)
    for fault in faults:
        open_graph(plan, binding, integrated, fault)


def test_what_cannot_be_freed_is_raised_once_and_the_rest_is_freed(
    gpu: FakeGpu, plan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = TensorRTBackend()
    graph = backend.open_graph(PlainFile(plan), **SHAPE, max_batch=4)
    graph.run(1)
    gpu.cuda.fail("cudaFreeHost", "cudaErrorInvalidValue")
    with pytest.raises(EngineError, match="cudaFreeHost: cudaErrorInvalidValue"), caplog.at_level("WARNING"):
        graph.close()
    assert [record.message for record in caplog.records] == [
        f"{plan}: close: cudaFreeHost: cudaErrorInvalidValue (invalid argument)"
    ]
    graph.close()
    assert [each for each in gpu.held() if "TensorRT" not in each] == ["pinned memory of 128 bytes"]
    for memory in gpu.cuda._memory:
        memory.freed = True
    backend.close()


@pytest.mark.parametrize("binding", ["cuda-bindings", "pycuda"])
def test_no_gpu(monkeypatch: pytest.MonkeyPatch, binding: str) -> None:
    with fake_gpu(monkeypatch, bindings=(binding,), devices=0), pytest.raises(DeviceError, match="cudaErrorNoDevice"):
        TensorRTBackend()


def test_tensorrt_cannot_use_the_gpu(gpu: FakeGpu) -> None:
    gpu.tensorrt.fail("Runtime", "CUDA initialization failure with error: 35")
    with pytest.raises(DeviceError, match=r"TensorRT 10\.3\.0 cannot use the GPU: CUDA initialization failure"):
        TensorRTBackend()


def test_no_tensorrt(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeviceError, match=r"no TensorRT can be imported .*JetPack"):
        TensorRTBackend()


@pytest.mark.usefixtures("gpu")
def test_auto_takes_tensorrt_before_rtx() -> None:
    import tensorrt

    assert open_library("auto", lambda name: tensorrt).flavour == "tensorrt"
    assert str(open_library("tensorrt-rtx", lambda name: tensorrt)).startswith("TensorRT-RTX ")

    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    with pytest.raises(DeviceError, match=r"No module named 'tensorrt_rtx'.*JetPack.*tensorrt-rtx"):
        open_library("auto", absent)
    with pytest.raises(DeviceError, match=r"no TensorRT can be imported .*system-site-packages"):
        open_library("tensorrt", absent)
