"""What a look at folders makes of disks that are out, copies, links and odd names."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_reclass.errors import UsageError
from edge_reclass.library.basis import Basis
from edge_reclass.library.hashing import SoundHasher
from edge_reclass.library.rows import Wanted
from edge_reclass.library.scanning import Work, look
from edge_reclass.library.state import State
from edge_reclass.library.tending import forget
from edge_reclass.run import Track
from state_rows import add, second_file_system

BASIS = Basis("digest", "ladder", "min_confidence=None")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    folder = second_file_system(tmp_path)
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "library.state", create=True) as opened:
        yield opened


def know(state: State, *tracks: Path, sound: bytes | None = None) -> None:
    """Files of one byte more each, and rows with verdicts that stand."""
    for number, track in enumerate(tracks, 1):
        track.parent.mkdir(parents=True, exist_ok=True)
        if not track.exists():
            track.write_bytes(b"x" * number)
        row = add(state, track)
        state.connection.execute(
            "UPDATE track SET verdict = '{}', bundle_digest = ?, policy = ?, options = ?, audio_hash = ? WHERE id = ?",
            (BASIS.bundle_digest, BASIS.policy, BASIS.options, sound, row),
        )


def searched(state: State, *paths: Path) -> Work:
    return look(state, paths, BASIS)


def absent(state: State) -> list[str]:
    return [row.file.name for row in state.tracks(Wanted(absent=True))]


class Found(list[Track]):
    """A search that is over."""

    problems = ()


def out(link: Path) -> None:
    """A link stands for the mount point of a disk: it is unmounted, and the folder below is empty."""
    link.unlink()
    link.mkdir()


def test_a_copy_in_the_mount_point_is_not_the_disk(state: State, disk: Path, tmp_path: Path) -> None:
    usb = tmp_path / "usb"
    usb.symlink_to(disk)
    know(state, *(usb / f"{number}.mp3" for number in range(5)))
    out(usb)
    shutil.copy2(disk / "0.mp3", usb)
    with pytest.raises(UsageError, match="not mounted"):
        searched(state, usb)
    assert not absent(state)
    assert state.connection.execute("SELECT DISTINCT device FROM track").fetchall() == [(disk.stat().st_dev,)]


def test_a_library_that_moved_to_a_new_disk(state: State, disk: Path, tmp_path: Path) -> None:
    """Most of its tracks are there, as copies: what is not, was deleted."""
    usb = tmp_path / "usb"
    usb.symlink_to(disk)
    know(state, *(usb / f"{number}.mp3" for number in range(5)))
    out(usb)
    for track in disk.iterdir():
        shutil.copy2(track, usb)
    (usb / "0.mp3").unlink()
    work = searched(state, usb)
    assert (work.unchanged, work.to_do, absent(state)) == (4, 0, ["0.mp3"])
    rows = state.connection.execute("SELECT device, inode FROM track WHERE absent_since IS NULL").fetchall()
    assert set(rows) == {(track.stat().st_dev, track.stat().st_ino) for track in usb.iterdir()}


def test_a_copy_of_a_track_whose_disk_is_out_is_no_move(
    state: State, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SoundHasher, "__call__", lambda *_: b"same")
    usb, home = tmp_path / "usb", tmp_path / "home"
    usb.symlink_to(disk)
    know(state, usb / "x.wav", sound=b"same")
    state.correct(1, "Jazz")
    out(usb)
    home.mkdir()
    shutil.copy(disk / "x.wav", home)
    work = searched(state, home)
    assert (work.moved, work.to_do) == (0, 1)
    row = state.track(usb / "x.wav")
    assert row is not None and row.corrected == "Jazz"
    usb.rmdir()
    usb.symlink_to(disk)
    (disk / "x.wav").unlink()  # now it has left, with its disk in place
    assert searched(state, home).moved == 1


def test_a_track_that_moved_on_its_disk_out_of_what_is_searched(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SoundHasher, "__call__", lambda *_: b"same")
    know(state, tmp_path / "a" / "x.wav", sound=b"same")
    (tmp_path / "b").mkdir()
    shutil.copyfile(tmp_path / "a" / "x.wav", tmp_path / "b" / "y.wav")
    (tmp_path / "a" / "x.wav").unlink()
    assert searched(state, tmp_path / "b").moved == 1


@pytest.mark.parametrize("named", [False, True], ids=["below a root", "named"])
def test_a_disk_that_goes_while_tracks_of_it_wait(state: State, disk: Path, tmp_path: Path, named: bool) -> None:
    """The root itself stays, or there is none."""
    usb = tmp_path / "music" / "usb"
    usb.parent.mkdir()
    usb.symlink_to(disk)
    for track in (usb / "x.wav", usb.parent / "own.wav"):
        track.write_bytes(b"x")
    work = searched(state, usb / "x.wav") if named else searched(state, usb.parent)
    waiting = {track.path: track for track in work.all_tracks}
    out(usb)
    with pytest.raises(UsageError, match="not mounted"):
        work.check_mounted(waiting[usb / "x.wav"])
    if not named:
        (usb.parent / "own.wav").unlink()
        work.check_mounted(waiting[usb.parent / "own.wav"])  # deleted, with its disk in place


def test_a_root_that_links_to_a_disk_that_is_out(state: State, disk: Path, tmp_path: Path) -> None:
    usb, mount = tmp_path / "usb", tmp_path / "mount"
    mount.symlink_to(disk)
    usb.symlink_to(mount)
    know(state, usb / "x.wav")
    mount.unlink()  # as where the system makes mount points, and takes them away
    with pytest.raises(UsageError, match="not mounted"):
        searched(state, usb)
    assert not absent(state)


def test_what_is_to_be_forgotten_when_a_disk_will_not_return(state: State, disk: Path, tmp_path: Path) -> None:
    """The command, run as it stands, names all of the disk, and nothing else."""
    music, mount = tmp_path / "the music", tmp_path / "mount"
    mount.symlink_to(disk)
    music.mkdir()
    (music / "usb").symlink_to(mount)
    know(state, music / "own.mp3", music / "usb/al 1/a.mp3", music / "usb/al 2/b.mp3", music / "usb/al 2/c.mp3")
    (mount / "al 2/c.mp3").unlink()
    searched(state, music)
    assert absent(state) == ["c.mp3"]
    out(mount)
    with pytest.raises(UsageError, match="not mounted") as refused:
        searched(state, music)
    command = shlex.split(str(refused.value).rpartition("deleted: ")[2])
    assert command[3:] == [str(state.path), str(music / "usb")]
    assert forget(state, command[4:]) == 3
    assert searched(state, music).unchanged == 1


def test_another_name_of_a_folder_is_not_empty(state: State, tmp_path: Path) -> None:
    """It is searched under the name that comes first."""
    music, alias = tmp_path / "music", tmp_path / "alias"
    music.mkdir()
    alias.symlink_to(music)
    know(state, alias / "a.mp3", alias / "b.mp3")
    (music / "a.mp3").unlink()
    searched(state, music, alias)
    assert absent(state) == ["a.mp3"]


def test_files_of_one_inode_number_are_several(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems in user space give every file the same."""
    tracks = [Track(tmp_path / f"{size}.mp3", size, 1, 7, 0) for size in (1, 2)]
    monkeypatch.setattr("edge_reclass.library.scanning.TrackSearch", lambda *_: Found(tracks))
    assert len(searched(state, tmp_path).tracks) == 2


def test_two_slashes_are_one(state: State, tmp_path: Path) -> None:
    know(state, tmp_path / "music" / "a.mp3")
    work = look(state, [f"/{tmp_path}/music"], BASIS)
    assert (work.unchanged, work.to_do) == (1, 0)
    assert state.track(f"/{tmp_path}/music/a.mp3") is not None
