"""The GPU backends on a real GPU: right numbers, no row that touches another, no memory that grows.

Every test is skipped with the reason where there is no GPU or the backend cannot be used; ``benchmarks/gpu_check.sh``
runs them on a machine that has one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edge_reclass.backends import Backend, Graph, open_backend, open_library
from edge_reclass.engines.record import EngineKey, Profile, target_for
from edge_reclass.errors import DeviceError, EdgeReclassError, EngineError, MissingExtraError
from edge_reclass.host.gpu import probe_gpu
from edge_reclass_export.engine.process import BuildFailure, BuildJob, build_engine
from export.tiny_transformer import WINDOW, tiny_transformer

MAX_BATCH, DIM = 12, 64
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}
"""Greatest ‖got - expected‖ / ‖expected‖ of a row, against float32 on the CPU."""

Opener = Callable[[], Graph]


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WINDOW)).astype(np.float32)


def error(expected: np.ndarray, got: np.ndarray) -> float:
    """The worst row's; NaN never passes a comparison with it."""
    difference = np.linalg.norm(got.astype(np.float64) - expected, axis=1)
    return float((difference / np.linalg.norm(expected, axis=1)).max())


def run(graph: Graph, batch: np.ndarray) -> np.ndarray:
    graph.input[: len(batch)] = batch
    return graph.run(len(batch)).copy()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network in both precisions."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for precision in TOLERANCE:
        found[precision] = folder / f"{precision}.onnx"
        found[precision].write_bytes(tiny_transformer(half=precision == "fp16", dim=DIM).SerializeToString())
    return found


@pytest.fixture(scope="module", params=["cuda", "tensorrt"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend on the GPU of this machine."""
    try:
        probe_gpu()
        opened = open_backend(request.param, threads=2)
    except (DeviceError, MissingExtraError) as reason:
        pytest.skip(f"--device {request.param} cannot be used here: {reason}")
    with opened:
        yield opened


@pytest.fixture(scope="module", params=list(TOLERANCE))
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def file(backend: Backend, precision: str, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the backend opens: the ONNX file, or an engine built from it here."""
    if backend.name != "tensorrt":
        return models[precision]
    library = open_library("auto")
    profile = Profile("waveform", WINDOW, 1, 6, MAX_BATCH)
    try:
        key = EngineKey("0" * 64, target_for(library.flavour, library.version, gpu=probe_gpu()), profile)
        job = BuildJob(precision, library, models[precision], key, DIM)
        return build_engine(job, tmp_path_factory.mktemp("engine"), lambda event: None).plan
    except BuildFailure as reason:
        if reason.kind == "device":  # this TensorRT has no code for this GPU
            pytest.skip(str(reason))
        raise


@pytest.fixture(scope="module")
def opener(backend: Backend, file: Path) -> Opener:
    def opened() -> Graph:
        return backend.open_graph(
            file,
            input_name="waveform",
            output_name="embedding",
            width=WINDOW,
            output_width=DIM,
            max_batch=MAX_BATCH,
        )

    return opened


@pytest.fixture
def graph(opener: Opener) -> Iterator[Graph]:
    opened = opener()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def oracle(models: dict[str, Path]) -> Callable[[np.ndarray], np.ndarray]:
    """Float32 on the CPU, one row at a time."""
    cpu = open_backend("cpu", threads=1)
    graph = cpu.open_graph(
        models["fp32"], input_name="waveform", output_name="embedding", width=WINDOW, output_width=DIM, max_batch=1
    )
    return lambda batch: np.concatenate([run(graph, row[None]) for row in batch]).astype(np.float64)


def free_memory() -> int:
    """Bytes of the device's memory that nobody holds."""
    torch = pytest.importorskip("torch", reason="the device's free memory is asked through torch")
    torch.cuda.synchronize()
    return int(torch.cuda.mem_get_info()[0])


def test_gpu_agrees_with_the_cpu_at_every_batch_size(
    graph: Graph, precision: str, oracle: Callable[[np.ndarray], np.ndarray]
) -> None:
    for batch in range(1, MAX_BATCH + 1):
        inputs = rows(batch, seed=batch)
        expected = oracle(inputs)
        for _ in range(3):  # plain, captured, replayed
            found = error(expected, run(graph, inputs))
            assert found <= TOLERANCE[precision], f"batch {batch}: {found}"


def test_gpu_gives_a_row_the_same_answer_wherever_it_stands(graph: Graph) -> None:
    inputs = rows(MAX_BATCH)
    straight = run(graph, inputs)
    assert error(straight.astype(np.float64)[::-1], run(graph, inputs[::-1])) <= 1e-5


def test_gpu_reads_no_row_behind_the_batch(graph: Graph) -> None:
    inputs = rows(MAX_BATCH)
    for batch in (1, 5, MAX_BATCH - 1):
        graph.input[:] = np.nan
        alone = run(graph, inputs[:batch])
        assert np.isfinite(alone).all(), f"batch {batch}: the rows behind it were taken in"


def test_gpu_writes_every_row(graph: Graph) -> None:
    """The result's buffer is poisoned before the run; a batch size that recurs is replayed."""
    inputs = rows(MAX_BATCH)
    first = run(graph, inputs)
    for _ in range(3):
        result = graph.run(MAX_BATCH)
        if not result.flags.writeable:
            pytest.skip("this backend's result cannot be written by the caller, so it cannot be poisoned")
        result[...] = np.nan
        assert error(first.astype(np.float64), graph.run(MAX_BATCH)) <= 1e-5


def test_gpu_sees_new_input_when_a_batch_size_recurs(
    graph: Graph, precision: str, oracle: Callable[[np.ndarray], np.ndarray]
) -> None:
    for seed in range(6):
        inputs = rows(6, seed)
        assert error(oracle(inputs), run(graph, inputs)) <= TOLERANCE[precision], f"run {seed}"


def test_gpu_memory_is_flat_in_steady_state(graph: Graph) -> None:
    for batch in range(1, MAX_BATCH + 1):
        for _ in range(3):
            run(graph, rows(batch))
    before = free_memory()
    for number in range(200):
        run(graph, rows(1 + number % MAX_BATCH))
    assert before - free_memory() < 4 << 20


def test_gpu_graphs_run_on_two_threads(
    opener: Opener, precision: str, oracle: Callable[[np.ndarray], np.ndarray]
) -> None:
    """One graph per thread, at the same time."""
    wrong: list[str] = []
    inputs = {seed: rows(5, seed) for seed in (1, 2)}
    expected = {seed: oracle(batch) for seed, batch in inputs.items()}
    with ExitStack() as opened:
        graphs = {seed: opener() for seed in inputs}
        for one in graphs.values():
            opened.callback(one.close)

        def work(seed: int) -> None:
            try:
                for _ in range(50):
                    found = error(expected[seed], run(graphs[seed], inputs[seed]))
                    if not found <= TOLERANCE[precision]:
                        wrong.append(f"thread {seed}: {found}")
            except EdgeReclassError as fault:
                wrong.append(f"thread {seed}: {fault}")

        threads = [threading.Thread(target=work, args=(seed,)) for seed in graphs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_gpu_graph_may_be_used_by_a_thread_that_did_not_open_it(
    graph: Graph, precision: str, oracle: Callable[[np.ndarray], np.ndarray]
) -> None:
    inputs = rows(4)
    found: list[np.ndarray] = []
    run(graph, inputs)
    thread = threading.Thread(target=lambda: found.extend(run(graph, inputs) for _ in range(3)))
    thread.start()
    thread.join()
    expected = oracle(inputs)
    assert len(found) == 3 and max(error(expected, one) for one in found) <= TOLERANCE[precision]


def test_gpu_memory_comes_back_when_a_graph_is_closed(opener: Opener) -> None:
    for _ in range(2):  # libraries load their kernels once
        opener().close()
    before = free_memory()
    for _ in range(5):
        opened = opener()
        run(opened, rows(MAX_BATCH))
        opened.close()
    assert before - free_memory() < 8 << 20


def test_gpu_refuses_wrong_batches_and_use_after_close(opener: Opener) -> None:
    opened = opener()
    for batch in (0, MAX_BATCH + 1):
        with pytest.raises(ValueError, match="batch"):
            opened.run(batch)
    opened.close()
    opened.close()
    with pytest.raises(EngineError, match="close"):
        opened.run(1)
