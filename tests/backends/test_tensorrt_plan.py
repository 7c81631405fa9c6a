"""Which plans are loaded: only what this device's record says, and exactly the bytes that were hashed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.fakes import GPU, TARGET, FakeGpu, fake_gpu, put_engine, put_engines
from edge_reclass.backends import GraphSource, PlainFile, open_backend
from edge_reclass.backends.tensorrt.backend import TensorRTBackend
from edge_reclass.engines.record import target_for
from edge_reclass.engines.store import RECORD, StoredEngine
from edge_reclass.engines.trust import SECRET, open_store
from edge_reclass.errors import DeviceError, EngineError
from edge_reclass.installing import install_command
from export.engine_bundles import DIM, WINDOW, engine_bundle

SHAPE: dict[str, Any] = {"input_name": "waveform", "output_name": "embedding", "width": WINDOW, "output_width": DIM}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    with fake_gpu(monkeypatch) as gpu:
        yield gpu


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return engine_bundle(tmp_path / "my bundle")


@pytest.fixture
def engine(root: Path) -> StoredEngine:
    return put_engines(root)["mert"]


def open_plan(plan: GraphSource, max_batch: int = 4) -> None:
    with open_backend("tensorrt", threads=1) as backend:
        graph = backend.open_graph(plan, **SHAPE, max_batch=max_batch)
        graph.run(1)
        graph.close()


def refused(plan: Path, **options: Any) -> str:
    with pytest.raises(EngineError) as caught:
        open_plan(plan, **options)
    return str(caught.value)


def rewrite(engine: StoredEngine, **changes: Any) -> None:
    record = msgspec.structs.replace(engine.record, **changes).signed_by(open_store(engine.folder.parent.parent))
    (engine.folder / RECORD).write_text(record.to_json(), encoding="utf-8")


def test_an_engine_of_this_device_is_loaded(gpu: FakeGpu, engine: StoredEngine) -> None:
    open_plan(engine.plan)
    assert gpu.tensorrt.counts["deserialize_cuda_engine"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "10.4.0"}, "TensorRT version: built for 10.4.0, here 10.3.0"),
        ({"sm": "8.6"}, "compute capability (SM): built for 8.6, here 8.7"),
        ({"gpu": "Xavier"}, "GPU: built for Xavier, here Orin"),
        ({"driver": "l4t-36.4.0"}, "driver: built for l4t-36.4.0, here l4t-36.4.3"),
        ({"flavour": "tensorrt-rtx"}, "flavour: built for tensorrt-rtx, here tensorrt"),
    ],
)
def test_an_engine_of_another_device_is_not_deserialised(
    gpu: FakeGpu, root: Path, changes: dict[str, str], message: str
) -> None:
    engine = put_engine(root, "mert", "fp16", target=msgspec.structs.replace(TARGET, **changes))
    text = refused(engine.plan)
    assert message in text and "this engine is not for TensorRT 10.3.0 for SM 8.7 (Orin, l4t-36.4.3)" in text
    assert text.endswith("edge-reclass build BUNDLE --stage mert")
    assert gpu.tensorrt.counts["deserialize_cuda_engine"] == 0


def test_an_altered_plan_is_not_deserialised(gpu: FakeGpu, root: Path, engine: StoredEngine) -> None:
    content = bytearray(engine.plan.read_bytes())
    content[-1] ^= 1
    engine.plan.write_bytes(content)
    text = refused(engine.plan)
    assert "expected sha256" in text and text.endswith("edge-reclass build BUNDLE --stage mert")
    engine.plan.write_bytes(content[:-1])
    assert f"expected {len(content)} bytes, got {len(content) - 1}" in refused(engine.plan)
    engine.plan.unlink()
    assert "cannot be read" in refused(engine.plan)
    assert gpu.tensorrt.counts["deserialize_cuda_engine"] == 0


def test_what_is_hashed_is_what_is_loaded(gpu: FakeGpu, engine: StoredEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read once: what it becomes afterwards is not looked at."""
    reads = []
    read = Path.read_bytes

    def once(path: Path) -> bytes:
        content = read(path)
        if path == engine.plan:
            reads.append(path)
            path.write_bytes(b"something else")
        return content

    monkeypatch.setattr(Path, "read_bytes", once)
    open_plan(engine.plan)
    assert len(reads) == 1


def test_a_record_that_cannot_be_used(gpu: FakeGpu, root: Path, engine: StoredEngine) -> None:
    rewrite(engine, rejected="batch 4: cosine 0.1")
    assert "was rejected here: batch 4: cosine 0.1" in refused(engine.plan)
    rewrite(engine, key=replace_target(engine, sm="9.9"))
    assert "it was altered or moved" in refused(engine.plan)
    (engine.folder / RECORD).write_text("{}", encoding="utf-8")
    text = refused(engine.plan)
    assert "no record of an engine" in text and text.endswith("edge-reclass build BUNDLE")


def replace_target(engine: StoredEngine, **changes: str) -> Any:
    key = engine.record.key
    return msgspec.structs.replace(key, target=msgspec.structs.replace(key.target, **changes))


def test_a_plan_just_built_has_no_record_yet(gpu: FakeGpu, engine: StoredEngine) -> None:
    """As ``build`` opens it to verify an engine before it publishes both."""
    (engine.folder / RECORD).unlink()
    open_plan(PlainFile(engine.plan))


def test_a_record_signed_elsewhere_is_refused(gpu: FakeGpu, engine: StoredEngine) -> None:
    """A store copied from another machine, or an engine that came with a bundle."""
    (engine.folder.parent.parent / SECRET).write_bytes(b"x" * 32)
    (engine.folder.parent.parent / SECRET).chmod(0o640)
    text = refused(engine.plan)
    assert "not signed with the secret" in text and text.endswith("edge-reclass build BUNDLE")
    (engine.folder.parent.parent / SECRET).unlink()
    assert "not signed with the secret" in refused(engine.plan)


def test_a_batch_above_the_profile_names_the_command(gpu: FakeGpu, root: Path) -> None:
    engine = put_engine(root, "mert", "fp16", max_batch=4)
    text = refused(engine.plan, max_batch=6)
    assert "it takes at most 4 windows at a time, 6 are wanted" in text
    assert text.endswith("build it again: edge-reclass build BUNDLE --stage mert --max-batch 6")


def test_engines_of_the_other_flavour(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    with fake_gpu(monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", sys.modules["tensorrt"])
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        monkeypatch.setitem(sys.modules, "tensorrt_bindings", None)
        with TensorRTBackend() as backend:
            assert (backend.library.flavour, str(backend.library)) == ("tensorrt-rtx", "TensorRT-RTX 10.3.0")
            target = target_for("tensorrt-rtx", "10.3.0", gpu=GPU)
            assert backend.target == target
            engine = put_engine(root, "mert", "fp16", target=target)
            backend.open_graph(engine.plan, **SHAPE, max_batch=1).close()


def test_a_missing_binding_means_the_device_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        fake_gpu(monkeypatch, bindings=()),
        pytest.raises(DeviceError, match="cuda-bindings or pycuda.*" + re.escape(install_command("tensorrt"))),
    ):
        open_backend("tensorrt", threads=1)
