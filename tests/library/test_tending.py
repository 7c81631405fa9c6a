"""``library forget``, ``vacuum`` and ``merge``."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from command import run
from edge_reclass.errors import EdgeReclassError
from edge_reclass.library.rows import Wanted
from edge_reclass.library.state import State
from edge_reclass.library.tending import merge
from libraries import Library, library, small_bundle

__all__ = ["library", "small_bundle"]


def test_forget_takes_a_track_a_folder_or_what_is_absent(library: Library) -> None:
    library.add("album, live/four.wav")
    library.done("--keep-embeddings")
    (library.music / "three.wav").unlink()
    library.done("--keep-embeddings")
    assert run("library", "forget", library.file, "--absent").returncode == 0
    assert set(library.rows()) == {"album/one.flac", "album/two.flac", "album, live/four.wav"}
    refused = run("library", "forget", library.file, library.music / "alb")
    assert refused.returncode == 2 and "nothing was forgotten" in refused.stderr
    assert run("library", "forget", library.file, library.music / "album").returncode == 0
    assert set(library.rows()) == {"album, live/four.wav"}
    with sqlite3.connect(library.file) as db:
        assert db.execute("SELECT count(*) FROM embedding").fetchone() == (1,)
    assert run("library", "forget", library.file).returncode == 2
    assert library.done() == ["album/one.flac", "album/two.flac"]


def test_vacuum_makes_the_file_smaller(library: Library) -> None:
    library.done()
    with State.open(library.file, write=True) as state, state.transaction():
        for number in range(3000):
            state.connection.execute(
                "INSERT INTO track (path, verdict, first_seen, last_seen) VALUES (?, ?, '', '')",
                (b"/gone/%d" % number, "x" * 300),
            )
    run("library", "forget", library.file, "/gone")
    before = library.file.stat().st_size
    ran = run("library", "vacuum", library.file)
    assert ran.returncode == 0 and "MB, now" in ran.stderr
    assert library.file.stat().st_size < before / 4
    assert library.done() == []


def test_shards_are_merged_into_what_one_run_would_know(library: Library) -> None:
    for number in range(10):
        library.add(f"{number}.wav", seed=number)
    parts = [library.root / f"{index}.state" for index in (1, 2)]
    for index, part in enumerate(parts, 1):
        assert library.classify("--shard", f"{index}/2", "--state", part, "--keep-embeddings").returncode == 0
    ran = run("library", "merge", library.file, *parts)
    assert ran.returncode == 0, ran.stderr
    assert library.done("--keep-embeddings") == []
    whole = Library(library.root / "w", library.bundle)
    whole.root.mkdir()
    whole.music.symlink_to(library.music)
    whole.done()

    def said(of: Library) -> dict[str, tuple[object, ...]]:
        return {name: (row.status, row.genre, row.confidence) for name, row in of.rows().items()}

    assert said(library) == said(whole)


def test_the_later_verdict_and_the_later_correction_stay(library: Library) -> None:
    library.done()
    other = library.root / "other.state"
    assert library.classify("--state", other).returncode == 0
    with State.open(other, write=True) as state, state.transaction():
        db = state.connection
        db.execute("UPDATE track SET verdict = json_set(verdict, '$.at', '2999'), genre = 'Beta' WHERE path LIKE '%'")
        db.execute(
            "UPDATE track SET verdict = json_set(verdict, '$.at', '1999'), genre = 'Gamma' WHERE instr(path, ?)",
            (b"one.flac",),
        )
        db.execute("INSERT INTO correction SELECT id, 'Alpha', '1999' FROM track WHERE instr(path, ?)", (b"three",))
        db.execute("INSERT INTO correction SELECT id, 'Alpha', '2999' FROM track WHERE instr(path, ?)", (b"two",))
    for name, genre in (("three.wav", "Gamma"), ("album/two.flac", "Beta")):
        with State.open(library.file, write=True) as state:
            state.correct(library.rows()[name].id, genre)
    before = library.rows()["album/one.flac"].genre
    assert run("library", "merge", library.file, other).returncode == 0
    rows = library.rows(Wanted())
    assert rows["album/one.flac"].genre == before
    assert rows["album/two.flac"].corrected == "Alpha" and rows["three.wav"].corrected == "Gamma"
    again = run("library", "merge", library.file, other)
    assert "0 new" in again.stderr


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"),
    [
        (("1", None, "5"), ("2", "3", "3"), None),  # seen after they missed it; an unchanged track's root says so
        (("2", "6", "6"), ("4", None, "4"), "6"),  # missed after they saw it
        (("2", "3", "3"), ("1", None, "5"), None),
        (("1", None, "2"), ("1", "3", "3"), "3"),
    ],
)
def test_what_was_found_out_later_stays(
    tmp_path: Path,
    ours: tuple[str, str | None, str],
    theirs: tuple[str, str | None, str],
    merged: str | None,
) -> None:
    """Last seen, absent since, root searched; one-digit times."""
    for name, (seen, absent, root) in (("ours", ours), ("theirs", theirs)):
        with State.open(tmp_path / name, create=True) as state:
            db = state.connection
            db.execute(
                "INSERT INTO track (path, first_seen, last_seen, absent_since) VALUES (?, '0', ?, ?)",
                (b"/music/a.mp3", seen, absent),
            )
            db.execute("INSERT INTO root VALUES (?, 1, ?), (?, 1, '9')", (b"/music", root, b"/mus"))
    with State.open(tmp_path / "ours", write=True) as state:
        merge(state, tmp_path / "theirs")
        (row,) = state.tracks(Wanted(absent=None))
    assert row.absent_since == merged


def test_what_cannot_be_merged_changes_nothing(library: Library) -> None:
    library.done()
    before = library.rows()
    for other, said in ((library.file, "into itself"), (library.music / "three.wav", "expected a state file")):
        ran = run("library", "merge", library.file, other)
        assert ran.returncode == 2
        assert said in ran.stderr or "merged into" in ran.stderr
    new = library.root / "new.state"
    assert run("library", "merge", new, library.root / "none").returncode == 2 and not new.exists()
    assert library.rows() == before


def test_a_full_disk_is_one_message(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed before is kept."""
    library.done()
    opened = State.open.__func__

    def small(cls: type[State], *arguments: object, **options: object) -> State:
        state = opened(cls, *arguments, **options)
        state.connection.execute("PRAGMA max_page_count = 1")  # never below what the file has
        return state

    monkeypatch.setattr(State, "open", classmethod(small))
    for number in range(30):
        library.add(f"{number:03}.wav", seed=number, seconds=0.3)
    ran = library.classify()
    assert ran.returncode == EdgeReclassError.exit_code and "disk is full" in ran.stderr
    monkeypatch.undo()
    with sqlite3.connect(library.file) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    kept = sum(row.status is not None for row in library.rows().values())
    assert kept >= 3 and len(library.done()) == 33 - kept


def test_a_vacuum_on_a_full_disk_is_our_error(library: Library) -> None:
    library.done()
    with State.open(library.file, write=True) as state:
        state.connection.execute("BEGIN")  # SQLite refuses, as it would where there is no room
        with pytest.raises(EdgeReclassError, match="cannot be read or written"):
            state.vacuum()
        state.connection.execute("ROLLBACK")
        state.connection.execute("DROP TABLE skipped")
        state.connection.execute("DROP TABLE correction")
        for asked in (state.counts, state.all_genres, state.skipped):
            with pytest.raises(EdgeReclassError, match="cannot be read or written"):
                asked()
