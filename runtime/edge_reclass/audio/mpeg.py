"""Length of MPEG audio that carries no length: walk the frame headers, without decoding.

libmpg123 (in libsndfile) takes the length from the Xing, Info or VBRI tag of the first frame; without one it
estimates from the file's size, 0.2 % too long even for a constant bit rate. Then the headers are counted.
Frame header and tables: ISO/IEC 11172-3 §2.4.2.3, ISO/IEC 13818-3 §2.4.2.3; MPEG 2.5 halves the rates again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

__all__ = ["FrameHeader", "count_samples", "parse_header", "skip_id3"]

_ID3_HEADER_BYTES: Final = 10
_READ_BYTES: Final = 1 << 18
_MAX_RESYNC_BYTES: Final = 1 << 16
"""So much that is not a frame (tags at the end, damage) ends the walk."""

# kbit/s by index 0..14, for (MPEG 1, layer) and (MPEG 2 and 2.5, layer).
_BIT_RATES: Final = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES: Final = (44_100, 48_000, 32_000)


@dataclass(frozen=True)
class FrameHeader:
    """``size`` in bytes with the header, 0 for free format; ``samples`` per channel; ``rate`` in Hz."""

    size: int
    samples: int
    rate: int


def parse_header(head: bytes) -> FrameHeader | None:
    """The MPEG audio frame header (layers I to III) in the first 4 bytes, or None where there is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = (head[1] >> 3) & 3, 4 - ((head[1] >> 1) & 3)
    bit_rate_index, rate_index, padding = head[2] >> 4, (head[2] >> 2) & 3, (head[2] >> 1) & 1
    if version == 1 or layer == 4 or bit_rate_index == 15 or rate_index == 3:
        return None
    first = version == 3
    rate = _RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    bit_rate = 1000 * _BIT_RATES[first, layer][bit_rate_index]
    samples = 384 if layer == 1 else 1152 if layer == 2 or first else 576
    # Layer I counts in slots of 4 bytes.
    size = 4 * (12 * bit_rate // rate + padding) if layer == 1 else samples // 8 * bit_rate // rate + padding
    return FrameHeader(size if bit_rate else 0, samples, rate)


def skip_id3(fd: int) -> int:
    """Where the content begins behind the ID3v2 tags of an open file; its offset is kept."""
    offset = 0
    # A tag may follow a tag; four are more than any tagger writes.
    for _ in range(4):
        head = os.pread(fd, _ID3_HEADER_BYTES, offset)
        if len(head) < _ID3_HEADER_BYTES or not head.startswith(b"ID3"):
            break
        # ID3v2.4 §3.1: 28 bits in four "synchsafe" bytes, and 10 more bytes if there is a footer.
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        offset += _ID3_HEADER_BYTES + size + (_ID3_HEADER_BYTES if head[5] & 0x10 else 0)
    return offset


def count_samples(fd: int) -> int | None:
    """Samples per channel in all frames of an open MPEG audio file; its offset is kept.

    None where the length needs no counting (a Xing, Info or VBRI tag has it), or cannot be counted this way
    (free format). Damage is stepped over, up to 64 KiB at a time.
    """
    position = skip_id3(fd)
    data, base = b"", position
    total, junk = 0, 0
    first: FrameHeader | None = None
    while junk < _MAX_RESYNC_BYTES:
        at = position - base
        if at < 0 or at + 4 > len(data):
            data, base, at = os.pread(fd, _READ_BYTES, position), position, 0
            if len(data) < 4:
                break
        header = parse_header(data[at : at + 4])
        if header is not None and (
            (first is not None and header.rate != first.rate)
            # Between frames that follow one another a header is one; behind junk, the next has to confirm it.
            or (junk and parse_header(os.pread(fd, 4, position + header.size)) is None)
        ):
            header = None
        if header is None:
            found = data.find(b"\xff", at + 1)
            step = (found if found >= 0 else max(len(data), at + 1)) - at
            position += step
            junk += step
            continue
        if header.size == 0:
            return None
        if first is None:
            first = header
            # The tag lies behind the side information, within the first 40 bytes of the frame's body.
            body = os.pread(fd, 64, position)
            if b"Xing" in body or b"Info" in body or b"VBRI" in body:
                return None
        total += header.samples
        position += header.size
        junk = 0
    return total or None
