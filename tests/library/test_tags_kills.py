"""``tag --write`` and ``--undo`` killed at random moments, and on a full disk: every file is old or new, none is half.

EDGE_RECLASS_KILLS=200 tries as many moments, over 100 files of each format; by default it is a few over one of each.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tagged
from command import run
from edge_reclass.audio import audio_hash
from edge_reclass.library.journal import Journal
from edge_reclass.library.state import State
from edge_reclass.library.tags import writing
from edge_reclass.library.tags.containers import container_of, opened
from edge_reclass.library.tags.content import Inventory
from edge_reclass.library.tags.writing import COMMAND

pytest.importorskip("mutagen", reason="tags are written with mutagen (extra [tags])")

MOMENTS = int(os.environ.get("EDGE_RECLASS_KILLS", "6"))
OF_EACH = 100 if MOMENTS >= 100 else 1


class Songs:
    """Tagged files of all formats, big covers included, what they were, and a state that has a genre for each."""

    def __init__(self, root: Path, state: Path, of_each: int) -> None:
        root.mkdir()
        self.root = root
        for kind in tagged.KINDS:
            first = tagged.tag(tagged.write(root / f"0.{kind}", seconds=0.5), ["Pop"], big=True)
            if kind == "mp3":
                first.write_bytes(first.read_bytes() + b"TAG" + bytes(124) + b"\x0d")
            for number in range(1, of_each):
                shutil.copy(first, root / f"{number}.{kind}")
        self.paths = sorted(root.iterdir())
        for number, path in enumerate(self.paths):
            os.utime(path, ns=(1, 1_500_000_000_000_000_000 + number))
        self.sha = {path: sha(path) for path in self.paths}
        self.inventory = {path: inventory(path) for path in self.paths}
        self.sound = {path: audio_hash(path) for path in self.paths}
        self.mtime = {path: path.stat().st_mtime_ns for path in self.paths}
        self.state = tagged.state(state, [tagged.verdict(path, "Hip-Hop") for path in self.paths], root)
        self._seen: dict[Path, tuple[int, int]] = {}

    def check(self) -> int:
        """Each file is what it was, or has the genre and nothing else is changed; how many have it."""
        new = 0
        for path in self.paths:
            status = path.stat()
            identity = status.st_ino, status.st_mtime_ns
            if status.st_mtime_ns == self.mtime[path]:
                if self._seen.get(path) != identity:
                    assert sha(path) == self.sha[path], path
            else:
                new += 1
                if self._seen.get(path) != identity:
                    now = inventory(path)
                    assert now.places[0].genres == ("Hip-Hop",), path
                    assert self.inventory[path].differs(now) is None, path
                    assert now.original == ("Pop",), path
                    assert audio_hash(path) == self.sound[path], path
            self._seen[path] = identity
        return new

    def check_old(self) -> None:
        assert {path: sha(path) for path in self.paths} == self.sha
        assert {path: path.stat().st_mtime_ns for path in self.paths} == self.mtime
        assert sorted(self.root.iterdir()) == self.paths, "temporary files are left"


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def inventory(path: Path) -> Inventory:
    fd = os.open(path, os.O_RDONLY)
    try:
        return opened(fd, container_of(fd, path), deep=True).inventory()
    finally:
        os.close(fd)


def killed(arguments: list[object], seconds: float) -> bool:
    """Run the command in a process of its own (forked: there is no start to wait for); True if the kill came first."""
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            os.setsid()
            os._exit(run(*arguments).returncode)
        finally:
            os._exit(99)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads: the child runs nothing of theirs
def test_killed_at_random_moments(tmp_path: Path) -> None:
    songs = Songs(tmp_path / "music", tmp_path / "state.db", OF_EACH)
    write, undo = ["tag", songs.state, "--write", "--replace"], ["tag", songs.state, "--undo"]
    numbers = random.Random(15)
    kills = 0
    command = write
    began = time.monotonic()
    while kills < MOMENTS:
        assert time.monotonic() - began < 60 * MOMENTS
        came_first = killed(list(command), numbers.uniform(0.02, 1.0 if OF_EACH == 1 else 2.0))
        kills += came_first
        new = songs.check()
        print(f"{time.monotonic() - began:.0f} s: {kills} kills, {new} of {len(songs.paths)} written")
        if not came_first or numbers.random() < (0.3 if OF_EACH == 1 else 0.02):
            command = undo if command is write else write
    done = run(*write)
    assert done.returncode == 0, done.stderr
    assert songs.check() == len(songs.paths)
    with State.open(songs.state) as state:
        assert state.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert all(row.mtime_ns == row.file.stat().st_mtime_ns for row in state.tracks()), "our write is no change"
        assert Journal.of_state(state).unfinished(COMMAND) == []
    done = run(*undo)
    assert done.returncode == 0, done.stderr
    songs.check_old()
    print(f"{kills} kills over {len(songs.paths)} files")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which root alone can make."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be made here: that takes root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state with the journal lies on it too."""
    # It would be noticed beforehand; others may fill the disk while we write.
    monkeypatch.setattr(writing, "_need_space", lambda *_: None)
    songs = Songs(small_disk / "music", small_disk / "state.db", 1)
    numbers = random.Random(16)
    filler = small_disk / "filler"
    some_refused = 0
    for moment in range(MOMENTS):
        disk = os.statvfs(small_disk)
        free = 100_000 + numbers.choice((5_000, 100_000, 400_000)) * numbers.randint(0, 4)
        filler.write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - free)))
        done = run("tag", songs.state, "--write", "--replace") if moment % 3 else run("tag", songs.state, "--undo")
        some_refused += done.returncode != 0
        assert done.returncode in (0, 1, 3), done.stderr
        assert done.returncode == 0 or "o space left" in done.stderr or "full" in done.stderr, done.stderr
        songs.check()
        filler.unlink()
        assert not [path for path in songs.root.iterdir() if path not in songs.paths]
    assert some_refused, "the disk was never full"
    assert run("tag", songs.state, "--write", "--replace").returncode == 0
    assert songs.check() == len(songs.paths)
    assert run("tag", songs.state, "--undo").returncode == 0
    songs.check_old()
    print(f"{MOMENTS} fillings, {some_refused} runs met a full disk")


def test_a_disk_that_is_too_small_is_noticed_beforehand(small_disk: Path) -> None:
    songs = Songs(small_disk / "music", small_disk / "state.db", 1)
    disk = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize - 800_000))
    done = run("tag", songs.state, "--write", "--replace")
    assert done.returncode == 3
    assert "refused: no space for a copy: " in done.stderr
    songs.check_old()


def test_files_of_a_limited_size(tmp_path: Path) -> None:
    """Where writing fails in the middle for another reason, the file is left and the copy is gone."""
    songs = Songs(tmp_path / "music", tmp_path / "state.db", 1)
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000));"
        "from edge_reclass.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "tag", str(songs.state), "--write", "--replace"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "File too large" in done.stderr
    songs.check()
    assert run("tag", songs.state, "--undo").returncode == 0
    songs.check_old()
