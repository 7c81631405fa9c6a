"""Short audio files of every format that is tagged, and tags in them as taggers write them."""

from __future__ import annotations

import os
import random
import struct
import tempfile
from functools import lru_cache
from pathlib import Path

import synth
from edge_reclass.errors import Status
from edge_reclass.library.state import State
from edge_reclass.verdict import Score, Verdict

KINDS = ("mp3", "flac", "ogg", "opus", "m4a", "wma", "wav", "aiff", "wv", "ape", "mpc", "dsf")
AUDIBLE = tuple(kind for kind in KINDS if kind not in ("ape", "mpc"))
"""Those with sound; of ape and mpc, for which there is no encoder, only the headers are real."""

RATE = 44_100


def write(path: Path, kind: str | None = None, seconds: float = 1.0) -> Path:
    """A file without tags of the kind that its suffix names."""
    path.write_bytes(content(kind or path.suffix[1:], seconds))
    return path


@lru_cache(maxsize=64)
def content(kind: str, seconds: float = 1.0) -> bytes:
    noise = random.Random(kind).randbytes(20_000)
    if kind == "ape":
        fmt = struct.pack("<IIIHHI", 73_728, 44_100, 1, 16, 2, RATE)
        return (
            b"MAC "
            + struct.pack("<HH", 3990, 0)
            + struct.pack("<IIIIIII", 52, 24, 4, 0, 0, 20_000, 0)
            + bytes(16)
            + (struct.pack("<HH", 2000, 0) + fmt + struct.pack("<I", 80) + noise)
        )
    if kind == "mpc":
        return b"MP+\x07" + struct.pack("<II", 38, 0x0100_0000) + bytes(20) + noise
    if kind == "dsf":
        return synth.dsf(max(0.2, seconds / 5))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind}"
        samples = synth.music(seconds, RATE if kind != "opus" else 48_000)
        if kind == "wv":
            synth.write_av(path, samples, RATE, "wavpack", "wv", "s16p")
        else:
            synth.write(path, samples, RATE if kind != "opus" else 48_000)
        return path.read_bytes()


def cover(size: int = 200_000) -> bytes:
    """Bytes that do not get smaller, like those of a picture."""
    return b"\xff\xd8\xff\xe0" + random.Random(1).randbytes(size - 4)


def tag(path: Path, genres: list[str], *, big: bool = False) -> Path:
    """Artist, title, genres, and with ``big`` a cover and more, as mutagen writes them."""
    import mutagen
    from mutagen import id3
    from mutagen.asf import ASFByteArrayAttribute
    from mutagen.flac import Picture
    from mutagen.mp4 import MP4Cover

    opened = mutagen.File(path)
    if opened.tags is None:
        opened.add_tags()
    kind = path.suffix
    if hasattr(opened.tags, "getall"):
        frames = [id3.TPE1(text=["Björk"]), id3.TIT2(encoding=3, text=["Jóga"])]
        frames += [id3.TCON(encoding=3, text=genres)] if genres else []
        if big:
            frames += [id3.APIC(mime="image/jpeg", type=3, data=cover()), id3.PRIV(owner="TRAKTOR4", data=cover(5000))]
            frames += [id3.GEOB(desc="Serato Markers_", data=cover(3000)), id3.COMM(lang="eng", text=["so"])]
        for frame in frames:
            opened.tags.add(frame)
    elif kind == ".m4a":
        opened["\xa9ART"], opened["\xa9nam"], opened["tmpo"] = ["Björk"], ["Jóga"], [120]
        if genres:
            opened["\xa9gen"] = genres
        if big:
            opened["covr"] = [MP4Cover(cover())]
    elif kind == ".wma":
        opened["Author"], opened["Title"] = ["Björk"], ["Jóga"]
        if genres:
            opened["WM/Genre"] = genres
        if big:
            opened["WM/Picture"] = [ASFByteArrayAttribute(cover())]
    else:
        opened["ARTIST"], opened["TITLE"] = ["Björk"], ["Jóga"]
        if genres:
            opened["GENRE"] = genres
        if big and kind == ".flac":
            picture = Picture()
            picture.data = cover()
            opened.add_picture(picture)
        elif big:
            opened["COMMENT"] = [cover(100_000).hex()]
    opened.save()
    return path


def verdict(path: Path, genre: str | None = "Rock", confidence: float = 0.9) -> Verdict:
    """What classify says of the file as it is."""
    status = path.stat() if path.exists() else None
    return Verdict(
        path=str(path),
        status=Status.OK if genre else Status.UNSURE,
        bundle="b",
        policy="p",
        genre=genre,
        confidence=confidence,
        top=(Score(genre or "Jazz", confidence), Score("Blues", 0.2), Score("Folk", 0.05)),
        size=None if status is None else status.st_size,
        mtime_ns=None if status is None else status.st_mtime_ns,
        at="2026-01-01T00:00:00+00:00",
    )


def state(file: Path, verdicts: list[Verdict], root: Path) -> Path:
    """A state file with these tracks."""
    with State.open(file, create=True) as opened, opened.transaction():
        opened.connection.execute("INSERT INTO root VALUES (?, ?, '2026')", (os.fsencode(root), root.stat().st_dev))
        for one in verdicts:
            opened.connection.execute(
                "INSERT INTO track (path, size, mtime_ns, status, genre, confidence, verdict, first_seen, last_seen) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, '2026', '2026')",
                (os.fsencode(one.path), one.size, one.mtime_ns, one.status, one.genre, one.confidence, one.to_json()),
            )
    return file
