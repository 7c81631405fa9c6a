"""The whole command: what is said is what the cascade says, and no bundle is judged by what it has heard."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("sklearn", reason="evaluating needs the extra [evaluate]")
pytest.importorskip("onnx", reason="evaluating needs the extra [evaluate]")
pytest.importorskip("onnxruntime", reason="evaluating needs the extra [evaluate]")
pytest.importorskip("matplotlib", reason="evaluating needs the extra [evaluate]")

import bundles
import labelled_music as made
import synth
from command import Done, run
from edge_reclass import Cascade
from edge_reclass.bundle import load
from edge_reclass.library import State
from edge_reclass_learn.evaluate import evaluating, verdicts
from edge_reclass_learn.evaluate.evaluating import Evaluated, evaluate
from edge_reclass_learn.evaluate.hearing import Options
from edge_reclass_learn.evaluate.record import Judgement, Record
from edge_reclass_learn.evaluate.screen import screen
from edge_reclass_learn.evaluate.trial import Trial
from edge_reclass_learn.fit import judging
from edge_reclass_learn.fit.fitting import Options as FitOptions
from edge_reclass_learn.fit.fitting import fit_bundle
from edge_reclass_learn.hearing import hear, memory


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """One strength in place of five: what is chosen does not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "STRENGTHS", (0.1,))
        yield


@pytest.fixture(scope="module")
def place(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``music``, ``base``, ``new`` (fitted on music), ``other`` (music that nobody was fitted on), ``cache``."""
    root = tmp_path_factory.mktemp("evaluate")
    made.folders(root / "music")
    made.folders(root / "other", first=50)
    made.base(root / "base", accept=0.6)
    fit_bundle(
        root / "music", root / "new", FitOptions(root / "cache", root / "base", folds=2, threads=1), lambda _: None
    )
    return root


def judged(place: Path, names: Sequence[str | Path], data: Path, **options: object) -> Evaluated:
    plain: dict[str, object] = {"threads": 1, "draws": 50, "folds": 3}
    return evaluate([place / name for name in names], data, Options(place / "cache", **(plain | options)), print)  # type: ignore[arg-type]


def called(place: Path, *arguments: object) -> Done:
    return run("evaluate", *arguments, "--cache", place / "cache", "--threads", 1)


@pytest.mark.parametrize("policy", ["ladder", "thorough"])
def test_what_is_said_is_what_the_cascade_says(place: Path, policy: str) -> None:
    bundle = place / "strict"
    if not bundle.exists():  # half of the tracks go on to the second stage, and some are unsure
        shutil.copytree(place / "new", bundle)
        stages, policies = (bundles.read_manifest(bundle)[key] for key in ("stages", "policies"))
        for stage in stages:
            stage["head"]["temperature"] *= 20
        bundles.edit_manifest(bundle, stages=stages, reference=None)
        (before,) = judged(place, ["strict"], place / "other", policy="ladder").answered
        policies["ladder"]["steps"][0]["accept"], limit = np.quantile(before.verdicts.confidence, [0.5, 0.2]).tolist()
        bundles.edit_manifest(bundle, policies=policies, min_confidence=limit)
    found = judged(place, ["strict"], place / "other", policy=policy)
    (said,), (figures,) = found.answered, found.record.bundles
    assert figures.judged == "as it is" and not figures.known_tracks
    stages = set()
    for limit in (None, 0.0):
        with Cascade.open(bundle, policy=policy, threads=1, min_confidence=limit) as cascade:
            names = load(bundle).manifest.genres
            for row, example in enumerate(said.examples):
                verdict = cascade.classify(example.name)
                genre = (said.verdicts.genre if limit == 0.0 else said.verdicts.given)[row]
                sure = (said.verdicts.confidence if limit == 0.0 else said.verdicts.given_confidence)[row]
                assert verdict.top[0].genre == names[genre]
                assert verdict.confidence == pytest.approx(sure, abs=1e-5)
                if limit is None:
                    assert verdict.ok == (not said.verdicts.unsure[row])
                    assert verdict.decided_by == said.policy.steps[said.verdicts.step[row]].after
                    stages.add(verdict.decided_by)
                else:
                    scores = {score.genre: score.score for score in verdict.top}
                    assert [scores[name] for name in names] == pytest.approx(said.verdicts.scores[row], abs=1e-5)
    assert stages == ({"low", "high"} if policy == "ladder" else {"high"}), "early exits are among them"
    assert figures.unsure or policy == "thorough", "unsure ones are, too"
    assert figures.accuracy.value == np.mean(said.right) > 0.5
    assert sum(step.stopped for step in figures.funnel) == figures.tracks == 24


def test_a_bundle_is_not_judged_by_what_it_has_heard(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels by chance: a head that has heard the tracks knows them by heart, and nothing else."""
    monkeypatch.setattr(judging, "STRENGTHS", (10.0,))
    table = tmp_path / "chance.csv"
    files = sorted((place / "music").rglob("*.wav"))
    genres = np.random.default_rng(1).permutation(["One", "Two"] * (len(files) // 2))
    lines = [f"{path},{genre},{number}" for number, (path, genre) in enumerate(zip(files, genres, strict=True))]
    table.write_text("\n".join(["path,genre,group", *lines]), encoding="utf-8")
    fit_bundle(
        table, tmp_path / "chance", FitOptions(place / "cache", place / "base", folds=2, threads=1), lambda _: None
    )
    honest = judged(place, [tmp_path / "chance"], table).record
    (figures,) = honest.bundles
    assert (figures.judged, figures.folds, figures.known_tracks) == ("cross-validated", 3, 24)
    assert figures.accuracy.value < 0.8
    assert any("new heads" in text for text in honest.warnings)
    by_heart = judged(place, [tmp_path / "chance"], table, cross_validate="never").record
    assert by_heart.bundles[0].judged == "as it is" and by_heart.bundles[0].accuracy.value > 0.95
    assert any("fitted on: the figures are too high" in text for text in by_heart.warnings)
    assert "at least 24 of the tracks" in " ".join(by_heart.bundles[0].how)


@pytest.fixture(scope="module")
def in_folds(place: Path) -> Evaluated:
    return judged(place, ["new"], place / "music")


def test_folds_share_no_group_and_genres_keep_their_numbers(in_folds: Evaluated) -> None:
    said = in_folds.answered[0]
    folds: dict[str, set[int]] = {}
    for example, fold in zip(said.examples, said.dealt.tolist(), strict=True):
        folds.setdefault(example.group, set()).add(fold)
    assert len(folds) == 12 and all(len(some) == 1 for some in folds.values())
    assert np.mean(said.right) > 0.7 and said.verdicts.scores.shape == (24, 3)


def test_a_bundle_knows_each_track_that_it_was_fitted_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also tracks that its memory has no embedding of, also under other names; and copies that it remembers."""
    monkeypatch.setattr(memory, "chosen", lambda genres, groups: [0, 23])
    options = FitOptions(place / "cache", place / "base", folds=2, threads=1)
    fit_bundle(place / "music", tmp_path / "few", options, lambda _: None)
    assert len(memory.fitted_sounds(load(tmp_path / "few"))) == 24
    moved = shutil.copytree(place / "music", tmp_path / "moved")
    shutil.copytree(place / "other", moved, dirs_exist_ok=True)
    (figures,) = judged(place, [tmp_path / "few"], moved, cross_validate="never").record.bundles
    assert (figures.tracks, figures.known_tracks) == (48, 24)
    copies = tmp_path / "copies"
    for genre, number, name in ((0, 0, "Drone"), (1, 51, "Loop")):
        (copies / name).mkdir(parents=True)
        synth.write(copies / name / "copy.ogg", 0.7 * made.track(genre, number), made.RATE)
    (figures,) = judged(place, ["new"], copies, cross_validate="never").record.bundles
    assert (figures.tracks, figures.known_tracks) == (2, 1)


def test_genres_that_a_bundle_lacks_count_nowhere(place: Path, tmp_path: Path) -> None:
    music = shutil.copytree(place / "other", tmp_path / "music")
    (music / "Drone").rename(music / "DRO ne")
    made.folders(music, ("Siren",), artists=3, first=50)
    record = judged(place, ["new"], music).record
    (figures,) = record.bundles
    assert record.data.tracks == 30 and figures.tracks == 24
    assert [(one.genre, one.tracks) for one in figures.not_in_bundle] == [("Siren", 6)]
    assert [one.genre for one in figures.genres] == list(made.GENRES) == figures.confusion.labels
    assert np.sum(figures.confusion.counts) == 24
    assert "not in the bundle, and in no figure below: Siren (6 tracks)" in "\n".join(screen(record))


def test_other_approaches_are_given_the_same_tracks_in_the_same_folds(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the data have a genre that the bundle does not know, and the bundle a memory that is fitted on."""
    given: list[tuple[Trial, Sequence[Judgement]]] = []

    def table(trial: Trial, *_: object, judgements: Sequence[Judgement], **__: object) -> list[object]:
        given.append((trial, judgements))
        return []

    dealt: list[dict[str, int]] = []
    judge = judging.judge

    def watched(task: judging.Task, *rest: object) -> judging.Judged:
        found = judge(task, *rest)  # type: ignore[arg-type]
        dealt.append(dict(zip((one.name for one in task.examples), found.folds.tolist(), strict=True)))
        return found

    monkeypatch.setattr(evaluating, "baselines", table)
    monkeypatch.setattr(verdicts, "judge", watched)
    music = shutil.copytree(place / "other", tmp_path / "music")
    made.folders(music, ("Siren",), artists=3, first=50)
    found = judged(place, ["new"], music, baselines=True, cross_validate="always")
    ((trial, (row,)),) = given
    folds = dict(zip((one.name for one in trial.examples), trial.dealt.tolist(), strict=True))
    assert len(folds) == 24 and list(trial.genres) == list(made.GENRES)
    assert dealt == [folds], "the heads were fitted in these folds"
    assert row.accuracy == found.record.bundles[0].accuracy
    assert any("no genre is known by all" in text for text in found.record.warnings), "the table was empty here"


def test_two_bundles_on_the_same_tracks(place: Path, tmp_path: Path) -> None:
    music = shutil.copytree(place / "other", tmp_path / "music")
    shutil.rmtree(music / "March")
    (music / "Drone" / "Drone Band 0" / "broken.wav").write_bytes(b"nothing")
    made.folders(tmp_path / "learn", ("Drone", "Loop", "Siren"), first=80)
    options = FitOptions(place / "cache", place / "base", folds=2, threads=1)
    fit_bundle(tmp_path / "learn", tmp_path / "new", options, lambda _: None)
    found = judged(place, ["new", tmp_path / "new"], music)
    first, second = found.record.bundles
    assert (first.name, second.name) == ("new", "new (2)") and found.record.data.left_out == 1
    (pair,) = found.record.comparisons
    assert (pair.a, pair.b, pair.tracks, pair.genres) == ("new", "new (2)", 16, ["Drone", "Loop"])
    right = [one.right for one in found.answered]
    assert pair.both_right == int((right[0] & right[1]).sum()) and pair.only_b == int((right[1] & ~right[0]).sum())
    assert pair.both_right + pair.only_a + pair.only_b + pair.both_wrong == 16
    names = [[load(one.bundle.root).manifest.genres[g] for g in one.verdicts.genre] for one in found.answered]
    assert pair.same == sum(a == b for a, b in zip(*names, strict=True))
    assert pair.difference.value == pytest.approx(second.accuracy.value - first.accuracy.value)
    twice = judged(place, ["new", "new"], music).record.comparisons[0]
    assert (twice.same, twice.p, twice.difference.value) == (16, 1.0, 0.0)


def test_new_heads_are_only_the_same_where_their_kinds_are(place: Path) -> None:
    mlp = shutil.copytree(place / "new", place / "mlp", dirs_exist_ok=True)
    told = bundles.read_manifest(mlp)["provenance"]
    told["fit"]["heads"] = {"low": "mlp", "high": "logistic"}
    bundles.edit_manifest(mlp, provenance=told)
    assert evaluating._recipe(load(mlp)) != evaluating._recipe(load(place / "new"))
    told["fit"].pop("heads")
    bundles.edit_manifest(mlp, provenance=told)
    assert evaluating._recipe(load(mlp)) == evaluating._recipe(load(place / "new")), "logistic where nothing is said"


def test_new_heads_are_only_the_same_where_the_same_is_heard(place: Path) -> None:
    alike = shutil.copytree(place / "new", place / "alike", dirs_exist_ok=True)
    first = bundles.read_manifest(alike)
    first["stages"][0] |= {"loudness": -15.0}
    bundles.edit_manifest(alike, stages=first["stages"])
    assert evaluating._recipe(load(alike)) != evaluating._recipe(load(place / "new")), "at another loudness"
    first["stages"][0].pop("loudness")
    bundles.edit_manifest(alike, stages=first["stages"])
    assert evaluating._recipe(load(alike)) == evaluating._recipe(load(place / "new"))
    for policy in first["policies"].values():
        policy["steps"][0]["windows"] = 1
    bundles.edit_manifest(alike, policies=first["policies"])
    assert evaluating._recipe(load(alike)) != evaluating._recipe(load(place / "new")), "after other windows"


def test_what_a_reader_should_know_of_the_bundles_and_the_data(place: Path) -> None:
    root = shutil.copytree(place / "new", place / "told", dirs_exist_ok=True)
    told = bundles.read_manifest(root)["provenance"]
    assert told["fit"]["sounds_unknown"] == 0
    told["fit"] |= {"copies": 48, "sounds_unknown": 7}
    bundles.edit_manifest(root, provenance=told)
    few = place / "two"
    for genre in ("Drone", "Loop"):
        shutil.copytree(place / "other" / genre / f"{genre} Band 0", few / genre / "Band 0", dirs_exist_ok=True)
        shutil.copytree(place / "other" / genre / f"{genre} Band 1", few / genre / "Band 1", dirs_exist_ok=True)
    as_it_is = " ".join(judged(place, ["told"], few).record.warnings)
    assert "was fitted on 7 tracks without their audio" in as_it_is and "all tracks are of 2 groups" in as_it_is
    assert "without their audio" not in " ".join(judged(place, ["new"], place / "other").record.warnings)
    how = " ".join(judged(place, ["told"], place / "other", cross_validate="always").record.bundles[0].how)
    assert "fewer than 100 of those come to" in how and "the new heads are not" in how


def test_corrections_in_a_state_file_are_labels(place: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = run("classify", place / "other", "--bundle", place / "new", "--state", state, "--workers", 0)
    assert done.returncode == 0, done.stderr
    with State.open(state, write=True) as opened:
        for track in list(opened.tracks()):
            if "Band 1" in str(track.file):
                opened.correct(track.id, track.file.parts[-3])
    record = judged(place, ["new"], state).record
    assert record.data.tracks == record.bundles[0].tracks == 6


def test_corrections_that_a_bundle_was_fitted_on_with_its_memory(place: Path, tmp_path: Path) -> None:
    """One genre alone, which the others that the bundle remembers are judged beside."""
    made.folders(tmp_path / "music", ("Siren", "Drone"), artists=3, first=70)
    options = FitOptions(place / "cache", place / "new", keep_genres=True, folds=2, threads=1)
    fit_bundle(tmp_path / "music", tmp_path / "more", options, lambda _: None)
    assert len(memory.fitted_sounds(load(tmp_path / "more"))) == 24 + 12
    (figures,) = judged(place, [tmp_path / "more"], tmp_path / "music", folds=2).record.bundles
    assert (figures.judged, figures.tracks, figures.known_tracks) == ("cross-validated", 12, 12)
    assert "24 tracks that the bundle remembers are fitted on as well" in figures.how
    assert not any("can be said" in text for text in figures.how), "all four genres compete"
    assert figures.accuracy.value > 0.5


def test_precisions_and_devices_against_the_cpu(place: Path) -> None:
    root = shutil.copytree(place / "new", place / "halves", dirs_exist_ok=True)
    stages = bundles.read_manifest(root)["stages"]
    for stage in stages:
        name = stage["name"]
        stage["encoder"]["files"]["fp16"] = f"encoders/{name}.fp16.onnx"
        shutil.copy(root / f"encoders/{name}.fp32.onnx", root / f"encoders/{name}.fp16.onnx")
    files = [*bundles.read_manifest(root)["files"], "encoders/low.fp16.onnx", "encoders/high.fp16.onnx"]
    bundles.edit_manifest(root, stages=stages, files=bundles.entries(root, files), reference=None)
    found = judged(place, ["halves"], place / "other", sample=6, devices=["cuda"]).record
    cpu, *cuda = found.agreements
    assert (cpu.device, cpu.precisions, cpu.max_difference) == ("cpu", {"low": "fp16", "high": "fp16"}, 0.0)
    assert cpu.same is not None and (cpu.same.value, cpu.same.of) == (1.0, 6)
    assert [(one.device, one.precisions["low"]) for one in cuda] == [("cuda", "fp16"), ("cuda", "fp32")]
    assert all((one.same is None) == bool(one.why_not) for one in cuda)
    lines = "\n".join(screen(found))
    assert "new on cpu (low fp16, high fp16): the same verdict as the CPU at FP32 for 100.0% of 6 tracks" in lines
    timed = [step.milliseconds for step in found.bundles[0].funnel if step.milliseconds is not None]
    assert timed and min(timed) > 0

    bundles.write_encoder(root / "encoders/low.fp16.onnx", 16_000, made.PARTS)
    graph = (root / "encoders/low.fp16.onnx").read_bytes()
    loud, deaf = np.array(1000, "<f4").tobytes(), np.array(0, "<f4").tobytes()
    assert graph.count(loud) == 1
    (root / "encoders/low.fp16.onnx").write_bytes(graph.replace(loud, deaf))
    bundles.edit_manifest(root, files=bundles.entries(root, files))
    wrong = judged(place, ["halves"], place / "other", sample=6).record.agreements[0]
    assert wrong.same is not None and wrong.max_difference is not None
    assert wrong.same.value < 0.7 and wrong.max_difference > 0.05


def test_without_a_reference_nothing_is_compared(place: Path) -> None:
    root = shutil.copytree(place / "new", place / "half", dirs_exist_ok=True)
    stages = bundles.read_manifest(root)["stages"]
    for stage in stages:
        stage["encoder"]["files"] = {"fp16": stage["encoder"]["files"]["fp32"]}
    bundles.edit_manifest(root, stages=stages, reference=None)
    (only,) = judged(place, ["half"], place / "other", sample=2).record.agreements
    assert only.same is None and "no FP32 file of low, high" in (only.why_not or "")


def test_the_command_its_record_and_its_list(place: Path, tmp_path: Path) -> None:
    done = called(
        place,
        place / "new",
        "--data",
        place / "other",
        "-o",
        tmp_path / "out",
        "--predictions",
        tmp_path / "p",
        "--sample",
        0,
    )
    assert done.returncode == 0, done.stderr
    record = msgspec.json.decode((tmp_path / "out" / "record.json").read_bytes(), type=Record)
    assert "\n".join(screen(record)) in done.stdout
    (figures,) = record.bundles
    assert f"{figures.accuracy.value:.1%}" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["page.html", "record.json"]
    with (tmp_path / "p").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and {row["bundle"] for row in rows} == {"new"}
    found = [row["genre"] == row["said"] for row in rows]
    assert all(row["genre"] == Path(row["path"]).parts[-3] for row in rows)
    assert np.mean(found) == pytest.approx(figures.accuracy.value)
    assert sum(row["unsure"] == "yes" for row in rows) == figures.unsure
    assert "Band" not in (tmp_path / "out" / "record.json").read_text("utf-8"), "the record names no track"


def test_names_that_are_not_utf8(place: Path, tmp_path: Path) -> None:
    music = shutil.copytree(place / "other", tmp_path / os.fsdecode(b"m\xfcsic"))
    output, listed = tmp_path / os.fsdecode(b"\xf6ut"), tmp_path / os.fsdecode(b"l\xefst.csv")
    done = called(
        place, place / "new", "--data", music, "-o", output, "--predictions", listed, "--sample", 0,
        "--cross-validate", "never",
    )  # fmt: skip
    assert done.returncode == 0, ascii(done.stderr)
    record = json.loads((output / "record.json").read_text(encoding="utf-8"))
    assert record["data"]["name"] == music.name and record["data"]["tracks"] == 24
    assert (output / "page.html").stat().st_size and listed.read_bytes().count(b"m\xfcsic") == 24


def test_what_cannot_be_written_or_read_is_refused_before_anything_is_heard(place: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "taken" / "page.html").mkdir(parents=True)
    cache = tmp_path / "cache"
    for given, why in (
        (["-o", tmp_path / "new" / "out", "--predictions", tmp_path / "nowhere" / "p.csv"], "p.csv: cannot be written"),
        (["-o", tmp_path / "new" / "out", "--predictions", tmp_path], "expected a file, got a folder"),
        (["-o", tmp_path / "file" / "out"], "cannot be made"),
        (["-o", tmp_path / "taken"], "page.html: expected a file, got a folder"),
        (["-o", tmp_path / "new" / "out", "--baselines", "--tags", tmp_path / "file"], "file: ONNX Runtime"),
    ):
        done = run("evaluate", place / "new", "--data", place / "other", *given, "--cache", cache, "--threads", 1)
        assert done.returncode == 2 and why in done.stderr, done.stderr
        assert not cache.exists() and not (tmp_path / "new").exists(), "nothing was heard, nothing stays"


def test_the_same_figures_twice_and_nothing_is_heard_again(
    place: Path, in_folds: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("heard again")

    monkeypatch.setattr(hear._Ears, "hear", never)
    assert judged(place, ["new"], place / "music").record == in_folds.record


def test_refusals(place: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        done = called(place, *arguments, "-o", tmp_path / "out")
        assert done.returncode == 2, done.stdout
        assert not (tmp_path / "out").exists()
        return done.stderr

    new, other = place / "new", place / "other"
    assert "cannot be read (No such file" in refused(new, "--data", tmp_path / "nowhere")
    assert "no policy 'fastest'; it has ladder, thorough" in refused(new, "--data", other, "--policy", "fastest")
    assert "--sample 0 is none" in refused(new, "--data", other, "--device", "cuda", "--sample", 0)
    assert "choose one of auto, always, never" in refused(new, "--data", other, "--cross-validate", "sometimes")
    made.folders(tmp_path / "others", ("Siren",), artists=2)
    (tmp_path / "others" / "Horn").mkdir()
    shutil.copy(next((tmp_path / "others" / "Siren").rglob("*.wav")), tmp_path / "others" / "Horn")
    assert "knows none of its genres (Horn, Siren); it knows Drone, Loop, March" in refused(
        new, "--data", tmp_path / "others"
    )
    few = shutil.copytree(other, tmp_path / "few")
    for folder in sorted((few / "Loop").iterdir())[1:]:
        shutil.rmtree(folder)
    said = refused(new, "--data", few, "--cross-validate", "always")
    assert "Loop has 2 in 1" in said and "--cross-validate never" in said
    for path in few.rglob("*.wav"):
        path.write_bytes(b"nothing")
    assert "no track can be heard" in refused(new, "--data", few)
    empty = tmp_path / "state"
    run("classify", other / "Loop", "--bundle", new, "--state", empty, "--workers", 0)
    assert "nobody has said of a track what it is" in refused(new, "--data", empty)
    (tmp_path / "file").write_text("precious")
    done = called(place, new, "--data", other, "-o", tmp_path / "file")
    assert done.returncode == 2 and "expected a folder or nothing" in done.stderr
    done = run("evaluate", new, "--data", other)
    assert done.returncode == 2 and "--cache FILE" in done.stderr
