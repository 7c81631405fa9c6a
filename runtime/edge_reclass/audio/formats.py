"""Which files are audio by their suffix, and what the first bytes of a file say."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Final, Literal

from edge_reclass.audio.mpeg import parse_header, skip_id3

__all__ = [
    "AUDIO_SUFFIXES",
    "PYAV_SUFFIXES",
    "SOUNDFILE_SUFFIXES",
    "Container",
    "has_audio_suffix",
    "is_audio",
    "needs_pyav",
    "sniff",
]

SOUNDFILE_SUFFIXES: Final = frozenset(
    {
        ".wav",
        ".wave",
        ".w64",
        ".rf64",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".mp2",
        ".aif",
        ".aiff",
        ".aifc",
        ".caf",
        ".au",
    }
)
"""Suffixes of what libsndfile decodes."""

PYAV_SUFFIXES: Final = frozenset({".m4a", ".m4b", ".aac", ".alac", ".wma"})
"""Suffixes of what needs PyAV, the extra ``codecs``."""

AUDIO_SUFFIXES: Final = SOUNDFILE_SUFFIXES | PYAV_SUFFIXES
"""Lower-case suffixes of the files that a folder is searched for."""

Container = Literal["riff", "flac", "ogg", "ogg-other", "aiff", "caf", "w64", "au", "mpeg", "mov", "aac", "asf"]
"""ogg: vorbis or opus; ogg-other: flac, speex, … in ogg; mpeg: MPEG audio layers I to III;
mov: MP4 and M4A; aac: ADTS; asf: WMA."""

_ASF_HEADER: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_W64_HEADER: Final = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")
_HEAD_BYTES: Final = 27 + 255 + 8
"""The longest header of an ogg page, and the name of what is in it."""

_MOV_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")


def has_audio_suffix(name: str) -> bool:
    """True if the file name ends in one of AUDIO_SUFFIXES, in any case."""
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES  # noqa: PTH122 (a Path per file is slow)


def is_audio(path: str | os.PathLike[str]) -> bool:
    """True if the path's suffix is one of AUDIO_SUFFIXES, in any case. The file is not touched."""
    return has_audio_suffix(os.fspath(path))


def needs_pyav(path: str | os.PathLike[str]) -> bool:
    """True if the path's suffix is one that PyAV decodes."""
    return PurePath(path).suffix.lower() in PYAV_SUFFIXES


def sniff(fd: int) -> Container | None:
    """The container that the first bytes of an open file announce, or None.

    Looks behind ID3v2 tags; keeps the file's offset.
    """
    offset = skip_id3(fd)
    found = _sniff_magic(os.pread(fd, _HEAD_BYTES, offset))
    # An ID3 tag with padding behind it is still most likely an mp3; the decoder looks further.
    return "mpeg" if found is None and offset > 0 else found


def _sniff_magic(head: bytes) -> Container | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "riff"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    prefixes: tuple[tuple[bytes, Container], ...] = (
        (b"fLaC", "flac"),
        (b"caff", "caf"),
        (_W64_HEADER, "w64"),
        (b".snd", "au"),
        (_ASF_HEADER, "asf"),
    )
    for prefix, container in prefixes:
        if head.startswith(prefix):
            return container
    if head.startswith(b"OggS"):
        # RFC 3533 §6: 27 bytes of page header, the last one the number of segment sizes that follow.
        packet = head[27 + head[26] :] if len(head) > 27 else b""
        return "ogg" if packet.startswith((b"\x01vorbis", b"OpusHead")) else "ogg-other"
    if head[4:8] in _MOV_BOXES:
        return "mov"
    return _sniff_mpeg_header(head)


def _sniff_mpeg_header(head: bytes) -> Container | None:
    # Layer 0 under a 12-bit sync word is ADTS: ISO/IEC 13818-7 §6.2.
    if len(head) >= 4 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    return "mpeg" if parse_header(head) else None
