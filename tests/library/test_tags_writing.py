"""A genre in a file of every format: nothing else changes, and it is taken back byte for byte."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import synth
import tagged
from edge_reclass.audio import audio_hash
from edge_reclass.library.journal import Journal
from edge_reclass.library.tags import read, writing
from edge_reclass.library.tags.content import Change, Refused
from edge_reclass.library.tags.plan import Rules
from edge_reclass.library.tags.writing import COMMAND, look, recover, take_back, write

pytest.importorskip("mutagen", reason="tags are written with mutagen (extra [tags])")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.open(tmp_path / "journal.db", create=True)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rewrite(path: Path, journal: Journal, *genres: str, original: tuple[str, ...] = (), **options: Any) -> None:
    write(look(path), Change(genres, original), journal, journal.begin(COMMAND), **options)


def heard(path: Path) -> list[str]:
    """The genres that FFmpeg finds, as ffprobe shows them; it has no demuxer's text for ape."""
    import av

    with av.open(str(path)) as opened:
        found = {**opened.metadata, **{k: v for s in opened.streams for k, v in s.metadata.items()}}
    return [value for key, value in found.items() if key.lower() == "genre"]


def music_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize(("old", "big"), [([], False), (["Pop"], True), (["Pop", "Disco"], False)])
@pytest.mark.parametrize("kind", tagged.KINDS)
def test_write_and_take_back(kind: str, old: list[str], big: bool, journal: Journal, tmp_path: Path) -> None:
    path = music_folder(tmp_path) / f"a.{kind}"
    tagged.tag(tagged.write(path), old, big=big)
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    path.chmod(0o640)
    before, sound, tags = sha(path), audio_hash(path), read(path)
    kept = look(path).inventory.genres
    assert sorted(kept) == sorted(old)
    rewrite(path, journal, "Hip-Hop", original=kept)
    assert read(path).genres == ("Hip-Hop",)
    assert (read(path).artist, read(path).title) == (tags.artist, tags.title)
    assert audio_hash(path) == sound
    assert sorted(look(path).inventory.original) == sorted(old)
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_mtime_ns > 1_700_000_000_000_000_000
    if kind in tagged.AUDIBLE and kind != "dsf":
        pytest.importorskip("av")
        assert heard(path) == ["Hip-Hop"]
    (step,) = journal.to_undo(COMMAND)
    assert step.undo is not None
    assert len(step.undo) < max(3000, path.stat().st_size // 20), "the file is kept, not what changed"
    take_back(journal, step)
    assert sha(path) == before
    assert path.stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert journal.to_undo(COMMAND) == []
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", tagged.KINDS)
def test_a_file_without_any_tag(kind: str, journal: Journal, tmp_path: Path) -> None:
    path = tagged.write(tmp_path / f"a.{kind}")
    before = sha(path)
    rewrite(path, journal, "Jazz", "Blues")
    assert read(path).genres == (("Jazz",) if kind == "wma" else ("Jazz", "Blues"))
    take_back(journal, journal.to_undo(COMMAND)[0])
    assert sha(path) == before


def frames(path: Path) -> dict[str, bytes]:
    """Frames of the first ID3v2.3 tag by a reader of their own: name and bytes."""
    data = path.read_bytes()
    end = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    found, at = {}, 10
    while at < end and data[at]:
        size = int.from_bytes(data[at + 4 : at + 8], "big")
        found[data[at : at + 4].decode() + str(len(found))] = data[at : at + 10 + size]
        at += 10 + size
    return found


def raw_frame(name: bytes, body: bytes, flags: bytes = b"\0\0") -> bytes:
    return name + len(body).to_bytes(4, "big") + flags + body


def id3(version: int, body: bytes, flags: int = 0) -> bytes:
    size = bytes((len(body) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3" + bytes([version, 0, flags]) + size + body


ODD = (
    raw_frame(b"XYZW", b"unknown")
    + raw_frame(b"RGAD", b"\x01\x02\x03\x04\xff\xfe")
    + raw_frame(b"RVAD", b"\xff")
    + raw_frame(b"TYER", b"\x001997")
    + raw_frame(b"TDAT", b"\x002204")
    + raw_frame(b"TSIZ", b"\x00123")
    + raw_frame(b"PRIV", b"TRAKTOR4\0" + bytes(range(256)))
    + raw_frame(b"TCON", b"\x00(17)Pop")
    + raw_frame(b"GEOB", b"\0application/octet-stream\0\0Serato\0" + bytes(300))
    + raw_frame(b"APIC", b"\0image/jpeg\0\x03\0" + tagged.cover(5000))
    + raw_frame(b"AENC", b"secret", b"\0\x40")
)


def test_odd_frames_of_23_stay_as_they_are(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(id3(3, ODD + bytes(20)) + tagged.content("mp3"))
    before = frames(path)
    assert look(path).inventory.genres == ("Rock", "Pop")
    rewrite(path, journal, "Hip-Hop", "Folk")
    after = frames(path)
    assert {k: v for k, v in before.items() if "TCON" not in k} == {k: v for k, v in after.items() if "TCON" not in k}
    assert after["TCON7"] == raw_frame(b"TCON", b"\0Hip-Hop\0Folk")
    assert path.read_bytes()[3] == 3


def test_22_stays_22(journal: Journal, tmp_path: Path) -> None:
    body = b"TT2\0\0\x05\0Joga" + b"TCO\0\0\x05\0(17)" + b"XYZ\0\0\x02ab"
    path = tmp_path / "a.mp3"
    path.write_bytes(id3(2, body) + tagged.content("mp3"))
    rewrite(path, journal, "Jazz", original=("Rock",))
    data = path.read_bytes()
    assert data[3] == 2
    for part in (b"TT2\0\0\x05\0Joga", b"TCO\0\0\x05\0Jazz", b"XYZ\0\0\x02ab", b"TXX\0\0\x13\0ORIGINALGENRE\0Rock"):
        assert part in data


def test_sizes_of_24_as_itunes_wrote_them(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    picture = raw_frame(b"APIC", b"\0image/jpeg\0\x03\0" + tagged.cover(5000))
    path.write_bytes(id3(4, picture + raw_frame(b"TCON", b"\0Pop")) + tagged.content("mp3"))
    rewrite(path, journal, "Jazz")
    assert read(path).genres == ("Jazz",)
    assert picture in path.read_bytes()


def test_unsynchronised_tags(journal: Journal, tmp_path: Path) -> None:
    body = raw_frame(b"TIT2", b"\x01\xff\xfeJ\0") + raw_frame(b"PRIV", b"x\0\xff\xe0\xff\0\xff")
    path = tmp_path / "a.mp3"
    path.write_bytes(id3(3, body.replace(b"\xff\xe0", b"\xff\0\xe0").replace(b"\xff\xfe", b"\xff\0\xfe"), 0x80))
    path.write_bytes(
        id3(3, b"".join(bytes([b]) + (b"\0" if b == 255 else b"") for b in body), 0x80) + tagged.content("mp3")
    )
    rewrite(path, journal, "Jazz")
    assert read(path).genres == ("Jazz",)
    assert read(path).title == "J"


@pytest.mark.parametrize("genre", ["Hip-Hop", "International"])
def test_v1_keeps_all_but_its_last_byte(genre: str, journal: Journal, tmp_path: Path) -> None:
    path = tagged.tag(tagged.write(tmp_path / "a.mp3"), ["Pop"])
    v1 = (
        b"TAG" + b"another title".ljust(30, b" ") + b"\xe9".ljust(30, b"\0") + bytes(30) + b"1997" + bytes(30) + b"\x0d"
    )
    path.write_bytes(path.read_bytes() + v1)
    rewrite(path, journal, genre)
    assert path.read_bytes()[-128:-1] == v1[:-1]
    assert path.read_bytes()[-1] == {"Hip-Hop": 7}.get(genre, 255)


def test_v1_alone_gets_a_tag_that_hides_nothing(journal: Journal, tmp_path: Path) -> None:
    path = tagged.write(tmp_path / "a.mp3")
    v1 = b"TAG" + b"Joga".ljust(30, b"\0") + b"Bjork".ljust(30, b" ") + bytes(30) + b"1997" + bytes(29) + b"\x02\x0d"
    path.write_bytes(path.read_bytes() + v1)
    rewrite(path, journal, "International", original=("Pop",))
    tags = read(path)
    assert (tags.title, tags.artist, tags.track, tags.genres) == ("Joga", "Bjork", "2", ("International",))
    assert look(path).inventory.original == ("Pop",)
    assert path.read_bytes()[-128:-1] == v1[:-1]


def with_ape(path: Path, **items: str) -> None:
    from mutagen.apev2 import APEv2

    data = path.read_bytes()
    v1 = data[-128:] if data[-128:-125] == b"TAG" else b""
    path.write_bytes(data[: len(data) - len(v1)])
    ape = APEv2()
    for key, value in items.items():
        ape[key] = value
    ape.save(path)
    path.write_bytes(path.read_bytes() + v1)


def test_ape_beside_id3_is_brought_into_step(journal: Journal, tmp_path: Path) -> None:
    from mutagen.apev2 import APEv2

    path = tagged.tag(tagged.write(tmp_path / "a.mp3"), ["Pop"])
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(124) + b"\x0d")
    with_ape(path, Genre="Pop", Replaygain_Track_Gain="-3 dB")
    before = sha(path)
    rewrite(path, journal, "Jazz", original=("Pop",))
    assert (APEv2(path)["Genre"], APEv2(path)["Replaygain_Track_Gain"]) == ("Jazz", "-3 dB")
    assert "ORIGINALGENRE" not in APEv2(path)
    assert path.read_bytes()[-128:] == b"TAG" + bytes(124) + b"\x08"
    take_back(journal, journal.to_undo(COMMAND)[0])
    assert sha(path) == before


def test_ape_without_a_genre_stays_without(journal: Journal, tmp_path: Path) -> None:
    path = tagged.tag(tagged.write(tmp_path / "a.mp3"), ["Pop"])
    with_ape(path, MP3GAIN_MINMAX="100,200")
    tail = path.read_bytes()[-100:]
    rewrite(path, journal, "Jazz")
    assert path.read_bytes()[-100:] == tail


def test_ape_alone_stays_alone(journal: Journal, tmp_path: Path) -> None:
    path = tagged.write(tmp_path / "a.mp3")
    with_ape(path, Artist="Björk", Genre="Pop")
    rewrite(path, journal, "Jazz")
    assert not path.read_bytes().startswith(b"ID3")
    assert read(path).genres == ("Jazz",)


def test_both_id3_tags_are_written(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    second = id3(3, raw_frame(b"TCON", b"\0Pop") + raw_frame(b"TPE2", b"\0x") + bytes(50))
    path.write_bytes(id3(4, raw_frame(b"TCON", b"\0Pop") + bytes(9)) + second + tagged.content("mp3"))
    rewrite(path, journal, "Classical", original=("Pop",))
    data = path.read_bytes()
    assert data.count(b"Classical") == 2
    assert data.count(b"ORIGINALGENRE") == 1
    assert raw_frame(b"TPE2", b"\0x") in data


def test_flac_with_id3_in_front(journal: Journal, tmp_path: Path) -> None:
    path = tagged.tag(tagged.write(tmp_path / "a.flac"), ["Pop"], big=True)
    path.write_bytes(id3(3, raw_frame(b"TCON", b"\0Pop") + raw_frame(b"XYZW", b"x")) + path.read_bytes())
    rewrite(path, journal, "Jazz", original=("Pop",))
    assert [place.genres for place in look(path).inventory.places] == [("Jazz",), ("Jazz",)]
    assert raw_frame(b"XYZW", b"x") in path.read_bytes()
    assert read(path).genres == ("Jazz",)


def info(*items: tuple[bytes, bytes]) -> bytes:
    body = b"INFO" + b"".join(
        name + len(text).to_bytes(4, "little") + text + bytes(len(text) % 2) for name, text in items
    )
    return b"LIST" + len(body).to_bytes(4, "little") + body


@pytest.mark.parametrize("with_chunk", [False, True])
def test_wav_with_an_info_list(with_chunk: bool, journal: Journal, tmp_path: Path) -> None:
    path = tagged.write(tmp_path / "a.wav")
    if with_chunk:
        tagged.tag(path, ["Pop"])
    data = path.read_bytes() + info((b"INAM", b"Joga\0"), (b"IGNR", b"Pop\0"), (b"ISFT", b"odd"))
    path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    before = sha(path)
    assert look(path).inventory.genres == ("Pop",)
    rewrite(path, journal, "Country", original=("Pop",))
    content = path.read_bytes()
    assert int.from_bytes(content[4:8], "little") == len(content) - 8
    assert info((b"INAM", b"Joga\0"), (b"IGNR", b"Country\0"), (b"ISFT", b"odd")) in content
    assert (read(path).genres, read(path).title) == (("Country",), "Jóga" if with_chunk else "Joga")
    if pytest.importorskip("av"):
        assert heard(path) == ["Country"]
    take_back(journal, journal.to_undo(COMMAND)[0])
    assert sha(path) == before


def test_names_that_are_not_latin(journal: Journal, tmp_path: Path) -> None:
    for kind in ("mp3", "wav"):
        path = tagged.write(tmp_path / f"a.{kind}")
        data = path.read_bytes() + (info((b"IGNR", b"Pop")) if kind == "wav" else b"TAG" + bytes(124) + b"\x0d")
        path.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:] if kind == "wav" else data)
        rewrite(path, journal, "Музыка", original=("Pop",))
        assert read(path).genres == ("Музыка",)
        rewrite(path, journal, "hip-hop", "Chanson française")
        assert read(path).genres == ("hip-hop", "Chanson française")


def test_a_number_that_is_no_genre_of_the_list(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(id3(3, raw_frame(b"TCON", b"\0Pop\x002000")) + tagged.content("mp3"))
    assert look(path).inventory.genres == ("Pop", "2000")
    rewrite(path, journal, "Pop", "2000", "Jazz")
    assert look(path).inventory.genres == ("Pop", "2000", "Jazz")


@pytest.mark.parametrize("moov_first", [False, True])
@pytest.mark.parametrize("has_tags", [False, True])
def test_m4a_as_ffmpeg_writes_it(moov_first: bool, has_tags: bool, journal: Journal, tmp_path: Path) -> None:
    """A disc number in 8 bytes, which mutagen would write as 6; the index in front, so that the audio moves."""
    av = pytest.importorskip("av")
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="ipod", options={"movflags": "faststart"} if moov_first else {}) as out:
        if has_tags:
            out.metadata.update(disc="1/2", track="3/9", title="Jóga", genre="Pop", compilation="1")
        stream = out.add_stream("aac", rate=44_100)
        for begin in range(0, 44_100, 1024):
            noise = synth.music(1024 / 44_100, channels=2, seed=begin).T.copy()
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 44_100, begin
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    before = path.read_bytes()
    assert (before.index(b"moov") < before.index(b"mdat")) == moov_first
    sound, size = audio_hash(path), len(before)
    rewrite(path, journal, "Progressive".join(["-"] * 20), "Blues", original=("Pop",) if has_tags else ())
    assert audio_hash(path) == sound
    assert heard(path)[0].startswith("-Progressive-")
    assert read(path).genres[1] == "Blues"
    assert read(path).title == ("Jóga" if has_tags else None)
    grown = path.stat().st_size
    assert grown > size
    rewrite(path, journal, "Jazz")
    assert path.stat().st_size == grown, "the free space was not used"
    assert (heard(path), audio_hash(path)) == (["Jazz"], sound)
    for step in journal.to_undo(COMMAND):
        take_back(journal, step)
    assert path.read_bytes() == before


def test_m4a_with_a_genre_by_number(journal: Journal, tmp_path: Path) -> None:
    path = tagged.tag(tagged.write(tmp_path / "a.m4a"), ["Pop?"])
    item = b"\0\0\0\x1c\xa9gen\0\0\0\x14data\0\0\0\x01\0\0\0\0Pop?"
    data = path.read_bytes()
    assert item in data
    path.write_bytes(data.replace(item, b"\0\0\0\x1cgnre\0\0\0\x14data\0\0\0\0\0\0\0\0\0\x12\0\0"))
    assert look(path).inventory.genres == ("Rock",)
    rewrite(path, journal, "Jazz", original=("Rock",))
    assert b"gnre" not in path.read_bytes()
    assert (read(path).genres, look(path).inventory.original) == (("Jazz",), ("Rock",))


def test_the_first_original_is_kept(journal: Journal, tmp_path: Path) -> None:
    path = tagged.tag(tagged.write(tmp_path / "a.flac"), ["Pop"])
    rewrite(path, journal, "Jazz", original=("Pop",))
    rewrite(path, journal, "Folk", original=("Jazz",))
    assert look(path).inventory.original == ("Pop",)
    for step in journal.to_undo(COMMAND):
        take_back(journal, step)
    assert read(path).genres == ("Pop",)


DAMAGED: dict[str, Callable[[Path], bytes]] = {
    "a tag longer than the file": lambda _: id3(3, b"")[:6] + b"\x7f\x7f\x7f\x7f" + b"TCON",
    "a frame longer than the tag": lambda _: id3(3, b"TCON\0\0\xff\xff\0\0\0Pop") + tagged.content("mp3"),
    "something in the padding": lambda _: id3(3, bytes(10) + b"junk") + tagged.content("mp3"),
    "a version that is not known": lambda _: id3(5, bytes(10)) + tagged.content("mp3"),
    "an encrypted genre": lambda _: id3(3, raw_frame(b"TCON", b"\0xx", b"\0\x40")) + tagged.content("mp3"),
    "a checksum": lambda _: id3(3, b"\0\0\0\x0a\x80\0\0\0\0\0\x01\x02\x03\x04" + raw_frame(b"TCON", b"\0Pop"), 0x40)
    + tagged.content("mp3"),
    "an ape tag that is cut": lambda _: tagged.content("ape")
    + b"APETAGEX" + (2000).to_bytes(4, "little") + (60).to_bytes(4, "little") + (3).to_bytes(4, "little") + bytes(12),
    "a flac that is cut": lambda _: tagged.content("flac")[:60],
    "a wav that is cut": lambda _: tagged.content("wav")[:-1000],
    "an m4a that is cut": lambda _: tagged.content("m4a")[:-1000],
    "a wma that is cut": lambda _: tagged.content("wma")[:200],
    "an ogg that is cut": lambda _: tagged.content("ogg")[:-100],
    "chained ogg": lambda _: tagged.content("ogg") + tagged.content("opus"),
    "rf64": lambda _: b"RF64" + tagged.content("wav")[4:],
    "text": lambda _: b"no music at all",
    "empty": lambda _: b"",
    "caf": lambda _: b"caff" + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_is_refused_and_left(what: str, journal: Journal, tmp_path: Path) -> None:
    path = music_folder(tmp_path) / "a.mp3"
    path.write_bytes(DAMAGED[what](path))
    before = path.read_bytes()
    with pytest.raises(Refused, match=r"\w+ \w+"):
        rewrite(path, journal, "Jazz")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    assert journal.to_undo(COMMAND) == []


def test_attributes_and_owner_are_kept(journal: Journal, tmp_path: Path) -> None:
    path = tagged.tag(tagged.write(music_folder(tmp_path) / "a.flac"), ["Pop"])
    try:
        os.setxattr(path, "user.mood", b"calm")
    except OSError as error:
        pytest.skip(f"no attributes here: {error}")
    if os.getuid() == 0:
        os.chown(path, 12, 34)
    path.chmod(0o4755)
    status = path.stat()
    rewrite(path, journal, "Jazz")
    assert os.getxattr(path, "user.mood") == b"calm"
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
    take_back(journal, journal.to_undo(COMMAND)[0])
    assert os.getxattr(path, "user.mood") == b"calm"


def test_the_time_is_kept_where_it_is_asked_for(journal: Journal, tmp_path: Path) -> None:
    path = tagged.tag(tagged.write(tmp_path / "a.flac"), ["Pop"])
    os.utime(path, ns=(5, 1_600_000_000_000_000_001))
    rewrite(path, journal, "Jazz", keep_mtime=True)
    assert path.stat().st_mtime_ns == 1_600_000_000_000_000_001


def test_what_somebody_changed_since_is_left(journal: Journal, tmp_path: Path) -> None:
    path = tagged.tag(tagged.write(tmp_path / "a.flac"), ["Pop"])
    rewrite(path, journal, "Jazz")
    tagged.tag(path, ["Dub"])
    content = path.read_bytes()
    with pytest.raises(Refused, match="changed after this run wrote it"):
        take_back(journal, journal.to_undo(COMMAND)[0])
    assert path.read_bytes() == content
    found = look(path)
    tagged.tag(path, ["Ska"])
    with pytest.raises(Refused, match="changed while this run went on"):
        write(found, Change(("Jazz",)), journal, journal.begin(COMMAND))


def test_one_that_another_run_writes_is_refused(journal: Journal, tmp_path: Path) -> None:
    import fcntl

    path = tagged.tag(tagged.write(tmp_path / "a.flac"), ["Pop"])
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="another run is writing it"):
            rewrite(path, journal, "Jazz")


def test_what_mutagen_would_change_is_refused(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof: a writer that drops a tag, or touches the audio, never gets as far as the file."""
    from edge_reclass.library.tags.ogg import Ogg

    path = tagged.tag(tagged.write(tmp_path / "a.ogg"), ["Pop"])
    before = path.read_bytes()
    save = Ogg.save

    def drops(self: Ogg, copy: Path, change: Change) -> None:
        import mutagen

        save(self, copy, change)
        opened = mutagen.File(copy)
        del opened["ARTIST"]
        opened.save()

    def spoils(self: Ogg, copy: Path, change: Change) -> None:
        save(self, copy, change)
        with copy.open("r+b") as file:
            file.seek(-10, 2)
            byte = file.read(1)
            file.seek(-10, 2)
            file.write(bytes([byte[0] ^ 1]))

    for spoilt, reason in ((drops, "ARTIST"), (spoils, "audio")):
        monkeypatch.setattr(Ogg, "save", spoilt)
        with pytest.raises(Refused, match=f"would change more than the genre: .*{reason}"):
            rewrite(path, journal, "Jazz")
        assert path.read_bytes() == before


class _Killed(BaseException):
    """In place of a kill: nothing catches it."""


def killed_after_the_rename(path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: object) -> None:
        raise _Killed

    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(writing, "_done", kill)
        rewrite(path, journal, "Jazz")


@pytest.mark.parametrize("what", ["unmounted", "touched", "copied"])
def test_a_crash_can_be_undone_whatever_comes_between(
    what: str, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tagged.write(music_folder(tmp_path) / "a.mp3")
    before = sha(path)
    killed_after_the_rename(path, journal, monkeypatch)
    assert sha(path) != before
    if what == "unmounted":
        path.parent.rename(tmp_path / "away")
        assert [step.path for step in recover(journal)] == [path]
        (tmp_path / "away").rename(path.parent)
    elif what == "touched":
        path.touch()
    else:
        path.with_name("b").write_bytes(path.read_bytes())
        path.with_name("b").replace(path)
    assert recover(journal) == []
    take_back(journal, journal.to_undo(COMMAND)[0])
    assert sha(path) == before


def test_a_step_that_did_not_happen_is_dropped_and_a_changed_file_leaves_it_open(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tagged.write(tmp_path / "a.mp3")
    old = path.read_bytes()
    killed_after_the_rename(path, journal, monkeypatch)
    written = path.read_bytes()
    path.write_bytes(written + b"x")
    (step,) = recover(journal)
    with pytest.raises(Refused, match="changed after this run wrote it"):
        take_back(journal, step)
    path.write_bytes(written)
    take_back(journal, step)
    assert path.read_bytes() == old
    assert recover(journal) == journal.to_undo(COMMAND) == []
    killed_after_the_rename(path, journal, monkeypatch)
    path.write_bytes(old)
    assert recover(journal) == journal.to_undo(COMMAND) == []


def test_what_somebody_changes_at_the_last_moment_is_left(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tagged.write(tmp_path / "a.mp3")
    step = journal.step

    def slow(*arguments: Any) -> Any:
        noted = step(*arguments)
        path.write_bytes(path.read_bytes() + b"edited meanwhile")
        return noted

    monkeypatch.setattr(journal, "step", slow)
    with pytest.raises(Refused, match="changed while this run went on"):
        rewrite(path, journal, "Jazz")
    assert path.read_bytes().endswith(b"edited meanwhile")
    assert recover(journal) == journal.to_undo(COMMAND) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_folder_that_cannot_be_synced(
    number: int, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has its genre by then: that is no refusal."""
    path = tagged.write(tmp_path / "a.mp3")
    before, fsync = sha(path), os.fsync

    def no_folders(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", no_folders)
    rewrite(path, journal, "Jazz")
    assert read(path).genres == ("Jazz",)
    take_back(journal, journal.to_undo(COMMAND)[0])
    assert sha(path) == before
    assert journal.to_undo(COMMAND) == []


def test_a_digit_that_is_no_number(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    genres = "²", "٣", "9" * 5000, "17"
    path.write_bytes(id3(3, utf16(b"TCON", *genres)) + tagged.content("mp3"))
    assert look(path).inventory.genres == ("²", "٣", "9" * 5000, "Rock")


def utf16(name: bytes, *texts: str) -> bytes:
    return raw_frame(name, b"\1" + "\0".join(texts).encode("utf-16"))


def test_atoms_nested_without_end_are_refused(tmp_path: Path) -> None:
    atoms = b""
    for _ in range(3000):
        atoms = (8 + len(atoms)).to_bytes(4, "big") + b"trak" + atoms
    path = tmp_path / "a.m4a"
    moov = (8 + len(atoms)).to_bytes(4, "big") + b"moov" + atoms
    path.write_bytes(b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42" + b"\0\0\0\x10mdat12345678" + moov)
    with pytest.raises(Refused, match="nested deeper than any"):
        look(path)


def test_a_big_cover_of_an_ogg_is_read_in_linear_time(tmp_path: Path) -> None:
    from mutagen.oggvorbis import OggVorbis

    path = tagged.write(tmp_path / "a.ogg")
    opened = OggVorbis(path)
    opened["METADATA_BLOCK_PICTURE"] = ["A" * 6_000_000]
    opened.save()
    begun = time.process_time()
    look(path)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("version", [3, 4])
def test_a_frame_that_unpacks_to_gigabytes_is_refused(version: int, tmp_path: Path) -> None:
    packed = zlib.compress(b"\3" + b"x" * 20_000_000)
    if version == 3:
        frame = raw_frame(b"TCON", (20_000_001).to_bytes(4, "big") + packed, b"\0\x80")
    else:
        size = bytes((len(packed) + 4 >> shift) & 0x7F for shift in (21, 14, 7, 0))
        frame = b"TCON" + size + b"\0\x09" + bytes(4) + packed
    path = tmp_path / "a.mp3"
    path.write_bytes(id3(version, frame) + tagged.content("mp3"))
    with pytest.raises(Refused, match="TCON is longer than any text"):
        look(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [(b"\xa9gen", b"\0\4\x55\xc4Rock"), (b"gnre", bytes(4) + b"\x15\xc7Rock\0")],
    ids=["quicktime", "3gpp"],
)
def test_a_genre_in_the_user_data_of_an_m4a(name: bytes, content: bytes, journal: Journal, tmp_path: Path) -> None:
    path = tagged.write(tmp_path / "a.m4a")
    data = path.read_bytes()
    item = (8 + len(content)).to_bytes(4, "big") + name + content
    for kind in (b"moov", b"udta"):  # at the end of the file: nothing else moves
        at = data.rindex(kind) - 4
        data = data[:at] + (int.from_bytes(data[at : at + 4], "big") + len(item)).to_bytes(4, "big") + data[at + 4 :]
    path.write_bytes(data + item)
    before = sha(path)
    assert look(path).inventory.genres == ("Rock",)
    assert Rules().change(look(path).inventory, ("Jazz",)) is None
    with pytest.raises(Refused, match=r"another genre in its .* user data"):
        rewrite(path, journal, "Jazz")
    assert sha(path) == before
    rewrite(path, journal, "Rock")
    assert read(path).genres == ("Rock",)


def test_tta_with_an_ape_tag(journal: Journal, tmp_path: Path) -> None:
    """FFmpeg reads that one alone."""
    path = tmp_path / "a.tta"
    synth.write_av(path, synth.music(1.0, tagged.RATE), tagged.RATE, "tta", "tta", "s16")
    with_ape(path, Album="Homogenic")
    before = sha(path)
    rewrite(path, journal, "Jazz")
    assert read(path).genres == ("Jazz",)
    assert heard(path) == ["Jazz"]
    take_back(journal, journal.to_undo(COMMAND)[0])
    assert sha(path) == before


def test_blanks_are_no_genre(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(id3(3, raw_frame(b"TCON", b"\0 ")) + tagged.content("mp3"))
    change = Rules().change(look(path).inventory, ("Jazz",))
    assert change == Change(("Jazz",))
    rewrite(path, journal, "Jazz")
    assert read(path).genres == ("Jazz",)
