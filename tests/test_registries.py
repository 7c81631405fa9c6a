"""What a newcomer adds with one module and one line: an encoder kind, a device."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from msgspec import Struct
from numpy.typing import NDArray

import bundles
import synth
from edge_reclass import Cascade, backends
from edge_reclass.backends.ort.cpu import OrtBackend
from edge_reclass.bundle import BundleFile, EncoderEntry, load
from edge_reclass.bundle import encoders as kinds
from edge_reclass.cascade.encoders import OpenRequest, Parts, Progress
from edge_reclass.cascade.sound import Sound
from edge_reclass.errors import BundleError


class PeakEntry(Struct, EncoderEntry, tag="peaks", tag_field="kind", forbid_unknown_fields=True, frozen=True):
    """A toy: the largest samples of each of ``dim`` parts of an excerpt."""

    rate: int
    dim: int
    window_samples: int | None = None
    hop_samples: int | None = None
    short: str = "repeat"
    min_seconds: float = 0.5

    def describe(self) -> str:
        return f"the {self.dim} largest samples at {self.rate} Hz"


class Peaks:
    def __init__(self, dim: int) -> None:
        self._dim = dim
        self.closed = False

    def encode(
        self,
        sound: Sound,
        out: NDArray[np.float32],
        parts: Parts,
        *,
        upto: Sequence[int] = (),
        anyway: bool = False,
    ) -> Iterator[Progress]:
        del upto, anyway
        samples = sound.take(0, len(sound))
        out[:] = [part.max() for part in np.array_split(np.abs(samples), self._dim)]
        parts.add("peaks", 0.0)
        yield Progress(1, 1)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("toy_peaks")
    module.Entry = PeakEntry  # type: ignore[attr-defined]
    module.open_encoder = lambda request: Peaks(request.stage.encoder.dim)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_peaks", module)
    monkeypatch.setitem(kinds.KINDS, "peaks", "toy_peaks")  # the one line
    return "peaks"


def stage(**encoder: object) -> dict[str, object]:
    made = bundles.fma_stage("toy")
    made["encoder"] = {"kind": "peaks", "rate": 16_000, "dim": 8, **encoder}
    return made


def test_an_encoder_kind(peaks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = bundles.make_bundle(tmp_path / "bundle", [stage()])
    path = synth.write(tmp_path / "a.wav", synth.music(4.0, 44_100, 1), 44_100)
    with Cascade.open(root) as cascade:
        verdict = cascade.classify(path)
        embedding = cascade.embed(path)["toy"]
    assert verdict.ok and verdict.decided_by == "toy"
    assert embedding.shape == (8,) and 0 < embedding.min() <= embedding.max() <= 1
    from edge_reclass.cli.inspection import describe

    assert "stage    toy: the 8 largest samples at 16000 Hz" in describe(load(root))


def test_an_encoder_kind_is_checked_as_the_others_are(peaks: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"stages\[0\]\.encoder\.min_seconds.*got 'x'"):
        load(bundles.make_bundle(tmp_path / "a", [stage(min_seconds="x")]))
    with pytest.raises(BundleError, match="unknown field `colour`"):
        load(bundles.make_bundle(tmp_path / "b", [stage(colour=1)]))
    with pytest.raises(BundleError, match="'ears': expected one of fma518, waveform, peaks"):
        load(bundles.make_bundle(tmp_path / "c", [stage(kind="ears")]))


class Npu(OrtBackend):
    """A toy device: the CPU under another name, with one precision of its own."""

    name = "npu"
    precisions = ("fp16", "fp32")
    opened: list[Path] = []  # noqa: RUF012

    def open_graph(self, file: BundleFile | Path, **asked: object) -> object:  # type: ignore[override]
        self.opened.append(file if isinstance(file, Path) else file.path)
        return super().open_graph(file, **asked)  # type: ignore[arg-type]


def test_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("toy_npu")
    module.Npu = Npu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_npu", module)
    monkeypatch.setitem(backends.DEVICES, "npu", "toy_npu:Npu")  # the one line
    monkeypatch.setattr(Npu, "opened", [])
    root = bundles.make_bundle(tmp_path / "bundle", [bundles.waveform_stage("mert")])
    path = synth.write(tmp_path / "a.wav", synth.music(12.0, 44_100, 1), 44_100)
    with Cascade.open(root, "npu") as cascade, Cascade.open(root) as cpu:
        assert cascade.device == "npu"
        assert cascade.classify(path).top == cpu.classify(path).top
    assert [file.name for file in Npu.opened] == ["mert.fp32.onnx"]


def test_a_request_has_all_that_an_encoder_needs() -> None:
    assert {"plan", "stage", "backend", "threads", "shared"} == set(OpenRequest.__dataclass_fields__)
