"""``bench order``: what is heard once replays every policy as a cascade goes, and what is proposed runs."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import bundles
from command import Done, run
from edge_reclass import Cascade
from edge_reclass.bundle import MANIFEST, Bundle, load, starter_path
from edge_reclass.cascade import Policy, Step, choose_policy
from edge_reclass_bench.conduct import Reporter
from edge_reclass_bench.order.hearing import hear, known
from edge_reclass_bench.tracks import find
from edge_reclass_learn import Answers, replay
from edge_reclass_learn import answers as records
from edge_reclass_learn.hearing.recording import asking

RATE = 16_000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages of 8 and 4 windows, whose heads know something; the second one's takes both embeddings."""
    stages = [
        bundles.waveform_stage("mert", window=8_000, head={"inputs": ["mert"], "temperature": 0.5}),
        bundles.waveform_stage("jmla", head={"inputs": ["mert", "jmla"]}),
    ]
    ladder = [
        {"after": "mert", "windows": 2, "weights": {"mert": 1.0}, "accept": 0.7},
        {"after": "mert", "weights": {"mert": 1.0}, "accept": 0.8},
        {"after": "jmla", "weights": {"mert": 0.3, "jmla": 0.7}},
    ]
    made = bundles.make_bundle(
        tmp_path_factory.mktemp("bundle"),
        stages,
        policies={"ladder": {"vote": "soft", "steps": ladder}},
        min_confidence=0.35,
    )
    bundles.random_heads(made, stages, 3.0)
    return made


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty tracks; some are short, some have silent windows, one is silent, one is no audio."""
    folder = tmp_path_factory.mktemp("music")
    for i in range(30):
        random = np.random.default_rng(i)
        count = 10 if i % 4 else 2 + i // 4
        levels = 10.0 ** random.uniform(-3.5, -0.7, count)
        levels[random.random(count) < (0.5 if i % 5 == 0 else 0.0)] = 0.0
        levels[: 10 * (i == 23)] = 0.0
        samples = random.standard_normal((count, 8, 1_000)) * levels[:, None, None] * random.uniform(0.1, 2, (8, 1))
        soundfile.write(folder / f"{i:02}.wav", samples.ravel().clip(-1, 1).astype(np.float32), RATE, subtype="FLOAT")
    (folder / "broken.wav").write_bytes(b"RIFF")
    shutil.copy(folder / "02.wav", folder / "copy of 02.wav")
    return folder


@pytest.fixture(scope="module")
def bundle(root: Path) -> Bundle:
    return load(root)


@pytest.fixture(scope="module")
def heard(bundle: Bundle, music: Path) -> tuple[Answers, list[str]]:
    said: list[str] = []
    tracks, teller = find([str(music)]), Reporter(say=said.append)
    about = known(bundle, tracks, None, teller)
    return hear(bundle, tracks, about, asking(bundle, [1, 2, 3]), "cpu", None, teller), said


def test_every_stage_is_asked_after_as_many_windows_as_it_has(bundle: Bundle) -> None:
    steps = [(step.after, step.windows) for step in asking(bundle, [3, 1, 5, 100]).steps]
    assert steps == [("mert", 1), ("mert", 3), ("mert", 5), ("mert", None), ("jmla", 1), ("jmla", 3), ("jmla", None)]


def test_replay_says_what_the_cascade_says(bundle: Bundle, music: Path, heard: tuple[Answers, list[str]]) -> None:
    answers, said = heard
    assert "broken.wav (corrupt)" in said[0] and "23.wav (silent)" in said[0]
    assert len(answers.tracks) == 29
    both = {"mert": 0.5, "jmla": 0.5}
    policies = [
        choose_policy(bundle),
        Policy("fast", "top1", (Step("mert", {"mert": 1.0}, 0.6, 1), Step("mert", {"mert": 1.0}))),
        Policy(
            "long",
            "soft",
            (
                Step("mert", {"mert": 1.0}, 0.75, 1),
                Step("mert", {"mert": 1.0}, 0.8, 3),
                Step("mert", {"mert": 1.0}, 0.8),
                Step("jmla", both, 0.5, 1),
                Step("jmla", both),
            ),
        ),
    ]
    ends = set()
    for policy in policies:
        replayed = replay(answers, policy)
        with Cascade.open(bundle, policy=policy, threads=1) as cascade:
            for track, number, stop in zip(answers.tracks, replayed.genre, replayed.stops, strict=True):
                verdict = cascade.classify(music / Path(track.name).name)
                assert verdict.genre == (None if number < 0 else answers.genres[number])
                assert stop is not None
                last = verdict.stages[-1]
                assert last.windows is not None and last.name == stop[0]
                assert stop[1] in {last.windows.heard, None}
                ends.add(stop)
    assert {("mert", 1), ("mert", 2), ("mert", 3), ("mert", None), ("jmla", 1), ("jmla", None)} <= ends


def test_files_of_one_content_are_one_group_and_a_table_says_the_rest(
    bundle: Bundle, music: Path, tmp_path: Path
) -> None:
    tracks, table = find([str(music)]), tmp_path / "labels.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "genre", "group"])
        rows.writerows([[music / f"{i:02}.wav", "alpha" if i else "Polka", f"album {i // 10}"] for i in range(12)])
    said: list[str] = []
    about = known(bundle, tracks, table, Reporter(say=said.append))
    by_name = dict(zip([path.name for path in tracks.paths], about, strict=True))
    assert by_name["01.wav"] == ("Alpha", "group album 0") and by_name["00.wav"][0] is None
    assert by_name["11.wav"][1] == "group album 1" != by_name["12.wav"][1]
    assert by_name["copy of 02.wav"] == (None, "group album 0")
    assert len({group for _, group in about}) == 2 + 19
    assert "Polka (1)" in said[0]


def order(*arguments: object) -> Done:
    return run("bench", "order", *arguments)


def test_the_command_proposes_a_policy_that_runs(root: Path, music: Path, tmp_path: Path) -> None:
    kept, policy, manifest = tmp_path / "answers.json", tmp_path / "policy.json", tmp_path / "bundle.yaml"
    arguments = [root, music, "--agreement", 0.9, "--windows", "1,3", "--folds", 3, "--answers", kept]
    done = order(*arguments, "-o", policy, "--write", manifest)
    assert done.returncode == 0, done.stderr
    for text in ("ladder (default)", "ladder (full answer)", "proposed, on tracks it was not chosen on"):
        assert text in done.stdout
    assert "few tracks" in done.stderr and "23.wav (silent)" in done.stderr
    # What the bundle's own policy asks is among what was asked.
    assert records.load(kept).stages[0].windows == [1, 2, 3]

    again = order(*arguments, "-o", tmp_path / "again.json")
    assert again.stdout == done.stdout and "answers:" not in again.stderr
    assert (tmp_path / "again.json").read_bytes() == policy.read_bytes()

    fewer = order(root, music, "--windows", "1", "--folds", 3, "--answers", kept)
    assert fewer.returncode == 0 and not [line for line in fewer.stdout.splitlines() if line.split()[1:2] == ["3"]]

    changed = tmp_path / "changed"
    shutil.copytree(root, changed)
    shutil.copy(manifest, changed / MANIFEST)
    (entry,) = json.loads(policy.read_text()).values()
    assert load(changed).manifest.policies["proposed"].steps[0].after == entry["steps"][0]["after"]
    with Cascade.open(changed, policy="proposed") as cascade:
        assert cascade.classify(music / "01.wav").ok
    assert {path.name for path in tmp_path.iterdir()} == {
        "answers.json", "policy.json", "bundle.yaml", "again.json", "changed",
    }  # fmt: skip


def test_an_accuracy_may_be_wanted(root: Path, music: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    with Cascade.open(root, policy="ladder") as cascade:
        rows = [[path, verdict.genre] for path in music.glob("*.wav") if (verdict := cascade.classify(path)).ok]
    table.write_text("file,genre\n" + "".join(f"{path},{genre}\n" for path, genre in rows))
    done = order(root, music, "--labels", table, "--accuracy", 0.8, "--folds", 4)
    assert done.returncode == 0, done.stderr
    assert f"{len(rows)} labelled tracks" in done.stdout
    wrong = {"Alpha": "Beta", "Beta": "Gamma", "Gamma": "Alpha"}
    table.write_text("file,genre\n" + "".join(f"{path},{wrong[str(genre)]}\n" for path, genre in rows))
    done = order(root, music, "--labels", table, "--accuracy", 0.99, "-o", tmp_path / "policy.json")
    assert done.returncode == 2 and "accuracy 0.99 is not reached" in done.stderr and "the most is" in done.stderr
    assert not (tmp_path / "policy.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agreement", "0.9", "--accuracy", "0.9"], "expected one of them, got both"),
        (["--agreement", "1.5"], "above 0, at most 1, got agreement 1.5"),
        (["--agreement", "nan"], "above 0, at most 1"),
        (["--accuracy", "0.5"], "needs --labels"),
        (["--windows", "1,x"], "--windows: expected whole numbers"),
        (["--windows", "0"], "--windows: expected whole numbers"),
        (["--policy-name", "ladder"], "the bundle has ladder"),
        (["--policy-name", "fmj-ev"], "is the name of a preset"),
        (["--policy-name", "no name"], "no name"),
        (["--folds", "40"], "32 tracks in 31 groups are too few for 40 folds"),
        (["-o", "."], "expected a file in a folder that is there"),
        (["-o", "none/p.json"], "expected a file in a folder that is there"),
        (["-o", "p.json", "--write", "p.json"], "expected different files"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_heard(
    root: Path, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = order(root, music, *arguments)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_inputs_are_never_written_over(root: Path, music: Path) -> None:
    track = music / "01.wav"
    before = track.read_bytes()
    for option in ("-o", "--write", "--answers"):
        assert order(root, music, option, track).returncode == 2
    assert track.read_bytes() == before


@pytest.mark.parametrize("what", ["bundle", "tracks", "windows", "device", "record"])
def test_answers_of_something_else_are_refused(
    root: Path, music: Path, tmp_path: Path, heard: tuple[Answers, list[str]], what: str
) -> None:
    kept, arguments, folder = tmp_path / "answers.json", [], root
    records.save(heard[0], kept)
    if what == "bundle":
        folder = tmp_path / "other"
        shutil.copytree(root, folder)
        bundles.edit_manifest(folder, name="other")
    if what == "windows":
        arguments = ["--windows", 5]
    if what == "device":
        plain: dict[str, Any] = json.loads(kept.read_text())
        kept.write_text(json.dumps(plain | {"heard_with": "cuda"}))
    if what == "record":
        kept.write_text("{}")
    some = [music / "01.wav", *sorted(music.glob("1*.wav"))] if what == "tracks" else [music]
    before = kept.read_bytes()
    done = order(folder, *some, "--answers", kept, *arguments)
    assert done.returncode == 2 and f"another {what}" in done.stderr.replace("another JSON file", "another record")
    assert kept.read_bytes() == before


def test_on_real_audio_with_the_starter(data: Path, tmp_path: Path) -> None:
    clips = sorted((data / "gtzan").rglob("*.ogg"))[::40][:12]
    table = data / "index.csv"
    done = order("starter", *clips, "--labels", table, "--folds", 3, "--answers", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    answers = records.load(tmp_path / "a.json")
    assert answers.digest == load(starter_path()).digest and [s.name for s in answers.stages] == ["fma", "musicnn"]
    assert answers.facts("musicnn").needs == ["fma"]
    assert answers.tracks[0].group.startswith("group ") and any(track.label for track in answers.tracks)
    with Cascade.open(policy="thorough", threads=1) as cascade:
        full = replay(answers, choose_policy(load(starter_path()), "thorough"))
        for clip, number in zip(clips, full.genre, strict=True):
            verdict = cascade.classify(clip)
            assert verdict.genre == (None if number < 0 else answers.genres[number])
