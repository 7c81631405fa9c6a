"""Scenarios against classifiers that tell their own time: every sample is known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from bench.fakes import FakeClassifier, FakeClock, FakePool, paths
from bundles import fma_stage, make_bundle, waveform_stage
from edge_reclass.backends import Backend, open_backend
from edge_reclass.bundle import load
from edge_reclass.cascade import Options, choose_policy, load_bundle
from edge_reclass.errors import DeviceError, EdgeReclassError, EngineError
from edge_reclass.host import usable_cpus
from edge_reclass_bench.collector import Collector
from edge_reclass_bench.harness import Request
from edge_reclass_bench.products import Product
from edge_reclass_bench.record import Measure, PolicyRecord, Run, Series, StepRecord
from edge_reclass_bench.scenarios import agreement, ceilings
from edge_reclass_bench.scenarios.agreement import backend_of, measure_agreement
from edge_reclass_bench.scenarios.build import measure_build
from edge_reclass_bench.scenarios.ceilings import measure_ceilings
from edge_reclass_bench.scenarios.cold_start import data_of, libraries, measure_cold_start, start_process
from edge_reclass_bench.scenarios.context import Context, Event, Lapped, Limits
from edge_reclass_bench.scenarios.energy import measure_energy
from edge_reclass_bench.scenarios.latency import measure_latency
from edge_reclass_bench.scenarios.offline import measure_offline
from edge_reclass_bench.tracks import Tracks
from edge_reclass_doctor.machine import Reading


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"), [waveform_stage("one"), waveform_stage("two")])


def context_of(root: Path, clock: FakeClock, tracks: int = 4, **limits: Any) -> Context:
    bundle = load(root)
    wanted = Limits(**({"min_passes": 1} | limits))
    options = Options(threads=1)
    return Context(
        bundle,
        choose_policy(bundle),
        "cpu",
        options,
        paths(tracks),
        wanted,
        clock=clock,
        cpu_clock=lambda: 2 * clock.now,
    )


def heard(events: Iterable[Event]) -> Collector:
    collector = Collector()
    for event in events:
        collector.add(event, 0)
    return collector


def measure_of(collector: Collector, key: str) -> Measure:
    return next(measure for measure in collector.measures if measure.key == key)


def samples(collector: Collector, key: str) -> list[float]:
    return measure_of(collector, key).samples


BOTH = ("stage", "single-stream")


def test_parts_are_taken_apart_and_add_up(root: Path) -> None:
    clock = FakeClock()
    subjects = {
        "cascade": FakeClassifier(clock, {"one": 100.0, "two": 300.0}),
        "single:two": FakeClassifier(clock, {"two": 300.0}),
    }
    found = heard(measure_latency(context_of(root, clock), subjects, BOTH))
    alone = {part: samples(found, f"stage/single:two/two/{part}/warm/host")[0] for part in ("resample", "run", "head")}
    assert alone == {"resample": 60.0, "run": 210.0, "head": 15.0}
    assert samples(found, "stage/single:two/two/compute/warm/device") == [180.0] * 4
    assert samples(found, "stage/single:two/two/policy/warm/host") == [1.0] * 4
    assert samples(found, "stage/single:two/two/other/warm/host") == [15.0] * 4
    assert samples(found, "stage/single:two/two/total/warm/host") == [301.0] * 4
    assert samples(found, "stage/single:two/-/decode/warm/host") == [5.0] * 4
    assert samples(found, "single-stream/cascade/-/track/warm/host") == pytest.approx([408.0] * 4)
    assert samples(found, "single-stream/cascade/-/cpu/warm/host") == pytest.approx([816.0] * 4)
    assert samples(found, "single-stream/cascade/one/total/warm/host") == [101.0] * 4
    assert samples(found, "single-stream/cascade/-/other/warm/host") == pytest.approx([1.0] * 4)


def test_only_what_was_asked_for_is_measured(root: Path) -> None:
    clock = FakeClock()
    subjects = {"single:one": FakeClassifier(clock, {"one": 9.0})}
    found = heard(measure_latency(context_of(root, clock), subjects, ("stage",)))
    assert {(measure.scenario, measure.phase) for measure in found.measures} == {("stage", "warm")}
    only = heard(measure_latency(context_of(root, clock), subjects, ("offline",)))
    assert only.measures == [] and len(only.verdicts["single:one"]) == 4


def test_the_first_track_of_the_cascade_is_cold_and_kept_apart(root: Path) -> None:
    clock = FakeClock()
    cold = FakeClassifier(clock, {"one": 10.0}, stretch=lambda call: 7.0 if call == 0 else 1.0)
    found = heard(measure_latency(context_of(root, clock), {"cascade": cold}, ("single-stream",)))
    assert samples(found, "single-stream/cascade/one/total/cold/host") == [71.0]
    assert samples(found, "single-stream/cascade/one/total/warm/host") == [11.0] * 4


def test_warm_up_passes_are_run_stated_and_not_counted(root: Path) -> None:
    clock = FakeClock()
    warming = FakeClassifier(clock, {"one": 10.0}, stretch=lambda call: 5.0 if call < 12 else 1.0)
    found = heard(measure_latency(context_of(root, clock, warm_up=3), {"single:one": warming}, ("stage",)))
    assert set(samples(found, "stage/single:one/one/total/warm/host")) == {11.0}
    assert (found.runs[0].warm_up, found.runs[0].passes, found.runs[0].count) == (3, 1, 4)


def test_every_subject_has_its_passes_unless_time_is_over_which_is_noted(root: Path) -> None:
    subjects = {"cascade": {"one": 10.0}, "ensemble": {"two": 1000.0}}

    def runs(**limits: Any) -> list[Run]:
        clock = FakeClock()
        made = {name: FakeClassifier(clock, stages) for name, stages in subjects.items()}
        return heard(measure_latency(context_of(root, clock, **limits), made, ("single-stream",))).runs

    assert [(run.subject, run.passes, len(run.notes)) for run in runs(min_passes=3)] == [
        ("cascade", 3, 1),
        ("ensemble", 3, 1),
    ]
    for run in runs(min_passes=3, most_seconds=0.5):
        assert run.passes == 1
        assert run.notes[1:] == ["the time was over after 1 of 3 passes in a process"]


def test_a_subject_without_samples_has_its_warm_up_alone(root: Path) -> None:
    clock = FakeClock()
    subjects = {name: FakeClassifier(clock, {"one": 1.0}) for name in ("cascade", "single:one")}
    found = heard(measure_latency(context_of(root, clock, min_passes=3), subjects, ("stage",)))
    assert {name: len(each.seen) for name, each in subjects.items()} == {"cascade": 4, "single:one": 16}
    assert set(found.verdicts) == {"cascade", "single:one"}


def test_tracks_come_in_another_order_in_every_pass_and_keep_their_numbers(root: Path) -> None:
    clock = FakeClock()
    classifier = FakeClassifier(clock, {"one": 10.0})
    found = heard(
        measure_latency(context_of(root, clock, tracks=8, min_passes=4), {"cascade": classifier}, ("single-stream",))
    )
    rounds = [classifier.seen[i : i + 8] for i in range(0, len(classifier.seen), 8)]
    assert len({tuple(each) for each in rounds[1:]}) > 1
    assert all(sorted(each) == sorted(rounds[0]) for each in rounds)
    measure = measure_of(found, "single-stream/cascade/-/track/warm/host")
    assert [f"track{track}.wav" for track in measure.tracks] == classifier.seen[8:]
    assert measure.passes == [i // 8 for i in range(32)]


def test_tracks_without_an_answer_are_neither_timed_nor_counted(root: Path) -> None:
    clock = FakeClock()
    statuses = {"track1.wav": "silent", "track3.wav": "corrupt"}
    classifier = FakeClassifier(clock, {"one": 10.0}, statuses=statuses)
    found = heard(measure_latency(context_of(root, clock), {"cascade": classifier}, ("single-stream",)))
    assert {track for measure in found.measures for track in measure.tracks} == {0, 2}
    assert [verdict["status"] for verdict in found.verdicts["cascade"]] == ["ok", "silent", "ok", "corrupt"]
    assert (found.runs[0].count, found.runs[0].failed) == (2, 2)


def test_a_verdict_that_changes_between_passes_is_told(root: Path) -> None:
    clock = FakeClock()

    class Fickle(FakeClassifier):
        def classify(self, path: Path) -> Any:
            verdict = super().classify(path)
            late = len(self.seen) > 4 and path.name == "track2.wav"
            return verdict if not late else replace(verdict, genre="Beta")

    found = heard(measure_latency(context_of(root, clock), {"cascade": Fickle(clock, {"one": 1.0})}, BOTH))
    assert found.warnings == ["cascade: 1 of 4 tracks changed their verdict between passes"]


def test_throughput_is_of_the_answered_tracks_after_the_warm_up(root: Path) -> None:
    clock = FakeClock()
    pool = FakePool(clock, 0.5, statuses={"track1.wav": "corrupt"})
    found = heard(measure_offline(context_of(root, clock, min_passes=11), pool, lanes=1))
    measure = measure_of(found, "offline/cascade/-/throughput/warm/host")
    assert measure.samples == [90.0]  # 11 passes of 4 tracks, 2 s each, one of which has no answer
    assert (measure.unit, measure.better, measure.tracks) == ("tracks/min", "higher", [])
    assert samples(found, "offline/cascade/-/track/warm/host") == [6.0] * 33  # decode and the stage, in its lane
    assert (found.runs[0].count, found.runs[0].failed) == (33, 11)
    assert pool.finished
    assert pool.taken == 48  # the warm-up and what was counted: nothing more is begun


@pytest.mark.parametrize(("lanes", "block"), [(1, 1), (2, 2), (8, 8)])
@pytest.mark.parametrize("most_seconds", [0.0, 1e9])
def test_a_block_has_as_many_tracks_as_the_pool_reads_ahead(
    root: Path, lanes: int, block: int, most_seconds: float
) -> None:
    clock, blocks = FakeClock(), 1 if most_seconds == 0.0 else 3
    pool = FakePool(clock, 100.0)
    found = heard(measure_offline(context_of(root, clock, most_seconds=most_seconds), pool, lanes=lanes))
    assert (found.runs[0].warm_up, found.runs[0].passes) == (block, blocks * block)  # of 4 tracks
    assert pool.taken == (blocks + 1) * block * 4
    assert len(found.runs[0].notes) == (blocks == 1)


def test_energy_reads_idle_and_busy_apart(root: Path) -> None:
    """A board that draws 20 W while it works; its readings take no time of their own, and come with the clock."""
    clock = FakeClock()
    working = False

    def sensors() -> Reading:
        clock.sleep(0.01)
        return reading(clock.now, 20.0 if working else 5.0, 50.0)

    class Working(FakeClassifier):
        def classify(self, path: Path) -> Any:
            nonlocal working
            working = True
            return super().classify(path)

    context = replace(context_of(root, clock), sensors=sensors)
    classifier = Working(clock, {"one": 1.0})
    found = heard(measure_energy(context, classifier, scenario="energy", seconds=40.0, sleep=lambda _: None))
    idle, busy = found.series
    assert idle.values["watts"] == [5.0] * len(idle.seconds)
    assert set(busy.values["watts"]) == {20.0}
    assert (busy.power_source, busy.ended - busy.began >= 40.0) == ("board input rail", True)
    assert busy.count == len(busy.finished) == found.runs[0].count > 1000
    assert sorted(busy.seconds) == busy.seconds and len(busy.values["watts"]) == len(busy.seconds)


def reading(seconds: float, watts: float | None = 5.0, celsius: float | None = None) -> Reading:
    return Reading(
        seconds=seconds,
        temperatures_celsius={} if celsius is None else {"cpu": celsius},
        cpu_mhz=(),
        gpu_mhz=None,
        gpu_temperature_celsius=None,
        total_watts=watts,
        gpu_watts=None,
        gpu_energy_joules=None,
        gpu_memory_used_bytes=None,
        throttled_by=(),
        overcurrent_events=None,
    )


def test_sustained_is_handed_on_lap_by_lap(root: Path) -> None:
    """What is broken off in the ninth minute has nearly nine; the laps are the whole."""
    clock = FakeClock()
    context = replace(context_of(root, clock), sensors=lambda: reading(clock.now))

    def events() -> Iterator[Event]:
        return measure_energy(
            context, FakeClassifier(clock, {"one": 1.0}), scenario="sustained", seconds=600.0, sleep=lambda _: None
        )

    broken_off = heard(takewhile(lambda event: clock.now < 100.0 + 540.0, events())).series
    assert [series.phase for series in broken_off] == ["idle", "busy"]
    assert 530.0 < broken_off[1].ended <= 540.0
    assert broken_off[1].count == len(broken_off[1].finished) > 10_000
    whole = heard(events())
    assert whole.series[1].ended == pytest.approx(600.0, abs=1.0)
    assert whole.series[1].count == whole.runs[0].count


def test_sensors_that_come_and_go_between_laps_keep_their_places() -> None:
    collector = Collector()
    for seconds, values in (([0.0, 1.0], {"watts": [5.0, 6.0]}), ([2.0], {"watts": [7.0], "celsius:cpu": [50.0]})):
        lap = Series(
            scenario="energy", subject="cascade", phase="busy", seconds=seconds, values=values, began=0, ended=9
        )
        collector.add(Lapped(lap), 0)
    (series,) = collector.series
    assert series.values == {"watts": [5.0, 6.0, 7.0], "celsius:cpu": [None, None, 50.0]}


def test_without_sensors_energy_is_absent_with_its_reason(root: Path) -> None:
    clock = FakeClock()
    found = heard(measure_energy(context_of(root, clock), FakeClassifier(clock, {}), scenario="energy", seconds=1.0))
    assert [absent.what for absent in found.absent] == ["energy"]
    assert found.series == []


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, generator = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for i in range(2):
        soundfile.write(folder / f"{i}.wav", (0.1 * generator.standard_normal(32_000)).astype(np.float32), 16_000)
    return sorted(folder.iterdir())


def test_every_precision_is_compared_with_fp32(tmp_path: Path, clips: list[Path]) -> None:
    root = make_bundle(tmp_path, [fma_stage(), waveform_stage("two")])
    context = replace(context_of(root, FakeClock()), paths=clips)
    found = heard(measure_agreement(context))
    size = sum(path.stat().st_size for path in root.rglob("two*.onnx") if "head" not in str(path))
    assert [(file.stage, file.precision, file.kind, file.agrees, file.of) for file in found.files] == [
        ("two", "fp32", "onnx", 2, 2)
    ]
    assert 0 < found.files[0].bytes <= size
    assert found.runs[0].notes == ["two fp32: on cpu"]


def test_a_precision_is_judged_on_the_runs_device_or_else_it_is_said_where(
    tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_bundle(tmp_path, [waveform_stage("two")])
    asked: list[tuple[str, str, int]] = []

    def backend(device: str, precision: str, threads: int) -> Backend:
        asked.append((device, precision, threads))
        if device == "cuda" and broken:
            raise EngineError("cannot be opened there")
        return backend_of("cpu", precision, threads)

    monkeypatch.setattr(agreement, "backend_of", backend)
    context = replace(context_of(root, FakeClock()), paths=clips, device="cuda", options=Options())
    broken = False
    assert heard(measure_agreement(context)).runs[0].notes == ["two fp32: on cuda"]
    assert asked == [("cpu", "fp32", usable_cpus()), ("cuda", "fp32", usable_cpus())]
    broken = True
    found = heard(measure_agreement(context))
    assert found.runs[0].notes == ["two fp32: on cpu (cannot be opened there)"]
    assert (found.files[0].agrees, found.files[0].of) == (2, 2)


def test_ceilings_are_of_the_graphs_own_products(tmp_path: Path) -> None:
    starter = load_bundle(None)
    context = replace(context_of(starter.root, FakeClock()), options=Options(threads=2, batch=1))
    found = heard(measure_ceilings(context))
    keys = {measure.key for measure in found.measures}
    assert keys == {f"ceilings/cascade/musicnn/{part}/warm/host" for part in ("graph", "products", "rate")}
    bare = make_bundle(tmp_path, [waveform_stage("one")])
    assert "no product" in heard(measure_ceilings(context_of(bare, FakeClock()))).absent[0].reason


def test_ceilings_of_tensorrt_take_the_cuda_provider_or_are_absent_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starter, opened = load_bundle(None), []

    def backend(device: str, *, threads: int) -> Backend:
        opened.append((device, threads))
        return open_backend("cpu", threads=threads)

    monkeypatch.setattr(ceilings, "open_backend", backend)
    context = replace(context_of(starter.root, FakeClock()), device="tensorrt", options=Options(batch=1))
    found = heard(measure_ceilings(context))
    assert len(found.measures) == 3
    assert "ONNX Runtime's CUDA provider" in found.runs[0].notes[0]
    assert opened == [("cuda", usable_cpus())]

    def none(device: str, *, threads: int) -> Backend:
        raise DeviceError(f"no {device} here")

    monkeypatch.setattr(ceilings, "open_backend", none)
    (absent,) = heard(measure_ceilings(context)).absent
    assert "no cuda here; then: edge-reclass bench run" in absent.reason


@pytest.mark.parametrize(
    "product",
    [
        Product(16, 16 * 1500, 8192, 64, True),  # MERT's positional convolution
        Product(4096, 1500, 1500, 64, False),
        Product(1, 10, 10, 10, True),
    ],
)
def test_large_products_are_done_in_part(product: Product) -> None:
    part = ceilings.in_part(product)
    assert 4 * part.groups * part.rows * part.inner <= 1 << 28
    assert part.rows >= min(product.rows, 512)
    assert (part.inner, part.columns) == (product.inner, product.columns)
    assert (part == product) == (product.groups == 1)


def request_of(root: Path, clips: Sequence[Path] = (Path("x.wav"),)) -> Request:
    tracks = Tracks(tuple(clips), tuple(path.name for path in clips), "0" * 64, "content")
    return Request(tracks, (), bundle=root, options=Options(threads=1), build_sm="8.6")


def policy_of(root: Path) -> PolicyRecord:
    policy = choose_policy(load(root))
    steps = [StepRecord(after=s.after, weights=dict(s.weights), accept=s.accept) for s in policy.steps]
    return PolicyRecord(name=policy.name, vote=policy.vote, steps=steps)


class Cache:
    """A page cache that keeps so much of what it is asked to drop."""

    def __init__(self, stays: float | None) -> None:
        self.stays, self.dropped = stays, 0

    def drop(self, files: Sequence[Path]) -> None:
        self.dropped += len(files)

    def resident_share(self, files: Sequence[Path]) -> float | None:
        del files
        return self.stays


def start_of(tasks: list[Mapping[str, Any]]) -> Any:
    def start(task: Mapping[str, Any]) -> dict[str, Any]:
        tasks.append(task)
        moments = {"spawned": 0, "entered": 20_000_000, "imported": 170_000_000}
        moments |= {"opened": 500_000_000, "answered": 620_000_000}
        return moments | {"peak_bytes": 10**8 + len(tasks), "status": "ok", "genre": "Alpha"}

    return start


def test_cold_start_takes_the_moments_apart(root: Path) -> None:
    tasks: list[Mapping[str, Any]] = []
    cache = Cache(0.0)
    found = heard(measure_cold_start(request_of(root), policy_of(root), 1, start_of(tasks), cache))
    assert cache.dropped > 10
    for phase in ("cold", "warm"):
        parts = {measure.part: measure.samples for measure in found.measures if measure.phase == phase}
        assert parts == {"start": [20.0], "import": [150.0], "open": [330.0], "first": [120.0], "total": [620.0]}
    assert len(tasks) == 2
    assert found.runs[0].host_peak_bytes == 10**8 + 2  # the child's, not this process's
    assert found.runs[0].other_cpu is not None
    assert (found.runs[0].count, found.runs[0].failed) == (2, 0)
    assert found.runs[0].notes[0].startswith("cold: 0% of bundle and track")


def test_a_cold_start_takes_engines_editable_installs_and_the_gpus_libraries_out_of_memory(
    root: Path, tmp_path: Path
) -> None:
    import edge_reclass

    digest = load(root).digest
    engine = tmp_path / "engines" / digest / "one" / "engine.plan"
    request = replace(request_of(root), device="tensorrt", options=Options(engines=tmp_path / "engines"))
    library = tmp_path / "usr/lib/aarch64-linux-gnu/libnvinfer.so.10"
    for file in (engine, library):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
    assert engine in data_of(request, Path("x.wav"))
    assert engine not in data_of(replace(request, device="cpu"), Path("x.wav"))
    assert library in libraries("tensorrt", tmp_path)
    on_cpu = libraries("cpu", tmp_path)
    assert library not in on_cpu
    assert Path(edge_reclass.__file__) in on_cpu  # wherever it is installed


@pytest.mark.parametrize("stays", [0.5, None])
def test_where_files_stay_in_memory_no_start_is_called_cold(root: Path, stays: float | None) -> None:
    found = heard(measure_cold_start(request_of(root), policy_of(root), 1, start_of([]), Cache(stays)))
    assert {measure.phase for measure in found.measures} == {"warm"}
    assert "none is cold" in found.warnings[0]


def test_a_real_process_starts_and_answers(root: Path, clips: list[Path]) -> None:
    found = heard(measure_cold_start(request_of(root, clips), policy_of(root), 0))
    parts = {measure.part: measure.samples[0] for measure in found.measures if measure.phase == "warm"}
    assert sum(parts[name] for name in ("start", "import", "open", "first")) == pytest.approx(parts["total"])
    assert all(value > 0 for value in parts.values())
    peak = found.runs[0].host_peak_bytes
    assert peak is None or 10 * 2**20 < peak < 2 * 2**30


def test_a_process_that_fails_ends_the_scenario_with_its_last_line(tmp_path: Path) -> None:
    policy = {"name": "p", "vote": "soft", "steps": []}
    task = {"bundle": str(tmp_path), "device": "cpu", "track": "x", "policy": policy, "options": {}}
    with pytest.raises(EdgeReclassError, match=r"exit code 1: .*bundle\.yaml"):
        start_process(task)


ROWS = (
    '[{"stage": "one", "action": "build", "precision": "fp16", "detail": "", "verified": true, "build_seconds": 12.5,'
    ' "build_peak_bytes": 1000},'
    ' {"stage": "two", "action": "cpu", "precision": null, "detail": "worse than FP32", "verified": false,'
    ' "build_seconds": null, "build_peak_bytes": null}]'
)


def test_build_times_come_from_the_build(root: Path) -> None:
    asked: list[Sequence[str]] = []

    def build(arguments: Sequence[str]) -> tuple[int, str, str]:
        asked.append(arguments)
        return 0, ROWS, ""

    found = heard(measure_build(request_of(root), policy_of(root), build))
    assert {(m.stage, m.unit) for m in found.measures} == {(None, "s"), ("one", "s")}
    assert samples(found, "build/cascade/one/total/warm/host") == [12.5]
    assert [(absent.what, absent.reason) for absent in found.absent] == [("build of two", "worse than FP32")]
    assert found.runs[0].host_peak_bytes == 1000
    (arguments,) = asked
    assert arguments[-2:] == ["--sm", "8.6"]
    assert arguments.count("--stage") == 2
    assert not Path(arguments[arguments.index("--engines") + 1]).exists()  # a folder of its own, gone afterwards


@pytest.mark.parametrize(("code", "out", "reason"), [(5, "", "exit code 5: no GPU"), (0, "no json", "no GPU")])
def test_a_build_that_cannot_be_is_absent_with_its_reason(root: Path, code: int, out: str, reason: str) -> None:
    found = heard(measure_build(request_of(root), policy_of(root), lambda _: (code, out, "looking\nno GPU\n")))
    assert found.measures == []
    assert reason in found.absent[0].reason


def test_features_alone_have_nothing_to_build(tmp_path: Path) -> None:
    root = make_bundle(tmp_path, [fma_stage()])
    found = heard(measure_build(request_of(root), policy_of(root), lambda _: (0, ROWS, "")))
    assert found.absent[0].reason == "no stage of the policy has a graph to build"
