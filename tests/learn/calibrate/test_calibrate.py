"""The whole command: tracks to a bundle with a certificate, which the real cascade keeps."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("scipy", reason="certificates need the extra [fit]")
pytest.importorskip("sklearn", reason="certificates need the extra [fit]")
pytest.importorskip("onnx", reason="certificates need the extra [fit]")
pytest.importorskip("onnxruntime", reason="certificates need the extra [fit]")

import bundles
import synth
from command import run
from edge_reclass import Cascade
from edge_reclass.bundle import MANIFEST, load
from edge_reclass.cascade import choose_policy
from edge_reclass_learn.calibrate import certify, checking, hearing
from edge_reclass_learn.calibrate.calibrating import Options, calibrate, count
from edge_reclass_learn.calibrate.certify import Goal, Risk
from edge_reclass_learn.calibrate.hearing import Counted
from edge_reclass_learn.calibrate.tracks import choosing, drawn, kept, read, was_chosen_on
from edge_reclass_learn.data.labelled import Labelled
from edge_reclass_learn.hearing.hear import sound_digest
from edge_reclass_learn.hearing.memory import FILE as MEMORY
from edge_reclass_learn.hearing.memory import packed
from edge_reclass_learn.replaying import NOTHING, everything

RATE, ARTISTS, DIM = 16_000, 60, 40
LOOSE = ("--epsilon", 0.3, "--delta", 0.2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base``: two stages that know something. ``music``: two tracks of each artist; ``music.csv`` says which."""
    root = tmp_path_factory.mktemp("calibrate")
    stages = [
        bundles.waveform_stage("low", window=8_000, dim=DIM, head={"temperature": 0.5}),
        bundles.waveform_stage("high", dim=DIM, head={"inputs": ["low", "high"]}),
    ]
    steps = [
        {"after": "low", "windows": 1, "weights": {"low": 1.0}, "accept": 0.7},
        {"after": "high", "weights": {"low": 0.3, "high": 0.7}},
    ]
    patient = [{"after": "low", "weights": {"low": 1.0}, "accept": 1.0}, steps[-1]]
    policies = {"ladder": {"vote": "soft", "steps": steps}, "other": {"vote": "soft", "steps": patient}}
    bundles.make_bundle(root / "base", stages, policies=policies, default_policy="ladder", min_confidence=0.34)
    bundles.random_heads(root / "base", stages, 5.0, DIM)
    (root / "music").mkdir()
    with (root / "music.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "genre", "artist"])
        with Cascade.open(root / "base", policy=everything(choose_policy(load(root / "base")))) as cascade:
            for i in range(2 * ARTISTS):
                path = root / "music" / f"{i:02}.wav"
                random = np.random.default_rng(i)
                shape = np.exp(random.normal(0, 1, (DIM, 1))) * random.uniform(0.02, 3.0, (4, DIM, 1))
                samples = 0.05 * random.standard_normal((4, DIM, RATE // DIM)) * shape
                synth.write(path, samples.reshape(-1, 1).clip(-1, 1).astype(np.float32), RATE)
                genre = cascade.classify(path).genre or "Alpha"
                wrong = i % 20 < 2  # both tracks of every tenth artist
                rows.writerow([f"music/{path.name}", "Polka" if wrong else genre, f"Artist {i // 2}"])
    return root


def calibrated(place: Path, output: Path, *more: object, data: str = "music.csv") -> str:
    cache = ("--cache", place / "heard.cache")
    done = run("calibrate", place / "base", "--data", place / data, "-o", output, *cache, *LOOSE, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def counted(place: Path, root: Path) -> list[Path]:
    """The tracks that the certificate of a bundle counts."""
    tracks = read(place / "music.csv", load(root), labelled=True).tracks
    some = drawn([(track, sound_digest(track.path)) for track in tracks], 0)
    return [one.track.path for one in some if not choosing(one, 0)]


def test_what_is_certified_is_what_the_cascade_says(place: Path, tmp_path: Path) -> None:
    said = calibrated(place, tmp_path / "new")
    bundle, base = load(tmp_path / "new"), load(place / "base")
    bundle.verify()
    assert bundle.manifest.files == base.manifest.files
    assert bundle.manifest.policies["other"] == base.manifest.policies["other"]
    (certificate,) = bundle.manifest.certificates
    (entry,) = certificate.counts
    assert (certificate.policy, certificate.risk, certificate.epsilon) == ("ladder", "disagreement", 0.3)
    assert entry.ran == {"low": "cpu fp32", "high": "cpu fp32"} and entry.p_value <= 0.2 and entry.known == 0
    tracks = counted(place, tmp_path / "new")
    with Cascade.open(bundle) as quick, Cascade.open(bundle, policy=everything(choose_policy(bundle))) as full:
        differ = [quick.classify(path).genre != full.classify(path).genre for path in tracks]
    assert (entry.mistakes, entry.tracks) == (sum(differ), len(differ)) and entry.mistakes > 0
    assert f"{entry.mistakes} of {entry.tracks}" in said and "(80 % sure)" in said
    cost = [float(line.split()[-1]) for line in said.splitlines() if re.match(r"(all stages|ladder, cert)", line)]
    assert cost[1] < cost[0], "a certified policy that stops early costs less"
    shown = run("inspect", tmp_path / "new").stdout
    assert f"on tracks like the {entry.tracks} that it was counted on, at most 30 % of the verdicts differ" in shown


@pytest.mark.parametrize("risk", ["disagreement", "error", "error_if_sure"])
def test_each_counted_answer_is_the_verdict_of_the_cascade(place: Path, tmp_path: Path, risk: Risk) -> None:
    """``ladder`` hears one of two windows of low, and the head of high takes low."""
    epsilon = 0.8 if risk == "error_if_sure" else 0.3  # most labels are not those of a head that hears a part
    options = Options(place / "heard.cache", Goal(risk, epsilon, 0.2), "ladder")
    found = calibrate(place / "base", place / "music.csv", tmp_path / "new", options, lambda _: None)
    with Cascade.open(tmp_path / "new", policy="ladder") as cascade:
        verdicts = [cascade.classify(one.track.path) for one in found.counted.tracks]
    genres = found.manifest.genres
    assert found.now.genre.tolist() == [NOTHING if v.genre is None else genres.index(v.genre) for v in verdicts]
    assert [None if stop is None else stop[0] for stop in found.now.stops] == [v.decided_by for v in verdicts]
    if risk == "error_if_sure":
        with Cascade.open(place / "base", policy="ladder") as cascade:
            was = [cascade.classify(one.track.path).genre for one in found.counted.tracks]
        assert found.before is not None and found.full is None
        assert found.before.genre.tolist() == [NOTHING if g is None else genres.index(g) for g in was]
    else:
        assert found.before is None, "what it gave to the head of high was not heard"


def test_the_same_tracks_give_the_same_certificate_and_are_not_heard_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated(place, tmp_path / "one")

    def never(*_: object) -> None:
        raise AssertionError("heard again")

    monkeypatch.setattr(hearing._Ears, "hear", never)
    calibrated(place, tmp_path / "two")
    one, two = load(tmp_path / "one").manifest, load(tmp_path / "two").manifest
    assert (one.certificates, one.policies) == (two.certificates, two.policies)
    calibrated(place, tmp_path / "two")  # over a bundle that it made itself


def test_unlabelled_music_is_enough_for_disagreement(place: Path, tmp_path: Path) -> None:
    calibrated(place, tmp_path / "new", data="music")
    (certificate,) = load(tmp_path / "new").manifest.certificates
    assert certificate.counts[0].tracks > ARTISTS, "without tags every track counts as an artist"
    table = place / "paths.csv"
    table.write_text("path\n" + "".join(f"music/{path.name}\n" for path in (place / "music").iterdir()))
    calibrated(place, tmp_path / "same", data=table.name)
    assert load(tmp_path / "same").manifest.certificates == [certificate], "a table needs no genres"
    state = tmp_path / "music.state"
    assert run("classify", place / "music", "--state", state, "--bundle", place / "base").returncode == 0
    shutil.copy(place / "heard.cache", tmp_path / "heard.cache")
    options = ("--cache", tmp_path / "heard.cache", *LOOSE)
    done = run("calibrate", place / "base", "--data", state, "-o", tmp_path / "new", *options)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "new").manifest.certificates[0].counts[0].tracks == certificate.counts[0].tracks


def test_errors_count_labels_that_the_bundle_does_not_know(place: Path, tmp_path: Path) -> None:
    said = calibrated(place, tmp_path / "new", "--risk", "error")
    (certificate,) = load(tmp_path / "new").manifest.certificates
    assert certificate.risk == "error" and "of the tracks get a wrong genre" in said
    labels = {
        track.path: track.genre for track in read(place / "music.csv", load(place / "base"), labelled=True).tracks
    }
    with Cascade.open(tmp_path / "new") as cascade:
        said_genres = {path: cascade.classify(path).genre for path in counted(place, tmp_path / "new")}
    wrong = sum(genre is not None and genre != labels[path] for path, genre in said_genres.items())
    assert certificate.counts[0].mistakes == wrong > 0
    assert certificate.counts[0].unsure == sum(genre is None for genre in said_genres.values())


def test_the_least_confidence_is_certified_too(place: Path, tmp_path: Path) -> None:
    said = calibrated(place, tmp_path / "new", "--min-confidence", "--policy", "other")
    manifest = load(tmp_path / "new").manifest
    (certificate,) = manifest.certificates
    assert certificate.risk == "error_if_sure" and manifest.policies == load(place / "base").manifest.policies
    assert manifest.min_confidence is not None and f"min_confidence {manifest.min_confidence:g}" in said
    with Cascade.open(tmp_path / "new", policy="other") as cascade:
        sure = sum(cascade.classify(path).genre is not None for path in counted(place, tmp_path / "new"))
    assert certificate.counts[0].tracks == sure
    again = run(
        "calibrate", "--check", tmp_path / "new", "--data", place / "music.csv", "--cache", place / "heard.cache"
    )
    assert again.returncode == 0 and "unchanged" in again.stdout, again.stderr


def test_what_cannot_be_certified_is_refused_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    cache = ("--cache", place / "heard.cache")
    for more, message in (
        (("--epsilon", 0.01), r"\d+ tracks to test with are too few: .* at least 230, .* about 345 artists are needed"),
        (("--risk", "error", "--epsilon", 0.1), r"not certified: even all stages .*: \d+ of \d+ .*, p = "),
        (("--epsilon", 0), "--epsilon: expected a number from 0.000001 to below 1, got 0"),
        (("--epsilon", 1e-7), "--epsilon: expected a number from 0.000001 to below 1, got 1e-07"),
        (("--delta", 1e-300), "--delta: expected a number from 0.000001 to below 1, got 1e-300"),
        (("--delta", "nan"), "--delta: expected a number from 0.000001 to below 1, got nan"),
        (("--risk", "luck"), "--risk: expected disagreement or error, got 'luck'"),
        (("--policy", "gone"), "no policy 'gone'"),
        (("--windows", "1,x"), "--windows: expected whole numbers"),
        (("--risk", "error", "--min-confidence"), "expected one of them"),
    ):
        done = run("calibrate", place / "base", "--data", place / "music.csv", "-o", tmp_path / "new", *cache, *more)
        assert done.returncode == 2 and re.search(message, done.stderr), done.stderr
        assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    done = run("calibrate", place / "base", "--data", place / "music.csv", "-o", tmp_path / "mine", *cache)
    assert done.returncode == 2 and "got something else" in done.stderr
    done = run("calibrate", place / "base", "--data", place / "base", "-o", tmp_path / "new", *cache)
    assert done.returncode == 2 and "no audio found" in done.stderr
    assert run("calibrate", place / "base", "--data", place / "music.csv").returncode == 2


def test_a_folder_that_cannot_be_the_bundle_is_refused_before_anything_is_heard(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = (
        ("calibrate", place / "base", "--data", place / "music.csv"),
        ("fit", place / "music.csv"),
        ("cluster", place / "music"),
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    monkeypatch.chdir(tmp_path / "mine")
    for command in commands:
        done = run(*command, "-o", ".")
        assert done.returncode == 2 and "got something else" in done.stderr, done.stderr
    for command in commands[:2]:
        done = run(*command, "-o", tmp_path / os.fsdecode(b"b\xff"))
        assert done.returncode == 2 and "expected a name in UTF-8" in done.stderr, done.stderr
    monkeypatch.chdir(place / "base")
    done = run("calibrate", "--check", ".", "--data", place / "music.csv")
    assert done.returncode == 2 and "expected one certificate to check" in done.stderr, done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]


def test_a_certificate_that_another_replaces_is_told_of(place: Path, tmp_path: Path) -> None:
    calibrated(place, tmp_path / "one")
    cache = ("--data", place / "music.csv", "--cache", place / "heard.cache", *LOOSE)
    for more, dropped in ((("--policy", "other"), False), (("--risk", "error"), True)):
        done = run("calibrate", tmp_path / "one", "-o", tmp_path / "two", *cache, *more)
        assert done.returncode == 0, done.stderr
        assert ("is without the certificate of ladder (disagreement)" in done.stderr) == dropped
        risks = [(one.policy, one.risk) for one in load(tmp_path / "two").manifest.certificates]
        assert risks == [("ladder", "error")] if dropped else [("ladder", "disagreement"), ("other", "disagreement")]


def test_tracks_that_the_heads_were_fitted_on_are_refused_or_told_of(place: Path, tmp_path: Path) -> None:
    base = shutil.copytree(place / "base", tmp_path / "base")
    tracks = counted(place, base)[:10]
    with Cascade.open(base, policy=everything(choose_policy(load(base)))) as cascade:
        found = [cascade.embed(path) for path in tracks]
    vectors = {stage: np.stack([one[stage] for one in found]) for stage in ("low", "high")}
    (base / "memory").mkdir()
    memory = packed(vectors, ["Alpha"] * 10, [str(i) for i in range(10)], ["Alpha", "Beta", "Gamma"])
    (base / MEMORY).write_bytes(memory)
    bundles.relist(base)
    options = ("--data", place / "music.csv", "-o", tmp_path / "new", "--cache", tmp_path / "heard.cache", *LOOSE)
    for risk in (("--risk", "error"), ("--min-confidence",)):
        done = run("calibrate", base, *options, *risk)
        assert done.returncode == 2 and "that the heads were fitted on" in done.stderr, done.stderr
    done = run("calibrate", base, *options)
    assert done.returncode == 0 and "warning: at least" in done.stderr
    (certificate,) = load(tmp_path / "new").manifest.certificates
    assert certificate.counts[0].known == 10 and "fitted on" in certificate.assumes[-1]


def elsewhere(change: Callable[[Counted], Counted]) -> Callable[..., Counted]:
    """Counting as on another device, which answers as ``change`` says."""

    def counts(*arguments: object) -> Counted:
        return replace(change(count(*arguments)), ran={"low": "cuda fp32", "high": "cuda fp32"})  # type: ignore[arg-type]

    return counts


def unlike(found: Counted) -> Counted:
    """All is sure of one genre until the last stage has heard all of its windows."""
    change, tracks = msgspec.structs.replace, []
    for track in found.answers.tracks:
        stages = {}
        for name, stage in track.stages.items():
            said = [change(one, probabilities=[0.999, 0.001, 0.0]) for one in stage.said]
            stages[name] = change(stage, said=said)
        high = stages["high"]
        said = [*high.said[:-1], change(high.said[-1], probabilities=[0.0, 0.001, 0.999])]
        tracks.append(change(track, stages={**stages, "high": change(high, said=said)}))
    return replace(found, answers=change(found.answers, tracks=tracks))


def test_another_device_is_added_where_it_holds_there_too(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated(place, tmp_path / "new")
    check = ("calibrate", "--check", tmp_path / "new", "--data", place / "music.csv", "--cache", place / "heard.cache")
    before = (tmp_path / "new" / MANIFEST).read_bytes()
    done = run(*check)
    assert done.returncode == 0 and "unchanged" in done.stdout, done.stderr
    monkeypatch.setattr(checking, "count", elsewhere(unlike))
    done = run(*check)
    assert done.returncode == 2 and "not certified: on cuda fp32" in done.stderr
    assert (tmp_path / "new" / MANIFEST).read_bytes() == before
    monkeypatch.setattr(checking, "count", elsewhere(lambda found: found))
    with pytest.MonkeyPatch.context() as patch:
        # The second candidate fails, and the policy itself, the last one, would pass.
        patch.setattr(certify, "counts_on", lambda _, some, __: ([0, 20, *[0] * (len(some) - 2)], [40] * len(some)))
        done = run(*check)
    assert done.returncode == 2 and re.search(r"candidate 2 of \d+ of ladder: 20 of 40", done.stderr), done.stderr
    done = run(*check)
    assert done.returncode == 0 and "added to the certificate" in done.stdout, done.stderr
    (certificate,) = load(tmp_path / "new").manifest.certificates
    assert [entry.ran["low"] for entry in certificate.counts] == ["cpu fp32", "cuda fp32"]
    assert certificate.counts[0].mistakes == certificate.counts[1].mistakes
    assert "counted on cuda fp32" in run("inspect", tmp_path / "new").stdout


def test_what_is_void_or_not_there_cannot_be_checked(place: Path, tmp_path: Path) -> None:
    calibrated(place, tmp_path / "new")
    check = ("calibrate", "--check", tmp_path / "new", "--data", place / "music.csv", "--cache", place / "heard.cache")
    for more in (("--risk", "error"), ("--policy", "other")):
        done = run(*check, *more)
        assert done.returncode == 2 and "expected one certificate to check" in done.stderr
    bundles.edit_manifest(tmp_path / "new", min_confidence=0.5)
    done = run(*check)
    assert done.returncode == 2 and "void: the policy or min_confidence was changed" in done.stderr


def library(root: str, tracks: Iterable[int] = range(160), tagged: bool = True) -> list[tuple[Labelled, bytes]]:
    """Two tracks of each artist, on an album in its folder below ``root``, with their sounds."""
    found = []
    for i in tracks:
        folder = f"{root}/artist {i // 2}"
        belongs = (("artist", f"artist {i // 2}"), ("album", f"{folder}/first")) if tagged else ()
        found.append((Labelled(Path(f"{folder}/{root[1:2]}{i}.ogg"), "", belongs), b"sound %d" % i))
    return found


def test_one_track_of_each_artist_is_drawn_whatever_the_order() -> None:
    tracks = library("/music")
    some = drawn(tracks, seed=1)
    assert len(some) == 80 and len({one.track.belongs for one in some}) == 80
    assert some == drawn(tracks[::-1], seed=1) != drawn(tracks, seed=2)
    assert drawn(tracks, seed=1, most=5) == some[:5]
    parts = [choosing(one, 1) for one in some]
    assert 0 < sum(parts) < 80 and parts == [choosing(one, 1) for one in drawn(tracks[::-1], seed=1)]


@pytest.mark.parametrize("tagged", [True, False])
def test_the_parts_are_the_same_where_tracks_lie_elsewhere_under_other_names(tagged: bool) -> None:
    here, there = (drawn(library(root, tagged=tagged), seed=3) for root in ("/home/me", "/mnt"))
    assert [one.sound for one in here] == [one.sound for one in there]
    assert [choosing(one, 3) for one in here] == [choosing(one, 3) for one in there]
    assert [one.track.path for one in here] != [one.track.path for one in there]


def test_what_was_chosen_on_is_known_among_more_and_fewer_tracks() -> None:
    chosen_on = [one for one in drawn(library("/home"), seed=0) if choosing(one, 0)]
    artists = {one.track.belongs[0] for one in chosen_on}
    for tracks in (range(160), range(0, 160, 2), range(1, 160, 2), range(40, 400)):
        again = drawn(library("/mnt", tracks), seed=0)
        known = [was_chosen_on(one, kept(chosen_on)) for one in again]
        assert known == [one.track.belongs[0] in artists for one in again] and 0 < sum(known) < len(known)


def test_untagged_tracks_of_equal_names_are_dealt_into_both_parts() -> None:
    tracks = [(Labelled(Path(f"/music/{i}/01.wav"), ""), b"sound %d" % i) for i in range(40)]
    for seed in range(5):
        some = drawn(tracks, seed)
        assert len(some) == 40 and 0 < sum(choosing(one, seed) for one in some) < 40


def test_a_copy_counts_with_its_recording() -> None:
    tracks = library("/music", tagged=False)
    assert len(drawn([*tracks, (Labelled(Path("/copy.ogg"), ""), tracks[0][1])], seed=0)) == len(tracks)


def test_check_leaves_out_what_was_chosen_on_wherever_it_lies(place: Path, tmp_path: Path) -> None:
    calibrated(place, tmp_path / "new", data="music")
    (tmp_path / "other").mkdir()
    for i, path in enumerate(sorted((place / "music").iterdir(), reverse=True)):
        (tmp_path / "other" / f"{i}").mkdir()
        shutil.copy(path, tmp_path / "other" / f"{i}" / "01.wav")
    (entry,) = load(tmp_path / "new").manifest.certificates[0].counts
    check = ("calibrate", "--check", tmp_path / "new", "--data", tmp_path / "other", "--cache", place / "heard.cache")
    done = run(*check)
    assert done.returncode == 0, done.stderr
    assert f"{entry.mistakes} mistakes of {entry.tracks}, p = {entry.p_value:.2g}" in done.stdout
