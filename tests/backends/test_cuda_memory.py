"""The two CUDA bindings: which one is taken, what their failures become, and the rules that the fake holds them to."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from backends.fakes import FakeGpu, fake_gpu
from backends.fakes.cuda import TEXTS
from edge_reclass.backends.tensorrt import memory as cuda_memory
from edge_reclass.backends.tensorrt.memory import CudaMemory, open_cuda_memory
from edge_reclass.backends.tensorrt.memory.base import cuda_failure
from edge_reclass.backends.tensorrt.memory.pycuda import _NAMES
from edge_reclass.errors import DeviceError, EngineError, MissingExtraError, UsageError
from edge_reclass.installing import install_command

BOTH = ("cuda-bindings", "pycuda")


@pytest.fixture(params=BOTH)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeGpu, CudaMemory]]:
    with fake_gpu(monkeypatch, bindings=(request.param,)) as gpu:
        memory = open_cuda_memory()
        yield gpu, memory
        memory.close()
        memory.close()


@pytest.mark.parametrize(
    ("installed", "variable", "taken"),
    [
        (BOTH, None, "pycuda"),
        (("cuda-bindings",), None, "cuda-bindings"),
        (("pycuda",), "", "pycuda"),
        (BOTH, "cuda-bindings", "cuda-bindings"),
        (BOTH, "pycuda", "pycuda"),
    ],
)
def test_which_is_taken(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], variable: str | None, taken: str
) -> None:
    with fake_gpu(monkeypatch, bindings=installed):
        assert cuda_memory.installed_bindings() == tuple(
            name for name in ("pycuda", "cuda-bindings") if name in installed
        )
        environ = {} if variable is None else {"EDGE_RECLASS_CUDA_MEMORY": variable}
        memory = open_cuda_memory(environ)
        assert (memory.name, memory.captures) == (taken, taken == "cuda-bindings")
        memory.close()


@pytest.mark.parametrize(
    ("installed", "variable", "kind", "message"),
    [
        (
            (),
            "",
            MissingExtraError,
            "cuda-bindings or pycuda: install it with  " + re.escape(install_command("tensorrt")),
        ),
        (("pycuda",), "cuda-bindings", MissingExtraError, "cuda-bindings is asked for and not installed"),
        (("cuda-bindings",), "pycuda", UsageError, "pycuda is asked for and not installed: .*pip install pycuda"),
        (BOTH, "cupy", UsageError, "expected pycuda or cuda-bindings, got 'cupy'"),
    ],
)
def test_what_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], variable: str, kind: type[Exception], message: str
) -> None:
    with fake_gpu(monkeypatch, bindings=installed), pytest.raises(kind, match=message):
        open_cuda_memory({"EDGE_RECLASS_CUDA_MEMORY": variable})


@pytest.mark.parametrize(
    ("binding", "module"), [("pycuda", "pycuda.driver"), ("cuda-bindings", "cuda.bindings.runtime")]
)
def test_a_binding_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, binding: str, module: str) -> None:
    """It is there, and its own library is not: no quiet change to the other one."""
    with fake_gpu(monkeypatch, bindings=BOTH):
        found = SimpleNamespace(installed_bindings=lambda: (binding,))
        monkeypatch.setattr(cuda_memory, "installed_bindings", found.installed_bindings)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(DeviceError, match=f"{binding} is installed but cannot be imported"):
            open_cuda_memory({"EDGE_RECLASS_CUDA_MEMORY": binding})


def test_versions_without_a_status_for_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuda-bindings 12.8 raises RuntimeError, later versions give cudaErrorInsufficientDriver."""
    with fake_gpu(monkeypatch):

        def count() -> None:
            raise RuntimeError("Failed to dlopen libcuda.so.1")

        monkeypatch.setattr(sys.modules["cuda.bindings.runtime"], "cudaGetDeviceCount", count)
        with pytest.raises(DeviceError, match=r"cudaErrorInsufficientDriver \(Failed to dlopen libcuda.so.1\)"):
            open_cuda_memory()


def test_there_and_back(machine: tuple[FakeGpu, CudaMemory]) -> None:
    gpu, memory = machine
    with memory.current():
        stream = memory.new_stream()
        source, target = (memory.allocate_pinned(3, 5, mapped=False) for _ in range(2))
        assert source.address == 0 and not source.array.any() and source.array.shape == (3, 5)
        device = memory.allocate(source.array.nbytes)
        source.array[:] = np.arange(15, dtype=np.float32).reshape(3, 5)
        memory.copy_in(device, source.array, stream)
        memory.copy_out(target.array[:2], device, stream)
        assert not target.array.any()
        memory.synchronize(stream)
        np.testing.assert_array_equal(target.array[:2], source.array[:2])
        assert not target.array[2].any()
        for each in (source, target):
            memory.free(each)
        memory.free(device)
        memory.free(stream)
    assert gpu.cuda.held() == []


def test_mapped_memory_is_the_devices_too(machine: tuple[FakeGpu, CudaMemory]) -> None:
    gpu, memory = machine
    with memory.current():
        pinned = memory.allocate_pinned(2, 4, mapped=True)
        pinned.array[1] = 7
        seen = gpu.cuda.bytes_at(pinned.address, pinned.array.nbytes)
        assert seen is not None and pinned.address != pinned.array.ctypes.data
        np.testing.assert_array_equal(seen.view(np.float32).reshape(2, 4), pinned.array)
        memory.free(pinned)


def test_double_free_and_use_after_free(machine: tuple[FakeGpu, CudaMemory]) -> None:
    gpu, memory = machine
    with memory.current():
        stream = memory.new_stream()
        device, pinned = memory.allocate(64), memory.allocate_pinned(1, 16, mapped=False)
        memory.free(device)
        with pytest.raises(EngineError, match="cudaErrorInvalidValue"):
            memory.free(device)
        assert len(gpu.cuda.violations) == 1 and "freed twice" in gpu.cuda.violations.pop()
        memory.copy_in(device, pinned.array, stream)
        with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
            memory.synchronize(stream)
        with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
            memory.allocate(1)
        gpu.cuda.sticky = None
        memory.free(pinned)
        memory.free(stream)


def test_freeing_under_queued_work_is_seen(machine: tuple[FakeGpu, CudaMemory]) -> None:
    gpu, memory = machine
    with memory.current():
        stream = memory.new_stream()
        device, pinned = memory.allocate(64), memory.allocate_pinned(1, 16, mapped=False)
        memory.copy_in(device, pinned.array, stream)
        memory.free(pinned)
        assert gpu.cuda.violations and "while work is queued" in gpu.cuda.violations.pop()
        gpu.cuda.streams[stream.handle].queue.clear()
        memory.free(device)
        memory.free(stream)


def test_events(machine: tuple[FakeGpu, CudaMemory]) -> None:
    _, memory = machine
    with memory.current():
        stream, start, end = memory.new_stream(), memory.new_event(), memory.new_event()
        device, pinned = memory.allocate(4000), memory.allocate_pinned(1, 1000, mapped=False)
        memory.record(start, stream)
        memory.copy_in(device, pinned.array, stream)
        memory.record(end, stream)
        memory.synchronize(stream)
        assert memory.seconds_between(start, end) == pytest.approx(4e-6)
        for event in (start, end):
            memory.free(event)
        memory.free(device)
        memory.free(pinned)
        memory.free(stream)


def test_rules_of_capturing(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu(monkeypatch) as gpu:
        memory = open_cuda_memory()
        with memory.current():
            stream = memory.new_stream()
            for forbidden in (lambda: memory.synchronize(stream), lambda: memory.allocate(4)):
                with pytest.raises(EngineError, match="cudaErrorStreamCaptureUnsupported"):
                    memory.capture(stream, forbidden)
                memory.synchronize(stream)  # out of capture mode again

            def swallowing() -> None:
                with pytest.raises(EngineError):
                    memory.allocate(4)

            with pytest.raises(EngineError, match="cudaErrorStreamCaptureInvalidated"):
                memory.capture(stream, swallowing)
            device, pinned = memory.allocate(16), memory.allocate_pinned(1, 4, mapped=False)
            graph = memory.capture(stream, lambda: memory.copy_in(device, pinned.array, stream))
            pinned.array[:] = 5
            memory.launch(graph, stream)
            memory.synchronize(stream)
            seen = gpu.cuda.bytes_at(device.address, 16)
            assert seen is not None and (seen.view(np.float32) == 5).all()
            memory.free(graph)
            memory.free(pinned)
            memory.free(device)
            memory.free(stream)


def test_pycuda_refuses_to_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu(monkeypatch, bindings=("pycuda",)):
        memory = open_cuda_memory()
        with memory.current():
            stream = memory.new_stream()
            with pytest.raises(EngineError, match="pycuda cannot capture CUDA graphs"):
                memory.capture(stream, lambda: None)
            memory.free(stream)
        memory.close()
        with pytest.raises(EngineError, match="closed"), memory.current():
            pass


def test_every_name_of_pycudas_texts_is_judged() -> None:
    """A text that stands for the loss of the device ends the run with either binding."""
    for text, name in _NAMES.items():
        assert name.startswith("cudaError") and TEXTS.get(name, text) == text
    assert isinstance(cuda_failure("cudaErrorIllegalAddress", "", "f"), DeviceError)
    assert isinstance(cuda_failure("cudaErrorMemoryAllocation", "", "f"), MemoryError)
    assert type(cuda_failure("cudaErrorNotSupported", "", "f")) is EngineError


def test_an_unknown_text_of_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu(monkeypatch, bindings=("pycuda",)):
        module = sys.modules["pycuda.driver"]

        def init() -> None:
            raise module.Error("cuInit failed: the moon is full")

        monkeypatch.setattr(module, "init", init)
        with pytest.raises(EngineError, match=r"cuInit: a CUDA error without a known name \(the moon is full\)"):
            open_cuda_memory()
