"""The state file itself: what is refused, who may write, how it is brought up to date and what is copied before."""

from __future__ import annotations

import errno
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_reclass.errors import EdgeReclassError
from edge_reclass.host import filesystem, network_file_system
from edge_reclass.library import state as state_module
from edge_reclass.library.rows import Wanted
from edge_reclass.library.schema import APPLICATION_ID, MIGRATIONS
from edge_reclass.library.state import State, now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A state of one track."""
    made = tmp_path / "library.state"
    with State.open(made, create=True) as state:
        state.connection.execute(
            "INSERT INTO track (path, status, first_seen, last_seen) VALUES (?, 'ok', ?, ?)", (b"/a", now(), now())
        )
    return made


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(EdgeReclassError) as refused:
        State.open(path, **options)
    return str(refused.value)


def test_a_new_state_is_ours(file: Path) -> None:
    with sqlite3.connect(file) as db:
        assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_what_is_no_state_is_refused_and_stays(tmp_path: Path) -> None:
    song = tmp_path / "song.mp3"
    song.write_bytes(b"ID3" + bytes(5000))
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    newer = tmp_path / "newer.state"
    with State.open(newer, create=True) as state:
        state.connection.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    for path, said in ((song, "expected a state file"), (other, "another SQLite database"), (newer, "newer program")):
        before = path.read_bytes()
        for options in ({}, {"write": True}, {"create": True}):
            assert said in refusal(path, **options)
        assert path.read_bytes() == before
    assert "got a folder" in refusal(tmp_path, create=True)
    os.mkfifo(tmp_path / "pipe")
    for how in ({}, {"create": True}):
        assert "got a pipe" in refusal(tmp_path / "pipe", **how), "and nothing is waited for"
    assert "there is no folder" in refusal(tmp_path / "none" / "x", create=True)
    (tmp_path / "empty").touch()
    assert "another SQLite" in refusal(tmp_path / "empty")
    State.open(tmp_path / "empty", create=True).close()  # as mktemp makes it


def test_a_second_writer_is_told_who_and_since_when(file: Path) -> None:
    with State.open(file, write=True):
        code = (
            "import sys; from edge_reclass.library.state import State\n"
            "with State.open(sys.argv[1]) as s: print(len(list(s.tracks())))\n"
            "try: State.open(sys.argv[1], write=True)\n"
            "except Exception as e: print(e)"
        )
        ran = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    count, said = ran.stdout.splitlines()
    assert count == "1"  # reading is allowed
    assert f"process {os.getpid()} (since 2" in said
    State.open(file, write=True).close()


def test_a_state_in_a_sticky_folder_is_opened_as_the_kernel_wants_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fs.protected_regular=2: no O_CREAT for another user's file in a sticky folder that the group may write."""
    opens = os.open

    def protected(path: str | Path, flags: int, *rest: int, **named: int) -> int:
        if flags & os.O_CREAT and not flags & os.O_EXCL and Path(path).exists():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opens(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", protected)
    for _ in range(2):
        State.open(file, create=True).close()


def test_two_that_make_the_lock_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens, lock = os.open, file.with_name(file.name + ".lock")
    lock.unlink(missing_ok=True)

    def late(path: str | Path, flags: int, *rest: int, **named: int) -> int:
        if Path(path) == lock and flags & os.O_EXCL:
            lock.touch()  # by the other one, just before
        return opens(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", late)
    State.open(file, create=True).close()
    assert lock.stat().st_size > 0


def _hold(file: Path, ready: object) -> None:
    State.open(file, write=True)
    ready.set()
    os.kill(os.getpid(), 9)


def test_the_lock_of_a_dead_writer_is_no_lock(file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(file, ready))
    process.start()
    process.join(60)
    assert ready.is_set() and process.exitcode == -9
    State.open(file, write=True).close()


def test_a_lock_that_is_given_back_at_once_is_waited_for(file: Path) -> None:
    """As when a writer was killed while it started a process, which has the lock until it is another program."""
    held = State.open(file, write=True)
    later = threading.Timer(0.2, held._lock.close)  # type: ignore[union-attr]
    later.start()
    State.open(file, write=True).close()
    later.join()
    held.close()


@pytest.mark.parametrize(("magic", "name"), [(0x6969, "NFS"), (0xFF534D42, "SMB"), (0xFE534D42, "SMB")])
def test_network_file_systems_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, magic: int, name: str
) -> None:
    monkeypatch.setattr(filesystem, "file_system_type", lambda path: magic)
    said = refusal(tmp_path / "library.state", create=True)
    assert name in said and "local disk" in said
    assert not list(tmp_path.iterdir())


def test_the_type_of_a_file_system_is_asked_of_the_kernel(tmp_path: Path) -> None:
    expected = subprocess.run(["stat", "-f", "-c", "%t", tmp_path], capture_output=True, text=True, check=True)
    assert filesystem.file_system_type(tmp_path) == int(expected.stdout, 16)
    assert filesystem.file_system_type("/proc") == 0x9FA0
    assert network_file_system(tmp_path) is None
    with pytest.raises(FileNotFoundError):
        network_file_system(tmp_path / "none")


def test_a_damaged_state_is_said_at_the_start(file: Path) -> None:
    with State.open(file, write=True) as state:
        for number in range(2000):
            state.connection.execute(
                "INSERT INTO track (path, verdict, first_seen, last_seen) VALUES (?, ?, '', '')",
                (b"%d" % number, "x" * 200),
            )
    content = bytearray(file.read_bytes())
    content[40_000:60_000] = os.urandom(20_000)
    file.write_bytes(content)
    said = refusal(file, write=True)
    assert "damaged" in said or "malformed" in said


def test_migrations_are_numbered_and_copy_before(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE track ADD COLUMN mood TEXT")

    def third(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM track")
        raise sqlite3.OperationalError("power cut")

    monkeypatch.setattr(state_module, "MIGRATIONS", (*MIGRATIONS, second, third))
    assert "an older program made it" in refusal(file)
    assert "power cut" in refusal(file, write=True)
    now = len(MIGRATIONS)
    with sqlite3.connect(file) as db:  # the first of them is done, the second is taken back
        assert db.execute("PRAGMA user_version").fetchone() == (now + 1,)
        assert db.execute("SELECT path, mood FROM track").fetchall() == [(b"/a", None)]
    for number, columns in ((now, 0), (now + 1, 1)):
        with sqlite3.connect(f"{file}.v{number}.backup") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            found = db.execute("SELECT count(*) FROM pragma_table_info('track') WHERE name = 'mood'").fetchone()
            assert found == (columns,)
    monkeypatch.setattr(state_module, "MIGRATIONS", (*MIGRATIONS, second))
    with State.open(file, write=True) as state:
        assert state.track("/a") is not None


def test_a_clean_end_leaves_one_file_that_can_be_read_from_a_read_only_medium(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not file.with_name("library.state-wal").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with State.open(file) as state:
        assert [row.path for row in state.tracks()] == [b"/a"]
    assert not file.with_name("library.state-shm").exists()


def test_an_odd_name_of_the_state(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"50%? #\xe9.state")
    State.open(odd, create=True).close()
    with State.open(odd) as state:
        assert not list(state.tracks())
    assert not list(tmp_path.glob("*.backup"))  # it was new
    link = tmp_path / "link"
    link.symlink_to(odd)
    with State.open(link, write=True):
        assert "is at work" in refusal(odd, write=True)  # one lock, whatever the file is called


def test_a_file_of_version_one_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / os.fsdecode(b"old \xe9?.state")
    monkeypatch.setattr(state_module, "MIGRATIONS", MIGRATIONS[:1])
    with State.open(odd, create=True) as state, state.transaction():
        for path, verdict in (("/a", "{}"), ("/b", None), ("/c", "{}")):
            state.connection.execute(
                "INSERT INTO track (path, verdict, first_seen, last_seen) VALUES (?, ?, ?, ?)",
                (path.encode(), verdict, now(), now()),
            )
    monkeypatch.undo()
    with State.open(odd, write=True) as state:
        assert [row.path for row in state.changes(0, Wanted(), 9)[0]] == [b"/a", b"/c"]
        assert state.changes(0, Wanted(), 9)[1:] == (3, False)
    assert len(list(tmp_path.glob("*.v1.backup"))) == 1


def test_each_change_has_a_number_of_its_own_and_rows_come_by_it(tmp_path: Path) -> None:
    with State.open(tmp_path / "s", create=True) as state:
        seen, after = [], 0

        def write(statement: str, *values: object) -> None:
            nonlocal after
            with state.transaction():
                state.connection.execute(statement, values)
            rows, after, more = state.changes(after, Wanted(absent=None), 9)
            assert not more
            seen.append([os.fsdecode(row.path) for row in rows])

        insert = "INSERT INTO track (id, path, verdict, first_seen, last_seen) VALUES (?, ?, ?, '', '')"
        write(insert, 1, b"/a", "{}")
        write(insert, 2, b"/b", None)  # marked, not classified
        write("UPDATE track SET verdict = '{}' WHERE id = 2")
        write("UPDATE track SET last_seen = 'x', size = 5, running_pid = 7")  # no change of what is known
        write("UPDATE track SET verdict = verdict")
        write("UPDATE track SET absent_since = 'x' WHERE id = 1")
        write("UPDATE track SET path = CAST('/c' AS BLOB) WHERE id = 1")
        write("INSERT INTO correction VALUES (2, 'Rock', 'x')")
        write("DELETE FROM correction")
        assert seen == [["/a"], [], ["/b"], [], [], ["/a"], ["/c"], ["/b"], ["/b"]]
        assert state.last_change() == after
        write("DELETE FROM track WHERE id = 2")
        first, further, more = state.changes(0, Wanted(absent=None), 1)
        assert ([row.path for row in first], further, more) == ([b"/c"], after, False)


def test_changes_come_in_pages_without_a_gap(tmp_path: Path) -> None:
    with State.open(tmp_path / "s", create=True) as state:
        with state.transaction():
            state.connection.executemany(
                "INSERT INTO track (path, genre, verdict, first_seen, last_seen) VALUES (?, ?, '{}', '', '')",
                [(f"/{number:03}".encode(), "Rock" if number % 3 else "Jazz") for number in range(100)],
            )
        for wanted, expected in ((Wanted(), 100), (Wanted(genre="Jazz"), 34), (Wanted(below_path=b"/00"), 10)):
            found, after, more = [], 0, True
            while more:
                rows, after, more = state.changes(after, wanted, 7)
                found += [row.path for row in rows]
            assert len(found) == len(set(found)) == expected and found == sorted(found)
            assert after == 100
