"""Scenarios against classifiers that tell their own time: every sample is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.fakes import FakeClassifier, FakeClock, FakePool, paths, settings
from bundles import fma_stage, make_bundle, waveform_stage
from edge_reclass.bundle.loading import load
from edge_reclass.cascade.opening import Options
from edge_reclass.cascade.plan import choose_policy
from edge_reclass.errors import EdgeReclassError
from edge_reclass_bench.scenarios.build import measure_build
from edge_reclass_bench.scenarios.cold_start import measure_cold_start, start_process
from edge_reclass_bench.scenarios.context import Context
from edge_reclass_bench.scenarios.latency import Latency, measure_latency
from edge_reclass_bench.scenarios.offline import measure_offline


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"), [waveform_stage("one"), waveform_stage("two")])


def _context(root: Path, clock: FakeClock, tracks: int = 4, **changes: Any) -> Context:
    bundle = load(root)
    return Context(
        bundle,
        choose_policy(bundle),
        "cpu",
        Options(threads=1),
        paths(tracks),
        settings(**changes),
        processes=3,
        clock=clock,
        cpu_clock=lambda: 2 * clock.now,
    )


def _samples(result: Latency, key: str) -> list[float]:
    return next(measure.samples for measure in result.measures if measure.key == key)


BOTH = ("stage", "single-stream")


def test_parts_are_taken_apart_and_add_up(root: Path) -> None:
    clock = FakeClock()
    subjects = {
        "cascade": FakeClassifier(clock, {"one": 100.0, "two": 300.0}),
        "single:two": FakeClassifier(clock, {"two": 300.0}),
    }
    result = measure_latency(_context(root, clock), subjects, BOTH)
    alone = {
        part: _samples(result, f"stage/single:two/two/{part}/warm/host")[0] for part in ("resample", "run", "head")
    }
    assert alone == {"resample": 60.0, "run": 210.0, "head": 15.0}
    assert _samples(result, "stage/single:two/two/compute/warm/device") == [180.0] * 4
    assert _samples(result, "stage/single:two/two/policy/warm/host") == [1.0] * 4
    assert _samples(result, "stage/single:two/two/other/warm/host") == [15.0] * 4
    assert _samples(result, "stage/single:two/two/total/warm/host") == [301.0] * 4
    assert _samples(result, "stage/single:two/-/decode/warm/host") == [5.0] * 4
    assert _samples(result, "single-stream/cascade/-/track/warm/host") == pytest.approx([408.0] * 4)
    assert _samples(result, "single-stream/cascade/-/cpu/warm/host") == pytest.approx([816.0] * 4)
    assert _samples(result, "single-stream/cascade/one/total/warm/host") == [101.0] * 4
    assert _samples(result, "single-stream/cascade/-/other/warm/host") == pytest.approx([1.0] * 4)


def test_only_what_was_asked_for_is_in_the_record(root: Path) -> None:
    clock = FakeClock()
    result = measure_latency(_context(root, clock), {"single:one": FakeClassifier(clock, {"one": 9.0})}, ("stage",))
    assert {measure.scenario for measure in result.measures} == {"stage"}
    assert {measure.phase for measure in result.measures} == {"warm"}


def test_the_first_pass_of_the_cascade_is_cold_and_kept_apart(root: Path) -> None:
    clock = FakeClock()
    cold = FakeClassifier(clock, {"one": 10.0}, stretch=lambda call: 7.0 if call < 4 else 1.0)
    result = measure_latency(_context(root, clock), {"cascade": cold}, ("single-stream",))
    assert _samples(result, "single-stream/cascade/one/total/cold/host") == [71.0] * 4
    assert _samples(result, "single-stream/cascade/one/total/warm/host") == [11.0] * 4


def test_warm_up_passes_are_run_stated_and_not_counted(root: Path) -> None:
    clock = FakeClock()
    warming = FakeClassifier(clock, {"one": 10.0}, stretch=lambda call: 5.0 if call < 12 else 1.0)
    result = measure_latency(_context(root, clock, warm_up=3), {"single:one": warming}, ("stage",))
    assert set(_samples(result, "stage/single:one/one/total/warm/host")) == {11.0}
    assert (result.runs[0].warm_up, result.runs[0].passes, result.runs[0].count) == (3, 1, 4)


def test_both_minima_are_met_by_every_subject(root: Path) -> None:
    clock = FakeClock()
    subjects = {"cascade": FakeClassifier(clock, {"one": 10.0}), "ensemble": FakeClassifier(clock, {"two": 1000.0})}
    result = measure_latency(_context(root, clock, min_count=10, min_seconds=1.0), subjects, ("single-stream",))
    runs = {run.subject: run for run in result.runs}
    # 4 tracks of 17 ms: 1 s needs 15 passes; 4 tracks of 1 s: 10 tracks need 3 passes.
    assert (runs["cascade"].passes, runs["ensemble"].passes) == (15, 3)
    assert runs["cascade"].wall_seconds >= 1.0
    assert runs["ensemble"].count >= 10


def test_tracks_come_in_another_order_in_every_pass_and_keep_their_numbers(root: Path) -> None:
    clock = FakeClock()
    classifier = FakeClassifier(clock, {"one": 10.0})
    result = measure_latency(_context(root, clock, tracks=8, min_count=32), {"cascade": classifier}, ("single-stream",))
    rounds = [classifier.seen[i : i + 8] for i in range(0, len(classifier.seen), 8)]
    assert len({tuple(each) for each in rounds[1:]}) > 1
    assert all(sorted(each) == sorted(rounds[0]) for each in rounds)
    measure = next(m for m in result.measures if m.part == "track" and m.phase == "warm")
    assert [f"track{track}.wav" for track in measure.tracks] == classifier.seen[8:]
    assert measure.passes == [i // 8 for i in range(32)]


def test_tracks_without_an_answer_are_not_timed(root: Path) -> None:
    clock = FakeClock()
    statuses = {"track1.wav": "silent", "track3.wav": "corrupt"}
    result = measure_latency(
        _context(root, clock), {"cascade": FakeClassifier(clock, {"one": 10.0}, statuses=statuses)}, ("single-stream",)
    )
    assert {track for measure in result.measures for track in measure.tracks} == {0, 2}
    assert [verdict.status for verdict in result.verdicts["cascade"]] == ["ok", "silent", "ok", "corrupt"]


def test_a_verdict_that_changes_between_passes_is_told(root: Path) -> None:
    clock = FakeClock()

    class Fickle(FakeClassifier):
        def classify(self, path: Path) -> Any:
            verdict = super().classify(path)
            late = len(self.seen) > 4 and path.name == "track2.wav"
            return verdict if not late else type(verdict)(**{**verdict.__dict__, "genre": "Beta"})

    result = measure_latency(_context(root, clock), {"cascade": Fickle(clock, {"one": 1.0})}, ("single-stream",))
    assert result.warnings == ["cascade: 1 of 4 tracks changed their verdict between passes"]


def test_throughput_is_counted_in_blocks_after_the_warm_up(root: Path) -> None:
    clock = FakeClock()
    pool = FakePool(clock, 0.5)
    outcome = measure_offline(_context(root, clock, min_seconds=21.0), pool)
    (measure,) = outcome.measures
    assert measure.samples == [120.0] * 11  # blocks of 4 tracks, 2 s each, until 21 s
    assert (measure.unit, measure.better, measure.tracks) == ("tracks/min", "higher", [])
    assert outcome.runs[0].count == 44
    assert pool.finished
    assert pool.taken == 48  # the warm-up and what was counted: nothing more is begun


def test_throughput_has_at_least_five_blocks(root: Path) -> None:
    clock = FakeClock()
    outcome = measure_offline(_context(root, clock), FakePool(clock, 100.0))
    assert len(outcome.measures[0].samples) == 5


def test_cold_start_takes_the_moments_apart(root: Path) -> None:
    tasks: list[Mapping[str, Any]] = []

    def start(task: Mapping[str, Any]) -> dict[str, Any]:
        tasks.append(task)
        late = 10**9 if len(tasks) == 1 else 0  # the first process is not counted
        moments = {"spawned": 0, "entered": 20_000_000 + late, "imported": 170_000_000 + late}
        moments |= {"opened": 500_000_000 + late, "answered": 620_000_000 + late}
        return moments | {"peak_bytes": 10**8 + len(tasks), "status": "ok", "genre": "Alpha"}

    outcome = measure_cold_start(_context(root, FakeClock()), Path("x.wav"), start)
    assert {measure.part: measure.samples for measure in outcome.measures} == {
        "start": [20.0] * 3,
        "import": [150.0] * 3,
        "open": [330.0] * 3,
        "first": [120.0] * 3,
        "total": [620.0] * 3,
    }
    assert len(tasks) == 4
    assert outcome.runs[0].host_peak_bytes == 10**8 + 4
    assert outcome.warnings == []


def test_a_real_process_starts_and_answers(root: Path, tmp_path: Path) -> None:
    from edge_reclass_bench.scenarios.null import write_clip

    write_clip(tmp_path / "clip.wav", 16_000, 0)
    context = _context(root, FakeClock())
    outcome = measure_cold_start(context, tmp_path / "clip.wav")
    parts = {measure.part: measure.samples for measure in outcome.measures}
    for i in range(3):
        assert sum(parts[name][i] for name in ("start", "import", "open", "first")) == pytest.approx(parts["total"][i])
        assert all(parts[name][i] > 0 for name in parts)
    assert outcome.warnings == []
    peak = outcome.runs[0].host_peak_bytes
    assert peak is None or 10 * 2**20 < peak < 2 * 2**30


def test_a_process_that_fails_ends_the_scenario_with_its_last_line(tmp_path: Path) -> None:
    task = {"bundle": str(tmp_path), "device": "cpu", "track": "x", "policy": None, "options": {}}
    with pytest.raises(EdgeReclassError, match=r"exit code 1: .*bundle\.yaml"):
        start_process(task)


ROWS = (
    '[{"stage": "one", "action": "build", "precision": "fp16", "detail": "", "verified": true, "build_seconds": 12.5,'
    ' "build_peak_bytes": 1000},'
    ' {"stage": "two", "action": "cpu", "precision": null, "detail": "worse than FP32", "verified": false,'
    ' "build_seconds": null, "build_peak_bytes": null}]'
)


def test_build_times_come_from_the_build(root: Path) -> None:
    clock = FakeClock()
    asked: list[Sequence[str]] = []

    def build(arguments: Sequence[str]) -> tuple[int, str, str]:
        asked.append(arguments)
        clock.sleep(15.0)
        return 0, ROWS, ""

    outcome = measure_build(_context(root, clock), build, "8.6")
    assert {(m.stage, m.unit): m.samples for m in outcome.measures} == {(None, "s"): [15.0], ("one", "s"): [12.5]}
    assert [(absent.what, absent.reason) for absent in outcome.absent] == [("build of two", "worse than FP32")]
    assert outcome.runs[0].host_peak_bytes == 1000
    (arguments,) = asked
    assert arguments[-2:] == ["--sm", "8.6"]
    assert arguments.count("--stage") == 2
    assert not Path(arguments[arguments.index("--engines") + 1]).exists()  # a folder of its own, gone afterwards


@pytest.mark.parametrize(("code", "out", "reason"), [(5, "", "exit code 5: no GPU"), (0, "no json", "no GPU")])
def test_a_build_that_cannot_be_is_absent_with_its_reason(root: Path, code: int, out: str, reason: str) -> None:
    outcome = measure_build(_context(root, FakeClock()), lambda _: (code, out, "looking\nno GPU\n"))
    assert outcome.measures == []
    assert reason in outcome.absent[0].reason


def test_features_alone_have_nothing_to_build(tmp_path: Path) -> None:
    root = make_bundle(tmp_path, [fma_stage()])
    outcome = measure_build(_context(root, FakeClock()), lambda _: (0, ROWS, ""))
    assert outcome.absent[0].reason == "no stage of the policy has a graph to build"
