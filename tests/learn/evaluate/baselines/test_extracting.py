"""Features are extracted once, whatever happens in between, and what could not be extracted is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="baselines need the extra [fit]")

import synth
from edge_reclass.errors import UsageError
from edge_reclass.features import fma518
from edge_reclass_learn.evaluate.baselines.extracting import LOUDNESS, excerpt, extract
from edge_reclass_learn.evaluate.baselines.sources import RATE, Extract, Missing, Source, Vector, sources

RATES = (16_000, 22_050, 44_100)


@pytest.fixture
def tracks(tmp_path: Path) -> list[Path]:
    """Noise of three levels and rates, 2 s each."""
    found = []
    for number, rate in enumerate(RATES):
        samples = np.random.default_rng(number).normal(0, 0.02 * 3**number, (2 * rate, 1)).astype(np.float32)
        found.append(tmp_path / f"{number}.wav")
        synth.write(found[-1], np.clip(samples, -1, 1), rate)
    return found


def source(run: Extract, settings: str = "one") -> Source:
    return Source("Test", "numpy", RATE, settings, "", lambda: run)


def quiet(_: str) -> None: ...


def test_every_source_is_given_the_same_kind_of_excerpt(tracks: list[Path], tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    synth.write(long, np.random.default_rng(5).normal(0, 0.1, (33 * 8_000, 1)).astype(np.float32), 8_000)
    assert len(excerpt(long, RATE)) == pytest.approx(30 * RATE, abs=4)
    for track in tracks:
        samples = excerpt(track, RATE)
        assert samples.dtype == np.float32 and len(samples) == pytest.approx(2 * RATE, abs=4)
        assert 20 * np.log10(np.sqrt(np.mean(np.square(samples)))) == pytest.approx(LOUDNESS, abs=0.3)


def test_what_was_extracted_is_not_extracted_again(tracks: list[Path], tmp_path: Path) -> None:
    calls: list[int] = []

    def run(samples: Vector) -> Vector:
        calls.append(len(samples))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.array([samples[0], len(calls)], np.float32)

    cache = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        extract(source(run), tracks, cache, quiet)
    found = extract(source(run), tracks, cache, quiet)
    assert len(calls) == 4, "it goes on where it was"
    assert found.rows[:, 1].tolist() == [1, 2, 4] and found.there.all() and found.note == ""
    assert found.milliseconds is not None and found.milliseconds > 0
    again = extract(source(run), [tracks[2], tracks[0]], cache, quiet)
    assert len(calls) == 4 and again.rows.tolist() == found.rows[[2, 0]].tolist()
    extract(source(run, "other"), tracks[:1], cache, quiet)
    assert len(calls) == 5, "with other settings it is another thing"


def test_what_has_no_features_is_left_out_and_said(tracks: list[Path], tmp_path: Path) -> None:
    turn = iter((np.ones(3), ValueError("too short"), np.array([1.0, np.nan, np.inf])))

    def run(_: Vector) -> Vector:
        found = next(turn)
        if isinstance(found, Exception):
            raise found
        return found.astype(np.float32)

    torn = tmp_path / "torn.flac"
    torn.write_bytes(b"no audio")
    found = extract(source(run), [*tracks, torn, tmp_path / "gone.wav"], tmp_path / "cache", quiet)
    assert found.there.tolist() == [True, False, True, False, False]
    assert found.rows[2].tolist() == [1.0, 0.0, 0.0]
    assert "nothing of 3 tracks" in found.note and "ValueError: too short" in found.note
    assert "2 values of 1 tracks are not finite" in found.note


def test_another_number_of_features_is_no_features(tracks: list[Path], tmp_path: Path) -> None:
    sizes = iter((4, 2, 4))
    found = extract(source(lambda _: np.ones(next(sizes), np.float32)), tracks, tmp_path / "cache", quiet)
    assert found.rows.shape == (3, 4) and found.there.tolist() == [True, False, True]
    assert "another number of features" in found.note


def test_a_library_that_is_not_there_is_named_with_its_command(tracks: list[Path], tmp_path: Path) -> None:
    absent = replace(source(lambda samples: samples), package="no-such-library")
    with pytest.raises(Missing, match="pip install no-such-library"):
        extract(absent, tracks, tmp_path / "cache", quiet)
    assert not (tmp_path / "cache").exists()
    with pytest.raises(Missing, match="edge-reclass export musicnn"):
        sources(None)["tags"].opened()
    with pytest.raises(UsageError, match=r"gone\.onnx: cannot be read"):
        sources(tmp_path / "gone.onnx")


def test_the_518_features_are_those_of_the_runtime(tracks: list[Path], tmp_path: Path) -> None:
    found = extract(sources(None)["fma518"], tracks, tmp_path / "cache", quiet)
    for row, track in zip(found.rows, tracks, strict=True):
        np.testing.assert_array_equal(row, np.nan_to_num(fma518(excerpt(track, RATE), RATE)))


def dimensions(name: str, tracks: list[Path], cache: Path) -> tuple[int, ...]:
    found = extract(sources(None)[name], tracks, cache, quiet)
    assert found.there.all() and np.ptp(found.rows, axis=0).any()
    return found.rows.shape


@pytest.mark.parametrize(("name", "dim"), [("egemaps", 88), ("compare", 6373)])
@pytest.mark.filterwarnings("default")  # what a foreign library warns of is not ours
def test_opensmile(name: str, dim: int, tracks: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("opensmile", reason="opensmile is not installed")
    assert dimensions(name, tracks, tmp_path / "cache") == (3, dim)


@pytest.mark.filterwarnings("default")
def test_essentia_gives_as_many_features_of_short_tracks_as_of_long_ones(tracks: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("essentia", reason="essentia is not installed")
    short, long = tmp_path / "short.wav", tmp_path / "beats.wav"
    clicks = 0.01 * np.random.default_rng(0).normal(0, 1, (8 * RATE, 1)).astype(np.float32)
    clicks[:: RATE // 2] = 0.9
    synth.write(long, clicks, RATE)
    synth.write(short, clicks[: RATE // 2], RATE)
    rows, dim = dimensions("essentia", [*tracks, short, long], tmp_path / "cache")
    assert rows == 5 and dim > 900


def graph(outputs: int) -> bytes:
    """A graph of musicnn's shape: the mean of a window, 200 times; and so 50 times, if there are two outputs."""
    import onnx
    from onnx import TensorProto, helper

    names = {"embedding": 200, "tags": 50}
    kept = list(names)[:outputs]
    nodes = [helper.make_node("ReduceMean", ["waveform"], ["mean"], axes=[1], keepdims=1)]
    sizes = []
    for name in kept:
        sizes.append(helper.make_tensor(f"{name}.size", TensorProto.INT64, [2], [1, names[name]]))
        nodes.append(helper.make_node("Tile", ["mean", f"{name}.size"], [name]))
    given = [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", 48_128])]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", names[name]]) for name in kept]
    model = helper.make_model(
        helper.make_graph(nodes, "tags", given, made, sizes), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def opened(root: Path, outputs: int) -> Callable[[Vector], Vector]:
    path = root / "tags.onnx"
    path.write_bytes(graph(outputs))
    return sources(path)["tags"].opened()


def test_tags_are_the_mean_over_the_windows(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="graphs run in ONNX Runtime")
    samples = np.concatenate([np.full(47_872, 1.0), np.full(48_128, 3.0)]).astype(np.float32)
    first = (47_872 + 3.0 * 256) / 48_128  # the second window begins where the first one's hop ends
    np.testing.assert_allclose(opened(tmp_path, 2)(samples), np.full(50, (first + 3.0) / 2), rtol=1e-5)
    np.testing.assert_allclose(opened(tmp_path, 2)(np.full(500, 2.0, np.float32)), np.full(50, 2.0), rtol=1e-5)
    with pytest.raises(Missing, match="no output of 50 tags"):
        opened(tmp_path, 1)(samples)
