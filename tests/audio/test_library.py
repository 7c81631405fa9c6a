"""The search for tracks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edge_reclass.run.sources import find_tracks


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
    found = find_tracks([tmp_path])
    assert names(found.tracks, tmp_path) == ["a.wav", "b/1.mp3", "b/2.FLAC", "c.m4a", "中文 🎵.opus"]
    assert found.skipped_hidden == 4
    assert found.skipped_other == 3
    assert found.problems == []


def test_named_files_are_always_tracks(tmp_path: Path) -> None:
    touch(tmp_path / "a.txt", tmp_path / ".hidden.mp3")
    paths = [tmp_path / "a.txt", tmp_path / ".hidden.mp3", tmp_path / "gone.mp3", Path("a\0b")]
    assert find_tracks(paths).tracks == paths
    assert find_tracks([str(path) for path in paths]).tracks == paths


def test_order_of_arguments_and_no_track_twice(tmp_path: Path) -> None:
    touch(tmp_path / "b.wav", tmp_path / "a.wav", tmp_path / "z" / "c.wav")
    found = find_tracks([tmp_path / "z", tmp_path / "b.wav", tmp_path])
    assert names(found.tracks, tmp_path) == ["z/c.wav", "b.wav", "a.wav"]


def test_directory_named_like_a_track(tmp_path: Path) -> None:
    touch(tmp_path / "x.mp3" / "inside.wav")
    assert names(find_tracks([tmp_path]).tracks, tmp_path) == ["x.mp3/inside.wav"]
    assert names(find_tracks([tmp_path / "x.mp3"]).tracks, tmp_path) == ["x.mp3/inside.wav"]


def test_hidden_folder_that_is_named_is_searched(tmp_path: Path) -> None:
    touch(tmp_path / ".music" / "a.wav")
    assert names(find_tracks([tmp_path / ".music"]).tracks, tmp_path) == [".music/a.wav"]


def test_links(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "a.wav", tmp_path / "lib" / "z.wav")
    root = tmp_path / "lib"
    (root / "dangling.mp3").symlink_to(tmp_path / "gone")
    (root / "dangling.txt").symlink_to(tmp_path / "gone")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "self.mp3").symlink_to(root / "self.mp3")
    (root / "self").symlink_to(root / "self")
    (root / "file.flac").symlink_to(tmp_path / "elsewhere" / "a.wav")
    found = find_tracks([root])
    assert names(found.tracks, root) == ["dangling.mp3", "file.flac", "linked/a.wav", "self.mp3", "z.wav"]


def test_a_folder_is_searched_once(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.wav", tmp_path / "b" / "2.wav")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a")
    assert names(find_tracks([tmp_path]).tracks, tmp_path) == ["a/1.wav", "a/other/2.wav"]
    assert names(find_tracks([tmp_path / "b", f"{tmp_path}/./b/", tmp_path]).tracks, tmp_path) == [
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
    assert len(find_tracks([tmp_path]).tracks) == 12


def test_unreadable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "bad" / "a.wav", tmp_path / "good" / "b.wav")
    real = os.scandir

    def denied(path: Any) -> Any:
        if os.fspath(path).endswith("bad"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    found = find_tracks([tmp_path])
    assert names(found.tracks, tmp_path) == ["good/b.wav"]
    assert found.problems == [(tmp_path / "bad", "Permission denied")]


def test_undecodable_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.wav")
    touch(tmp_path / name)
    assert find_tracks([tmp_path]).tracks == [tmp_path / name]


def test_no_stat_per_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(*(tmp_path / "a" / f"{i}.wav" for i in range(200)))
    calls = 0
    real = os.stat

    def counted(*args: Any, **kwargs: Any) -> os.stat_result:
        nonlocal calls
        calls += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(os, "stat", counted)
    assert len(find_tracks([tmp_path]).tracks) == 200
    assert calls <= 4
