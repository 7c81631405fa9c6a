"""What a wav file's chunks say, where libsndfile goes wrong: streamed ones, and those that hold no PCM."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from edge_reclass.audio.pieces import Piece

_MAX_CHUNKS: Final = 1000

_SYNC_BYTES: Final = 1 << 15

_SYNC: Final = re.compile(
    rb"\x7f\xfe\x80\x01|\xfe\x7f\x01\x80"  # DTS, 16 bits per word
    rb"|\x1f\xff\xe8\x00\x07[\xf0-\xff]|\xff\x1f\x00\xe8[\xf0-\xff]\x07"  # 14 bits per word
    rb"|\xf8\x72\x4e\x1f|\x72\xf8\x1f\x4e",  # IEC 61937 (S/PDIF): AC-3, DTS, …
    re.DOTALL,
)

_KNOWN_TAGS: Final = frozenset({1, 2, 3, 6, 7, 0x11, 0x14, 0x31, 0x45, 0x50, 0x55, 0x64, 0xFFFE})
"""Format tags that libsndfile knows; where it refuses one of them, the file is damaged, not of another codec."""


@dataclass(frozen=True)
class Wave:
    """The chunks of a wav file that matter: ``format_tag``, and where the data lie and end by their header."""

    offset: int
    format_tag: int
    data: int
    size: int

    @property
    def known(self) -> bool:
        """True if the format is one that libsndfile knows."""
        return self.format_tag in _KNOWN_TAGS

    def streamed(self, fd: int) -> list[Piece] | None:
        """A view of the file with its sizes set right, or None unless the header says 0 where there are data."""
        end = os.fstat(fd).st_size
        there = end - self.data
        if self.size or there <= 0 or _is_chunk(os.pread(fd, 8, self.data), there):
            return None
        length = min(there, 0xFFFF_FF00)
        head = bytearray(os.pread(fd, self.data - self.offset, self.offset))
        head[4:8] = min(len(head) - 8 + length, 0xFFFF_FFFF).to_bytes(4, "little")
        head[-4:] = length.to_bytes(4, "little")
        return [bytes(head), (self.data, length)]


def read_wave(fd: int, offset: int) -> Wave | None:
    """The chunks up to the data of the little-endian wav file at ``offset`` of an open file; None without them."""
    if os.pread(fd, 4, offset) not in (b"RIFF", b"RF64", b"BW64"):
        return None
    position, tag = offset + 12, 0
    for _ in range(_MAX_CHUNKS):
        head = os.pread(fd, 12, position)
        if len(head) < 8:
            return Wave(offset, tag, position, -1) if tag else None
        size = int.from_bytes(head[4:8], "little")
        if head[:4] == b"fmt ":
            fmt = os.pread(fd, 26, position + 8)
            tag = int.from_bytes(fmt[:2], "little")
            if tag == 0xFFFE and len(fmt) == 26:
                tag = int.from_bytes(fmt[24:26], "little")  # WAVE_FORMAT_EXTENSIBLE: the subformat's first bytes
        if head[:4] == b"data":
            return Wave(offset, tag, position + 8, size)
        position += 8 + size + size % 2
    return None


def holds_bitstream(fd: int, wave: Wave) -> bool:
    """True if what is declared as PCM is a DTS or S/PDIF bit stream, as on CDs for surround decoders."""
    if wave.format_tag != 1:
        return False
    # By chance, such a word comes once in gigabytes of noise; of frames, there are many in so few bytes.
    return len(_SYNC.findall(os.pread(fd, _SYNC_BYTES, wave.data))) >= 2


def _is_chunk(head: bytes, room: int) -> bool:
    """True if ``head`` begins a chunk that fits into what is left of the file."""
    return len(head) == 8 and head[:4].isalnum() and int.from_bytes(head[4:], "little") + 8 <= room + 1
