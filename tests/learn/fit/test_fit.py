"""The whole command: folders and tables to bundles that answer."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="fitting needs the extra [fit]")
pytest.importorskip("onnx", reason="fitting needs the extra [fit]")
pytest.importorskip("onnxruntime", reason="fitting needs the extra [fit]")

import bundles
import labelled_music as made
import synth
from command import run
from edge_reclass import Cascade
from edge_reclass.bundle import load
from edge_reclass_learn.data.labelled import read_data
from edge_reclass_learn.fit import mlp, trees
from edge_reclass_learn.fit.fitting import Options, fit_bundle
from edge_reclass_learn.fit.gain import base_answers
from edge_reclass_learn.hearing import hear
from edge_reclass_learn.hearing.gather import gather
from edge_reclass_learn.hearing.listening import listening
from edge_reclass_learn.hearing.memory import FILE as MEMORY
from edge_reclass_learn.hearing.memory import recall

SECRET = "Band 2"

pytestmark = pytest.mark.usefixtures("quick")


def test_a_bundle_with_the_folders_genres(place: Path, tmp_path: Path) -> None:
    bundle, base = load(place / "new"), load(place / "base")
    bundle.verify()
    assert bundle.manifest.genres == list(made.GENRES)
    for stage in ("low", "high"):
        file = f"encoders/{stage}.fp32.onnx"
        assert bundle.manifest.files[file] == base.manifest.files[file]
    assert bundle.manifest.stage("high").head.inputs == ["low", "high"]
    (before, _), (after, last) = base.manifest.policies["ladder"].steps, bundle.manifest.policies["ladder"].steps
    assert (after.after, after.windows, after.weights) == (before.after, before.windows, before.weights)
    assert after.accept is not None and last.accept is None
    told = bundle.manifest.provenance["fit"]
    assert (told["base_digest"], told["tracks"], told["groups"]) == (base.digest, 24, 12)
    assert told["out_of_fold_accuracy"] > 0.8
    with Cascade.open(place / "new", min_confidence=0.0) as cascade:
        for genre, name in enumerate(made.GENRES):
            for number in (100, 101, 102):
                file = tmp_path / f"{genre} {number}.wav"
                synth.write(file, made.track(genre, number), made.RATE)
                assert cascade.classify(file).genre == name
    assert run("verify", place / "new").returncode == 0


def test_nothing_in_the_bundle_names_a_track(place: Path) -> None:
    names = (SECRET.encode(), b".wav", str(place / "music").encode())
    for file in (place / "new").rglob("*.*"):
        assert not any(name in file.read_bytes() for name in names), file
    assert (place / "new" / MEMORY).stat().st_size > 1000


def test_what_is_said_is_what_is_in_the_card(place: Path) -> None:
    said, card = (place / "said.txt").read_text(encoding="utf-8"), (place / "new" / "README.md").read_text("utf-8")
    assert "no genre in common with test, or" in said and "Drone" in said and "next: edge-reclass verify" in said
    figure = next(line.split()[-1] for line in said.splitlines() if line.startswith("policy ladder"))
    assert f"| policy ladder | {figure} |" in card


def test_what_was_heard_is_not_heard_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("heard again")

    monkeypatch.setattr(hear._Ears, "hear", never)
    before = load(place / "new").manifest
    done = run("fit", place / "music", "-o", place / "new", "--bundle", place / "base")
    assert done.returncode == 0, done.stderr
    assert load(place / "new").manifest.files == before.files, "the same data give the same bundle"


def test_where_the_files_lie_and_how_they_are_called_changes_nothing(place: Path, tmp_path: Path) -> None:
    # The same sounds and artists from a table, in another folder, under other names and in another order.
    rows = [["path", "genre", "artist"]]
    for number, path in enumerate(sorted((place / "music").rglob("*.wav"), reverse=True)):
        copy = shutil.copy(path, tmp_path / f"{number * 7 % 24:02}.wav")
        rows.append([copy, path.parts[-3], f"artist {24 - number // 2}"])
    with (tmp_path / "all.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    options = Options(place / "new.cache", place / "base", threads=1)
    there = fit_bundle(place / "music", tmp_path / "there", options, lambda _: None)
    here = fit_bundle(tmp_path / "all.csv", tmp_path / "here", options, lambda _: None)
    assert {one.name for one in there.task.examples} & {one.name for one in here.task.examples} == set()
    assert there.judged.folds.tolist() == here.judged.folds.tolist()
    files = {file: entry for file, entry in load(tmp_path / "there").manifest.files.items() if file != "README.md"}
    assert files.items() <= load(tmp_path / "here").manifest.files.items()


def test_what_the_base_remembers_does_not_deal_the_folds(place: Path) -> None:
    bundle = load(place / "new")
    # The artists of these tracks are not known; the bundle remembers which of them are of one artist.
    heard, music = listening(bundle), [replace(one, belongs=()) for one in read_data(place / "music").tracks]
    known = recall(bundle, heard)
    groups = []
    for some in ([], known[:8], known[::-1]):
        found = gather(bundle, heard, music, some, place / "new.cache", 1, lambda _: None)
        assert len(found.in_base) == len(some), "each remembered track is one of these"
        groups.append([one.group for one in found.examples])
    assert groups[0] == groups[1] == groups[2] and len(set(groups[0])) == 24


def test_an_interrupted_fit_goes_on_and_leaves_no_bundle(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Path] = []
    listen = hear._Ears.hear

    def some(self: hear._Ears, path: Path) -> object:
        if len(heard) == 7:
            raise KeyboardInterrupt
        heard.append(path)
        return listen(self, path)

    monkeypatch.setattr(hear._Ears, "hear", some)
    options = Options(tmp_path / "new.cache", place / "base", threads=1)
    with pytest.raises(KeyboardInterrupt):
        fit_bundle(place / "music", tmp_path / "new", options, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["new.cache"]
    heard.clear()
    monkeypatch.setattr(hear._Ears, "hear", lambda self, path: (heard.append(path), listen(self, path))[1])
    fit_bundle(place / "music", tmp_path / "new", options, lambda _: None)
    assert len(heard) == 24 - 7


def test_a_recording_under_another_name_and_codec_stays_in_one_fold(place: Path, tmp_path: Path) -> None:
    music = shutil.copytree(place / "music", tmp_path / "music")
    copies = {}
    for genre, name in enumerate(made.GENRES):
        copy = music / name / f"Somebody Else {genre}" / "A Cover.ogg"
        copy.parent.mkdir()
        synth.write(copy, 0.7 * made.track(genre, 0), made.RATE)
        copies[str(copy)] = str(music / name / f"{name} Band 0" / "0.wav")
    found = fit_bundle(music, tmp_path / "new", Options(place / "new.cache", place / "base"), lambda _: None)
    pairs = {(first.name, second.name) for first, second, _ in found.read.pairs}
    assert {tuple(sorted(pair)) for pair in pairs} >= {tuple(sorted(pair)) for pair in copies.items()}
    fold = {one.name: int(fold) for one, fold in zip(found.task.examples, found.judged.folds, strict=True)}
    for copy, original in copies.items():
        assert fold[copy] == fold[original]
    by_group: dict[str, set[int]] = {}
    for one in found.task.examples:
        by_group.setdefault(one.group, set()).add(fold[one.name])
    assert all(len(folds) == 1 for folds in by_group.values()) and len(by_group) == 12


def test_a_wrong_label_stands_at_the_head_of_the_list(place: Path, tmp_path: Path) -> None:
    table = tmp_path / "music.csv"
    wrong = place / "music" / "Drone" / "Drone Band 1" / "3.wav"
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "genre", "artist"])
        for path in sorted((place / "music").rglob("*.wav")):
            genre = "March" if path == wrong else path.parts[-3]
            rows.writerow([path, genre, path.parent.name])
    doubts = tmp_path / "doubts.csv"
    arguments = ("fit", table, "-o", tmp_path / "new", "--bundle", place / "base", "--cache", place / "new.cache")
    done = run(*arguments, "--doubts", doubts)
    assert done.returncode == 0, done.stderr
    with doubts.open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    assert len(listed) == 24
    assert str(wrong) in [row["path"] for row in listed[:2]]
    assert f"{wrong}: March, sounds like Drone" in done.stdout


@pytest.fixture
def own(place: Path, tmp_path: Path) -> Path:
    """The base, whose second head has four genres of its own."""
    root = shutil.copytree(place / "base", tmp_path / "own")
    mapping = {"a": "Alpha", "b": "Beta", "both": {"Alpha": 0.5, "Beta": 0.5}, "none": None}
    stages = bundles.read_manifest(root)["stages"]
    stages[1]["head"] |= {"genres": list(mapping), "map": mapping, "temperature": 0.5}
    bundles.edit_manifest(root, stages=stages)
    for name, width, classes in (("low", made.PARTS, 3), ("high", 2 * made.PARTS, 4)):
        kernel = np.random.default_rng(classes).normal(0, 0.1, (width, classes)).astype(np.float32)
        node = bundles.helper.make_node("MatMul", ["features", "W"], ["logits"])
        shape = ("features", width), ("logits", classes)
        bundles.write_graph(root / f"heads/{name}.onnx", *shape, [node], {"W": kernel})
    bundles.rehash(root)
    return root


def test_a_base_whose_heads_have_own_genres_gives_heads_over_the_new_ones(
    place: Path, own: Path, tmp_path: Path
) -> None:
    cache = shutil.copy(place / "new.cache", tmp_path / "new.cache")
    done = run("fit", place / "music", "-o", tmp_path / "new", "--bundle", own, "--cache", cache, "--threads", 1)
    assert done.returncode == 0, done.stderr
    manifest = load(tmp_path / "new").manifest
    assert manifest.genres == list(made.GENRES)
    assert all(stage.head.genres is None and stage.head.map is None for stage in manifest.stages)
    with Cascade.open(tmp_path / "new") as cascade:
        assert cascade.classify(next((place / "music" / "Drone").rglob("*.wav"))).genre == "Drone"


def test_what_a_base_with_own_genres_says_is_what_its_cascade_says(place: Path, own: Path, tmp_path: Path) -> None:
    bundle = load(own)
    heard = listening(bundle)
    tracks = read_data(place / "music").tracks
    cache = Path(shutil.copy(place / "new.cache", tmp_path / "new.cache"))
    gathered = gather(bundle, heard, tracks, [], cache, 1, lambda _: None)
    answers = base_answers(bundle, heard, gathered.examples)
    assert answers.probabilities("high").shape == (len(tracks), 3)
    seen = set()
    for name, policy in heard.policies.items():
        numbers = answers.genres(policy)
        with Cascade.open(own, policy=name) as cascade:
            for example, number, (decision, _) in zip(
                gathered.examples, numbers, answers.decide(policy, sure=True), strict=True
            ):
                verdict = cascade.classify(example.name)
                assert verdict.top[0].genre == bundle.manifest.genres[number]
                assert verdict.confidence == pytest.approx(decision.confidence, abs=1e-4)
                assert verdict.reason_code == decision.code
                seen |= {stage.abstains for stage in verdict.stages}
    assert seen == {True, False}


@pytest.mark.parametrize("kind", ["mlp", "trees"])
def test_another_kind_of_head(place: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 10)
    monkeypatch.setattr(trees, "STRENGTHS", (0.1,))
    monkeypatch.setattr(mlp, "EPOCHS", 8)
    monkeypatch.setattr(mlp, "STRENGTHS", (0.1,))
    base = ("--bundle", place / "base", "--cache", place / "new.cache", "--threads", 1)
    arguments = (*base, "--head", kind, "--folds", 3)
    done = run("fit", place / "music", "-o", tmp_path / "new", *arguments)
    assert done.returncode == 0, done.stderr
    for stage in ("low", "high"):
        assert f"stage {stage} alone, logistic head" in done.stdout and f"stage {stage} alone, {kind}" in done.stdout
        assert f"stage {stage}: {kind} against logistic" in done.stdout
    # Logistic heads find nearly all of these tracks: trees cannot find so many more that it is no chance.
    told = load(tmp_path / "new").manifest.provenance["fit"]["heads"]
    assert told == dict.fromkeys(("low", "high"), "mlp" if kind == "mlp" else "logistic")
    with Cascade.open(tmp_path / "new", min_confidence=0.0) as cascade:
        said = [cascade.classify_samples(made.track(genre, 100), made.RATE).genre for genre in range(3)]
    assert said == list(made.GENRES)


def test_changed_copies_are_learnt_from_and_judge_nothing(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "new.cache", tmp_path / "cache")
    options = Options(tmp_path / "cache", place / "base", threads=1, copies=2)
    found = fit_bundle(place / "music", tmp_path / "new", options, lambda _: None)
    assert all(len(one.copies) == 2 for one in found.task.examples) and found.tracks == 24
    told = load(tmp_path / "new").manifest.provenance["fit"]
    assert (told["tracks"], told["copies"]) == (24, 48)
    plain, augmented = (load(place / one).manifest.files["heads/low.onnx"] for one in ("new", tmp_path / "new"))
    assert plain != augmented
    again = fit_bundle(place / "music", tmp_path / "again", options, lambda _: None)
    assert again.accuracies == found.accuracies, "copies are kept, and are always the same"


def test_refusals(place: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        done = run("fit", *arguments, "--cache", place / "new.cache")
        assert done.returncode == 2, done.stdout
        assert not (tmp_path / "out").exists()
        return done.stderr

    out = ("-o", tmp_path / "out", "--bundle", place / "base")
    assert "cannot be read (No such file" in refused(tmp_path / "nowhere", *out)
    os.mkfifo(tmp_path / "pipe")
    assert "expected a folder or a file, got a pipe" in refused(tmp_path / "pipe", *out)
    few = shutil.copytree(place / "music", tmp_path / "few")
    for folder in sorted((few / "Loop").iterdir())[2:]:
        shutil.rmtree(folder)
    assert "at least 5 tracks of each genre: Loop has 4" in refused(few, *out)
    lone = shutil.copytree(place / "music", tmp_path / "lone")
    for folder in sorted((lone / "Loop").iterdir())[1:]:
        for track in folder.iterdir():
            track.rename(lone / "Loop" / "Loop Band 0" / track.name)
    assert "at least 2 groups (artists) in each genre: all of Loop belong together" in refused(lone, *out)
    odd = shutil.copytree(place / "music", tmp_path / os.fsdecode(b"m\xfcsic"))
    (odd / "Loop").rename(odd / os.fsdecode(b"L\xf6\xf6p"))
    assert "expected no surrogates; rename it" in refused(odd, *out)
    broken = shutil.copytree(place / "music", tmp_path / "broken")
    for track in sorted((broken / "Loop").rglob("*.wav"))[4:]:
        track.write_bytes(b"nothing")
    assert "Loop has 4; 4 tracks could not be heard" in refused(broken, *out)
    assert "does not keep embeddings" in refused(place / "music", *out, "--keep-genres")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert "got something else" in refused(place / "music", "-o", tmp_path / "mine", "--bundle", place / "base")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_cache_that_is_none_is_left_alone(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a database at all, and longer than a header of SQLite is, which has a hundred bytes" * 3)
    done = run("fit", place / "music", "-o", tmp_path / "out", "--bundle", place / "base", "--cache", other)
    assert done.returncode == 2 and "expected a cache of what was heard" in done.stderr
    assert other.read_text().startswith("not a database")


def test_a_range_test_is_fitted_anew(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hear, "FITTED", ((16_000, 2.0),))
    stage = bundles.waveform_stage("low", dim=made.PARTS)
    stage["head"]["range"] = {"file": "heads/low.range.onnx", "inputs": ["low"], "limit": 1.0}
    bundles.make_bundle(tmp_path / "base", [stage])
    options = Options(tmp_path / "cache", tmp_path / "base", threads=1)
    found = fit_bundle(place / "music", tmp_path / "new", options, lambda _: None)
    limit = load(tmp_path / "new").manifest.stage("low").head.range.limit
    assert limit == pytest.approx(np.quantile(found.judged.said.distances["low"], 0.99))
    with Cascade.open(tmp_path / "new") as cascade:
        tone = np.sin(2 * np.pi * 440 * np.arange(3 * made.RATE) / made.RATE).astype(np.float32)
        assert cascade.classify_samples(0.3 * tone[:, None], made.RATE).status == "unsure"
        assert not cascade.classify_samples(made.track(0, 300), made.RATE).stages[0].outside
