"""``edge-reclass tag`` as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

import tagged
from command import bundle, run  # noqa: F401
from edge_reclass.library.state import State
from edge_reclass.library.tags import read, session, writing
from edge_reclass.library.tags.writing import Found

pytest.importorskip("mutagen", reason="tags are written with mutagen (extra [tags])")


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Four tracks: without a genre, with one, unsure, and wrong as a person said."""
    root = tmp_path / "songs"
    root.mkdir()
    for name, genres in {"none.flac": [], "pop.mp3": ["Pop"], "unsure.wav": [], "said.m4a": []}.items():
        tagged.tag(tagged.write(root / name), genres)
    return root


@pytest.fixture
def library(songs: Path, tmp_path: Path) -> Path:
    verdicts = [
        tagged.verdict(songs / "none.flac", "Rock", 0.93),
        tagged.verdict(songs / "pop.mp3", "Hip-Hop", 0.6),
        tagged.verdict(songs / "unsure.wav", None, 0.3),
        tagged.verdict(songs / "said.m4a", "Rock", 0.8),
    ]
    file = tagged.state(tmp_path / "library.db", verdicts, songs)
    with State.open(file, write=True) as state:
        row = state.track(songs / "said.m4a")
        assert row is not None
        state.correct(row.id, "Folk")
    return file


def content(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.iterdir())
    }


def genres(folder: Path) -> dict[str, tuple[str, ...]]:
    return {path.name: read(path).genres for path in sorted(folder.iterdir())}


def test_a_dry_run_shows_and_writes_nothing(library: Path, songs: Path) -> None:
    before, state = content(songs), library.read_bytes()
    done = run("tag", library)
    assert done.returncode == 0, done.stderr
    assert f"{songs}/none.flac\n    Vorbis comment: none → Rock  0.93\n" in done.stdout
    assert "none → Folk  corrected" in done.stdout
    assert "pop.mp3" not in done.stdout
    assert "2 files would be written, 1 have a genre, 1 without a sure genre; --write writes them" in done.stderr
    assert content(songs) == before
    assert library.read_bytes() == state


def test_write_and_undo(library: Path, songs: Path) -> None:
    before = content(songs)
    done = run("tag", library, "--write", "--replace")
    assert done.returncode == 0, done.stderr
    assert "Pop → Hip-Hop  0.60\n    original genre: Pop\n" in done.stdout
    assert genres(songs) == {"none.flac": ("Rock",), "pop.mp3": ("Hip-Hop",), "said.m4a": ("Folk",), "unsure.wav": ()}
    with State.open(library) as state:
        for row in state.tracks():
            status = row.file.stat()
            assert (row.size, row.mtime_ns) == (status.st_size, status.st_mtime_ns), "our own write is no change"
    again = run("tag", library, "--write", "--replace")
    assert (again.returncode, again.stdout) == (0, "")
    assert "0 files written, 3 need no change" in again.stderr
    listed = run("tag", library, "--runs").stdout.split()
    assert (listed[0], listed[2:]) == ("1", ["3", "files"])
    undone = run("tag", library, "--undo")
    assert undone.returncode == 0, undone.stderr
    assert "3 files taken back" in undone.stderr
    assert content(songs) == before
    with State.open(library) as state:
        assert all(row.mtime_ns == row.file.stat().st_mtime_ns for row in state.tracks())
    assert "taken back" in run("tag", library, "--runs").stdout
    assert "0 files taken back" in run("tag", library, "--undo").stderr


def test_runs_are_undone_one_by_one_or_all(library: Path, songs: Path) -> None:
    before = content(songs)
    run("tag", library, "--write", "--replace", songs / "pop.mp3")
    middle = content(songs)
    assert middle != before
    assert run("tag", library, "--write", "--append", "--top", "2", songs / "pop.mp3").returncode == 0
    assert read(songs / "pop.mp3").genres == ("Hip-Hop", "Blues")
    refused = run("tag", library, "--undo", "--run", "1")
    assert refused.returncode == 3
    assert "pop.mp3: refused: it was changed after this run wrote it" in refused.stderr
    assert run("tag", library, "--undo", "--run", "2").returncode == 0
    assert content(songs) == middle
    run("tag", library, "--write", "--append", "--top", "2")
    assert run("tag", library, "--undo").returncode == 0
    assert content(songs) == before
    assert run("tag", library, "--undo", "--run", "77").returncode == 2


def test_rules(library: Path, songs: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.yaml"
    names.write_text("Hip-Hop: Rap\nRock: null\nPolka: R&B/Soul\n")
    done = run("tag", library, "--replace", "--top", "3", "--join", "; ", "--map", names, "--min-confidence", "0.5")
    assert "Pop → Rap; Blues" in done.stdout
    assert "none.flac\n    Vorbis comment: none → Blues" in done.stdout
    assert "'R&B/Soul'" in done.stderr
    assert "--map names Polka, which no track here has" in done.stderr
    assert "pop.mp3" not in run("tag", library, "--replace", "--min-confidence", "0.7").stdout
    for text, reason in {
        "Rock: '17'": "is a number",
        "Rock: 17": "expected a name, got 17",
        "Rock: RX": "Remix",
        "Rock: ''": "empty",
        "Rock: no": "quotes",
        "Rock: (x": "bracket",
        "- Rock": "lines of the form",
        "Rock: [": "cannot be read",
    }.items():
        names.write_text(text)
        bad = run("tag", library, "--map", names)
        assert (bad.returncode, reason in bad.stderr) == (2, True), (text, bad.stderr)


def test_verdicts_and_a_journal(songs: Path, tmp_path: Path) -> None:
    before = content(songs)
    lines = [tagged.verdict(songs / name, "Jazz").to_json() for name in ("none.flac", "pop.mp3", "said.m4a")]
    verdicts, journal = tmp_path / "v.jsonl", tmp_path / "journal.db"
    verdicts.write_text("\n".join(lines) + "\n")
    assert "expected --journal FILE" in run("tag", verdicts, "--write").stderr
    assert run("tag", verdicts, "--write", "--journal", journal, "--replace").returncode == 0
    assert genres(songs)["pop.mp3"] == ("Jazz",)
    # Another genre, from the same list: it is our own write that has changed the files since.
    verdicts.write_text(json.dumps([json.loads(line.replace("Jazz", "Dub")) for line in lines]))
    verdicts.rename(tmp_path / "v.json")
    assert run("tag", tmp_path / "v.json", "--write", "--journal", journal, "--replace").returncode == 0
    assert genres(songs)["pop.mp3"] == ("Dub",)
    assert run("tag", "--journal", journal, "--undo").returncode == 0
    assert content(songs) == before
    (tmp_path / "v.json").write_text("[1]")
    assert run("tag", tmp_path / "v.json").returncode == 2


def test_paths_are_classified_first(songs: Path, bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    (songs / "unsure.wav").unlink()
    done = run("tag", songs, "--bundle", bundle, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "none.flac" in done.stdout
    assert "pop.mp3" not in done.stdout
    assert run("tag", songs / "missing.flac", "--bundle", bundle).returncode == 3


def test_what_is_refused(library: Path, songs: Path, tmp_path: Path) -> None:
    """Each for its reason; the others are written."""
    outside = tagged.write(tmp_path / "outside.flac")
    shutil.copy(songs / "none.flac", songs / "linked.flac")
    os.link(songs / "linked.flac", tmp_path / "twin.flac")
    for name in ("changed.flac", "readonly.flac", "good.flac"):
        shutil.copy(songs / "none.flac", songs / name)
    (songs / "readonly.flac").chmod(0o444)
    (songs / "caf.caf").write_bytes(b"caff" + bytes(100))
    (songs / "out.flac").symlink_to(outside)
    (songs / "inside.flac").symlink_to("good.flac")
    names = ["linked", "changed", "readonly", "good", "out", "inside", "gone"]
    verdicts = [tagged.verdict(songs / f"{name}.flac") for name in names] + [tagged.verdict(songs / "caf.caf")]
    tagged.tag(songs / "changed.flac", [], big=True)
    tagged.write(songs / "changed.flac", seconds=1.5)
    file = tagged.state(tmp_path / "other.db", verdicts, songs)
    before = content(songs)
    done = run("tag", file, "--write")
    assert done.returncode == 3
    for name, reason in {
        "changed.flac: refused": "it has changed since it was listed; classify it again",
        "readonly.flac: refused": "read-only",
        "out.flac: refused": "it is a link that leads out of what was named",
        "gone.flac: refused": "cannot be read (No such file or directory)",
        "caf.caf: refused": "tags of caf files are not written",
        "linked.flac: linked": "it has 2 names",
    }.items():
        assert f"{name}: {reason}" in done.stderr, done.stderr
    assert "1 file written, 1 named twice, 1 skipped, hard-linked (--hard-links break), 5 refused" in done.stderr
    assert read(songs / "good.flac").genres == ("Rock",)
    assert (songs / "inside.flac").is_symlink()
    changed = {name for name, was in content(songs).items() if was != before[name]}
    assert changed == {"good.flac", "inside.flac"}
    with State.open(file) as state:
        for name in ("good.flac", "inside.flac"):
            row = state.track(songs / name)
            assert row is not None
            assert row.mtime_ns == (songs / name).stat().st_mtime_ns
    twin = (tmp_path / "twin.flac").read_bytes()
    assert run("tag", file, "--write", "--hard-links", "break", songs / "linked.flac").returncode == 0
    assert read(songs / "linked.flac").genres == ("Rock",)
    assert (tmp_path / "twin.flac").read_bytes() == twin


def test_a_read_only_file_that_needs_nothing_is_no_failure(library: Path, songs: Path) -> None:
    (songs / "pop.mp3").chmod(0o444)
    assert run("tag", library, "--write").returncode == 0
    refused = run("tag", library, "--write", "--replace")
    assert (refused.returncode, "pop.mp3: refused: read-only" in refused.stderr) == (3, True)


def test_other_taggers_may_write_in_between(library: Path, songs: Path) -> None:
    from edge_reclass.audio import audio_hash

    pytest.importorskip("av")
    with State.open(library, write=True) as state, state.transaction():
        state.connection.execute(
            "UPDATE track SET audio_hash = ? WHERE genre = 'Rock' AND id = 1", (audio_hash(songs / "none.flac"),)
        )
    tagged.tag(songs / "none.flac", [], big=True)
    assert run("tag", library, "--write").returncode == 0
    assert read(songs / "none.flac").genres == ("Rock",)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    path = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9\x1b[31m.flac"))
    tagged.write(path)
    file = tagged.state(tmp_path / "s.db", [tagged.verdict(path)], folder)
    done = run("tag", file, "--write")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert read(path).genres == ("Rock",)
    assert run("tag", file, "--undo").returncode == 0


def test_wrong_usage(library: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing here").mkdir()
    for arguments, reason in (
        ((), "expected a STATE"),
        ((library, "--fill", "--replace"), "expected one of"),
        ((library, "--hard-links", "copy"), "skip or break"),
        ((library, "--min-confidence", "60"), "from 0 to 1"),
        ((library, "--write", "--undo"), "expected one of them"),
        ((library, "--run", "1"), "goes with --undo"),
        ((library, "--journal", tmp_path / "j.db"), "journal of its own"),
        ((library, tmp_path / "elsewhere"), "no tracks in"),
        ((tmp_path / "nothing here",), "no audio found in"),
        ((tmp_path, library), "in front of the paths"),
        ((tmp_path / "none", "--undo"), "expected the STATE"),
        (("--undo", "--journal", tmp_path / "none.db"), "no such journal"),
    ):
        done = run("tag", *arguments)
        assert (done.returncode, reason in done.stderr) == (2, True), (arguments, done.stderr)
        assert "would be written" not in done.stderr
    assert not (tmp_path / "j.db").exists()


def test_a_track_that_was_classified_by_its_name_is_taken(library: Path, tmp_path: Path) -> None:
    alone = tagged.write(tmp_path / "alone.flac")
    link = tmp_path / "link.flac"
    link.symlink_to(tagged.write(tmp_path / "other.flac"))
    file = tagged.state(tmp_path / "one.db", [tagged.verdict(alone), tagged.verdict(link)], tmp_path / "songs")
    assert run("tag", file, "--write").returncode == 0
    assert read(alone).genres == read(link).genres == ("Rock",)


def test_what_is_taken_back_says_nothing_of_a_track_that_moved_away(library: Path, songs: Path) -> None:
    assert run("tag", library, "--write").returncode == 0
    moved = songs / "moved.flac"
    shutil.copy(songs / "none.flac", moved)
    with State.open(library, write=True) as state, state.transaction():
        row = state.track(songs / "none.flac")
        assert row is not None
        state.moved(row.id, moved, moved.stat())
    assert run("tag", library, "--undo").returncode == 0
    with State.open(library) as state:
        row = state.track(moved)
        assert row is not None and (row.size, row.mtime_ns) == (moved.stat().st_size, moved.stat().st_mtime_ns)


def test_an_undo_that_is_killed_leaves_no_temporary_file(
    library: Path, songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class _KilledError(BaseException):
        pass

    def kill(*_: object) -> None:
        raise _KilledError

    before = content(songs)
    assert run("tag", library, "--write").returncode == 0
    left = songs / ".edge-reclass-1-0.tmp"
    with monkeypatch.context() as patch:
        patch.setattr(writing, "take_back", lambda *_: left.touch() or kill())
        with pytest.raises(_KilledError):
            run("tag", library, "--undo")
    assert left.exists()
    done = run("tag", library, "--undo")
    assert done.returncode == 0, done.stderr
    assert content(songs) == before
    assert run("tag", library, "--runs").stdout.count("taken back") == 1


def test_what_a_crash_left_open_is_listed_and_undone_once_the_file_is_there(library: Path, songs: Path) -> None:
    before = content(songs)
    assert run("tag", library, "--write").returncode == 0
    with State.open(library, write=True) as state:
        state.connection.execute("UPDATE journal_step SET done = 0")
    songs.rename(songs.with_name("away"))
    for _ in range(2):
        done = run("tag", library, "--undo")
        assert done.returncode == 3
        assert "none.flac: refused: cannot be read (No such file or directory)" in done.stderr
        assert "0 files taken back, 2 refused" in done.stderr
    songs.with_name("away").rename(songs)
    assert run("tag", library, "--undo").returncode == 0
    assert content(songs) == before


def test_one_track_that_cannot_be_written_stops_no_other(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = [
        tagged.verdict(songs / "none.flac", "2000"),
        tagged.verdict(songs / "said.m4a", "Jazz"),
        tagged.verdict(songs / "unsure.wav", "Folk"),
    ]
    file = tagged.state(tmp_path / "s.db", verdicts, songs)
    look = session.look

    def odd(path: Path) -> Found:
        if path.suffix == ".m4a":
            raise RecursionError("too deep")
        return look(path)

    monkeypatch.setattr(session, "look", odd)
    done = run("tag", file, "--write")
    assert done.returncode == 3
    assert "none.flac: refused: the genre name '2000' is a number" in done.stderr
    assert "said.m4a: refused: cannot be handled (RecursionError: too deep)" in done.stderr
    assert "1 file written, 2 refused" in done.stderr
    assert genres(songs)["unsure.wav"] == ("Folk",)


@pytest.mark.parametrize("change", [{"path": 3}, {"path": "a\0b"}, {"genre": 2000}, {"size": "1"}])
def test_verdicts_of_wrong_types(change: dict[str, object], songs: Path, tmp_path: Path) -> None:
    plain = tagged.verdict(songs / "none.flac").to_dict() | change
    (tmp_path / "v.jsonl").write_text(json.dumps(plain) + "\n")
    done = run("tag", tmp_path / "v.jsonl")
    assert done.returncode == 2
    assert f"{next(iter(change))}: got" in done.stderr


def test_what_we_wrote_ourselves_is_no_original_genre(songs: Path, tmp_path: Path) -> None:
    files = ["none.flac", "pop.mp3"]
    first = tagged.state(tmp_path / "s.db", [tagged.verdict(songs / name, "Jazz") for name in files], songs)
    assert run("tag", first, "--write", "--append").returncode == 0
    with State.open(first, write=True) as state:
        for name in files:
            row = state.track(songs / name)
            assert row is not None
            state.correct(row.id, "Rock")
    shown = run("tag", first, "--replace").stdout
    done = run("tag", first, "--write", "--replace")
    assert done.returncode == 0, done.stderr
    for text in (shown, done.stdout):
        assert text.count("original genre: ") == text.count("original genre: Pop\n") == 1


def test_verdicts_of_a_file(songs: Path, tmp_path: Path) -> None:
    """One that says unsure has no genre; a link may lead to what was listed, and not beside it."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "link.flac").symlink_to(songs / "none.flac")
    (songs / "sub").mkdir()
    tagged.write(songs / "sub" / "a.flac")
    unsure = tagged.verdict(songs / "sub" / "a.flac", "Jazz").to_dict() | {"status": "unsure"}
    lines = [json.dumps(unsure), tagged.verdict(tmp_path / "lists" / "link.flac").to_json()]
    (tmp_path / "v.jsonl").write_text("\n".join(lines))
    done = run("tag", tmp_path / "v.jsonl")
    assert done.returncode == 3
    assert "link.flac: refused: it is a link that leads out of what was named" in done.stderr
    assert "0 files would be written, 1 without a sure genre, 1 refused" in done.stderr
