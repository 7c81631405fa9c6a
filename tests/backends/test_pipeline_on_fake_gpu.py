"""Lanes on the TensorRT backend, over the fakes: the CPU's verdicts, one engine for all lanes, auto, a lost device."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import bundles
from backends.fakes import GPU, fake_gpu, put_engine, put_engines
from edge_reclass import Cascade, CascadePool, Verdict
from edge_reclass.backends.ort import cuda as ort_cuda
from edge_reclass.bundle.loading import load
from edge_reclass.engines.trust import default_store
from edge_reclass.errors import DeviceError, EngineError
from lanes_device import traced_peak

RATE = 16_000
SURE, TORN = (9.0, 0.0, 0.0), (0.0, 0.2, 0.1)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Two encoders; the first is torn, the second decides."""
    stages = [bundles.waveform_stage("mert"), bundles.waveform_stage("jmla", window=8_000)]
    return bundles.make_bundle(tmp_path / "bundle", stages, biases={"mert": TORN, "jmla": SURE})


@pytest.fixture
def tracks(tmp_path: Path) -> list[Path]:
    paths = []
    for i in range(8):
        paths.append(tmp_path / f"{i}.wav")
        random = np.random.default_rng(i)
        soundfile.write(paths[-1], 0.02 * (i + 1) * random.standard_normal(RATE + i * 7_000), RATE)
    return paths


def said(verdict: Verdict) -> Any:
    stages = [(stage.name, stage.genre, stage.confidence) for stage in verdict.stages]
    return verdict.path, verdict.status, verdict.genre, verdict.top, verdict.decided_by, stages


@pytest.mark.parametrize("bindings", [("cuda-bindings",), ("pycuda",)], ids=str)
@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
def test_lanes_on_engines_give_the_verdicts_of_the_cpu(
    bundle: Path, tracks: list[Path], bindings: tuple[str, ...], integrated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cascade.open(bundle) as cascade:
        expected = [said(verdict) for verdict in cascade.classify_many(tracks * 3)]
    put_engines(bundle, max_batch=6)
    with fake_gpu(monkeypatch, bindings=bindings, integrated=integrated):
        with Cascade.open(bundle, "tensorrt") as one:
            assert [said(verdict) for verdict in one.classify_many(tracks * 3)] == expected
        with CascadePool.open(4, bundle, "tensorrt") as pool:
            assert [said(verdict) for verdict in pool.classify_many(tracks * 3)] == expected
            batches = {name: sum(size * n for size, n in enumerate(ran)) for name, ran in pool.batches.items()}
            assert all(len(ran) == 7 for ran in pool.batches.values()), "no more than the engine's profile takes"
        windows = dict.fromkeys(batches, 0)
        for track in tracks * 3:
            seconds = soundfile.info(track).duration
            windows["mert"] += int(np.ceil(min(seconds, 4.0) - 1e-9))
            windows["jmla"] += int(np.ceil(2 * min(seconds, 4.0) - 1e-9))
        assert batches == windows, "every window was run once"


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_stage_whose_engines_were_rejected_runs_on_the_cpu_beside_the_others(
    bundle: Path, tracks: list[Path], lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cascade.open(bundle) as cascade:
        expected = [said(verdict) for verdict in cascade.classify_many(tracks * 2)]
    put_engine(bundle, "mert", "fp32", rejected="batch 4: cosine 0.1")
    put_engine(bundle, "jmla", "fp32")
    with fake_gpu(monkeypatch), CascadePool.open(lanes, bundle, "tensorrt") as pool:
        assert pool.device == "tensorrt"
        assert [note.partition(":")[0] for note in pool.notes] == ["mert", "jmla"]
        assert "on the CPU" in pool.notes[0] and "cosine 0.1" in pool.notes[0]
        assert [said(verdict) for verdict in pool.classify_many(tracks * 2)] == expected
        assert list(pool.batches) == (["jmla"] if lanes > 1 else []), "lanes share what the GPU runs"


def test_auto_goes_on_where_the_engines_folder_cannot_be_read(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default_store().mkdir(parents=True)
    (default_store() / load(bundle).digest).write_text("a file")
    with fake_gpu(monkeypatch):
        with Cascade.open(bundle, "auto") as cascade:
            assert cascade.device == "cpu"
            assert "not tensorrt: engines cannot be read from" in cascade.notes[0]
        with pytest.raises(EngineError, match=r"engines cannot be read from .* --engines DIR"):
            Cascade.open(bundle, "tensorrt")


def test_auto_takes_tensorrt_once_its_engines_are_there(
    bundle: Path, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_cuda, "probe_gpu", lambda: GPU)
    with fake_gpu(monkeypatch):
        with Cascade.open(bundle, "auto") as cascade:
            assert cascade.device == "cpu"
            tensorrt, cuda = cascade.notes
        assert "not tensorrt: stage mert: fp32 is missing" in tensorrt
        assert f"edge-reclass build {bundle} --stage mert --stage jmla" in tensorrt
        assert "not cuda: the device cuda needs onnxruntime-gpu" in cuda
        with pytest.raises(EngineError, match="next: edge-reclass build") as error:
            Cascade.open(bundle, "tensorrt")
        assert error.value.exit_code == 4
        put_engines(bundle)
        with Cascade.open(bundle, "auto") as cascade:
            assert cascade.device == "tensorrt"
            assert cascade.classify(tracks[0]).status == "ok"


def test_a_device_lost_in_the_middle_ends_the_run(
    bundle: Path, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_engines(bundle)
    got = []
    with (
        fake_gpu(monkeypatch, check=False) as gpu,
        pytest.raises(DeviceError, match="cudaErrorIllegalAddress"),
        CascadePool.open(3, bundle, "tensorrt") as pool,
    ):
        for verdict in pool.classify_many(itertools.cycle(tracks)):
            got.append(verdict)
            if len(got) == 5:
                gpu.cuda.fail("cudaStreamSynchronize", "cudaErrorIllegalAddress", 1)
    assert {verdict.status for verdict in got} == {"ok"}
    assert len(got) >= 5


def test_lanes_allocate_nothing_that_grows_with_the_excerpt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(70 * RATE), RATE)
    root = bundles.make_bundle(
        tmp_path / "long", [bundles.waveform_stage("mert")], excerpt={"start": "center", "seconds": 60.0}
    )
    put_engines(root)
    with fake_gpu(monkeypatch), CascadePool.open(4, root, "tensorrt") as pool:
        peak = traced_peak(pool, path)
    # One excerpt is 3.8 MB, one batch of 16 windows 1 MB; the fake's own copies of a batch count too.
    assert peak < 3.5e6, f"{peak / 1e6:.2f} MB"
