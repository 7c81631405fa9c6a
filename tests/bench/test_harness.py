"""A whole ``bench run`` on a small bundle, and the commands on what it wrote. No time is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from bench.fakes import SlowBackend, SlowGraph
from bench.sample import make_record
from bundles import fma_stage, make_bundle, waveform_stage
from edge_reclass.bundle.loading import load as load_bundle
from edge_reclass.cascade import opening
from edge_reclass.cascade.opening import Options
from edge_reclass.cascade.policy import Policy, Step
from edge_reclass.errors import EdgeReclassError, UsageError
from edge_reclass_bench.cli import app
from edge_reclass_bench.harness import Request, run
from edge_reclass_bench.opened import Opened
from edge_reclass_bench.policies import ensemble, single
from edge_reclass_bench.record import Record, load, save
from edge_reclass_bench.tracks import find

FAST = {"min_seconds": 0.0, "min_count": 12, "processes": 2, "resamples": 50, "read_sensors": False}


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five tracks of different loudness in two folders, and one of silence."""
    folder = tmp_path_factory.mktemp("music")
    generator = np.random.default_rng(0)
    for i in range(6):
        path = folder / ("Alpha" if i % 2 else "beta") / f"track{i}.wav"
        path.parent.mkdir(exist_ok=True)
        level = 0.0 if i == 5 else 0.5 * 0.2**i
        soundfile.write(path, (level * generator.standard_normal(32_000)).clip(-1, 1).astype(np.float32), 16_000)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features, a graph, and a graph whose head takes the features too; thresholds that some tracks pass."""
    stages = [fma_stage(), waveform_stage("net"), waveform_stage("fused", head={"inputs": ["fma", "fused"]})]
    steps = [
        {"after": "fma", "weights": {"fma": 1.0}, "accept": 0.45},
        {"after": "net", "weights": {"fma": 0.4, "net": 0.6}, "accept": 0.4},
        {"after": "fused", "weights": {"fma": 0.2, "net": 0.3, "fused": 0.5}},
    ]
    policies = {"ladder": {"vote": "soft", "steps": steps}}
    return make_bundle(tmp_path_factory.mktemp("bundle"), stages, policies=policies)


def _request(root: Path, music: Path, **changes: Any) -> Request:
    tracks = find([str(music)])
    plain: dict[str, Any] = {"bundle": root, "options": Options(threads=1), **FAST}
    plain["scenarios"] = ("stage", "single-stream", "offline", "cold-start", "null")
    return Request(tracks, **(plain | changes))


@pytest.fixture(scope="module")
def record(root: Path, music: Path) -> Record:
    labels = ["Alpha" if "Alpha" in path.parts else "beta" for path in find([str(music)]).paths]
    return run(_request(root, music, labels=labels))


def test_a_run_gives_a_record_that_can_be_written_and_read(record: Record, tmp_path: Path) -> None:
    save(record, tmp_path / "a.json")
    assert load(tmp_path / "a.json") == record


def test_every_scenario_and_part_is_in_it(record: Record, root: Path) -> None:
    keys = {measure.key for measure in record.measures}
    for stage, parts in {
        "fma": ("resample", "features", "head", "policy", "other", "total"),
        "net": ("resample", "fill", "run", "head", "policy", "other", "total"),
        "fused": ("resample", "fill", "run", "head", "policy", "other", "total"),
    }.items():
        for part in parts:
            # 16 kHz tracks need no resampling to 16 kHz, but the copy is counted where it is done.
            assert f"stage/single:{stage}/{stage}/{part}/warm/host" in keys
        assert f"stage/single:{stage}/-/decode/warm/host" in keys
    for subject in ("cascade", "ensemble", "single:fma", "single:net", "single:fused"):
        assert f"single-stream/{subject}/-/track/warm/host" in keys
    assert "single-stream/cascade/-/track/cold/host" in keys
    assert "offline/cascade/-/throughput/warm/host" in keys
    assert "cold-start/cascade/-/total/warm/host" in keys
    assert "null/cascade/-/overhead/warm/host" in keys
    assert record.subject.bundle_sha256 == load_bundle(root).digest
    assert record.subject.precisions == {"net": "fp32", "fused": "fp32"}
    assert record.subject.device == "cpu"
    assert record.environment.machine_before["cpu"]["cores_usable"] >= 1


def test_minima_are_met(record: Record) -> None:
    for each in record.runs:
        if each.scenario in {"stage", "single-stream", "offline"}:
            assert each.count >= 12
            assert each.warm_up >= 1


def test_the_silent_track_is_counted_and_not_timed(record: Record) -> None:
    silent = next(i for i, track in enumerate(record.tracks) if track.name.endswith("track5.wav"))
    assert record.tracks[silent].status == "silent"
    assert all(silent not in measure.tracks for measure in record.measures)
    assert record.accounting is not None
    assert record.accounting.statuses == {"ok": 5, "silent": 1}
    assert all(answers.probabilities[silent] is None for answers in record.answers)


def test_the_recorded_answers_replay_to_the_measured_verdicts(record: Record) -> None:
    assert record.accounting is not None and record.accounting.replay_agrees is not None
    assert record.accounting.replay_agrees.count == record.accounting.replay_agrees.total == 5
    entered = [flow.entered for flow in record.accounting.flow]
    assert entered[0] == 5
    assert entered == sorted(entered, reverse=True)
    assert sum(flow.exited for flow in record.accounting.flow) == 5
    assert {order.rule for order in record.orders} == {"given", "carried", "tuned"}
    assert all(order.stages.index("fma") < order.stages.index("fused") for order in record.orders)


def test_labels_are_judged(record: Record) -> None:
    assert record.accounting is not None
    judged = record.accounting.baselines[0].accuracy
    assert judged is not None
    assert judged.total == 5
    assert {track.label for track in record.tracks} == {"Alpha", "Beta"}


def test_the_baselines_are_the_policies_they_are_named_after(record: Record) -> None:
    assert record.accounting is not None
    stages = {baseline.name: baseline.stages for baseline in record.accounting.baselines}
    assert stages["ensemble"] == ["fma", "net", "fused"]
    assert stages["single:net"] == ["net"]
    assert stages["single:fused"] == ["fma", "fused"]
    assert record.accounting.baselines[1].agreement is not None
    assert record.accounting.baselines[1].agreement.share == 1.0


def test_a_view_decodes_and_answers_like_a_cascade_of_its_own(root: Path, music: Path) -> None:
    from edge_reclass import Cascade

    bundle = load_bundle(root)
    path = find([str(music)]).paths[0]
    given = Policy("given", "soft", (Step("fma", {"fma": 1.0}, 1.0), Step("net", {"net": 1.0})))
    policies = [given, single("net", []), single("fma", []), single("fused", ["fma"])]
    asked = (Step("fma", {"fma": 1.0}, 1.0), Step("net", {"net": 1.0}, 1.0), Step("fused", {"fused": 1.0}))
    widest = ensemble(Policy("all", "soft", asked))
    with Opened(bundle, "cpu", widest, Options(threads=1)) as opened:
        for policy in policies:
            with Cascade.open(root, policy=policy, threads=1) as own:
                expected = own.classify(path)
                mine = opened.cascade(policy).classify(path)
                assert mine.to_dict()["top"] == expected.to_dict()["top"]
                assert [s.name for s in mine.stages] == [s.name for s in expected.stages]
                view, compiled = opened.cascade(policy).plan, own.plan
                assert (view.excerpts, view.stages, view.signals) == (
                    compiled.excerpts,
                    compiled.stages,
                    compiled.signals,
                )


def test_without_baselines_only_the_cascade_streams(root: Path, music: Path) -> None:
    record = run(_request(root, music, scenarios=("single-stream",), baselines=False))
    assert {measure.subject for measure in record.measures} == {"cascade"}
    assert record.answers == []
    assert record.accounting is not None
    assert record.accounting.expected is None


def test_stages_alone_need_no_cascade(root: Path, music: Path) -> None:
    record = run(_request(root, music, scenarios=("stage",)))
    assert {measure.scenario for measure in record.measures} == {"stage"}
    assert record.accounting is None
    assert record.orders  # costs and answers are there


def test_offline_alone_still_knows_the_verdicts(root: Path, music: Path) -> None:
    record = run(_request(root, music, scenarios=("offline",), jobs=2))
    assert record.settings.jobs == 2
    assert [track.status for track in record.tracks].count("ok") == 5
    assert {measure.scenario for measure in record.measures} == {"offline"}


def test_nothing_to_measure_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(UsageError, match="none of the 1 tracks has a genre"):
        run(_request(root, tmp_path))


def test_a_backend_can_be_slowed_down_for_tests(root: Path, music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SlowGraph] = []
    real = opening.open_backend

    class Watched(SlowBackend):
        def open_graph(self, *arguments: Any, **named: Any) -> SlowGraph:
            made.append(super().open_graph(*arguments, **named))
            return made[-1]

    monkeypatch.setattr(opening, "open_backend", lambda *a, **n: Watched(real(*a, **n), 1.2))
    record = run(_request(root, music, scenarios=("stage",)))
    assert record.subject.device == "cpu"
    assert sum(graph.slowed for graph in made) >= sum(each.count for each in record.runs)


runner = CliRunner()


def _files(tmp_path: Path, *records: Record) -> list[str]:
    paths = []
    for i, each in enumerate(records):
        paths.append(str(tmp_path / f"{'ab'[i]}.json"))
        save(each, Path(paths[-1]))
    return paths


def test_run_writes_the_record_and_prints_the_tables(root: Path, music: Path, tmp_path: Path) -> None:
    arguments = ["run", str(music), "--bundle", str(root), "--scenario", "stage,single-stream", "--threads", "1"]
    arguments += ["--min-seconds", "0", "--min-count", "12", "--labels-from-folders", "-o", str(tmp_path / "a.json")]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for text in (
        "stage: each stage alone",
        "single-stream",
        "fma features",
        "entered",
        "ensemble",
        "orders of the stages",
    ):
        assert text in result.output
    record = load(tmp_path / "a.json")
    assert record.subject.scenarios == ["stage", "single-stream"]
    assert record.settings.min_count == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "stage,fast"], "got fast"),
        (["--labels", "x.csv", "--labels-from-folders"], "expected one of them, got both"),
        (["--synthetic", "openjmla"], "--synthetic-folder"),
        (["--synthetic", "openjmla", "--bundle", "x"], "expected one of them, got both"),
        (["-o", "none/a.json"], "there is no folder"),
        (["--policy", "none", "--scenario", "stage"], "no policy 'none'"),
    ],
)
def test_wrong_usage_is_said_before_anything_runs(music: Path, arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["run", str(music), *arguments])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


def test_compare_exits_by_what_it_finds(tmp_path: Path) -> None:
    a, b = _files(tmp_path, make_record(seed=1), make_record(seed=2))
    same = runner.invoke(app, ["compare", a, b])
    assert same.exit_code == 0, same.output
    assert "no difference" in same.output
    assert "regressions of 5% or more: 0" in same.output
    _files(tmp_path, make_record(seed=1), make_record(seed=2, slower={"mert": 1.2}))
    worse = runner.invoke(app, ["compare", a, b])
    assert worse.exit_code == 1
    assert "← regression" in worse.output
    assert runner.invoke(app, ["compare", a, b, "--threshold", "0.5"]).exit_code == 0
    assert runner.invoke(app, ["compare", b, a]).exit_code == 0  # faster


def test_compare_refuses_what_is_not_comparable_unless_told_to(tmp_path: Path) -> None:
    a, b = _files(tmp_path, make_record(seed=1), make_record(seed=2, device="cpu"))
    refused = runner.invoke(app, ["compare", a, b])
    assert isinstance(refused.exception, UsageError)
    assert refused.exception.exit_code == 2
    assert "subject.device: cuda against cpu" in str(refused.exception)
    told = runner.invoke(app, ["compare", a, b, "--anyway"])
    assert told.exit_code == 0
    assert "compared although different: subject.device" in told.stderr


def test_order_replays_a_record(tmp_path: Path) -> None:
    (a,) = _files(tmp_path, make_record())
    result = runner.invoke(app, ["order", a, "--target", "0.9", "--target", "1"])
    assert result.exit_code == 0, result.output
    assert "at agreement ≥ 90.0%" in result.output
    assert "at agreement ≥ 100.0%" in result.output
    assert "fma → jmla → mert" in result.output


def test_null_prints_the_overhead(root: Path) -> None:
    result = runner.invoke(app, ["null", "--bundle", str(root), "--min-seconds", "0", "--min-count", "20"])
    assert result.exit_code == 0, result.output
    assert "the harness adds" in result.output


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"kind": "x"}))
    result = runner.invoke(app, ["order", str(tmp_path / "a.json")])
    assert isinstance(result.exception, EdgeReclassError)


def test_the_harness_measures_real_audio(data: Path, tmp_path: Path) -> None:
    """The starter bundle over a real clip, from the command line."""
    clips = [str(path) for path in sorted((data / "audio" / "fma").glob("*.mp3"))[:1]]
    arguments = [
        "run",
        *clips,
        "--labels",
        str(data / "audio" / "fma" / "labels.csv"),
        "--scenario",
        "stage,single-stream",
    ]
    arguments += ["--min-seconds", "0", "--min-count", "1", "-o", str(tmp_path / "a.json")]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    record = load(tmp_path / "a.json")
    assert record.subject.bundle == "starter"
    assert record.accounting is not None and record.accounting.replay_agrees is not None
    assert record.accounting.replay_agrees.share == 1.0
