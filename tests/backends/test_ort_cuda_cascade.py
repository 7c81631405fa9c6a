"""A whole cascade whose encoder runs on the (fake) GPU through ONNX Runtime gives the CPU's verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bundles
import synth
from backends import fake_onnxruntime
from backends.fake_onnxruntime import ILLEGAL_ACCESS
from edge_reclass import Cascade
from edge_reclass.backends.ort import cuda as ort_cuda
from edge_reclass.errors import DeviceError
from edge_reclass.host.gpu import Gpu


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    stages = [bundles.waveform_stage("mert"), bundles.waveform_stage("jmla", rate=8_000, window=8_000)]
    return bundles.make_bundle(tmp_path / "bundle", stages, accept=1.0)


@pytest.fixture
def tracks(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    return [
        synth.write(
            tmp_path / f"{i}.wav", 0.1 * random.standard_normal((16_000 * (2 + i), 1)).astype(np.float32), 16_000
        )
        for i in range(4)
    ]


def test_the_verdicts_are_the_cpu_s(bundle: Path, tracks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with Cascade.open(bundle, device="cpu") as cascade:
        wanted = [cascade.classify(track) for track in tracks]
    ort = fake_onnxruntime.install(monkeypatch)
    monkeypatch.setattr(ort_cuda, "probe_gpu", lambda: Gpu("RTX 4090", "8.9", "driver-580.65"))
    with Cascade.open(bundle, device="cuda") as cascade:
        assert cascade.device == "cuda"
        for _ in range(2):
            for track, verdict in zip(tracks, wanted, strict=True):
                got = cascade.classify(track)
                assert (got.status, got.genre, got.confidence) == ("ok", verdict.genre, verdict.confidence)
    assert ort.counts["captured"] > 0
    assert ort.counts["replayed"] > 0


def test_a_lost_gpu_ends_the_run(bundle: Path, tracks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ort = fake_onnxruntime.install(monkeypatch)
    monkeypatch.setattr(ort_cuda, "probe_gpu", lambda: Gpu("RTX 4090", "8.9", "driver-580.65"))
    with Cascade.open(bundle, device="cuda") as cascade:
        assert cascade.classify(tracks[0]).status == "ok"
        ort.faults.runs = {3: ILLEGAL_ACCESS}
        with pytest.raises(DeviceError, match="CUDA failure 700"):
            cascade.classify(tracks[1])
