"""The cascade on small real bundles: exits, shared signals, fused heads, statuses, and what its limits are."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import soxr
import yaml
from numpy.typing import NDArray

import bundles
from edge_reclass import Cascade, CascadePool
from edge_reclass.audio import Tiles
from edge_reclass.bundle.loading import MANIFEST, file_entry
from edge_reclass.cascade import opening
from edge_reclass.errors import BundleError, DeviceError, EngineError, UsageError
from reachable import reachable

RATE = 22_050


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def dither(seconds: float, rate: int = RATE) -> NDArray[np.float32]:
    """Silence of 16 bits: triangular dither, rounded to steps."""
    random = np.random.default_rng(0)
    steps = np.round(
        random.uniform(-0.5, 0.5, round(seconds * rate)) + random.uniform(-0.5, 0.5, round(seconds * rate))
    )
    return (steps * 2.0**-15).astype(np.float32)


SURE, TORN = (9.0, 0.0, 0.0), (0.0, 0.2, 0.1)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Fma is torn, so mert decides."""
    stages = [bundles.fma_stage(), bundles.waveform_stage("mert")]
    return bundles.make_bundle(tmp_path / "two", stages, biases={"fma": TORN, "mert": SURE})


def test_first_stage_that_is_sure_ends_the_cascade(tmp_path: Path) -> None:
    stages = [bundles.fma_stage(), bundles.waveform_stage("mert")]
    root = bundles.make_bundle(tmp_path, stages, biases={"fma": SURE, "mert": TORN})
    with Cascade.open(root) as cascade:
        verdict = cascade.classify_samples(noise(5), RATE)
    assert (verdict.status, verdict.genre, verdict.decided_by) == ("ok", "Alpha", "fma")
    assert verdict.confidence is not None
    assert verdict.confidence > 0.99
    assert [stage.name for stage in verdict.stages] == ["fma"]
    assert verdict.reason == f"{verdict.confidence:.4f} > 0.9 after fma"
    assert verdict.top[0].genre == "Alpha"
    assert len(verdict.top) == 3


def test_an_unsure_stage_passes_on(two: Path) -> None:
    with Cascade.open(two) as cascade:
        verdict = cascade.classify_samples(noise(5), RATE)
    assert (verdict.genre, verdict.decided_by, verdict.reason) == ("Alpha", "mert", "last stage of ladder")
    fma, mert = verdict.stages
    assert (fma.name, fma.genre, mert.name, mert.genre) == ("fma", "Beta", "mert", "Alpha")
    assert fma.confidence < 0.9
    assert (mert.excerpt.start, mert.excerpt.seconds) == pytest.approx((0.5, 4.0), abs=1e-3)


def test_stages_see_their_own_excerpts(tmp_path: Path) -> None:
    stages = [
        bundles.waveform_stage("a", excerpt={"start": 1.0, "seconds": 2.0}),
        bundles.waveform_stage("b", excerpt={"full": True}),
        bundles.waveform_stage("c"),
    ]
    root = bundles.make_bundle(tmp_path, stages, accept=1.0)
    samples = noise(10, 16_000)
    samples[16_000 : 3 * 16_000] *= 0.1
    with Cascade.open(root) as cascade:
        verdict = cascade.classify_samples(samples, 16_000)
        quiet, full, centre = (cascade._lane.workspace.embeddings[name].copy() for name in "abc")
    excerpts = [(stage.excerpt.start, stage.excerpt.seconds) for stage in verdict.stages]
    assert excerpts == [(1.0, 2.0), (0.0, 10.0), (3.0, 4.0)]
    expected = np.log1p(1000 * np.abs(samples[16_000 : 3 * 16_000]).reshape(2, 8, -1).mean(axis=2)).mean(axis=0)
    np.testing.assert_allclose(quiet, expected, rtol=1e-5)
    assert quiet.mean() < full.mean() < centre.mean()


def test_windows_in_several_batches_give_the_same_embedding(tmp_path: Path) -> None:
    root = bundles.make_bundle(tmp_path, [bundles.waveform_stage("mert")], excerpt={"full": True})
    samples = noise(9.5, 16_000)
    embeddings = []
    for batch in (1, 3, 16):
        with Cascade.open(root, batch=batch) as cascade:
            cascade.classify_samples(samples, 16_000)
            embeddings.append(cascade._lane.workspace.embeddings["mert"].copy())
    np.testing.assert_allclose(embeddings[0], embeddings[1], rtol=1e-6)
    np.testing.assert_allclose(embeddings[0], embeddings[2], rtol=1e-6)


def test_a_head_on_two_embeddings_takes_them_in_the_order_named(tmp_path: Path) -> None:
    stages = [
        bundles.waveform_stage("a", dim=2),
        bundles.waveform_stage("b", dim=4, head={"inputs": ["b", "a"]}),
    ]
    root = bundles.make_bundle(tmp_path, stages, accept=1.0)
    with Cascade.open(root) as cascade:
        cascade.classify_samples(noise(5), RATE)
        expected = np.concatenate([cascade._lane.workspace.embeddings[name] for name in "ba"])
        np.testing.assert_array_equal(cascade._lane.stages[1]._head.input[0], expected)


def test_a_signal_shared_by_stages_is_resampled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [
        bundles.waveform_stage("a"),
        bundles.waveform_stage("b"),
        bundles.waveform_stage("c", rate=8_000),
    ]
    root = bundles.make_bundle(tmp_path, stages, accept=1.0)
    with Cascade.open(root) as cascade:
        calls = []
        resample = cascade._resampler.resample_tile

        def counting(samples: Any, tiles: Tiles, number: int, out: Any) -> None:
            calls.append((tiles.rate_out, number))
            resample(samples, tiles, number, out)

        monkeypatch.setattr(cascade._resampler, "resample_tile", counting)
        assert len(cascade.classify_samples(noise(5), RATE).stages) == 3
    assert sorted(calls) == [(rate, number) for rate in (8_000, 16_000) for number in range(4)], "tiles of 1 s"


def test_temperature_softens(tmp_path: Path) -> None:
    confidences = []
    for temperature in (1.0, 4.0):
        stage = bundles.fma_stage(head={"temperature": temperature})
        root = bundles.make_bundle(tmp_path / str(temperature), [stage], biases={"fma": (2.0, 0.0, 0.0)})
        with Cascade.open(root) as cascade:
            confidences.append(cascade.classify_samples(noise(5), RATE).confidence)
    assert confidences[0] == pytest.approx(np.exp(2) / (np.exp(2) + 2), abs=0.02)
    assert confidences[1] == pytest.approx(np.exp(0.5) / (np.exp(0.5) + 2), abs=0.02)


def test_native_rate_gives_the_features_of_the_files_own_rate(tmp_path: Path) -> None:
    from edge_reclass.features import fma518

    root = bundles.make_bundle(tmp_path, [bundles.fma_stage(rate="native")], excerpt={"full": True})
    with Cascade.open(root, max_seconds=10) as cascade:
        for rate in (11_025, 44_100, 22_050):
            samples = noise(3, rate)
            cascade.classify_samples(samples, rate)
            np.testing.assert_allclose(cascade._lane.workspace.embeddings["fma"], fma518(samples, rate), rtol=1e-6)


def test_windowed_features_are_the_mean_over_windows(tmp_path: Path) -> None:
    from edge_reclass.features import fma518

    windowed = bundles.fma_stage(encoder={"window_samples": 44_100, "hop_samples": 44_100})
    root = bundles.make_bundle(tmp_path, [windowed])
    samples = noise(4)
    with Cascade.open(root) as cascade:
        cascade.classify_samples(samples, RATE)
        mean = np.mean([fma518(samples[i : i + 44_100], RATE) for i in (0, 44_100)], axis=0)
        np.testing.assert_allclose(cascade._lane.workspace.embeddings["fma"], mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "status", "message"),
    [
        (np.zeros(5 * RATE, np.float32), "silent", "no stage heard any sound"),
        (np.full(5 * RATE, 0.5, np.float32), "silent", "no stage heard any sound"),
        (dither(5), "silent", "no stage heard any sound"),
        (noise(0.9), "too_short", "expected at least 1 s, got 0.900 s"),
        (noise(5)[:1], "too_short", "got 0.000 s"),
        (noise(0), "empty", "no samples"),
        (np.full(5 * RATE, np.nan, np.float32), "corrupt", "NaN"),
    ],
)
def test_samples_without_a_genre(two: Path, samples: NDArray[np.float32], status: str, message: str) -> None:
    with Cascade.open(two) as cascade:
        verdict = cascade.classify_samples(samples, RATE)
        assert (verdict.status, verdict.genre, verdict.decided_by, verdict.top) == (status, None, None, ())
        assert verdict.error is not None
        assert message in verdict.error
        assert verdict.failed == (status in {"empty", "corrupt"})
        assert cascade.classify_samples(noise(5), RATE).status == "ok", "the cascade goes on"


def test_too_long_for_a_full_track_stage(tmp_path: Path) -> None:
    root = bundles.make_bundle(tmp_path, [bundles.waveform_stage("mert")], excerpt={"full": True})
    with Cascade.open(root, max_seconds=5, max_rate=RATE) as cascade:
        assert cascade.classify_samples(noise(5), RATE).status == "ok"
        verdict = cascade.classify_samples(noise(5.2), RATE)
    assert verdict.status == "too_long"
    assert verdict.error is not None
    assert "5.2 s" in verdict.error


def test_too_long_counts_in_seconds_at_every_rate(tmp_path: Path) -> None:
    root = bundles.make_bundle(tmp_path, [bundles.waveform_stage("mert")], excerpt={"full": True})
    with Cascade.open(root, max_seconds=5) as cascade:
        assert cascade.classify_samples(noise(5, 8_000), 8_000).status == "ok"
        verdict = cascade.classify_samples(noise(5.2, 8_000), 8_000)
    assert verdict.status == "too_long"
    assert verdict.error is not None
    assert "expected at most 5 s" in verdict.error


def test_an_excerpt_that_low_rates_round_up_still_fits(tmp_path: Path) -> None:
    """4.00007 s are 32 000.56 samples at 8 kHz: the one that is rounded up is six at 44.1 kHz."""
    windowed = bundles.waveform_stage("a", rate=44_100, window=44_104)
    native = bundles.fma_stage("b", rate="native")
    excerpt = {"start": "center", "seconds": 4.00007}
    root = bundles.make_bundle(tmp_path, [windowed, native], accept=1.0, excerpt=excerpt)
    with Cascade.open(root) as cascade:
        for rate in (8_000, 11_025, 44_100, 192_000):
            verdict = cascade.classify_samples(noise(6, rate), rate)
            assert verdict.status == "ok", (rate, verdict.error)


def test_max_seconds_is_for_full_tracks_only(two: Path) -> None:
    with Cascade.open(two, max_seconds=1) as cascade:
        verdict = cascade.classify_samples(noise(6), RATE)
    assert verdict.status == "ok"
    assert verdict.stages[0].excerpt.seconds == pytest.approx(4.0)


def test_samples_that_are_the_callers_fault_are_refused(two: Path) -> None:
    with Cascade.open(two) as cascade:
        for samples, rate in ((list(range(9)), RATE), (noise(2), 44_100.5), (noise(2).astype(np.complex64), RATE)):
            with pytest.raises(ValueError, match=r"samples|rate"):
                cascade.classify_samples(samples, rate)  # type: ignore[arg-type]
        expected = cascade.classify_samples(noise(2), RATE)
        for rate in (float(RATE), np.int32(RATE)):
            assert cascade.classify_samples(noise(2), rate).top == expected.top  # type: ignore[arg-type]


def test_max_rate_bounds_the_buffers_and_not_what_is_taken(two: Path) -> None:
    with Cascade.open(two, max_rate=22_050) as cascade:
        for rate in (44_100, 384_000, 2_822_400):
            verdict = cascade.classify_samples(noise(2, rate), rate)
            assert (verdict.status, verdict.genre) == ("ok", "Alpha")
            assert verdict.stages[0].excerpt.seconds == pytest.approx(2.0, abs=1e-3)


def test_two_excerpts_of_a_long_track_are_two_segments(tmp_path: Path) -> None:
    """An hour between them is neither decoded nor room for it kept."""
    stages = [
        bundles.waveform_stage("first", excerpt={"start": 0.0, "seconds": 4.0}),
        bundles.waveform_stage("second", excerpt={"start": "center", "seconds": 4.0}),
    ]
    root = bundles.make_bundle(tmp_path / "apart", stages, accept=1.0)
    track = np.concatenate([noise(5, 8_000), np.zeros(8_000 * 1800, np.float32)])
    track[len(track) // 2 - 8_000 :] = 0.1
    track[len(track) // 2 - 8_000 : len(track) // 2 + 8_000 * 3] *= np.sign(noise(4, 8_000, seed=2))
    with Cascade.open(root, max_seconds=60, max_rate=RATE) as cascade:
        assert len(cascade._lane.workspace.decoded) < 10 * RATE
        verdict = cascade.classify_samples(track, 8_000)
    assert verdict.status == "ok", verdict.error
    assert [stage.excerpt.start for stage in verdict.stages] == pytest.approx([0.0, 900.5], abs=0.1)
    assert all(stage.genre is not None for stage in verdict.stages)


@pytest.mark.parametrize("residue", [1e-4, 0.01])
def test_channels_that_cancel_are_heard_one_by_one(two: Path, residue: float) -> None:
    with Cascade.open(two) as cascade:
        stereo = np.outer(noise(5), [1 - residue, -1]).astype(np.float32)
        verdict = cascade.classify_samples(stereo, RATE)
        alone = cascade.classify_samples(noise(5), RATE)
    assert (verdict.status, verdict.channel, alone.channel) == ("ok", 1, None)
    assert [score.score for score in verdict.top] == pytest.approx([score.score for score in alone.top], abs=1e-6)
    assert '"channel": 1' in verdict.to_json()


def test_absurdly_loud_samples_are_corrupt(two: Path) -> None:
    with Cascade.open(two) as cascade:
        assert cascade.classify_samples(noise(2) * np.float32(1e20), RATE).status == "corrupt"
        assert cascade.classify_samples(noise(2) * np.float32(100), RATE).status == "ok"


def test_a_graph_of_one_fixed_batch_is_refused_at_open(tmp_path: Path) -> None:
    root = bundles.make_bundle(tmp_path, [bundles.waveform_stage("mert")])
    file = root / "encoders/mert.fp32.onnx"
    model = onnx.load(file)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    file.write_bytes(model.SerializeToString())
    manifest = yaml.safe_load((root / MANIFEST).read_text())
    entry = file_entry(file)
    manifest["files"]["encoders/mert.fp32.onnx"] = {"sha256": entry.sha256, "bytes": entry.bytes}
    bundles.edit_manifest(root, files=manifest["files"])
    with pytest.raises(EngineError, match="expected a dynamic batch"):
        Cascade.open(root)


def test_a_stage_that_fails_ends_the_track_and_keeps_what_was_said(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cascade.open(two) as cascade:

        def broken(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr(cascade._lane.stages[1], "judge", broken)
        verdict = cascade.classify_samples(noise(5), RATE)
        assert (verdict.status, verdict.genre) == ("out_of_memory", None)
        assert [stage.name for stage in verdict.stages] == ["fma"]


def test_an_unforeseen_fault_is_a_status_too(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cascade.open(two) as cascade:

        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("by accident")

        monkeypatch.setattr(cascade._lane.stages[0], "judge", broken)
        verdict = cascade.classify("whatever.wav")
        assert verdict.status == "missing"
        verdict = cascade.classify_samples(noise(5), RATE)
        assert verdict.status == "error"
        assert verdict.error == "ZeroDivisionError: by accident"


def test_the_same_track_gives_the_same_verdict_every_time(two: Path) -> None:
    samples = noise(5)
    with Cascade.open(two) as cascade:
        first = cascade.classify_samples(samples, RATE)
        cascade.classify_samples(noise(3.3, 48_000, seed=1), 48_000)
        again = cascade.classify_samples(samples, RATE)
    assert first.top == again.top


@pytest.fixture
def ranged(tmp_path: Path) -> Path:
    """One stage, sure of Alpha, whose range test takes only windows that lie below −20 dBFS."""
    test = {"file": "heads/mert.range.onnx", "inputs": ["mert"], "limit": 1.0}
    stages = [
        bundles.waveform_stage("mert", head={"range": test}, loudness=None),
        bundles.waveform_stage("jmla", rate=8_000, window=8_000),
    ]
    root = bundles.make_bundle(tmp_path / "ranged", stages, biases={"mert": SURE, "jmla": (0.5, 0.0, 0.0)})
    # The embedding is log(1 + 1000 × mean |x|): its sum over 8 parts is 1 where mean |x| is about 0.1.
    bundles.write_range(root / test["file"], np.full(8, 1 / 37.0, np.float32))
    bundles.relist(root)
    return root


def test_outside_of_the_range_there_is_no_early_exit_and_no_genre(ranged: Path) -> None:
    loud = noise(5) * np.float32(4)
    with Cascade.open(ranged) as cascade:
        inside, outside = cascade.classify_samples(noise(5), RATE), cascade.classify_samples(loud, RATE)
    assert (inside.status, inside.genre, inside.decided_by, inside.reason_code) == ("ok", "Alpha", "mert", "accepted")
    assert not inside.stages[0].outside
    assert (outside.status, outside.genre, outside.decided_by) == ("unsure", None, "jmla")
    assert (outside.reason_code, outside.failed) == ("outside_range", False)
    assert outside.top[0].genre == "Alpha"
    assert outside.stages[0].outside
    assert outside.stages[0].distance is not None
    assert outside.stages[0].distance > 1
    assert outside.reason == "what mert heard is unlike the music that the bundle was fitted on"
    # With 0 every audible track has a genre, but an exit from outside is still not taken.
    with Cascade.open(ranged, min_confidence=0) as cascade:
        verdict = cascade.classify_samples(loud, RATE)
    assert (verdict.status, verdict.genre, verdict.decided_by) == ("ok", "Alpha", "jmla")
    assert verdict.reason_code == "last_stage"


def test_a_range_test_without_a_number_is_outside(ranged: Path) -> None:
    bundles.write_range(ranged / "heads/mert.range.onnx", np.full(8, np.nan, np.float32))
    bundles.relist(ranged)
    with Cascade.open(ranged) as cascade:
        verdict = cascade.classify_samples(noise(5), RATE)
    assert (verdict.status, verdict.reason_code) == ("unsure", "outside_range")
    assert '"distance": null' in verdict.to_json()


def test_below_the_least_confidence_there_is_no_genre(two: Path) -> None:
    bundles.edit_manifest(two, min_confidence=0.9999)
    with Cascade.open(two) as cascade:
        verdict = cascade.classify_samples(noise(5), RATE)
    assert (verdict.status, verdict.genre, verdict.reason_code) == ("unsure", None, "low_confidence")
    assert verdict.confidence == verdict.top[0].score
    assert verdict.top[0].genre == "Alpha"
    for least, status in ((0.0, "ok"), (0.5, "ok"), (0.99999, "unsure")):
        with CascadePool.open(1, two, min_confidence=least) as pool:
            assert pool.cascades[0].classify_samples(noise(5), RATE).status == status
    with pytest.raises(UsageError, match="min_confidence"):
        Cascade.open(two, min_confidence=1.5)


def test_a_stage_that_hears_only_silence_does_not_decide(tmp_path: Path) -> None:
    stages = [
        bundles.waveform_stage("first", excerpt={"start": 0.0, "seconds": 4.0}),
        bundles.waveform_stage("second"),
    ]
    root = bundles.make_bundle(tmp_path / "apart", stages, biases={"first": SURE, "second": (0.0, 9.0, 0.0)})
    track = np.concatenate([np.zeros(6 * RATE, np.float32), noise(14)])
    with Cascade.open(root) as cascade:
        verdict = cascade.classify_samples(track, RATE)
        assert (verdict.status, verdict.genre, verdict.decided_by) == ("ok", "Beta", "second")
        assert [(stage.name, stage.genre) for stage in verdict.stages] == [("first", None), ("second", "Beta")]
        back = cascade.classify_samples(np.concatenate([noise(5), np.zeros(15 * RATE, np.float32)]), RATE)
        assert (back.genre, back.decided_by) == ("Alpha", "first")


def test_a_head_that_needs_the_embedding_of_silence_is_outside_of_its_range(tmp_path: Path) -> None:
    stages = [
        bundles.waveform_stage("first", excerpt={"start": 0.0, "seconds": 4.0}),
        bundles.waveform_stage("second", head={"inputs": ["first", "second"]}),
    ]
    root = bundles.make_bundle(tmp_path / "fused", stages, biases={"first": SURE, "second": (0.0, 9.0, 0.0)})
    track = np.concatenate([np.zeros(6 * RATE, np.float32), noise(14)])
    with Cascade.open(root) as cascade:
        verdict = cascade.classify_samples(track, RATE)
    assert (verdict.status, verdict.reason_code, verdict.decided_by) == ("unsure", "outside_range", "second")
    with Cascade.open(root, min_confidence=0) as cascade:
        assert cascade.classify_samples(track, RATE).genre == "Beta"


def test_silent_windows_are_not_heard(two: Path) -> None:
    heard = noise(1, 16_000)
    with Cascade.open(two, policy="ladder") as cascade:
        cascade.classify_samples(np.concatenate([heard, np.zeros(3 * 16_000, np.float32)]), 16_000)
        padded = cascade._lane.workspace.embeddings["mert"].copy()
        cascade.classify_samples(heard, 16_000)
        np.testing.assert_allclose(cascade._lane.workspace.embeddings["mert"], padded, rtol=1e-6)


@pytest.mark.parametrize("windowed", [False, True])
def test_with_a_loudness_volume_and_offset_do_not_matter(tmp_path: Path, windowed: bool) -> None:
    rule = {"window_samples": 2 * RATE, "hop_samples": 2 * RATE} if windowed else {}
    stages = [bundles.fma_stage(encoder=rule, loudness=-15.0), bundles.waveform_stage("mert", loudness=-15.0)]
    root = bundles.make_bundle(tmp_path / str(windowed), stages, accept=1.0)
    with Cascade.open(root) as cascade:
        reference = [answer.embedding for answer in cascade.answers(noise(5), RATE)]
        for gain, offset in ((1.0, 0.3), (1e-3, 0.0), (0.02, -0.4), (30.0, 2.0)):
            changed = np.float32(gain) * noise(5) + np.float32(offset)
            for one, other in zip(reference, cascade.answers(changed, RATE), strict=True):
                off = np.abs(other.embedding - one) > 0.02 + 0.02 * np.abs(one)
                # float32 at an offset of 0.4 is rounded noise for the quietest bins.
                assert off.mean() <= 0.01


def test_one_call_at_a_time(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Event(), threading.Event()
    with Cascade.open(two) as cascade:
        answer = cascade._lane.stages[0].judge

        def slow(*arguments: Any, **options: Any) -> Any:
            entered.set()
            assert leave.wait(60)
            return answer(*arguments, **options)

        monkeypatch.setattr(cascade._lane.stages[0], "judge", slow)
        with ThreadPoolExecutor(1) as other:
            running = other.submit(cascade.classify_samples, noise(5), RATE)
            assert entered.wait(60)
            for call in (cascade.classify_samples, cascade.answers):
                with pytest.raises(UsageError, match="CascadePool"):
                    call(noise(5), RATE)
            with pytest.raises(UsageError, match="CascadePool"):
                cascade.classify("a.wav")
            leave.set()
            assert running.result(60).status == "ok"
        assert cascade.classify_samples(noise(5), RATE).status == "ok", "handed over between calls"


def test_a_pool_serves_many_threads(two: Path, tmp_path: Path) -> None:
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.wav")
        soundfile.write(paths[-1], noise(1.2 + 0.3 * i, seed=i), RATE)
    with Cascade.open(two) as cascade:
        plain = {str(path): cascade.classify(path).top for path in paths}
    with CascadePool.open(2, two) as pool, ThreadPoolExecutor(8) as callers:
        futures = [
            future for many in callers.map(lambda _: [pool.submit(p) for p in paths], range(8)) for future in many
        ]
        verdicts = [future.result(120) for future in futures]
        verdicts += callers.map(pool.classify, paths)
    assert len(verdicts) == 9 * len(paths)
    for verdict in verdicts:
        assert verdict.status == "ok"
        assert verdict.top == plain[verdict.path]


def test_a_pool_that_is_closed_with_a_timeout_says_whether_tracks_still_run(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(2), RATE)
    entered, leave = threading.Event(), threading.Event()
    pool = CascadePool.open(1, two)
    answer = pool.cascades[0]._lane.stages[0].judge

    def slow(*arguments: Any) -> Any:
        entered.set()
        assert leave.wait(60)
        return answer(*arguments)

    monkeypatch.setattr(pool.cascades[0]._lane.stages[0], "judge", slow)
    running, waiting = pool.submit(path), pool.submit(path)
    assert entered.wait(60)
    assert not pool.close(timeout=0.05)
    assert waiting.cancelled()
    with pytest.raises(EngineError, match="closed"):
        pool.submit(path)
    leave.set()
    assert running.result(60).status == "ok", "nothing was released under it"
    assert pool.close(timeout=60)


@pytest.mark.parametrize(("threads", "lanes", "pool"), [(1, 4, 1), (4, 1, 4), (4, 4, 13)])
def test_every_lane_has_its_threads(
    two: Path, monkeypatch: pytest.MonkeyPatch, threads: int, lanes: int, pool: int
) -> None:
    opened: list[int] = []
    open_backend = opening.open_backend

    def noted(name: str, **options: Any) -> Any:
        opened.append(options["threads"])
        return open_backend(name, **options)

    monkeypatch.setattr(opening, "open_backend", noted)
    CascadePool.open(lanes, two, threads=threads).close()
    assert opened == [pool, 1], "the encoders' pool, and the heads'"


def test_closed_cascades_refuse(two: Path) -> None:
    cascade = Cascade.open(two)
    cascade.close()
    cascade.close()
    with pytest.raises(EngineError, match="closed"):
        cascade.classify_samples(noise(5), RATE)


def test_what_is_closed_holds_no_streams_and_no_arrays(two: Path) -> None:
    # nanobind complains on stderr of every soxr stream that is alive when the interpreter ends.
    cascade, pool = Cascade.open(two), CascadePool.open(2, two)
    assert cascade.classify_samples(noise(5), RATE).status == "ok"
    for opened in (cascade, pool):
        assert any(isinstance(held, soxr.ResampleStream) for held in reachable(opened))
        opened.close()
        held = reachable(opened)
        assert not any(isinstance(each, soxr.ResampleStream) for each in held)
        assert sum(each.nbytes for each in held if isinstance(each, np.ndarray)) < 1 << 20


def test_open_refuses(two: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no device 'tpu': expected one of auto, cpu"):
        Cascade.open(two, device="tpu")
    with pytest.raises(DeviceError, match="cuda") as error:
        Cascade.open(two, device="cuda")
    assert error.value.exit_code == 5
    with pytest.raises(UsageError, match="expected at least 1, got 0"):
        Cascade.open(two, threads=0)
    with pytest.raises(UsageError, match="max_rate"):
        Cascade.open(two, max_rate=400_000)
    only_half = bundles.waveform_stage("mert", encoder={"files": {"fp16": "encoders/mert.fp32.onnx"}})
    root = bundles.make_bundle(tmp_path / "half", [only_half])
    with Cascade.open(root) as cascade:
        assert cascade.classify_samples(noise(5), RATE).status == "ok"


def test_files_that_do_not_fit_the_manifest_are_refused(tmp_path: Path) -> None:
    root = bundles.make_bundle(tmp_path / "b", [bundles.waveform_stage("mert")])
    bundles.write_encoder(root / "encoders/mert.fp32.onnx", 16_000, 4)
    with pytest.raises(BundleError, match=r"sha256|bytes"):
        Cascade.open(root)
    stage = bundles.waveform_stage("mert")
    root = bundles.make_bundle(tmp_path / "c", [stage])
    stage["encoder"]["dim"] = 4
    bundles.edit_manifest(root, stages=[stage])
    with pytest.raises(EngineError, match=r"mert\.fp32\.onnx.*expected the shape \[batch, 4\], got \['batch', 8\]"):
        Cascade.open(root)


def test_pool_keeps_the_order_and_gives_the_same_verdicts(two: Path, tmp_path: Path) -> None:
    paths = []
    for i in range(12):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, noise(1.2 + 0.3 * (i % 4), seed=i), RATE)
        paths.append(path)
    paths.insert(3, tmp_path / "missing.wav")
    with Cascade.open(two) as cascade:
        plain = list(cascade.classify_many(paths))
    with CascadePool.open(3, two) as pool:
        pooled = list(pool.classify_many(paths))
    assert [v.path for v in pooled] == [str(path) for path in paths]
    assert [(v.status, v.genre, v.top) for v in pooled] == [(v.status, v.genre, v.top) for v in plain]
    assert pooled[3].status == "missing"


def test_a_pool_that_is_left_early_stops(two: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(2), RATE)
    read = []

    def endless() -> Any:
        while True:
            read.append(1)
            yield path

    with CascadePool.open(2, two) as pool:
        verdicts = pool.classify_many(endless())
        assert next(verdicts).status == "ok"
        verdicts.close()
    assert len(read) < 20


def test_a_closed_pool_refuses(two: Path) -> None:
    pool = CascadePool.open(2, two)
    pool.close()
    pool.close()
    with pytest.raises(EngineError, match="closed"):
        next(pool.classify_many(["a.wav"]))
