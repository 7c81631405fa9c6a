"""The journal: what is written down survives a kill, and is found again, newest first."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edge_reclass.errors import UsageError
from edge_reclass.library.journal import Journal, sweep, temporary
from edge_reclass.library.state import State


@pytest.fixture(params=["own", "state"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    if request.param == "own":
        return Journal.open(tmp_path / "j.db", create=True)
    return Journal.of_state(State.open(tmp_path / "s.db", create=True))


def add(journal: Journal, run: int, name: bytes, done: bool = True) -> None:
    step = journal.step(run, Path(os.fsdecode(b"/m/" + name)), {"kind": "write"}, b"undo" + name)
    if done:
        with journal.transaction():
            journal.done(step)


def test_steps_are_undone_newest_first(journal: Journal) -> None:
    first, other = journal.begin("tag"), journal.begin("organise")
    add(journal, first, b"a")
    add(journal, other, b"x")
    second = journal.begin("tag")
    add(journal, second, b"b\xff")
    add(journal, second, b"c", done=False)
    steps = journal.to_undo("tag")
    assert [(step.run, os.fsencode(step.path), step.undo) for step in steps] == [
        (second, b"/m/b\xff", b"undob\xff"),
        (first, b"/m/a", b"undoa"),
    ]
    assert [step.path.name for step in journal.to_undo("tag", first)] == ["a"]
    assert [step.path.name for step in journal.unfinished("tag")] == ["c"]
    with journal.transaction():
        journal.drop(journal.unfinished("tag")[0])
        journal.undone(steps[0])
    assert [step.path.name for step in journal.to_undo("tag")] == ["a"]
    newest, oldest = journal.runs("tag")
    assert (newest.id, newest.files, newest.undone_at is None) == (second, 0, False)
    assert (oldest.id, oldest.files, oldest.undone_at) == (first, 1, None)
    assert journal.latest(Path("/m/a")) == steps[1]
    assert journal.latest(Path(os.fsdecode(b"/m/b\xff"))) is None


def test_an_unknown_run_is_refused(journal: Journal) -> None:
    run = journal.begin("tag")
    with pytest.raises(UsageError, match=rf"--run 99: expected a run of tag in .* \({run}\)"):
        journal.to_undo("tag", 99)
    with pytest.raises(UsageError, match=r"\(none\)"):
        journal.to_undo("organise", run)


def test_what_a_transaction_leaves_early_is_not_there(journal: Journal) -> None:
    run = journal.begin("tag")
    step = journal.step(run, Path("/m/a"), {"kind": "write"})
    with pytest.raises(KeyError), journal.transaction():
        journal.done(step)
        raise KeyError
    assert journal.to_undo("tag") == []


def test_temporaries_of_the_dead_are_swept_and_those_of_the_living_stay(journal: Journal, tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    script = (
        "import sys, time; from pathlib import Path; from edge_reclass.library.journal import temporary\n"
        "with temporary(Path(sys.argv[1])): print('ready', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    journal.watch(journal.begin("tag"), [folder])
    with temporary(folder) as (path, _):
        journal.tidy("tag")
        assert len(list(folder.iterdir())) == 2
        process.send_signal(signal.SIGKILL)
        process.communicate()
        journal.watch(journal.begin("tag"), [folder, tmp_path / "not there"])
        (folder / ".edge-reclass-mine.txt").touch()
        journal.tidy("tag")
        assert sorted(folder.iterdir()) == sorted([path, folder / ".edge-reclass-mine.txt"])
        assert journal.runs("tag") == []
    assert sweep(folder) == 0
    assert not path.exists()


def test_another_database_is_no_journal(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (a)")
    (tmp_path / "text").write_text("music, music, music and nothing else that one could read" * 20)
    for path in (other, tmp_path / "text"):
        content = path.read_bytes()
        with pytest.raises(UsageError, match="journal"):
            Journal.open(path, create=True)
        assert path.read_bytes() == content
    with pytest.raises(UsageError, match="no such journal"):
        Journal.open(tmp_path / "none")


def test_two_runs_do_not_share_a_journal(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j.db", create=True) as first:
        first.begin("tag")
        with pytest.raises(UsageError, match="another run is writing it"):
            Journal.open(tmp_path / "j.db")
    Journal.open(tmp_path / "j.db").close()
