"""``organise`` as users run it: the plan, each way of bringing tracks, undo, and what is left out."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import tagged
from command import Done, run
from edge_reclass.library.journal import Journal
from edge_reclass.library.organise import carry_out, transfer
from edge_reclass.library.organise.plan import By, Wishes, make_plan
from edge_reclass.library.organise.template import Template
from edge_reclass.library.rows import Wanted
from edge_reclass.library.state import State
from edge_reclass.library.tending import forget
from state_rows import add, contents, rows, second_file_system

BY_NAME = ("--template", "{genre}/{name}.{ext}")


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Three tracks of two genres, one unsure, one that failed, in a state file."""
    root = tmp_path / "music"
    (root / "in").mkdir(parents=True)
    with State.open(tmp_path / "state.db", create=True) as state:
        for name, genre, status in (
            ("in/a.mp3", "Rock", "ok"),
            ("in/b.FLAC", "Jazz", "ok"),
            ("c.ogg", "Jazz", "ok"),
            ("d.mp3", None, "unsure"),
            ("e.mp3", None, "corrupt"),
        ):
            (root / name).write_bytes(name.encode() * 1000)
            os.utime(root / name, ns=(1, 1_600_000_000_123_456_789))
            add(state, root / name, genre, status=status)
    return root


def organise(music: Path, *options: object, target: str = "sorted") -> Done:
    return run("organise", music.parent / "state.db", music.parent / target, *BY_NAME, *options)


def undo(music: Path, *options: object) -> Done:
    return run("organise", music.parent / "state.db", "--undo", *options)


def test_nothing_is_touched_without_write(music: Path) -> None:
    before = contents(music.parent)
    done = organise(music)
    assert done.returncode == 0
    target = music.parent / "sorted"
    assert done.stdout.splitlines() == [
        f"{target}/Jazz/",
        f"    b.flac  <- {music}/in/b.FLAC",
        f"    c.ogg  <- {music}/c.ogg",
        f"{target}/Rock/",
        f"    a.mp3  <- {music}/in/a.mp3",
    ]
    assert done.stderr.splitlines() == [
        "3 tracks to link into 2 folders; 1 left out: no sure genre; 1 left out: not classified",
        "nothing was touched; --write does it",
    ]
    assert {k: v for k, v in contents(music.parent).items() if "state" not in k} == {
        k: v for k, v in before.items() if "state" not in k
    }


@pytest.mark.parametrize("by", ["link", "copy", "move"])
def test_there_and_back(music: Path, by: str) -> None:
    before, times = contents(music), (music / "c.ogg").stat().st_mtime_ns
    known = rows(music.parent / "state.db")
    done = organise(music, "--by", by, "--write")
    assert done.returncode == 0, done.stderr
    target = music.parent / "sorted"
    places = {"Rock/a.mp3": "in/a.mp3", "Jazz/b.flac": "in/b.FLAC", "Jazz/c.ogg": "c.ogg"}
    assert contents(target) == {place: before[origin] for place, origin in places.items()}
    assert (target / "Jazz/c.ogg").stat().st_mtime_ns == times
    if by == "move":
        assert set(contents(music)) == {"d.mp3", "e.mp3"}
        assert rows(music.parent / "state.db") == {
            str(music / "d.mp3"): None, str(music / "e.mp3"): None, str(target / "Rock/a.mp3"): "Rock",
            str(target / "Jazz/b.flac"): "Jazz", str(target / "Jazz/c.ogg"): "Jazz",
        }  # fmt: skip
    else:
        assert contents(music) == before
        assert (target / "Jazz/c.ogg").samefile(music / "c.ogg") == (by == "link")
        assert rows(music.parent / "state.db") == known
    again = organise(music, "--by", by, "--write")
    assert again.stderr.startswith("0 tracks to"), again.stderr
    assert "3 in place already" in again.stderr
    back = undo(music)
    assert (back.returncode, back.stderr) == (0, "3 tracks taken back\n")
    assert contents(music) == before and not target.exists()
    assert rows(music.parent / "state.db") == known
    assert undo(music).stderr == "nothing to take back\n"


def test_folders_that_were_there_stay(music: Path) -> None:
    (music.parent / "sorted/Jazz").mkdir(parents=True)
    assert organise(music, "--by", "move", "--write").returncode == 0
    assert undo(music).returncode == 0
    assert [path.name for path in (music.parent / "sorted").rglob("*")] == ["Jazz"]


def test_reflink_is_said_not_to_work_where_it_does_not(music: Path) -> None:
    done = organise(music, "--by", "reflink", "--write")
    if done.returncode == 0:
        assert contents(music.parent / "sorted")["Jazz/c.ogg"] == contents(music)["c.ogg"]
        return
    assert done.returncode == 3
    assert "its blocks cannot be shared here" in done.stderr and "take --by copy or link" in done.stderr
    assert not (music.parent / "sorted").exists(), "no half file, no temporary one, no empty folder"


def test_names_that_collide_and_files_that_are_there(music: Path) -> None:
    with State.open(music.parent / "state.db", write=True) as state:
        for name in ("x/A.mp3", "y/a.mp3", "z/ROCK.mp3"):
            (music / name).parent.mkdir()
            (music / name).write_text(name)
            add(state, music / name, "rOCK" if name[0] == "y" else "Rock")
    target = music.parent / "sorted"
    (target / "rock").mkdir(parents=True)
    (target / "rock/a (2).MP3").write_text("mine")
    assert organise(music, "--by", "move", "--write").returncode == 0
    found = {name: content[:8] for name, content in contents(target).items() if name[0] in "rR"}
    assert found == {
        "rock/a (2).MP3": b"mine",
        "rock/a.mp3": b"in/a.mp3",
        "rock/A (3).mp3": b"x/A.mp3",
        "rock/a (4).mp3": b"y/a.mp3",
        "rock/ROCK.mp3": b"z/ROCK.m",
    }
    assert organise(music, "--by", "move", "--write").stderr.startswith("0 tracks"), "each stays where it is"


def test_a_person_wins_and_unsure_tracks_have_a_folder_if_asked(music: Path) -> None:
    with State.open(music.parent / "state.db", write=True) as state:
        for name, genre in (("in/a.mp3", "Blues"), ("e.mp3", "Spoken")):
            row = state.track(music / name)
            assert row is not None
            state.correct(row.id, genre)
    done = organise(music, "--write", "--unsure", "To hear", "--min-confidence", "0.95")
    assert done.returncode == 0
    assert set(contents(music.parent / "sorted")) == {
        "Blues/a.mp3", "Spoken/e.mp3", "To hear/b.flac", "To hear/c.ogg", "To hear/d.mp3"
    }  # fmt: skip


def test_a_link_follows_its_genre(music: Path) -> None:
    assert organise(music, "--write").returncode == 0
    with State.open(music.parent / "state.db", write=True) as state:
        row = state.track(music / "c.ogg")
        assert row is not None
        state.correct(row.id, "Blues")
    done = organise(music)
    assert f"    c.ogg  <- (move) {music.parent}/sorted/Jazz/c.ogg" in done.stdout.splitlines()
    assert organise(music, "--write").returncode == 0
    assert set(contents(music.parent / "sorted")) == {"Rock/a.mp3", "Jazz/b.flac", "Blues/c.ogg"}
    assert "3 in place already" in organise(music, "--write").stderr
    assert str(music / "c.ogg") in rows(music.parent / "state.db")
    assert undo(music).returncode == 0
    assert not (music.parent / "sorted").exists()


def test_what_cannot_be_brought_is_said(music: Path) -> None:
    (music / "in/a.mp3").write_bytes(b"another")
    (music / "in/b.FLAC").unlink()
    (music / "c.ogg").rename(music / "real.ogg")
    (music / "c.ogg").symlink_to("real.ogg")
    done = organise(music, "--by", "move", "--write")
    assert done.returncode == 3
    for name, reason in (
        ("in/a.mp3", "it has changed since it was classified; classify it again"),
        ("in/b.FLAC", "No such file or directory"),
        ("c.ogg", "it is a link"),
    ):
        assert f"warning: {music / name}: {reason}" in done.stderr
    assert not (music.parent / "sorted").exists()
    assert organise(music, "--by", "copy", "--write").returncode == 3
    assert not (music.parent / "sorted/Jazz/c.ogg").is_symlink()


def test_a_link_in_the_target_leads_nowhere(music: Path) -> None:
    target, outside = music.parent / "sorted", music.parent / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "Rock").symlink_to(outside)
    (target / "Jazz").write_text("a file")
    done = organise(music, "--write")
    assert done.returncode == 3
    assert f"{target}/Rock is no folder" in done.stderr and f"{target}/Jazz is no folder" in done.stderr
    assert not list(outside.iterdir())


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = transfer.make_folders

    def and_a_rival(root: Path, folder: Path) -> None:
        real(root, folder)
        if folder.name == "Rock":
            (folder / "a.mp3").write_text("rival")

    monkeypatch.setattr(transfer, "make_folders", and_a_rival)
    for by in ("move", "copy", "link"):
        done = organise(music, "--by", by, "--write", target=f"sorted-{by}")
        assert done.returncode == 3 and "File exists" in done.stderr
        assert contents(music.parent / f"sorted-{by}")["Rock/a.mp3"] == b"rival"
        assert (music / "in/a.mp3").exists()
        assert undo(music).returncode == 0
        assert contents(music.parent / f"sorted-{by}") == {"Rock/a.mp3": b"rival"}


def test_a_move_to_another_file_system(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = second_file_system(tmp_path)
    before = contents(music)
    (music / "c.ogg").chmod(0o640)
    try:
        done = run("organise", tmp_path / "state.db", target, *BY_NAME, "--by", "move", "--write")
        assert done.returncode == 0, done.stderr
        assert contents(target)["Jazz/c.ogg"] == before["c.ogg"]
        status = (target / "Jazz/c.ogg").stat()
        assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o640, 1_600_000_000_123_456_789)
        assert set(contents(music)) == {"d.mp3", "e.mp3"}
        assert undo(music).returncode == 0
        assert contents(music) == before and not target.exists()
        monkeypatch.setattr(os, "write", lambda descriptor, data: _full())
        done = run("organise", tmp_path / "state.db", target, *BY_NAME, "--by", "move", "--write")
        assert done.returncode == 3 and done.stderr.count("No space left on device") == 3
        assert contents(music) == before and not target.exists()
        monkeypatch.undo()
        assert run("organise", tmp_path / "state.db", target, *BY_NAME, "--by", "link", "--write").returncode == 3
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _full() -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_renameat2_nothing_is_overwritten_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for calls in (lambda: None, lambda: lambda *_: -1):  # an old C library; a file system without it
        monkeypatch.setattr(transfer, "_libc_renameat2", calls)
        monkeypatch.setattr("ctypes.get_errno", lambda: errno.EINVAL)
        for has_links in (True, False):
            if not has_links:
                monkeypatch.setattr(os, "link", _no_links)
            one.write_text("1")
            two.write_text("2")
            with pytest.raises(FileExistsError):
                transfer.rename_new(one, two)
            assert (one.read_text(), two.read_text()) == ("1", "2")
            two.unlink()
            transfer.rename_new(one, two)
            assert (one.exists(), two.read_text()) == (False, "1")
        monkeypatch.undo()


def _no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_undo_keeps_what_is_no_longer_ours(music: Path) -> None:
    target = music.parent / "sorted"
    assert organise(music, "--by", "copy", "--write").returncode == 0
    (target / "Jazz/c.ogg").write_text("somebody's")
    (target / "Rock/notes.txt").write_text("mine")
    (music / "in/b.FLAC").unlink()
    done = undo(music)
    assert done.returncode == 3
    assert f"{target}/Jazz/c.ogg: it has changed since, and stays" in done.stderr
    assert f"{target}/Jazz/b.flac: its original is gone: it is the last one, and stays" in done.stderr
    assert set(contents(target)) == {"Jazz/c.ogg", "Jazz/b.flac", "Rock/notes.txt"}

    (music / "in/b.FLAC").write_bytes(b"in/b.FLAC" * 1000)
    assert undo(music).returncode == 3
    assert set(contents(target)) == {"Jazz/c.ogg", "Rock/notes.txt"}


def test_undo_of_a_move_overwrites_nothing(music: Path) -> None:
    assert organise(music, "--by", "move", "--write").returncode == 0
    (music / "c.ogg").write_text("new")
    (music.parent / "sorted/Rock/a.mp3").unlink()
    shutil.rmtree(music / "in")
    done = undo(music)
    assert done.returncode == 3
    assert (
        f"there is another file at {music}/c.ogg now" in done.stderr
        and "a.mp3: it is not there any more" in done.stderr
    )
    assert (music / "c.ogg").read_text() == "new" and (music.parent / "sorted/Jazz/c.ogg").exists()
    assert (music / "in/b.FLAC").exists()


def test_one_run_of_several_is_taken_back(music: Path) -> None:
    assert organise(music, "--write").returncode == 0
    assert "--undo --run 2" in organise(music, "--write", target="again").stderr
    assert undo(music, "--run", 1).returncode == 3, "run 2 has moved what it made"
    assert undo(music, "--run", 2).returncode == 0
    assert len(contents(music.parent / "sorted")) == 3 and not (music.parent / "again").exists()
    assert undo(music, "--run", 1).returncode == 0
    assert not (music.parent / "sorted").exists()
    assert undo(music, "--run", 1).stderr == "nothing to take back\n"
    done = undo(music, "--run", 9)
    assert done.returncode == 2 and "--run 9: expected a run of organise" in done.stderr


def test_a_track_that_takes_the_place_of_one_that_is_gone(music: Path) -> None:
    target = music.parent / "sorted"
    assert organise(music, "--by", "move", "--write").returncode == 0
    (target / "Rock/a.mp3").unlink()
    (music / "in/a.mp3").write_text("again")
    with State.open(music.parent / "state.db", write=True) as state:
        add(state, music / "in/a.mp3")
    assert organise(music, "--by", "move", "--write").returncode == 3, "the one that is gone is said"
    assert (target / "Rock/a.mp3").read_text() == "again"
    assert list(rows(music.parent / "state.db")).count(str(target / "Rock/a.mp3")) == 1


def test_too_little_room_is_said_before_anything_is_copied(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    done = organise(music, "--by", "copy", "--write")
    assert done.returncode == 2 and "make room, or take --by link" in done.stderr
    assert not (music.parent / "sorted").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{state}"], "expected a TARGET folder"),
        (["{here}/none.db", "{here}/out"], "there is no such state file"),
        (["{state}", "{here}/out", "--by", "magic"], "expected one of link, reflink, copy, move, got 'magic'"),
        (["{state}", "{here}/out", "--min-confidence", "2"], "expected a number from 0 to 1"),
        (["{state}", "{here}/out", "--run", "1"], "--run goes with --undo"),
        (["{state}", "{here}/out", "--undo"], "--undo takes no TARGET"),
        (["{state}", "{here}/a/b"], "there is no folder {here}/a to make it in"),
        (["{state}", "{state}"], "expected a folder, got a file"),
        (["{state}", "{here}/out", "--template", "{{oops}}.{{ext}}"], "got 'oops'"),
        (["{state}", "--undo", "--run", "7"], "--run 7: expected a run of organise in {state} (none)"),
    ],
)
def test_what_cannot_be_meant(music: Path, arguments: list[str], message: str) -> None:
    here = music.parent
    done = run("organise", *(one.format(state=here / "state.db", here=here) for one in arguments))
    assert (done.returncode, message.format(here=here, state=here / "state.db") in done.stderr) == (2, True), (
        done.stderr
    )


def test_names_that_are_not_utf8(music: Path) -> None:
    odd = music / os.fsdecode(b"caf\xe9.mp3")
    odd.write_text("odd")
    with State.open(music.parent / "state.db", write=True) as state:
        add(state, odd)
    assert organise(music).returncode == 0
    assert organise(music, "--by", "move", "--write").returncode == 0
    assert (music.parent / "sorted/Rock/caf_.mp3").read_text() == "odd"
    assert undo(music).returncode == 0
    assert odd.read_text() == "odd"


def test_the_state_says_nothing_of_a_killed_process_after_it_was_settled(music: Path) -> None:
    """What each moment of a kill leaves, made by hand; killing at random moments is in test_kills.py."""
    state_file, target = music.parent / "state.db", music.parent / "sorted"
    before = contents(music)

    class Killed(BaseException):
        pass

    for at, by in ((1, By.MOVE), (2, By.MOVE), (3, By.MOVE), (2, By.COPY), (1, By.LINK)):
        with pytest.MonkeyPatch.context() as patch:
            count = iter(range(1, 100))

            def bring(*arguments: object, real=transfer.bring, count=count, at=at) -> None:
                if next(count) == at:
                    raise Killed
                real(*arguments)  # type: ignore[arg-type]

            patch.setattr(transfer, "bring", bring)
            patch.setattr(carry_out._Marks, "__exit__", lambda *_: None)
            with pytest.raises(Killed):
                organise(music, "--by", by, "--write")
        dry = organise(music, "--by", by)
        assert "an earlier run was cut off" in dry.stderr
        done = organise(music, "--by", by, "--write")
        assert done.returncode == 0, done.stderr
        assert "an earlier run was cut off" in done.stderr
        assert set(contents(target)) == {"Rock/a.mp3", "Jazz/b.flac", "Jazz/c.ogg"}
        if by is By.MOVE:
            assert set(contents(music)) == {"d.mp3", "e.mp3"}
            assert str(target / "Rock/a.mp3") in rows(state_file)
        assert undo(music).returncode == 0
        assert contents(music) == before and not target.exists()


def test_what_tags_say_names_a_track_and_tags_can_be_taken_back_where_it_went(tmp_path: Path) -> None:
    """With real files, real tags and the default template."""
    mutagen = pytest.importorskip("mutagen", reason="tags are read by mutagen (extra [tags])")
    music, target = tmp_path / "music", tmp_path / "sorted"
    music.mkdir()
    with State.open(tmp_path / "state.db", create=True) as state:
        for name, title in (("a.flac", "Sí/No"), ("b.ogg", ""), ("c.flac", "..")):
            path = tagged.write(music / name)
            tags = mutagen.File(path)
            tags["artist"] = "AC/DC"
            tags["tracknumber"] = "3/12"
            if title:
                tags["title"] = title
            tags.save()
            add(state, path, "Rock")
        with Journal.of_state(state) as journal:
            step = journal.step(journal.begin("tag"), music / "a.flac", {"kind": "genre"})
            with journal.transaction():
                journal.done(step)
    assert run("organise", tmp_path / "state.db", target, "--by", "move", "--write").returncode == 0
    places = {f"Rock/AC_DC/Unknown Album/{name}" for name in ("03 Sí_No.flac", "b.ogg", "03.flac")}
    assert set(contents(target)) == places
    with State.open(tmp_path / "state.db", write=True) as state:
        (step,) = Journal.of_state(state).to_undo("tag")
        assert step.path == target / "Rock/AC_DC/Unknown Album/03 Sí_No.flac"
    assert undo(music).returncode == 0
    assert set(contents(music)) == {"a.flac", "b.ogg", "c.flac"}


def test_what_lies_behind_a_link_is_in_place_too(music: Path) -> None:
    real = music.parent / "real"
    assert organise(music, "--by", "move", "--write", target="real").returncode == 0
    (music.parent / "seen").symlink_to(real)
    with State.open(music.parent / "state.db", write=True) as state, state.transaction():
        for row in list(state.tracks()):
            if row.file.is_relative_to(real):
                state.moved(row.id, music.parent / "seen" / row.file.relative_to(real), row.file.stat())
    for target in ("real", "seen"):
        assert "3 in place already" in organise(music, "--by", "move", "--write", target=target).stderr


def test_a_killed_undo_does_not_touch_somebody_elses_file(music: Path) -> None:
    assert organise(music, "--by", "move", "--write").returncode == 0
    with State.open(music.parent / "state.db", write=True) as state:
        journal = Journal.of_state(state)
        steps = journal.to_undo("organise")
        with journal.transaction():
            for step in steps:
                journal.reopen(step)
    (music / "c.ogg").write_text("somebody's")
    (music.parent / "sorted/Rock/a.mp3").rename(music / "in/a.mp3")  # that far it came
    assert undo(music).returncode == 3
    assert (music / "c.ogg").read_text() == "somebody's"
    assert set(contents(music.parent / "sorted")) == {"Jazz/c.ogg"}
    assert set(rows(music.parent / "state.db")) >= {str(music / "in/a.mp3"), str(music.parent / "sorted/Jazz/c.ogg")}


def test_many_tracks_of_one_name_are_placed_in_time(tmp_path: Path) -> None:
    music = tmp_path / "music"
    with State.open(tmp_path / "state.db", create=True) as state:
        for i in range(60):
            (music / f"{i:03}").mkdir(parents=True)
            (music / f"{i:03}/track.mp3").write_text(str(i))
            add(state, music / f"{i:03}/track.mp3")
    assert organise(music, "--write").returncode == 0
    names = {path.name for path in (tmp_path / "sorted/Rock").iterdir()}
    assert names == {"track.mp3", *(f"track ({i}).mp3" for i in range(2, 61))}
    assert "60 in place already" in organise(music, "--write").stderr


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A link to a folder on another file system; :func:`unplug` makes it what an empty mount point is."""
    there = second_file_system(tmp_path)
    there.mkdir()
    (tmp_path / "disk").symlink_to(there)
    yield tmp_path / "disk"
    shutil.rmtree(there, ignore_errors=True)


def unplug(disk: Path) -> Path:
    there = disk.resolve()
    disk.unlink()
    disk.mkdir()
    return there


def plug_in(disk: Path, there: Path) -> None:
    disk.rmdir()
    disk.symlink_to(there)


def bring(music: Path, target: Path, by: By) -> None:
    """As the command, which would follow the link that stands for a mount point."""
    with State.open(music.parent / "state.db", write=True) as state:
        plan = make_plan(state.tracks(), target, Wishes(by, Template("{genre}/{name}.{ext}")), None, {})
        assert plan.steps and not carry_out.carry_out(state, plan).failed


def test_nothing_goes_back_to_a_disk_that_is_not_mounted(tmp_path: Path, disk: Path) -> None:
    (disk / "in").mkdir()
    (disk / "in/a.mp3").write_text("a")
    with State.open(tmp_path / "state.db", create=True) as state:
        add(state, disk / "in/a.mp3")
    bring(disk, tmp_path / "sorted", By.MOVE)
    (disk / "in").rmdir()
    there = unplug(disk)
    done = undo(disk)
    assert done.returncode == 3 and "a.mp3: the disk of /dev/shm is not mounted; mount it" in done.stderr
    assert set(contents(tmp_path / "sorted")) == {"Rock/a.mp3"} and not list(disk.iterdir())
    plug_in(disk, there)
    assert undo(disk).stderr == "1 track taken back\n"
    assert set(contents(there)) == {"in/a.mp3"}


def test_copies_on_a_disk_that_is_not_mounted_are_not_taken_back(music: Path, disk: Path) -> None:
    bring(music, disk, By.COPY)
    there = unplug(disk)
    assert undo(music).returncode == 3
    plug_in(disk, there)
    assert undo(music).stderr == "3 tracks taken back\n" and not contents(there)


def test_a_killed_move_to_a_disk_that_is_not_mounted_stays_open(
    music: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(music)
    with monkeypatch.context() as patch:
        patch.setattr(carry_out._Marks, "__exit__", lambda *_: None)  # killed before the commit
        bring(music, disk, By.MOVE)
    there = unplug(disk)
    done = undo(music)
    assert done.returncode == 3
    assert done.stderr.count("the disk of /dev/shm is not mounted; mount it, and run this again") == 3
    plug_in(disk, there)
    assert undo(music).stderr.endswith("3 tracks taken back\n")
    assert contents(music) == before


def test_a_move_of_which_nothing_is_there_stays_open(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(carry_out._Marks, "__exit__", lambda *_: None)
        assert organise(music, "--by", "move", "--write").returncode == 0
    moved = music.parent / "sorted/Rock/a.mp3"
    moved.rename(music.parent / "kept")
    assert "in/a.mp3: it is not there any more, and not at" in undo(music).stderr
    (music.parent / "kept").rename(moved)
    assert undo(music).stderr.endswith("1 track taken back\n")


def test_a_copy_that_is_gone_is_not_taken_back(music: Path) -> None:
    assert organise(music, "--by", "copy", "--write").returncode == 0
    (music.parent / "sorted/Rock/a.mp3").unlink()
    done = undo(music)
    assert done.returncode == 3 and "Rock/a.mp3: it is not there any more" in done.stderr
    assert done.stderr.endswith("2 tracks taken back\n")


def test_undo_leaves_the_rows_of_other_tracks_alone(music: Path) -> None:
    assert organise(music, "--by", "move", "--write").returncode == 0
    with State.open(music.parent / "state.db", write=True) as state:
        forget(state, [music.parent / "sorted"])
        for name in "xyz":
            (music / f"{name}.mp3").write_text(name)
            add(state, music / f"{name}.mp3", "Country")
    before = rows(music.parent / "state.db")
    assert undo(music).stderr == "3 tracks taken back\n"
    assert rows(music.parent / "state.db") == before


def test_what_was_said_of_a_track_that_is_gone_is_kept_when_another_takes_its_place(music: Path) -> None:
    gone = music.parent / "sorted/Rock/a.mp3"
    gone.parent.mkdir(parents=True)
    gone.write_text("another")
    with State.open(music.parent / "state.db", write=True) as state:
        state.correct(add(state, gone), "Polka")
        with state.transaction():
            state.connection.execute("UPDATE track SET absent_since = '2026' WHERE path = ?", (os.fsencode(gone),))
    gone.unlink()

    def said() -> dict[str, tuple[str | None, str | None]]:
        with State.open(music.parent / "state.db") as state:
            found = state.tracks(Wanted(absent=None))
            return {str(row.file): (row.corrected, row.absent_since) for row in found if row.path.endswith(b"/a.mp3")}

    before = said()
    assert organise(music, "--by", "move", "--write").returncode == 0
    assert said() == {str(gone): (None, None), str(music / "in/a.mp3"): ("Polka", "2026")}
    assert undo(music).returncode == 0
    assert said() == before


def test_a_track_that_a_search_missed_before_its_move_was_settled_is_there(
    music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(carry_out._Marks, "__exit__", lambda *_: None)
        assert organise(music, "--by", "move", "--write").returncode == 0
    with State.open(music.parent / "state.db", write=True) as state, state.transaction():
        state.connection.execute("UPDATE track SET absent_since = '2026'")
    assert organise(music, "--by", "move", "--write").returncode == 0
    assert str(music.parent / "sorted/Rock/a.mp3") in rows(music.parent / "state.db")
