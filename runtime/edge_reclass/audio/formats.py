"""Which files are audio by their suffix, what the first bytes of a file say, and FFmpeg's demuxer for each."""

from __future__ import annotations

import os
import struct
from typing import Final, Literal

from edge_reclass.audio.mpeg import parse_header
from edge_reclass.audio.tags import skip_leading

SOUNDFILE_SUFFIXES: Final = frozenset(
    {
        ".wav", ".wave", ".bwf", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mp1", ".mpa",
        ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".voc", ".sph", ".nist", ".ircam", ".paf", ".8svx", ".svx",
    }
)  # fmt: skip
"""Suffixes of what libsndfile decodes."""

PYAV_SUFFIXES: Final = frozenset(
    {
        ".m4a", ".m4b", ".m4p", ".m4r", ".aac", ".adts", ".alac", ".wma", ".asf", ".loas", ".latm",
        # lossless, DSD
        ".wv", ".tta", ".ape", ".mac", ".mpc", ".mp+", ".mpp", ".tak", ".shn", ".dsf", ".dff", ".osq",
        # surround, telephones, others
        ".ac3", ".eac3", ".ec3", ".dts", ".dtshd", ".mlp", ".thd", ".truehd", ".spx", ".amr", ".awb", ".qcp", ".ra",
        ".rm", ".rmvb", ".oma", ".aa3", ".at3", ".xwma", ".qoa",
        # containers of video, whose sound is heard
        ".mka", ".mkv", ".webm", ".weba", ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".avi", ".wmv",
        ".flv", ".f4a", ".f4v", ".ogv", ".ogx", ".ogm", ".mpg", ".mpeg", ".vob", ".m2ts", ".mts", ".nut",
    }
)  # fmt: skip
"""Suffixes of what needs PyAV, the extra ``codecs``."""

AUDIO_SUFFIXES: Final = SOUNDFILE_SUFFIXES | PYAV_SUFFIXES
"""Lower-case suffixes of the files that a folder is searched for."""

Container = Literal[
    "riff", "flac", "ogg", "ogg-other", "aiff", "caf", "w64", "au", "voc", "nist", "iff", "mpeg", "mov", "aac", "loas",
    "asf", "wv", "tta", "ape", "mpc", "mpc8", "tak", "shn", "dsf", "dff", "osq", "qoa", "matroska", "avi", "flv", "ac3",
    "eac3", "dts", "dtshd", "truehd", "mlp", "amr", "qcp", "rm", "oma", "xwma", "mpegps", "mpegts", "nut",
]  # fmt: skip
"""ogg: vorbis or opus; ogg-other: flac, speex, … in ogg; mpeg: MPEG audio layers I to III;
mov: MP4 and M4A; aac: ADTS; asf: WMA; iff: 8SVX; dff: DSDIFF."""

_DEMUXERS: Final[dict[Container, str]] = {
    "riff": "wav", "ogg-other": "ogg", "nist": "nistsphere", "mpeg": "mp3", "dff": "iff", "mpegps": "mpeg"
}  # fmt: skip
"""FFmpeg's name of the demuxer of a container, where it is another than ours."""

_BY_SUFFIX: Final[dict[str, Container]] = {
    ".mp3": "mpeg", ".mp2": "mpeg", ".mp1": "mpeg", ".mpa": "mpeg", ".aac": "aac", ".adts": "aac", ".latm": "loas",
    ".loas": "loas", ".ac3": "ac3", ".eac3": "eac3", ".ec3": "eac3", ".dts": "dts", ".mlp": "mlp", ".thd": "truehd",
    ".truehd": "truehd",
}  # fmt: skip
"""Raw streams, whose frames may begin behind junk: there the suffix says what to look for."""

_HEAD_BYTES: Final = 27 + 255 + 8
"""The longest header of an ogg page, and the name of what is in it."""

_MOV_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"sidx")

_RIFF_TYPES: Final[dict[bytes, Container]] = {b"WAVE": "riff", b"AVI ": "avi", b"QLCM": "qcp", b"XWMA": "xwma"}

_PREFIXES: Final[tuple[tuple[bytes, Container], ...]] = (
    (b"fLaC", "flac"),
    (b"caff", "caf"),
    (b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000"), "w64"),
    (b".snd", "au"),
    (b"Creative Voice File\x1a", "voc"),
    (b"NIST_1A", "nist"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
    (b"wvpk", "wv"),
    (b"TTA1", "tta"),
    (b"TTA2", "tta"),
    (b"MAC ", "ape"),
    (b"MP+", "mpc"),
    (b"MPCK", "mpc8"),
    (b"tBaK", "tak"),
    (b"ajkg", "shn"),
    (b"DSD ", "dsf"),
    (b"OSQ ", "osq"),
    (b"qoaf", "qoa"),
    (bytes.fromhex("1a45dfa3"), "matroska"),
    (b"FLV\x01", "flv"),
    (b"#!AMR", "amr"),
    (b".RMF", "rm"),
    (b".ra\xfd", "rm"),
    (b"EA3\x01", "oma"),
    (b"ea3\x03", "oma"),
    (b"DTSHDHDR", "dtshd"),
    (bytes.fromhex("7ffe8001"), "dts"),
    (bytes.fromhex("fe7f0180"), "dts"),
    (bytes.fromhex("1fffe800"), "dts"),
    (bytes.fromhex("ff1f00e8"), "dts"),
    (bytes.fromhex("64582025"), "dts"),
    (bytes.fromhex("000001ba"), "mpegps"),
    (b"nut/multimedia container\0", "nut"),
)


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The file name's suffix in lower case, with its dot; empty if it has none."""
    return os.path.splitext(os.fspath(path))[1].lower()  # noqa: PTH122 (a Path per file is slow)


def has_audio_suffix(path: str | os.PathLike[str]) -> bool:
    """Return whether the path ends in one of AUDIO_SUFFIXES, in any case. The file is not touched."""
    return suffix_of(path) in AUDIO_SUFFIXES


def needs_pyav(path: str | os.PathLike[str]) -> bool:
    """Return whether the path's suffix is one that PyAV decodes."""
    return suffix_of(path) in PYAV_SUFFIXES


def sniff(fd: int) -> tuple[Container | None, int]:
    """Return the container that the first bytes of an open file announce, or None; and where it begins behind tags.

    Keeps the file's offset.
    """
    offset = skip_leading(fd)
    found = _sniff_magic(os.pread(fd, _HEAD_BYTES, offset))
    # A tag with padding behind it is still most likely an mp3; the decoder looks further.
    return ("mpeg" if found is None and offset > 0 else found), offset


def demuxer_of(container: Container) -> str:
    """Return FFmpeg's demuxer for a container. It is never left to guess: it would take playlists, too."""
    return _DEMUXERS.get(container, container)


def named_container(path: str | os.PathLike[str]) -> Container | None:
    """The raw stream that a file's suffix promises, where its beginning says nothing."""
    return _BY_SUFFIX.get(suffix_of(path))


def _sniff_magic(head: bytes) -> Container | None:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _RIFF_TYPES.get(head[8:12])
    if head[:4] == b"FORM":
        return "aiff" if head[8:12] in (b"AIFF", b"AIFC") else "iff" if head[8:12] in (b"8SVX", b"16SV") else None
    if head[:4] == b"FRM8" and head[12:16] == b"DSD ":
        return "dff"
    for prefix, container in _PREFIXES:
        if head.startswith(prefix):
            return container
    if head.startswith(b"OggS"):
        # RFC 3533 §6: 27 bytes of page header, the last one the number of segment sizes that follow.
        packet = head[27 + head[26] :] if len(head) > 27 else b""
        return "ogg" if packet.startswith((b"\x01vorbis", b"OpusHead")) else "ogg-other"
    if head[4:8] in _MOV_BOXES:
        return "mov"
    if head[4:8] in (bytes.fromhex("f8726fba"), bytes.fromhex("f8726fbb")):
        return "truehd" if head[7] == 0xBA else "mlp"
    # A transport stream has its sync byte every 188 bytes, or every 192 behind four bytes of time.
    if (head[:1] == b"G" == head[188:189]) or (head[4:5] == b"G" == head[196:197]):
        return "mpegts"
    return _sniff_frame_header(head)


def _sniff_frame_header(head: bytes) -> Container | None:
    if len(head) < 7:
        return "mpeg" if parse_header(head) else None
    first = struct.unpack(">H", head[:2])[0]
    # Layer 0 under a 12-bit sync word is ADTS: ISO/IEC 13818-7 §6.2; LOAS has 11 bits of 0x2b7: 14496-3 §1.7.2.
    if first & 0xFFF6 == 0xFFF0:
        return "aac"
    if first & 0xFFE0 == 0x56E0:
        size = 3 + (struct.unpack(">H", head[1:3])[0] & 0x1FFF)
        return "loas" if size + 2 > len(head) or head[size : size + 1] == b"\x56" else None
    if first in (0x0B77, 0x770B):
        # ETSI TS 102 366: bsid above 10 is E-AC-3.
        return "eac3" if (head[5] if first == 0x0B77 else head[4]) >> 3 > 10 else "ac3"
    return "mpeg" if parse_header(head) else None
