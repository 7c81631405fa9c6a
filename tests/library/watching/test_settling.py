"""When a noticed file counts as finished, and which are not noticed at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edge_reclass.library.watching.settling import Settling, is_heard
from edge_reclass.run import Track


@pytest.mark.parametrize(
    ("name", "heard"),
    [
        ("a.mp3", True),
        ("b/C.FLAC", True),
        ("a.mp3.part", False),
        ("a.mp3.tmp", False),
        ("a.mp3.crdownload", False),
        ("a.mp3.!qB", False),
        (".a.mp3", False),
        (".stversions/a.mp3", False),
        ("b/.edge-reclass-7-0.tmp", False),
        ("cover.jpg", False),
    ],
)
def test_what_is_heard(name: str, heard: bool) -> None:
    assert is_heard(f"/srv/.music/{name}", "/srv/.music") == heard


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_file_is_finished_when_it_stayed_the_same(tmp_path: Path) -> None:
    clock = Clock()
    settling = Settling(10, clock)
    file = tmp_path / "a.mp3"
    file.write_bytes(b"1")
    assert settling.next_in() is None
    settling.notice(str(file))
    assert (len(settling), settling.next_in()) == (1, 10)
    clock.now = 9
    assert settling.due() == []
    settling.notice(str(file))  # it is written again
    clock.now = 18
    assert settling.due() == []
    file.write_bytes(b"22")  # and once more, which raised no event
    clock.now = 19
    assert settling.due() == []
    clock.now = 28
    assert (settling.due(), settling.next_in()) == ([], 1)
    clock.now = 29
    assert settling.due() == [str(file)]
    assert (len(settling), settling.due()) == (0, [])


def test_a_file_that_goes_is_given_back_as_well(tmp_path: Path) -> None:
    clock = Clock()
    settling = Settling(10, clock)
    settling.notice(str(tmp_path / "gone.mp3"))
    clock.now = 10
    assert settling.due() == [str(tmp_path / "gone.mp3")]


def test_what_a_search_finds_may_still_be_written(tmp_path: Path) -> None:
    settling = Settling(10)
    young, old, ahead = (tmp_path / f"{name}.mp3" for name in ("young", "old", "ahead"))
    for file, seconds in ((young, -1), (old, -60), (ahead, 3600)):
        file.touch()
        at = time.time() + seconds
        os.utime(file, (at, at))
        assert settling.is_ready(Track(file, 0, file.stat().st_mtime_ns)) == (file != young), file
    assert len(settling) == 1
    settling.notice(str(old))
    assert not settling.is_ready(Track(old, 0, old.stat().st_mtime_ns)), "events say that it is being written"
