"""The search for tracks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from edge_reclass.run.sources import TrackSearch


def found_in(paths: Iterable[Any]) -> list[Path]:
    return [track.path for track in TrackSearch(paths)]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(tracks: list[Path], root: Path) -> list[str]:
    return [str(track.relative_to(root)) for track in tracks]


def test_walks_sorted_and_counts_what_it_skips(tmp_path: Path) -> None:
    touch(
        tmp_path / "b" / "2.FLAC", tmp_path / "b" / "1.mp3", tmp_path / "b" / "cover.jpg", tmp_path / "a.wav",
        tmp_path / "c.m4a", tmp_path / ".hidden.mp3", tmp_path / ".git" / "x.mp3", tmp_path / "b" / "._1.mp3",
        tmp_path / "notes.txt", tmp_path / "中文 🎵.opus", tmp_path / "mp3", tmp_path / ".mp3",
    )  # fmt: skip
    found = TrackSearch([tmp_path])
    tracks = [track.path for track in found]
    assert names(tracks, tmp_path) == ["a.wav", "b/1.mp3", "b/2.FLAC", "c.m4a", "中文 🎵.opus"]
    assert found.skipped_hidden == 4
    assert found.skipped_other == 3
    assert found.problems == []


def test_named_files_are_always_tracks(tmp_path: Path) -> None:
    touch(tmp_path / "a.txt", tmp_path / ".hidden.mp3")
    paths = [tmp_path / "a.txt", tmp_path / ".hidden.mp3", tmp_path / "gone.mp3", Path("a\0b")]
    assert found_in(paths) == paths
    assert found_in([str(path) for path in paths]) == paths


def test_order_of_arguments_and_no_track_twice(tmp_path: Path) -> None:
    touch(tmp_path / "b.wav", tmp_path / "a.wav", tmp_path / "z" / "c.wav")
    found = TrackSearch([tmp_path / "z", tmp_path / "b.wav", tmp_path])
    tracks = [track.path for track in found]
    assert names(tracks, tmp_path) == ["z/c.wav", "b.wav", "a.wav"]


def test_directory_named_like_a_track(tmp_path: Path) -> None:
    touch(tmp_path / "x.mp3" / "inside.wav")
    assert names(found_in([tmp_path]), tmp_path) == ["x.mp3/inside.wav"]
    assert names(found_in([tmp_path / "x.mp3"]), tmp_path) == ["x.mp3/inside.wav"]


def test_hidden_folder_that_is_named_is_searched(tmp_path: Path) -> None:
    touch(tmp_path / ".music" / "a.wav")
    assert names(found_in([tmp_path / ".music"]), tmp_path) == [".music/a.wav"]


def test_links(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "a.wav", tmp_path / "lib" / "z.wav")
    root = tmp_path / "lib"
    (root / "dangling.mp3").symlink_to(tmp_path / "gone")
    (root / "dangling.txt").symlink_to(tmp_path / "gone")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "self.mp3").symlink_to(root / "self.mp3")
    (root / "self").symlink_to(root / "self")
    (root / "file.flac").symlink_to(tmp_path / "elsewhere" / "a.wav")
    found = TrackSearch([root])
    tracks = [track.path for track in found]
    assert names(tracks, root) == ["dangling.mp3", "file.flac", "linked/a.wav", "self.mp3", "z.wav"]


def test_a_folder_is_searched_once(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.wav", tmp_path / "b" / "2.wav")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    assert names(found_in([tmp_path]), tmp_path) == ["a/1.wav", "a/other/2.wav"]
    assert names(found_in([tmp_path / "b", f"{tmp_path}/./b/", tmp_path]), tmp_path) == [
        "b/2.wav",
        "b/other/1.wav",
    ]


def test_many_links_to_each_other(tmp_path: Path) -> None:
    """Twelve folders, each with a link to every other one: there are millions of ways through them."""
    folders = [tmp_path / f"{i:02}" for i in range(12)]
    touch(*(folder / "t.wav" for folder in folders))
    for folder in folders:
        for other in folders:
            if other != folder:
                (folder / f"to{other.name}").symlink_to(other)
    assert len(found_in([tmp_path])) == 12


def test_unreadable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "bad" / "a.wav", tmp_path / "good" / "b.wav")
    real = os.scandir

    def denied(path: Any) -> Any:
        if os.fspath(path).endswith("bad"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    found = TrackSearch([tmp_path])
    tracks = [track.path for track in found]
    assert names(tracks, tmp_path) == ["good/b.wav"]
    assert found.problems == [(tmp_path / "bad", "Permission denied")]


def test_undecodable_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.wav")
    touch(tmp_path / name)
    assert found_in([tmp_path]) == [tmp_path / name]


def test_no_stat_per_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(*(tmp_path / "a" / f"{i}.wav" for i in range(200)))
    calls = 0
    real = os.stat

    def counted(*args: Any, **kwargs: Any) -> os.stat_result:
        nonlocal calls
        calls += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(os, "stat", counted)
    assert len(found_in([tmp_path])) == 200
    assert calls <= 4
