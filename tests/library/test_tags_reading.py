"""What the tags of a file say, in every format; nothing of a bad file."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tagged
from edge_reclass.errors import MissingExtraError
from edge_reclass.installing import install_command
from edge_reclass.library.tags import FileTags, read

mutagen = pytest.importorskip("mutagen", reason="tags are read by mutagen (extra [tags])")

KEYS = {
    "m4a": ("\xa9ART", "\xa9nam", "\xa9alb", "trkn", "\xa9gen"),
    "wma": ("Author", "Title", "WM/AlbumTitle", "WM/TrackNumber", "WM/Genre"),
    **dict.fromkeys(("wv", "ape", "mpc"), ("Artist", "Title", "Album", "Track", "Genre")),
    **dict.fromkeys(("flac", "ogg", "opus"), ("ARTIST", "title", "Album", "tracknumber", "GENRE")),
}


@pytest.mark.parametrize("kind", tagged.KINDS)
def test_every_format(kind: str, tmp_path: Path) -> None:
    from mutagen import id3

    path = tagged.write(tmp_path / f"a.{kind}")
    assert replace(read(path), seconds=None) == FileTags()
    opened: Any = mutagen.File(path)
    if opened.tags is None:
        opened.add_tags()
    values: list[Any] = ["Björk", "Jóga", "Homogenic", (2, 10) if kind == "m4a" else "2/10", ["Pop", "Rock"]]
    for key, frame, value in zip(
        KEYS.get(kind, [None] * 5), (id3.TPE1, id3.TIT2, id3.TALB, id3.TRCK, id3.TCON), values, strict=True
    ):
        value = value if isinstance(value, list) else [value]
        if key is None:
            opened.tags.add(frame(encoding=3, text=value))
        else:
            opened[key] = value
    opened.save()
    found = read(path)
    assert replace(found, seconds=None) == FileTags("Björk", "Jóga", "Homogenic", "2", ("Pop", "Rock"))
    assert found.seconds is None or 0 < found.seconds < 60


def test_an_mp3_with_ape_alone(tmp_path: Path) -> None:
    from mutagen.apev2 import APEv2

    path = tagged.write(tmp_path / "a.mp3")
    ape = APEv2()
    ape["Artist"], ape["Genre"] = "Björk", "Pop"
    ape.save(path)
    assert replace(read(path), seconds=None) == FileTags(artist="Björk", genres=("Pop",))


def test_genres_by_number(tmp_path: Path) -> None:
    from mutagen.id3 import ID3, TCON

    path = tagged.write(tmp_path / "a.mp3")
    tags = ID3()
    tags.add(TCON(encoding=0, text=["17"]))
    tags.save(path)
    assert read(path).genres == ("Rock",)


@pytest.mark.parametrize(
    "content", [b"", b"ID3\x03\0\0\x7f\x7f\x7f\x7fTCON", b"fLaC\xff\xff\xff\xff", b"RIFF\xff\xff", b"OggS"]
)
def test_a_bad_file_says_nothing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(content)
    assert read(path) == FileTags()


def test_what_is_no_file_says_nothing(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.mp3")
    assert read(tmp_path / "pipe.mp3") == read(tmp_path) == read(tmp_path / "not there") == FileTags()


def test_without_mutagen_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mutagen", None)
    with pytest.raises(MissingExtraError, match=re.escape(install_command("tags"))):
        read(tmp_path / "a.mp3")
