"""Folders that go and come, limits of the kernel, network file systems, events that were lost."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("watchdog", reason="folders are watched by watchdog (extra [watch])")

from edge_reclass.library.watching import roots as module
from edge_reclass.library.watching.roots import Roots
from edge_reclass.library.watching.settling import Settling


class Watched:
    """Roots with a clock that stands still, and what they said."""

    def __init__(self, *paths: Path) -> None:
        self.said: list[str] = []
        self.now = 1000.0
        self.settling = Settling(1000)
        self.roots = Roots(
            [str(path) for path in paths],
            self.settling,
            rescan=3600,
            poll=600,
            say=self.said.append,
            wake=lambda: None,
            clock=lambda: self.now,
        )

    def searches(self) -> list[str]:
        """The names of the roots that are to be searched; they are, then."""
        self.roots.look()
        found = self.roots.to_search()
        for root in found:
            self.roots.searched(root)
        return [Path(root.path).name for root in found]

    def noticed(self, number: int) -> int:
        """How many files were, when there are so many or a while has passed."""
        until = time.monotonic() + 60
        while len(self.settling) < number and time.monotonic() < until:
            time.sleep(0.02)
        return len(self.settling)


@pytest.fixture
def watch() -> Iterator[type[Watched]]:
    made: list[Watched] = []

    class Closed(Watched):
        def __init__(self, *paths: Path) -> None:
            super().__init__(*paths)
            made.append(self)

    yield Closed
    for one in made:
        one.roots.close()


def test_what_is_heard_during_a_search_is_searched_for_after_it(tmp_path: Path, watch: type[Watched]) -> None:
    watched = watch(tmp_path)
    watched.roots.look()
    (root,) = watched.roots.to_search()
    watched.now += 1800  # classifying takes its time
    watched.roots.search_soon(root, 10)
    watched.roots.searched(root)
    assert watched.roots.next_in() == 10
    watched.now += 10
    (root,) = watched.roots.to_search()
    watched.roots.search_all()
    watched.roots.searched(root)
    assert watched.roots.next_in() == 0 and watched.searches() == [tmp_path.name] and watched.searches() == []


def test_events_and_a_search_a_day(tmp_path: Path, watch: type[Watched]) -> None:
    watched = watch(tmp_path)
    assert watched.searches() == [tmp_path.name], "at the start"
    assert watched.searches() == []
    (tmp_path / "album").mkdir()
    for name in ("a.mp3", "album/b.ogg", "c.mp3.part", ".d.mp3", "e.txt"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "c.mp3.part").rename(tmp_path / "c.mp3")
    assert watched.noticed(3) == 3
    watched.searches()  # after a new folder, where watchdog is older than 7
    watched.now += 3599
    assert watched.searches() == []
    watched.now += 1
    assert watched.searches() == [tmp_path.name]
    assert watched.said == []


def test_a_folder_that_is_moved_in_brings_its_files(tmp_path: Path, watch: type[Watched]) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    (outside / "deep/deeper").mkdir(parents=True)
    for name in ("a.mp3", "deep/b.mp3", "deep/deeper/c.mp3"):
        (outside / name).write_bytes(b"1")
    watched = watch(root)
    watched.searches()
    outside.rename(root / "inside")
    assert watched.noticed(3) == 3
    watched.searches()
    (root / "inside/deep/deeper/d.mp3").write_bytes(b"1")
    assert watched.noticed(4) == 4, "it is watched now"
    shutil.rmtree(root / "inside/deep")
    (found,) = watched.roots.roots
    until = time.monotonic() + 60
    while found.search_at > watched.now + 1000 and time.monotonic() < until:
        time.sleep(0.02)
    watched.now += 1000
    assert watched.searches() == ["root"], "where a folder has gone, a search says what went with it"


def test_a_root_may_be_a_link(tmp_path: Path, watch: type[Watched]) -> None:
    (tmp_path / "real/album").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to("real")
    watched = watch(link)
    assert watched.searches() == ["link"]
    (tmp_path / "real/a.mp3").touch()
    (link / "album/b.mp3").touch()
    watched.noticed(2)
    watched.settling.seconds = 0
    assert watched.settling.due() == [str(link / "a.mp3"), str(link / "album/b.mp3")], "as a search calls them"
    assert watched.roots.holds(str(link / "a.mp3")) and not watched.roots.holds(f"{link}2/a.mp3")


def test_a_root_that_goes_is_waited_for(tmp_path: Path, watch: type[Watched]) -> None:
    root, away = tmp_path / "root", tmp_path / "away"
    watched = watch(root)
    assert watched.searches() == []
    assert watched.said == [f"{root}: it is not there (not mounted?); waiting for it, and nothing is marked"]
    assert watched.searches() == [] and len(watched.said) == 1, "said once"
    root.mkdir()
    assert watched.searches() == ["root"]
    (root / "a.mp3").touch()
    assert watched.noticed(1) == 1
    root.rename(away)
    watched.now += 10_000
    assert watched.searches() == []
    away.rename(root)
    assert watched.searches() == ["root"]
    (root / "b.mp3").touch()
    assert watched.noticed(2) == 2
    assert [text.removeprefix(f"{root}: ")[:15] for text in watched.said] == ["it is not there", "it is there"] * 2


def test_an_empty_mount_point_is_no_root(tmp_path: Path, watch: type[Watched], monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch(tmp_path)
    watched.searches()
    (root,) = watched.roots.roots
    root.device, root.mount = -1, str(tmp_path)  # as if a disk had been mounted there, and is not any more
    watched.now += 10_000
    assert watched.searches() == []
    monkeypatch.setattr(os.path, "ismount", lambda path: path in (str(tmp_path), "/"))
    assert watched.searches() == [tmp_path.name], "the disk is back, with another number"


@pytest.mark.parametrize(
    ("number", "name"), [(errno.ENOSPC, "fs.inotify.max_user_watches"), (errno.EMFILE, "fs.inotify.max_user_instances")]
)
def test_the_limits_of_the_kernel(
    tmp_path: Path, watch: type[Watched], monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    def reached(folder: str) -> None:
        raise OSError(number, "as the kernel says it")

    monkeypatch.setattr(module, "_check_limit", reached)
    watched = watch(tmp_path)
    assert watched.searches() == [tmp_path.name]
    (said,) = watched.said
    assert f"the limit {name} is reached" in said and f"sudo sysctl {name}=" in said
    assert said.endswith("It is searched every 10 min")
    watched.now += 600
    assert watched.searches() == [tmp_path.name]
    (tmp_path / "new").mkdir()
    (tmp_path / "a.mp3").touch()
    assert watched.noticed(1) == 1, "what is watched is watched on"
    assert len(watched.said) == 1


def test_a_network_file_system_is_searched(tmp_path: Path, watch: type[Watched], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "network_file_system", lambda path: "SMB")
    watched = watch(tmp_path)
    assert watched.searches() == [tmp_path.name]
    assert watched.said == [
        f"{tmp_path}: it lies on SMB, where other machines' writes raise no event. It is searched every 10 min"
    ]
    (tmp_path / "a.mp3").touch()
    watched.now += 599
    assert watched.searches() == []
    watched.now += 1
    assert watched.searches() == [tmp_path.name]


def test_lost_events_are_made_up_for(tmp_path: Path, watch: type[Watched], monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch(tmp_path)
    watched.searches()
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
    assert watched.searches() == [tmp_path.name]
    assert watched.searches() == []
    monkeypatch.setattr(module, "_queue_length", lambda: 8)  # an older watchdog says nothing
    for i in range(4):
        (tmp_path / f"{i}.mp3").touch()
    watched.noticed(4)
    assert watched.searches() == [tmp_path.name]
