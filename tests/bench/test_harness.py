"""A whole ``bench run`` on a small bundle, and the commands on what it wrote. No time is judged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from bench.sample import make_record
from bundles import fma_stage, make_bundle, waveform_stage
from edge_reclass.bundle.loading import load as load_bundle
from edge_reclass.cascade.opening import Options
from edge_reclass.cascade.policy import Policy, Step
from edge_reclass.errors import EdgeReclassError, MissingExtraError, UsageError
from edge_reclass.installing import install_command
from edge_reclass_bench.books import Books
from edge_reclass_bench.cli import app, finish
from edge_reclass_bench.harness import Request, run
from edge_reclass_bench.opened import Opened
from edge_reclass_bench.policies import ensemble, single
from edge_reclass_bench.record import Record, load, save
from edge_reclass_bench.tracks import find

runner = CliRunner()

FAST = {"processes": 2, "min_passes": 2, "precision": 1.0}


def _files(tmp_path: Path, *records: Record) -> list[str]:
    paths = []
    for i, each in enumerate(records):
        paths.append(str(tmp_path / f"{'ab'[i]}.json"))
        save(each, Path(paths[-1]))
    return paths


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
    plain["scenarios"] = ("stage", "single-stream", "offline", "cold-start")
    return Request(tracks, **(plain | changes))


@pytest.fixture(scope="module")
def record(root: Path, music: Path) -> Record:
    labels = ["Alpha" if "Alpha" in path.parts else "beta" for path in find([str(music)]).paths]
    return run(_request(root, music, labels=labels))


def test_a_run_gives_a_record_that_can_be_written_and_read(record: Record, tmp_path: Path) -> None:
    save(record, tmp_path / "a.json")
    loaded = load(tmp_path / "a.json")
    assert msgspec.structs.replace(loaded, digest="") == record


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
    assert record.subject.bundle_sha256 == load_bundle(root).digest
    assert record.subject.precisions == {"net": "fp32", "fused": "fp32"}
    assert record.subject.device == "cpu"
    assert record.subject.machine.cores >= 1


def test_every_process_measures_what_was_asked_for(record: Record) -> None:
    for each in record.runs:
        if each.scenario in {"stage", "single-stream"}:
            assert each.passes >= 2 * record.settings.min_passes
            assert each.warm_up >= 1
    for measure in record.measures:
        if measure.scenario != "cold-start":  # called cold or warm by what the page cache did each time
            assert set(measure.processes) == {0, 1}, measure.key


def test_the_silent_track_is_counted_and_not_timed(record: Record) -> None:
    silent = next(i for i, track in enumerate(record.tracks) if track.name.endswith("track5.wav"))
    assert record.tracks[silent].status == "silent"
    assert all(silent not in measure.tracks for measure in record.measures if measure.scenario != "cold-start")
    assert all(answers.genres[silent] is None for answers in record.answers)


def test_the_books_follow_from_the_record(record: Record) -> None:
    books = Books(record)
    entered = [flow.entered for flow in books.flow]
    assert entered[0] == 5
    assert entered == sorted(entered, reverse=True)
    assert sum(flow.exited for flow in books.flow) == 5
    ways = {way.subject: way for way in books.ways}
    assert ways["ensemble"].accuracy is not None and ways["ensemble"].accuracy.total == 5
    assert {track.label for track in record.tracks} == {"Alpha", "Beta"}


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
    record = run(_request(root, music, scenarios=("single-stream",), baselines=False, processes=1))
    assert {measure.subject for measure in record.measures} == {"cascade"}
    assert Books(record).costs is None


def test_a_scenario_alone_knows_the_verdicts(root: Path, music: Path) -> None:
    stage = run(_request(root, music, scenarios=("stage",), processes=1))
    assert {measure.scenario for measure in stage.measures} == {"stage"}
    offline = run(_request(root, music, scenarios=("offline",), processes=1, jobs=2))
    assert {measure.scenario for measure in offline.measures} == {"offline"}
    for record in (stage, offline):
        assert [track.status for track in record.tracks].count("ok") == 5


def test_nothing_to_measure_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(UsageError, match="none of the 1 tracks has a genre"):
        run(_request(root, tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "stage,fast"], "got fast"),
        (["--labels", "x.csv", "--labels-from-folders"], "expected one of them, got both"),
        (["--synthetic", "openjmla"], "--synthetic-folder"),
        (["--synthetic", "openjmla", "--bundle", "x"], "expected one of them, got both"),
        (["-o", "none/a.json"], "none/a.json"),
        (["-o", "."], "expected a file, got a folder"),
        (["--policy", "none", "--scenario", "stage"], "no policy 'none'"),
        (["--batches", "1,x"], "--batches: expected whole numbers"),
    ],
)
def test_wrong_usage_is_said_before_anything_runs(music: Path, arguments: list[str], message: str) -> None:
    result = runner.invoke(app, ["run", str(music), *arguments])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)


def test_an_input_is_never_written_over(music: Path) -> None:
    track = find([str(music)]).paths[0]
    result = runner.invoke(app, ["run", str(music), "-o", str(track)])
    assert isinstance(result.exception, UsageError)
    assert track.read_bytes()[:4] == b"RIFF"


def test_compare_exits_by_what_it_finds(tmp_path: Path) -> None:
    a, b = _files(tmp_path, make_record(seed=1), make_record(seed=2))
    same = runner.invoke(app, ["compare", a, b])
    assert same.exit_code == 0, same.output
    _files(tmp_path, make_record(seed=1), make_record(seed=2, slower={"mert": 1.2}))
    assert runner.invoke(app, ["compare", a, b]).exit_code == 1
    tolerated = runner.invoke(app, ["compare", a, b, "--threshold", "0.5"])
    assert tolerated.exit_code == 0
    assert "A regression." not in tolerated.output and "← regression" not in tolerated.output
    assert runner.invoke(app, ["compare", b, a]).exit_code == 0  # faster
    _files(tmp_path, make_record(seed=1, processes=2), make_record(seed=2, processes=2))
    assert runner.invoke(app, ["compare", a, b]).exit_code == 3  # cannot tell


def test_numbers_that_are_none_are_refused(music: Path, tmp_path: Path) -> None:
    for option in ("--precision", "--max-seconds", "--energy-seconds", "--sustained-seconds"):
        for value in ("inf", "nan"):
            result = runner.invoke(app, ["run", str(music), option, value, "-o", str(tmp_path / "a.json")])
            refused = isinstance(result.exception, UsageError) and option in str(result.exception)
            assert refused or (result.exit_code == 2 and option in result.output), (option, value)


def test_a_page_is_not_written_over_its_record_nor_a_record_over_labels(music: Path, tmp_path: Path) -> None:
    (a,) = _files(tmp_path, make_record(seed=1))
    before = Path(a).read_bytes()
    assert isinstance(runner.invoke(app, ["report", a, "--html", a]).exception, UsageError)
    assert Path(a).read_bytes() == before
    table = tmp_path / "labels.csv"
    table.write_text("path,genre\n")
    result = runner.invoke(app, ["run", str(music), "--labels", str(table), "-o", str(table)])
    assert isinstance(result.exception, UsageError)
    assert table.read_text() == "path,genre\n"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edge_reclass_bench.cli.find_spec", lambda name: None if name == "scipy" else True)
    result = runner.invoke(app, ["report", str(tmp_path / "a.json")])
    assert isinstance(result.exception, MissingExtraError) and install_command("bench") in str(result.exception)


def test_a_record_is_written_although_it_cannot_be_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("edge_reclass_bench.cli.show", broken)
    with pytest.raises(BrokenPipeError):
        finish(make_record(), tmp_path / "a.json")
    assert load(tmp_path / "a.json").complete


def test_compare_refuses_what_is_not_comparable_unless_told_to(tmp_path: Path) -> None:
    a, b = _files(tmp_path, make_record(seed=1), make_record(seed=2, device="cpu"))
    refused = runner.invoke(app, ["compare", a, b])
    assert isinstance(refused.exception, UsageError)
    assert refused.exception.exit_code == 2
    assert "cuda" in str(refused.exception) and "cpu" in str(refused.exception)
    assert runner.invoke(app, ["compare", a, b, "--anyway"]).exit_code in {0, 1, 3}


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"kind": "x"}))
    result = runner.invoke(app, ["report", str(tmp_path / "a.json")])
    assert isinstance(result.exception, EdgeReclassError)


def test_the_command_measures_real_audio(data: Path, tmp_path: Path) -> None:
    """The starter bundle over a real clip, from the command line."""
    clips = [str(path) for path in sorted((data / "audio" / "fma").glob("*.mp3"))[:1]]
    labels = data / "audio" / "fma" / "labels.csv"
    arguments = ["run", *clips, "--labels", str(labels), "--scenario", "stage,single-stream"]
    arguments += ["--processes", "1", "--min-passes", "1", "-o", str(tmp_path / "a.json")]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for text in ("musicnn", "ensemble", "tracks per minute"):
        assert text in result.output
    record = load(tmp_path / "a.json")
    assert record.subject.bundle == "starter"
    assert not (tmp_path / "a.json.partial").exists()
    text = (tmp_path / "a.json").read_text()
    assert not [folder for folder in (sys.prefix, str(data), str(tmp_path)) if folder in text], "where folders lie"
