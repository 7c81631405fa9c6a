"""A machine with a GPU, for tests on machines without one: TensorRT, a CUDA binding and the GPU's probe.

    @pytest.fixture
    def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
        with fake_gpu(monkeypatch) as gpu:
            yield gpu

    def test_something(gpu, tmp_path):
        root = engine_bundle(tmp_path / "bundle")            # tests/export/engine_bundles.py, or any other bundle
        put_engines(root)                                    # or the real `edge-reclass build`, which works too
        with TensorRTBackend(1) as backend: ...
        # or: edge-reclass classify --device tensorrt, in this process

Engines are computed by ONNX Runtime on the CPU, so numbers are those of ``--device cpu`` with the same ONNX file. When
the block ends, it fails if anything on the device was not freed, or if a rule that a real GPU would not report was
broken; close what you open inside it. ``gpu.cuda.fail("cudaMemcpyAsync", "cudaErrorIllegalAddress", nth=2)`` and
``gpu.tensorrt.fail("execute_async_v3", "text of the log")`` plan faults; ``gpu.tensorrt.spoil`` changes results.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from backends.fakes.cuda import FakeCuda
from backends.fakes.cuda_faces import bindings_module, pycuda_module
from backends.fakes.tensorrt import FakeTensorRT
from edge_reclass import bundle as bundles
from edge_reclass import host
from edge_reclass.bundle import WaveformEntry
from edge_reclass.engines.record import EngineKey, EngineRecord, Profile, Target, target_for
from edge_reclass.engines.store import PLAN, RECORD, StoredEngine
from edge_reclass.engines.trust import default_store, make_secret
from edge_reclass.host.gpu import Gpu

__all__ = ["GPU", "FakeGpu", "fake_gpu", "put_engine", "put_engines", "write_plan"]

BUILDER = Path(__file__).parents[2] / "export" / "fakes"
GPU = Gpu("Orin", "8.7", "l4t-36.4.3")
VERSION = "10.3.0"
TARGET = target_for("tensorrt", VERSION, gpu=GPU)


@dataclass
class FakeGpu:
    """The device, its TensorRT, and the target of its engines."""

    cuda: FakeCuda
    tensorrt: FakeTensorRT
    target: Target = TARGET

    def held(self) -> list[str]:
        """Everything on the device that has not been freed."""
        return [*self.cuda.held(), *self.tensorrt.held()]


@contextmanager
def fake_gpu(
    monkeypatch: pytest.MonkeyPatch,
    *,
    bindings: Sequence[str] = ("cuda-bindings",),
    integrated: bool = False,
    devices: int = 1,
    gpu: Gpu = GPU,
    check: bool = True,
) -> Iterator[FakeGpu]:
    """Until the block ends, this process has a GPU, TensorRT 10.3.0 and the CUDA ``bindings``.

    Child processes (the builder's) find the fake TensorRT too. With ``check=False`` leaks are not looked for.
    """
    monkeypatch.syspath_prepend(BUILDER)
    monkeypatch.delenv("FAKE_TENSORRT", raising=False)
    monkeypatch.delenv("EDGE_RECLASS_CUDA_MEMORY", raising=False)
    spec = importlib.util.spec_from_file_location("tensorrt", BUILDER / "tensorrt" / "__init__.py")
    assert spec is not None and spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    cuda = FakeCuda(integrated=integrated, devices=devices)
    tensorrt = FakeTensorRT(cuda, builder)
    made: dict[str, Any] = {"tensorrt": tensorrt.module(), "pycuda": None, "pycuda.driver": None}
    made |= {"cuda": None, "cuda.bindings": None, "cuda.bindings.runtime": None}
    if "pycuda" in bindings:
        made |= {"pycuda": ModuleType("pycuda"), "pycuda.driver": pycuda_module(cuda)}
    if "cuda-bindings" in bindings:
        made |= {"cuda": ModuleType("cuda"), "cuda.bindings": ModuleType("cuda.bindings")}
        made["cuda.bindings.runtime"] = bindings_module(cuda)
    for name, module in made.items():
        if module is not None:
            module.__spec__ = ModuleSpec(name, None, is_package=True)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(host, "probe_gpu", lambda *_, **__: gpu)
    machine = FakeGpu(cuda, tensorrt, target_for("tensorrt", VERSION, gpu=gpu))
    yield machine
    wrong = [*cuda.violations, *(machine.held() if check and cuda.sticky is None else ())]
    if wrong:
        raise AssertionError(f"the fake GPU: {'; '.join(wrong)}")


def write_plan(
    plan: Path,
    onnx: Path,
    *,
    width: int,
    max_batch: int = 16,
    name: str = "waveform",
    output: str = "embedding",
    version: str = VERSION,
) -> Path:
    """A fake engine of ``onnx``, as the fake builder writes it."""
    header = {
        "version": version,
        "file": onnx.name,
        "flags": [],
        "profiles": [{name: [[1, width], [1, width], [max_batch, width]]}],
        "outputs": [output],
    }
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_bytes(json.dumps(header).encode() + b"\n" + onnx.read_bytes())
    return plan


def put_engine(
    root: Path,
    stage: str,
    precision: str,
    *,
    engines_folder: Path | None = None,
    target: Target = TARGET,
    max_batch: int = 16,
    rejected: str | None = None,
) -> StoredEngine:
    """Put a fake engine of one stage and its record where ``build`` puts them; ``rejected``: the record only."""
    loaded = bundles.load(root)
    encoder = loaded.manifest.stage(stage).encoder
    assert isinstance(encoder, WaveformEntry)
    file = encoder.graph_files[precision]
    profile = Profile("waveform", encoder.window_samples, 1, 1, max_batch)
    key = EngineKey(loaded.manifest.files[file].sha256, target, profile)
    store = engines_folder or default_store()
    folder = store / loaded.digest / key.name
    folder.mkdir(parents=True, exist_ok=True)
    record = EngineRecord(1, key, loaded.name, stage, precision, file, rejected=rejected, not_verified="it is a fake")
    if rejected is None:
        plan = write_plan(folder / PLAN, loaded.path(file), width=encoder.window_samples, max_batch=max_batch)
        record = msgspec.structs.replace(record, **msgspec.to_builtins(bundles.file_entry(plan)))
    record = record.signed_by(make_secret(store))
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return StoredEngine(folder, record)


def put_engines(
    root: Path, *, engines_folder: Path | None = None, target: Target = TARGET, max_batch: int = 16
) -> dict[str, StoredEngine]:
    """Put an engine of the preferred precision (fp16, else fp32) for every waveform stage of a bundle."""
    made = {}
    for entry in bundles.load(root).manifest.stages:
        if isinstance(entry.encoder, WaveformEntry):
            precision = next(each for each in ("fp16", "fp32") if each in entry.encoder.graph_files)
            made[entry.name] = put_engine(
                root, entry.name, precision, engines_folder=engines_folder, target=target, max_batch=max_batch
            )
    return made
