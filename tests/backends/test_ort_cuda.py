"""The CUDA backend of ONNX Runtime against a fake one that enforces the life cycle, and against the installed one."""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bundles
from backends import fake_onnxruntime
from backends.fake_onnxruntime import (
    CAPTURING,
    ILLEGAL_ACCESS,
    NO_MEMORY,
    FakeOnnxruntime,
)
from edge_reclass.backends.ort import cuda as ort_cuda
from edge_reclass.backends.ort.cpu import OrtBackend
from edge_reclass.backends.ort.cuda import MAX_CUDA_GRAPHS, OrtCudaBackend, OrtCudaGraph
from edge_reclass.errors import DeviceError, EngineError, MissingExtraError
from edge_reclass.host.gpu import Gpu
from edge_reclass.installing import install_command
from traced import traced

WIDTH, DIM, BATCH = 160, 8, 12
RTX, ORIN = Gpu("RTX 4090", "8.9", "driver-580.65"), Gpu("Orin", "8.7", "l4t-36.4.4")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    bundles.write_encoder(tmp_path / "mert.onnx", WIDTH, DIM)
    return tmp_path / "mert.onnx"


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_cuda, "probe_gpu", lambda: RTX)


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch) -> FakeOnnxruntime:
    return fake_onnxruntime.install(monkeypatch)


def open_graph(file: Path, backend: Any = None, **changes: Any) -> OrtCudaGraph:
    asked: dict[str, Any] = {
        "input_name": "waveform",
        "output_name": "embedding",
        "width": WIDTH,
        "output_width": DIM,
        "max_batch": BATCH,
    }
    graph: OrtCudaGraph = (backend or OrtCudaBackend(1)).open_graph(file, **asked | changes)
    return graph


@pytest.fixture
def graph(ort: FakeOnnxruntime, file: Path) -> Iterator[OrtCudaGraph]:
    opened = open_graph(file)
    yield opened
    opened.close()


@pytest.fixture
def expected(file: Path) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    reference = open_graph(file, OrtBackend(1))

    def compute(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        reference.input[: len(rows)] = rows
        return reference.run(len(rows)).copy()

    return compute


def rows(batch: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((batch, WIDTH)).astype(np.float32)


def run(graph: OrtCudaGraph, batch: int, seed: int = 0) -> np.ndarray[Any, Any]:
    graph.input[:batch] = rows(batch, seed)
    return graph.run(batch)


# What it computes


def test_every_batch_size_gives_the_cpu_s_answer_plain_captured_and_replayed(
    ort: FakeOnnxruntime, graph: OrtCudaGraph, expected: Any
) -> None:
    for turn in range(4):
        for batch in (1, 5, BATCH, 3):
            seed = 100 * turn + batch
            np.testing.assert_array_equal(run(graph, batch, seed), expected(rows(batch, seed)))
    # The full batch's first run was the warm-up, so it is captured one turn earlier.
    assert ort.counts == {"plain": 4, "captured": 4, "replayed": 4 * 4 - 3 - 4}


def test_fp32_is_offered_after_fp16_and_windows_of_several_tracks_are_worth_one_run(ort: FakeOnnxruntime) -> None:
    with OrtCudaBackend(1) as backend:
        assert (backend.name, backend.precisions, backend.shares_batches) == ("cuda", ("fp16", "fp32"), True)


def test_the_result_is_a_view_of_one_reused_array(graph: OrtCudaGraph) -> None:
    first = [run(graph, 3) for _ in range(3)]
    assert len({result.ctypes.data for result in first}) == 1
    assert run(graph, 5).base is first[0].base


def test_it_has_no_clock_even_if_asked_for_times(ort: FakeOnnxruntime, file: Path) -> None:
    graph = open_graph(file, OrtCudaBackend(1, timed=True))
    run(graph, 1)
    assert graph.device_times() is None


# CUDA graphs


def test_a_batch_size_that_does_not_recur_is_not_captured(ort: FakeOnnxruntime, graph: OrtCudaGraph) -> None:
    for batch in range(1, BATCH):
        run(graph, batch)
    assert ort.counts == {"plain": BATCH, "captured": 0, "replayed": 0}


def test_the_number_of_cuda_graphs_is_bounded_and_the_full_batch_always_has_one(
    ort: FakeOnnxruntime, graph: OrtCudaGraph, expected: Any
) -> None:
    for seed in range(3):
        for batch in range(1, BATCH):
            np.testing.assert_array_equal(run(graph, batch, seed), expected(rows(batch, seed)))
    assert ort.counts["captured"] == MAX_CUDA_GRAPHS - 1
    run(graph, BATCH)
    assert ort.counts["captured"] == MAX_CUDA_GRAPHS


def test_each_thread_captures_its_own_and_all_count(ort: FakeOnnxruntime, graph: OrtCudaGraph, expected: Any) -> None:
    wanted = expected(rows(4))
    for _ in range(MAX_CUDA_GRAPHS + 2):
        results: list[Any] = []
        thread = threading.Thread(
            target=lambda into: into.extend(run(graph, 4).copy() for _ in range(3)), args=[results]
        )
        thread.start()
        thread.join()
        for result in results:
            np.testing.assert_array_equal(result, wanted)
    assert ort.counts["captured"] == MAX_CUDA_GRAPHS - 1


def test_a_capture_that_fails_is_warned_of_once_and_the_answers_stay_right(
    ort: FakeOnnxruntime, graph: OrtCudaGraph, expected: Any
) -> None:
    ort.faults.capture = CAPTURING
    run(graph, 2)
    used = ort.used
    with pytest.warns(RuntimeWarning, match=r"mert\.onnx: runs without CUDA graphs.*CUDA failure 900") as warned:
        result = run(graph, 2, 1)
    assert len(warned) == 1
    assert ort.used == used
    np.testing.assert_array_equal(result, expected(rows(2, 1)))
    ort.faults.capture = None
    for batch in (2, 3, 3, BATCH):
        np.testing.assert_array_equal(run(graph, batch, batch), expected(rows(batch, batch)))
    assert ort.counts["captured"] == 0


def test_no_room_for_a_captured_batch_is_warned_of_and_runs_plain(ort: FakeOnnxruntime, graph: OrtCudaGraph) -> None:
    run(graph, 2)
    # Room for the input of a plain run, while the last one is still bound, and nothing more.
    ort.faults.memory = ort.used + 2 * WIDTH * 4
    with pytest.warns(RuntimeWarning, match="Failed to allocate memory"):
        run(graph, 2)
    run(graph, 2)


def test_a_graph_that_cannot_be_captured_is_opened_without_and_warned_of(
    ort: FakeOnnxruntime, file: Path, expected: Any
) -> None:
    ort.faults.refuse_capture = True
    with pytest.warns(RuntimeWarning, match="cannot use the graph capture feature"):
        graph = open_graph(file)
    for seed in range(3):
        np.testing.assert_array_equal(run(graph, 2, seed), expected(rows(2, seed)))
    assert ort.counts == {"plain": 4, "captured": 0, "replayed": 0}


def test_cuda_graphs_can_be_turned_off(ort: FakeOnnxruntime, file: Path) -> None:
    graph = open_graph(file, OrtCudaBackend(1, cuda_graphs=False))
    for _ in range(3):
        run(graph, 2)
    assert ort.counts["captured"] == 0


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "the fault is seen without the lock"])
def test_no_thread_touches_the_device_while_another_captures(
    ort: FakeOnnxruntime, file: Path, expected: Any, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    backend = OrtCudaBackend(1)
    graphs = [open_graph(file, backend) for _ in range(4)]
    wanted = [expected(rows(BATCH, seed)) for seed in range(4)]
    ort.faults.capture_seconds = 0.05
    if not locked:
        monkeypatch.setattr(ort_cuda, "_DEVICE_LOCK", contextlib.nullcontext())
    wrong: list[object] = []

    def work(graph: OrtCudaGraph, seed: int) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                for _ in range(3):
                    np.testing.assert_array_equal(run(graph, BATCH, seed), wanted[seed])
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=[graph, seed]) for seed, graph in enumerate(graphs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bool(wrong) is not locked, wrong


# What fails, each with its own error


def test_a_session_that_fell_back_is_a_device_error_that_says_what_to_install(
    ort: FakeOnnxruntime, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ort.faults.silent_fallback = True
    with pytest.raises(
        DeviceError, match=r"fell back from the GPU to CPUExecutionProvider.*\[cuda,cudnn\]=="
    ) as caught:
        open_graph(file)
    assert "1.26 is for CUDA 12, from 1.27 on for CUDA 13" in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_session_whose_provider_ran_nothing_is_a_device_error(ort: FakeOnnxruntime, file: Path) -> None:
    ort.faults.idle_provider = True
    with pytest.raises(DeviceError, match="none of its 6 kernels ran on the GPU"):
        open_graph(file)


def test_activations_on_the_cpu_are_an_engine_error_that_names_the_operators(ort: FakeOnnxruntime, file: Path) -> None:
    ort.faults.cpu_nodes = frozenset({"Log", "Reshape"})
    with pytest.raises(EngineError, match=r"mert\.onnx: Log, Reshape ran on the CPU"):
        open_graph(file)


def test_a_warm_up_whose_profile_can_be_written_nowhere_says_what_to_set(
    ort: FakeOnnxruntime, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(EngineError, match=r"mert\.onnx: the profile .* nowhere .*gone.*; set TMPDIR"):
        open_graph(file)


@pytest.mark.parametrize("content", ["", None], ids=["cut off", "gone"])
def test_a_profile_that_cannot_be_read_is_an_engine_error(
    ort: FakeOnnxruntime, file: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the disk is full: ONNX Runtime writes what it can and says nothing."""
    end_profiling = fake_onnxruntime.InferenceSession.end_profiling

    def damaged(self: Any) -> str:
        profile = Path(end_profiling(self))
        profile.unlink() if content is None else profile.write_text(content, "utf-8")
        return str(profile)

    monkeypatch.setattr(fake_onnxruntime.InferenceSession, "end_profiling", damaged)
    with pytest.raises(EngineError, match=r"mert\.onnx: the profile .* cannot be read .*TMPDIR names another folder"):
        open_graph(file)
    gc.collect()
    assert (ort.used, len(ort.sessions)) == (0, 0)


def test_shape_arithmetic_on_the_cpu_is_no_error(ort: FakeOnnxruntime, tmp_path: Path, expected: Any) -> None:
    file = write_with_shape_arithmetic(tmp_path / "shapes.onnx")
    ort.faults.cpu_nodes = frozenset({"Shape", "Concat"})
    graph = open_graph(file)
    np.testing.assert_allclose(run(graph, 3), expected(rows(3)), rtol=1e-6)


def write_with_shape_arithmetic(path: Path) -> Path:
    """``bundles.write_encoder``'s graph with the target of its Reshape computed from the input's shape."""
    import onnx
    from onnx import helper, numpy_helper

    bundles.write_encoder(path, WIDTH, DIM)
    model = onnx.load(path)
    nodes = model.graph.node
    shape = [
        helper.make_node("Shape", ["waveform"], ["first"], start=0, end=1),
        helper.make_node("Concat", ["first", "rest"], ["target"], axis=0),
    ]
    nodes[1].input[1] = "target"
    kept = list(nodes)
    del nodes[:]
    nodes.extend([*shape, *kept])
    model.graph.initializer.append(numpy_helper.from_array(np.array([DIM, WIDTH // DIM], np.int64), "rest"))
    onnx.save(model, path)
    return path


def test_missing_libraries_are_a_device_error_that_names_them_and_stdout_stays_clean(
    ort: FakeOnnxruntime, capsys: pytest.CaptureFixture[str]
) -> None:
    ort.faults.no_library = True
    with pytest.raises(
        DeviceError, match=r"cannot use the RTX 4090 \(CUDA Provider not available.*libcublasLt\.so\.13"
    ):
        OrtCudaBackend(1)
    assert capsys.readouterr().out == ""


def test_on_orin_the_wheel_s_lack_of_code_is_said(ort: FakeOnnxruntime, monkeypatch: pytest.MonkeyPatch) -> None:
    ort.faults.no_library = True
    monkeypatch.setattr(ort_cuda, "probe_gpu", lambda: ORIN)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(DeviceError, match=r"no code for Orin.*use --device tensorrt"):
        OrtCudaBackend(1)


def test_no_gpu_is_a_device_error(ort: FakeOnnxruntime, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu() -> Gpu:
        raise DeviceError("no NVIDIA GPU: the CUDA driver counts none")

    monkeypatch.setattr(ort_cuda, "probe_gpu", no_gpu)
    with pytest.raises(DeviceError, match=r"--device cuda: no NVIDIA GPU.*nvidia-smi.*--device cpu"):
        OrtCudaBackend(1)


def test_without_a_gpu_no_other_package_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever followed would have removed the ONNX Runtime that works."""

    def none() -> Gpu:
        raise DeviceError("no NVIDIA GPU: none")

    monkeypatch.setattr(ort_cuda, "probe_gpu", none)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match="no NVIDIA GPU") as caught:
        OrtCudaBackend(1)
    assert "pip" not in str(caught.value)


def test_a_package_without_cuda_is_a_missing_extra(ort: FakeOnnxruntime) -> None:
    ort.faults.providers = ("AzureExecutionProvider", "CPUExecutionProvider")
    with pytest.raises(
        MissingExtraError, match="side by side: first .* uninstall .*" + re.escape(install_command("gpu"))
    ) as caught:
        OrtCudaBackend(1)
    assert caught.value.extra == "gpu"


def test_no_onnxruntime_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="needs onnxruntime-gpu .*" + re.escape(install_command("gpu"))):
        OrtCudaBackend(1)


def test_a_full_device_is_a_memory_error_when_the_backend_opens(ort: FakeOnnxruntime) -> None:
    ort.faults.memory = 0
    with pytest.raises(MemoryError, match="too little GPU memory"):
        OrtCudaBackend(1)


def test_too_little_memory_for_a_full_batch_is_a_memory_error_when_the_graph_opens(
    ort: FakeOnnxruntime, file: Path
) -> None:
    ort.faults.memory = (BATCH - 1) * WIDTH * 4
    with pytest.raises(MemoryError, match=r"mert\.onnx: a batch of 12 failed.*939524096.*lower batch"):
        open_graph(file)
    gc.collect()
    assert (ort.used, len(ort.sessions)) == (0, 0)


@pytest.mark.parametrize(
    "text", [NO_MEMORY, "CUDA failure 2: out of memory ; GPU=0", "CUBLAS failure 3: the resource allocation failed"]
)
def test_too_little_memory_during_a_run_is_a_memory_error_and_the_next_run_works(
    ort: FakeOnnxruntime, graph: OrtCudaGraph, expected: Any, text: str
) -> None:
    ort.faults.runs = {3: text}
    run(graph, 2)
    with pytest.raises(MemoryError, match="lower batch"):
        run(graph, 3)
    np.testing.assert_array_equal(run(graph, 3), expected(rows(3)))


def test_a_failing_node_is_an_engine_error_and_the_next_run_works(
    ort: FakeOnnxruntime, graph: OrtCudaGraph, expected: Any
) -> None:
    ort.faults.runs = {2: "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Reshape node"}
    with pytest.raises(EngineError, match=r"mert\.onnx: a batch of 2 failed on the GPU: .*Reshape node"):
        run(graph, 2)
    np.testing.assert_array_equal(run(graph, 2), expected(rows(2)))


@pytest.mark.parametrize("turn", [2, 3, 4], ids=["plain", "capture", "replay"])
def test_a_sticky_error_is_a_device_error_for_every_graph_from_then_on(
    ort: FakeOnnxruntime, file: Path, turn: int
) -> None:
    backend = OrtCudaBackend(1)
    graph, other = open_graph(file, backend), open_graph(file, backend)
    ort.faults.runs = {turn: ILLEGAL_ACCESS}
    for _ in range(turn - 2):
        run(graph, 2)
    with pytest.raises(
        DeviceError, match=r"mert\.onnx: a batch of 2 failed.*lost \(CUDA failure 700: an illegal memory"
    ):
        run(graph, 2)
    for again in (lambda: graph.run(1), lambda: other.run(1), lambda: open_graph(file, backend)):
        with pytest.raises(DeviceError, match="lost earlier in this process"):
            again()


def test_a_gpu_that_the_package_has_no_code_for_is_a_device_error(ort: FakeOnnxruntime, file: Path) -> None:
    ort.faults.runs = {1: "CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for the device"}
    with pytest.raises(DeviceError, match=r"no kernel image.*SM 8\.9"):
        open_graph(file)


def test_a_stream_stuck_in_a_failed_capture_is_a_device_error_that_says_what_to_turn_off(
    ort: FakeOnnxruntime, graph: OrtCudaGraph
) -> None:
    run(graph, 2)
    ort.faults.capture = CAPTURING
    ort.faults.runs = {4: CAPTURING}
    with pytest.raises(DeviceError, match="cuda_graphs=False"):
        run(graph, 2)


def test_a_broken_file_is_an_engine_error(ort: FakeOnnxruntime, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"broken\.onnx: no valid ONNX file"):
        open_graph(tmp_path / "broken.onnx")
    with pytest.raises(EngineError, match=r"absent\.onnx: cannot be read"):
        open_graph(tmp_path / "absent.onnx")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_name": "audio"}, "expected the input 'audio', got waveform"),
        ({"output_name": "logits"}, "expected the output 'logits', got embedding"),
        ({"width": 80}, r"'waveform': expected the shape \[batch, 80\], got \['batch', 160\]"),
        ({"output_width": 9}, r"'embedding': expected the shape \[batch, 9\]"),
    ],
)
def test_a_graph_that_is_not_what_was_asked_for_is_an_engine_error(
    ort: FakeOnnxruntime, file: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        open_graph(file, **changes)


@pytest.mark.parametrize("batch", [0, -1, BATCH + 1])
def test_a_batch_out_of_range_is_refused(graph: OrtCudaGraph, batch: int) -> None:
    with pytest.raises(ValueError, match=f"1 to {BATCH}, got {batch}"):
        graph.run(batch)


def test_a_closed_graph_runs_no_more_and_has_given_everything_back(ort: FakeOnnxruntime, file: Path) -> None:
    graph = open_graph(file)
    for _ in range(3):
        run(graph, 2)
    assert ort.used > 0
    graph.close()
    graph.close()
    with pytest.raises(EngineError, match="run after close"):
        graph.run(1)
    gc.collect()
    assert (ort.used, len(ort.sessions)) == (0, 0)


def test_a_graph_that_failed_its_proof_has_given_everything_back(ort: FakeOnnxruntime, file: Path) -> None:
    ort.faults.idle_provider = True
    with pytest.raises(DeviceError):
        open_graph(file)
    gc.collect()
    assert (ort.used, len(ort.sessions)) == (0, 0)


# Steady state


def test_no_run_allocates_what_grows_with_the_batch(ort: FakeOnnxruntime, file: Path, monkeypatch: Any) -> None:
    """The only array of a run is ONNX Runtime's copy of the embeddings; windows are never copied on the host."""
    window = 120_000
    bundles.write_encoder(file, window, DIM)
    graph = open_graph(file, width=window)
    for batch in (BATCH, BATCH, 5, 5):
        graph.run(batch)
    # The fake's device is the host's memory: its part is not the backend's.
    for target, name in (
        (fake_onnxruntime.InferenceSession, "_compute"),
        (fake_onnxruntime.OrtValue, "update_inplace"),
        (fake_onnxruntime.IOBinding, "bind_cpu_input"),
    ):
        monkeypatch.setattr(target, name, lambda *_: None)

    def runs() -> None:
        for batch in (BATCH, 5, 7, BATCH):
            graph.run(batch)

    peaks, kept = traced(runs)
    assert min(peaks) < 64 * 1024, f"{peaks} bytes; one batch of windows is {BATCH * window * 4}"
    assert min(kept) < 16 * 1024


def test_device_memory_does_not_grow_from_run_to_run(ort: FakeOnnxruntime, graph: OrtCudaGraph) -> None:
    used = []
    for turn in range(6):
        for batch in range(1, BATCH + 1):
            run(graph, batch, turn)
        used.append(ort.used)
    assert len(set(used[2:])) == 1, used
