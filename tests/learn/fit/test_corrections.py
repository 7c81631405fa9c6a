"""Corrections to bundles that know new genres and keep the old ones."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="fitting needs the extra [fit]")
pytest.importorskip("onnx", reason="fitting needs the extra [fit]")
pytest.importorskip("onnxruntime", reason="fitting needs the extra [fit]")

import labelled_music as made
import synth
from command import run
from edge_reclass import Cascade
from edge_reclass.bundle import load
from edge_reclass.library import State, Wanted
from edge_reclass_learn.data.corrections import from_state
from edge_reclass_learn.data.labelled import read_data
from edge_reclass_learn.fit.fitting import Options, fit_bundle
from edge_reclass_learn.hearing import hear
from edge_reclass_learn.hearing.gather import gather
from edge_reclass_learn.hearing.listening import listening
from edge_reclass_learn.hearing.memory import recall

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def corrected(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state file: of 30 tracks that were classified, 6 were corrected, to a genre that the bundle lacks."""
    root = tmp_path_factory.mktemp("state")
    made.folders(root / "sirens", ("Siren",), artists=3)
    made.folders(root / "others", made.GENRES, first=50)
    arguments = ("--bundle", place / "new", "--state", root / "state", "--keep-embeddings", "--workers", 0)
    done = run("classify", root / "sirens", root / "others", *arguments, "--policy", "thorough")
    assert done.returncode == 0, done.stderr
    with State.open(root / "state", write=True) as state:
        for track in list(state.tracks()):
            if "Siren" in str(track.file):
                state.correct(track.id, "Siren")
    return root


def test_corrections_are_learnt_and_old_genres_are_not_forgotten(place: Path, corrected: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    done = run(
        "fit", corrected / "state", "-o", tmp_path / "more", "--bundle", place / "new", "--cache", cache, "--threads", 1
    )
    assert done.returncode == 0, done.stderr
    manifest = load(tmp_path / "more").manifest
    assert manifest.genres == [*made.GENRES, "Siren"]
    told = manifest.provenance["fit"]
    assert (told["tracks"], told["remembered_tracks"]) == (6, 24), "a verdict that nobody corrected is no label"
    assert "of 24 tracks that new remembers" in done.stdout
    with Cascade.open(tmp_path / "more", min_confidence=0.0) as cascade:
        for genre, name in enumerate((*made.GENRES, "Siren")):
            for number in (200, 201, 202):
                file = tmp_path / f"{genre} {number}.wav"
                synth.write(file, made.track(genre, number), made.RATE)
                assert cascade.classify(file).genre == name


def test_kept_embeddings_take_the_place_of_files(place: Path, corrected: Path, tmp_path: Path) -> None:
    files = sorted((corrected / "sirens").rglob("*.wav"))
    bundle = load(place / "new")
    before = from_state(corrected / "state", bundle, ["low", "high"]).tracks
    assert all(track.kept for track in before)
    clips, _ = hear.hear(bundle, listening(bundle), before, tmp_path / "cache", 1, lambda _: None)
    assert {clip.sound for clip in clips} == {hear.sound_digest(file) for file in files}, "known again by its sound"
    away = shutil.move(corrected / "sirens", tmp_path / "away")
    try:
        found = fit_bundle(
            corrected / "state", tmp_path / "more", Options(tmp_path / "cache", place / "new"), lambda _: None
        )
    finally:
        shutil.move(away, corrected / "sirens")
    assert found.tracks == 6 and not found.read.left_out
    assert found.accuracies["ladder"][0] == 1.0


@pytest.mark.parametrize(("there", "in_state", "unknown"), [(True, False, 0), (False, True, 0), (False, False, 6)])
def test_tracks_of_kept_embeddings_are_known_again(
    place: Path, corrected: Path, tmp_path: Path, there: bool, in_state: bool, unknown: int
) -> None:
    shutil.copy(corrected / "state", tmp_path / "state")
    digests = {one: hear.sound_digest(one) for one in sorted((corrected / "sirens").rglob("*.wav"))}
    with State.open(tmp_path / "state", write=True) as state:
        for track in list(state.tracks()):
            digest = digests.get(track.file) if in_state else None
            state.connection.execute("UPDATE track SET audio_hash = ? WHERE id = ?", (digest, track.id))
        state.connection.commit()
    base = load(place / "new")
    heard = listening(base)
    away = corrected / "sirens" if there else shutil.move(corrected / "sirens", tmp_path / "away")
    try:
        read = from_state(tmp_path / "state", base, list(heard.inputs))
        found = gather(base, heard, read.tracks, [], tmp_path / "cache", 1, lambda _: None)
    finally:
        if not there:
            shutil.move(away, corrected / "sirens")
    examples = found.examples
    assert sum(not example.sound for example in examples) == unknown and len(digests) == len(examples) == 6
    if not unknown:
        assert {example.sound for example in examples} == set(digests.values())


def test_kept_embeddings_that_float16_could_not_hold(place: Path, corrected: Path, tmp_path: Path) -> None:
    shutil.copy(corrected / "state", tmp_path / "state")
    with State.open(tmp_path / "state", write=True) as state:
        vector = np.zeros(made.PARTS, "<f2")
        vector[:3] = np.inf, -np.inf, np.nan
        state.connection.execute("UPDATE embedding SET vector = ? WHERE stage = 'low'", (vector.tobytes(),))
        state.connection.commit()
    found = from_state(tmp_path / "state", load(place / "new"), ["low", "high"]).tracks
    assert len(found) == 6
    for track in found:
        assert track.kept is not None
        assert np.frombuffer(track.kept["low"], "<f2")[:4].tolist() == [65504.0, -65504.0, 0.0, 0.0]
        assert np.frombuffer(track.kept["high"], "<f2").any()


def test_a_track_that_was_corrected_is_not_remembered_as_what_it_was(place: Path, tmp_path: Path) -> None:
    bundle = load(place / "new")
    heard = listening(bundle)
    read = read_data(place / "music").tracks
    tracks = [*(replace(one, genre="Siren") for one in read[:6]), *read[6:9]]
    cache = Path(shutil.copy(place / "new.cache", tmp_path / "cache"))
    found = gather(bundle, heard, tracks, recall(bundle, heard), cache, 1, lambda _: None, mixed=True)
    assert len(found.in_base) == 9 and sum(one.remembered for one in found.examples) == 24 - 6


def test_the_genres_of_the_base_can_be_kept(place: Path, tmp_path: Path) -> None:
    made.folders(tmp_path / "music", ("Drone", "Siren"), artists=3, first=70)
    (tmp_path / "music" / "Drone").rename(tmp_path / "music" / "dro-ne")
    arguments = ("--bundle", place / "new", "--keep-genres", "--threads", 1)
    done = run("fit", tmp_path / "music", "-o", tmp_path / "more", *arguments)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "more").manifest.genres == [*made.GENRES, "Siren"], "dro-ne is Drone"


def test_kept_embeddings_have_no_copies_and_it_is_said(place: Path, corrected: Path, tmp_path: Path) -> None:
    base, said = load(place / "new"), list[str]()
    heard = listening(base)
    read = from_state(corrected / "state", base, list(heard.inputs))
    found = gather(base, heard, read.tracks, [], tmp_path / "cache", 1, said.append, copies=2)
    assert not any(example.copies for example in found.examples)
    assert [line for line in said if line.startswith("warning: 6 tracks have fewer than 2 copies")]


def test_refusals(place: Path, corrected: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        done = run("fit", *arguments, "--cache", tmp_path / "cache")
        assert done.returncode == 2, done.stdout
        assert not (tmp_path / "out").exists()
        return done.stderr

    out = ("-o", tmp_path / "out", "--bundle", place / "base")
    assert "does not keep embeddings" in refused(corrected / "state", *out)
    kept = ("-o", tmp_path / "out", "--bundle", place / "new", "--head", "mlp")
    assert "leave --head out" in refused(corrected / "state", *kept)
    shutil.copy(corrected / "state", tmp_path / "odd.state")
    with State.open(tmp_path / "odd.state", write=True) as state:
        track = next(iter(state.tracks(Wanted(status="corrected"))))
        state.connection.execute("UPDATE correction SET genre = ? WHERE track = ?", ("Si\u202eren", track.id))
        state.connection.commit()
    assert "character U+202E; rename it" in refused(tmp_path / "odd.state", *kept[:4])
    empty = tmp_path / "empty.state"
    run("classify", place / "music" / "Loop", "--bundle", place / "base", "--state", empty, "--workers", 0)
    assert "nobody has said of a track what it is" in refused(empty, *out)
    assert not (tmp_path / "cache").exists(), "before anything is heard"
