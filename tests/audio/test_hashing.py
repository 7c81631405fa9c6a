"""The hash of the sound: the same whatever tags stand around it, another for other sound."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import synth
import tagged
from edge_reclass.audio import audio_hash

mutagen = pytest.importorskip("mutagen", reason="tags are written by mutagen (extra [tags])")
pytest.importorskip("av", reason="packets are read by PyAV (extra [codecs])")


def tag(path: Path) -> None:
    """Title, genre and a big cover, as any tagger writes them."""
    from mutagen.flac import Picture
    from mutagen.id3 import APIC, TCON, TIT2
    from mutagen.mp4 import MP4Cover

    opened: Any = mutagen.File(path)
    if opened.tags is None:
        opened.add_tags()
    if hasattr(opened.tags, "getall"):
        for frame in (TIT2(text=["t"]), TCON(text=["Rock"]), APIC(mime="image/jpeg", type=3, data=tagged.cover())):
            opened.tags.add(frame)
    elif path.suffix == ".m4a":
        opened["\xa9gen"], opened["covr"] = ["Rock"], [MP4Cover(tagged.cover())]
    elif path.suffix == ".wma":
        opened["WM/Genre"], opened["WM/Picture"] = ["Rock"], [mutagen.asf.ASFByteArrayAttribute(tagged.cover(60_000))]
    else:
        opened["GENRE"] = ["Rock"]
        opened["COMMENT"] = ["c" * 200_000]
        if path.suffix == ".flac":
            picture = Picture()
            picture.data = tagged.cover()
            opened.add_picture(picture)
    opened.save()


@pytest.mark.parametrize("kind", tagged.KINDS)
def test_tags_do_not_change_it(kind: str, tmp_path: Path) -> None:
    path = tagged.write(tmp_path / f"a.{kind}")
    before, content = audio_hash(path), path.read_bytes()
    assert before is not None or kind not in tagged.AUDIBLE
    tag(path)
    assert path.read_bytes() != content
    assert audio_hash(path) == before


@pytest.mark.parametrize("kind", ["mp3", "ape", "mpc", "wv", "flac"])
def test_tags_at_both_ends_do_not_change_it(kind: str, tmp_path: Path) -> None:
    from mutagen.apev2 import APEv2
    from mutagen.id3 import ID3, TIT2

    path = tagged.write(tmp_path / f"a.{kind}")
    before = audio_hash(path)
    ape = APEv2()
    ape["Title"] = "t" * 1001
    ape.save(path)
    if kind != "wv":
        id3 = ID3()
        id3.add(TIT2(text=["t" * 3001]))
        id3.save(path, v1=2)
    assert audio_hash(path) == before


def test_the_vendor_and_order_of_vorbis_comments_do_not_change_it(tmp_path: Path) -> None:
    from mutagen.oggvorbis import OggVorbis

    path = tagged.write(tmp_path / "a.ogg")
    before = audio_hash(path)
    opened = OggVorbis(path)
    opened.tags.vendor = "another program"
    opened.save()
    assert audio_hash(path) == before


def test_other_sound_has_another(tmp_path: Path) -> None:
    hashes = {
        audio_hash(synth.write(tmp_path / f"{seed}.flac", synth.music(1.0, seed=seed), 44_100)) for seed in (0, 1)
    }
    assert len(hashes) == 2
    assert None not in hashes


def test_what_holds_no_sound_has_none(tmp_path: Path) -> None:
    for name, content in {"empty.mp3": b"", "text.mp3": b"no music", "cut.flac": b"fLaC\0\0\0\x22"}.items():
        (tmp_path / name).write_bytes(content)
        assert audio_hash(tmp_path / name) is None
    assert audio_hash(tmp_path / "not there.mp3") is None
    assert audio_hash(tmp_path) is None


def test_without_pyav_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tagged.write(tmp_path / "a.flac")
    monkeypatch.setitem(sys.modules, "av", None)
    assert audio_hash(path) is None
