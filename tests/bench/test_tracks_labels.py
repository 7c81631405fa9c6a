"""Which tracks, under which names, with which digest and labels."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_reclass.errors import UsageError
from edge_reclass_bench import tracks as tracks_module
from edge_reclass_bench.labels import from_csv, from_folders, judgeable
from edge_reclass_bench.tracks import find


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name in ("Rock/a.wav", "Rock/b.wav", "Pop/a.wav", "Pop/notes.txt", "c.wav"):
        path = tmp_path / "music" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "music"


def test_names_are_relative_to_what_was_named(library: Path) -> None:
    assert find([str(library)]).names == ("music/Pop/a.wav", "music/Rock/a.wav", "music/Rock/b.wav", "music/c.wav")
    assert find([str(library / "Rock"), str(library / "c.wav")]).names == ("Rock/a.wav", "Rock/b.wav", "c.wav")


def test_names_that_would_be_equal_are_whole_paths(library: Path) -> None:
    other = library.parent / "other" / "Rock"
    other.mkdir(parents=True)
    (other / "a.wav").write_bytes(b"x")
    assert find([str(library / "Rock"), str(other)]).names[-1] == str(other / "a.wav")


def test_the_digest_is_of_names_and_content_not_of_place_order_or_time(library: Path, tmp_path: Path) -> None:
    before = find([str(library / "Rock"), str(library / "Pop")])
    assert before.digest_of == "content"
    again = find([str(library / "Pop"), str(library / "Rock")])
    assert again.sha256 == before.sha256
    os.utime(library / "Rock" / "a.wav", (1, 1))
    assert find([str(library / "Rock"), str(library / "Pop")]).sha256 == before.sha256
    (library / "Rock" / "a.wav").write_bytes(b"changed")
    assert find([str(library / "Rock"), str(library / "Pop")]).sha256 != before.sha256


def test_a_large_set_is_known_by_size_and_time(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks_module, "CONTENT_LIMIT", 3)
    before = find([str(library)])
    assert before.digest_of == "size+mtime"
    os.utime(library / "c.wav", (1, 1))
    assert find([str(library)]).sha256 != before.sha256


def test_a_limit_spreads_over_what_was_found(library: Path) -> None:
    assert find([str(library)], limit=2).names == ("music/Pop/a.wav", "music/Rock/b.wav")
    assert len(find([str(library)], limit=99).names) == 4


def test_no_audio_and_missing_files_are_refused(library: Path) -> None:
    (library / "Empty").mkdir()
    with pytest.raises(UsageError, match="no audio found"):
        find([str(library / "Empty")])
    with pytest.raises(UsageError, match="cannot be read"):
        find([str(library / "none.wav")])


def test_labels_from_a_table(library: Path) -> None:
    table = library.parent / "labels.csv"
    table.write_text(
        f"path,split,genre\nmusic/Rock/a.wav,x,rock\n{library / 'Pop' / 'a.wav'},x,pop\nmusic/none.wav,x,jazz\n"
    )
    paths = find([str(library)]).paths
    assert from_csv(table, paths) == ["pop", "rock", None, None]
    assert from_csv(table, [library / ".." / "music" / "Rock" / "a.wav"]) == ["rock"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,genre\na,b\n", "expected a header with path or file"),
        ("file,kind\na,b\n", "expected a header"),
        ("", "got no rows"),
        ("file,genre\nother.wav,b\n", "none of the 4 tracks is in it"),
        ("file,genre\nmusic/c.wav,a\nmusic/c.wav,b\n", "stands there as a and as b"),
    ],
)
def test_tables_that_say_nothing_are_refused(library: Path, text: str, message: str) -> None:
    table = library.parent / "labels.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=message):
        from_csv(table, find([str(library)]).paths)


def test_a_table_that_is_not_there_is_refused(library: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        from_csv(library / "none.csv", find([str(library)]).paths)


def test_labels_from_folders(library: Path) -> None:
    assert from_folders(find([str(library)]).paths) == ["Pop", "Rock", "Rock", "music"]


def test_labels_are_spelled_as_the_bundle_does_and_unknown_ones_are_counted() -> None:
    judged, unknown = judgeable(["hiphop", "HIP HOP", "metal", None, "metal"], ["Hip-Hop", "Rock"])
    assert judged == ["Hip-Hop", "Hip-Hop", None, None, None]
    assert unknown == {"metal": 2}
