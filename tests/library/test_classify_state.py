"""``classify --state``: what is done, what is passed over, and what the state says of it afterwards."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bundles
from command import run
from edge_reclass.library import scanning
from edge_reclass.library.recording import find_suspects
from edge_reclass.library.rows import Wanted
from edge_reclass.library.state import State
from libraries import Library, library, small_bundle

__all__ = ["library", "small_bundle"]

ALL = ["album/one.flac", "album/two.flac", "three.wav"]


def touch(path: Path, seconds: int = 1) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 10**9))


def test_a_second_run_has_nothing_to_do(library: Library) -> None:
    assert library.done() == ALL
    before = library.rows()
    again = library.classify()
    assert (again.returncode, again.stdout) == (0, "")
    assert "3 unchanged" in again.stderr
    assert library.rows().keys() == before.keys()
    assert all(library.rows()[name].verdict_json == row.verdict_json for name, row in before.items())


def test_the_row_holds_the_whole_verdict(library: Library) -> None:
    library.done()
    row = library.rows()["three.wav"]
    verdict = row.verdict
    assert verdict is not None and verdict.path == str(library.music / "three.wav")
    assert (row.genre, row.confidence, row.status) == (verdict.genre, pytest.approx(verdict.confidence), verdict.status)
    assert (row.size, row.mtime_ns) == (verdict.size, verdict.mtime_ns)
    assert row.bundle_digest == verdict.bundle_digest and verdict.stages


def test_new_and_changed_tracks_are_done(library: Library) -> None:
    library.done()
    library.add("four.wav")
    library.add("three.wav", seed=99, seconds=1.5)
    assert library.done() == ["four.wav", "three.wav"]
    assert library.done() == []


def test_a_name_that_is_no_utf8(library: Library) -> None:
    odd = os.fsencode(library.music) + b"/caf\xe9 \x1b.wav"
    (library.music / "three.wav").rename(os.fsdecode(odd))
    ran = library.classify()
    assert ran.returncode == 0, ran.stderr
    assert library.done() == []
    with State.open(library.file) as state:
        assert odd in {row.path for row in state.tracks()}


@pytest.mark.parametrize(
    "options", [("--min-confidence", "0.9"), ("--policy", "short"), ("--redo",)], ids=["limit", "policy", "redo"]
)
def test_what_changes_verdicts_makes_them_stale(library: Library, options: tuple[str, ...], tmp_path: Path) -> None:
    bundle = shutil.copytree(library.bundle, tmp_path / "two policies")
    manifest = bundles.read_manifest(bundle)
    policies = manifest["policies"] | {"short": {"vote": "soft", "steps": [{"after": "mert", "weights": {"mert": 2}}]}}
    bundles.edit_manifest(bundle, policies=policies)
    library = Library(library.root, bundle)
    library.done()
    assert library.done(*options) == ALL
    assert library.done(*options) == (ALL if options == ("--redo",) else [])


def test_another_bundle_makes_verdicts_stale(library: Library, tmp_path: Path) -> None:
    library.done()
    other = shutil.copytree(library.bundle, tmp_path / "other")
    bundles.edit_manifest(other, min_confidence=0.1)
    assert Library(library.root, other).done() == ALL


def test_moved_tracks_keep_their_verdicts(library: Library) -> None:
    library.done()
    with State.open(library.file, write=True) as state:
        state.correct(library.rows()["three.wav"].id, "Beta")
    (library.music / "three.wav").rename(library.music / "album" / "moved.wav")
    # To another disk: the inode is another one, and a copy that keeps no times has another time too.
    shutil.copyfile(library.music / "album" / "one.flac", library.music / "copied.flac")
    (library.music / "album" / "one.flac").unlink()
    ran = library.classify()
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert "2 moved" in ran.stderr
    rows = library.rows()
    assert set(rows) == {"album/moved.wav", "album/two.flac", "copied.flac"}
    assert rows["album/moved.wav"].corrected == "Beta"
    assert rows["album/moved.wav"].verdict.path == str(library.music / "album" / "moved.wav")
    assert library.done() == []


def test_another_sound_in_the_place_of_one_that_went_is_new(library: Library) -> None:
    """Of the same size, and very likely with the inode of the one that was deleted."""
    library.done()
    (library.music / "three.wav").unlink()
    library.add("new.wav", seed=5)
    assert library.done() == ["new.wav"]
    assert set(library.rows(Wanted(absent=True))) == {"three.wav"}


def test_another_taggers_write_keeps_the_verdict(library: Library) -> None:
    flac = pytest.importorskip("mutagen.flac", reason="mutagen is not installed")
    library.done()
    before = library.rows()["album/one.flac"]
    opened = flac.FLAC(library.music / "album" / "one.flac")
    opened["genre"] = "Polka" * 2000
    opened.save()
    touch(library.music / "album" / "one.flac")
    ran = library.classify()
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert "1 with new tags only" in ran.stderr
    after = library.rows()["album/one.flac"]
    assert after.size != before.size and after.verdict_json == before.verdict_json
    (library.music / "album" / "one.flac").rename(library.music / "album" / "0.flac")
    opened["genre"] = "Ska"
    opened.save(library.music / "album" / "0.flac")
    assert library.done() == []  # renamed and retagged at once
    assert "album/0.flac" in library.rows()


def test_deleted_tracks_are_absent_until_they_return(library: Library) -> None:
    library.done()
    aside = library.root / "aside.flac"
    (library.music / "album" / "two.flac").rename(aside)
    assert library.done() == []
    absent = library.rows(Wanted(absent=True))
    assert set(absent) == {"album/two.flac"} and absent["album/two.flac"].verdict is not None
    since = absent["album/two.flac"].absent_since
    assert library.done() == [] and library.rows()["album/two.flac"].absent_since == since
    aside.rename(library.music / "album" / "two.flac")
    assert library.done() == [] and not library.rows(Wanted(absent=True))


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_root_that_is_not_mounted(library: Library, how: str) -> None:
    library.done()
    library.music.rename(library.root / "elsewhere")
    if how == "empty":
        library.music.mkdir()
    ran = library.classify()
    assert ran.returncode == 2 and "not mounted?" in ran.stderr
    assert not library.rows(Wanted(absent=True))


def test_a_disk_below_the_root_that_is_not_mounted(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracks of the album were on a disk of their own, of which nothing is there: its mount point is empty."""
    library.done()
    with State.open(library.file, write=True) as state:
        state.connection.execute(
            "UPDATE track SET device = device + 1 WHERE instr(path, ?)", (os.fsencode(library.music / "album"),)
        )
    for track in (library.music / "album").iterdir():
        track.unlink()
    ran = library.classify()
    assert ran.returncode == 2 and "not mounted?" in ran.stderr
    assert not library.rows(Wanted(absent=True))


def test_another_number_of_the_same_disk_is_no_other_disk(library: Library) -> None:
    """A machine that starts may count its disks in another order."""
    library.done()
    with State.open(library.file, write=True) as state:
        state.connection.execute("UPDATE track SET device = device + 1")
        state.connection.execute("UPDATE root SET device = device + 1")
    (library.music / "album" / "one.flac").unlink()
    assert library.done() == []
    assert set(library.rows(Wanted(absent=True))) == {"album/one.flac"}


def test_a_disk_that_goes_while_it_is_read(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    look = scanning.look

    def look_and_unmount(*arguments: object) -> scanning.Work:
        work = look(*arguments)
        library.music.rename(library.root / "elsewhere")
        return work

    library.done()
    library.add("three.wav", seed=1)
    library.add("four.wav")
    monkeypatch.setattr("edge_reclass.cli.library.updating.look", look_and_unmount)
    ran = library.classify()
    assert ran.returncode == 2 and "not mounted?" in ran.stderr
    assert not library.rows(Wanted(absent=True)) and library.rows()["three.wav"].status == "ok"


def test_a_folder_that_cannot_be_listed_marks_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.done()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("album"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert library.done(code=3) == []
    assert not library.rows(Wanted(absent=True))


def test_links_to_one_file_are_classified_once(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    os.link(library.music / "three.wav", library.music / "album" / "hard.wav")
    (library.music / "soft.wav").symlink_to("three.wav")
    marked = []
    mark = "edge_reclass.library.recording.Recorder.mark"
    from edge_reclass.library.recording import Recorder

    original = Recorder.mark
    monkeypatch.setattr(mark, lambda self, track: marked.append(track) or original(self, track))
    assert sorted(library.done()) == sorted([*ALL, "album/hard.wav", "soft.wav"])
    assert len(marked) == 3
    rows = library.rows()
    assert rows["soft.wav"].confidence == rows["three.wav"].confidence
    assert rows["soft.wav"].verdict.path == str(library.music / "soft.wav")
    os.link(library.music / "three.wav", library.music / "later.wav")
    ran = library.classify()
    assert ran.stdout == "" and "1 of files known by another name" in ran.stderr
    assert library.rows()["later.wav"].genre == rows["three.wav"].genre


def test_failures_are_tried_again_when_asked(library: Library) -> None:
    (library.music / "bad.mp3").write_bytes(b"no sound" * 100)
    assert "bad.mp3" in library.done(code=3)
    assert library.done() == []
    assert library.done("--retry-failed", code=3) == ["bad.mp3"]
    with State.open(library.file, write=True) as state:
        state.connection.execute("UPDATE track SET program = 'edge-reclass 0.0.1' WHERE status <> 'ok'")
    assert library.done(code=3) == ["bad.mp3"]  # a new program may know better


def test_a_named_track_that_never_was(library: Library) -> None:
    library.done()
    ran = library.classify(paths=[library.music / "typo.wav"])
    assert ran.returncode == 3 and '"missing"' in ran.stdout
    assert "typo.wav" not in library.rows()


def test_shards_share_the_library(library: Library) -> None:
    for number in range(20):
        library.add(f"many/{number}.wav", seed=number)
    parts = []
    for index in (1, 2):
        part = Library(library.root, library.bundle)
        ran = part.classify("--shard", f"{index}/2", "--state", library.root / f"{index}.state")
        assert ran.returncode == 0, ran.stderr
        parts.append(set(ran.stdout.splitlines()))
    assert all(parts) and not parts[0] & parts[1] and sum(map(len, parts)) == 23


def test_a_shard_may_be_empty(library: Library) -> None:
    """Also without a state; a folder without music is still an error."""
    only = library.music / "three.wav"
    ran = [run("classify", only, "--bundle", library.bundle, "-f", "jsonl", "--shard", f"{n}/2") for n in (1, 2)]
    assert [part.returncode for part in ran] == [0, 0], ran
    assert sorted(part.stdout.count("\n") for part in ran) == [0, 1]
    (library.root / "empty").mkdir()
    refused = run("classify", library.root / "empty", "--bundle", library.bundle, "--shard", "1/2")
    assert refused.returncode == 2 and "no audio found" in refused.stderr


def test_embeddings_are_kept_on_request(library: Library) -> None:
    library.done()
    assert library.done("--keep-embeddings") == ALL
    assert library.done("--keep-embeddings") == []
    with sqlite3.connect(library.file) as db:
        kept = db.execute("SELECT stage, vector FROM embedding").fetchall()
    assert {stage for stage, _ in kept} == {"mert"} and len(kept) == 3
    from edge_reclass import Cascade

    with Cascade.open(library.bundle) as cascade:
        expected = cascade.embed(library.music / "album" / "one.flac")["mert"]
    found = [np.frombuffer(vector, "<f2") for _, vector in kept]
    assert any(np.allclose(vector, expected, rtol=1e-2) for vector in found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-o", "all.jsonl"), "library export"),
        (("--shard", "3/2"), "expected I/N"),
        (("--shard", "0/2"), "expected I/N"),
    ],
)
def test_refused_options(library: Library, options: tuple[str, ...], said: str) -> None:
    ran = library.classify(*options)
    assert ran.returncode == 2 and said in ran.stderr
    assert not library.file.exists()


def test_nothing_to_do_is_an_empty_list_for_programs(library: Library) -> None:
    library.done()
    assert library.classify("-f", "json").stdout == "[\n]\n"
    assert library.classify("-f", "table").stdout == ""


def test_a_reader_that_leaves_leaves_no_suspects(library: Library) -> None:
    """``| head``: what was classified by then is kept, and nothing counts as in progress."""
    for number in range(40):
        library.add(f"{number}.wav", seed=number)
    command = f"{sys.executable} -m edge_reclass classify {library.music} --state {library.file} -f jsonl"
    subprocess.run(f"{command} --bundle {library.bundle} | head -1", shell=True, check=True, capture_output=True)
    with State.open(library.file, write=True) as state:
        assert find_suspects(state) == 0
    known = sum(row.status is not None for row in library.rows().values())
    assert known >= 1 and len(library.done()) == 43 - known


def test_a_run_that_found_nothing_leaves_no_state(library: Library) -> None:
    (library.root / "no music").mkdir()
    ran = library.classify(paths=[library.root / "no music"])
    assert ran.returncode == 2 and "no audio found" in ran.stderr
    assert library.classify("--device", "nonsense").returncode == 2
    assert not [path for path in library.root.iterdir() if path.name.startswith("library.state")]
    library.done()
    assert library.classify(paths=[library.root / "no music"]).returncode == 2 and len(library.rows()) == 3
