"""Tags in front of, between and behind the audio of a file: how long each is, by its own header."""

from __future__ import annotations

import os
from typing import Final

_MAX_LYRICS: Final = 1 << 20


def _id3v2_size(head: bytes) -> int | None:
    """ID3v2.4 §3.1: 28 bits in four "synchsafe" bytes, and 10 more bytes if there is a footer."""
    if len(head) < 10 or not head.startswith(b"ID3") or max(head[6:10]) >= 0x80 or head[3] == 0xFF:
        return None
    size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)


def _ape_size(head: bytes) -> int | None:
    """APEv1 and v2: the size counts items and footer; bit 29 of the flags marks a header, which comes on top."""
    if len(head) < 32 or not head.startswith(b"APETAGEX"):
        return None
    size, flags = int.from_bytes(head[12:16], "little"), int.from_bytes(head[20:24], "little")
    return 32 + size if flags & (1 << 29) else 32


def tag_size(fd: int, offset: int, head: bytes) -> int | None:
    """Bytes of the tag that begins at ``offset`` of an open file, or None where there is none.

    ``head`` holds at least 32 bytes from there on, less at the end of the file.
    """
    size = _id3v2_size(head)
    if size is None:
        size = _ape_size(head)
    if size is not None:
        return size
    if head.startswith(b"TAG+"):
        return 227
    if head.startswith(b"TAG"):
        return 128
    if head.startswith(b"3DI") and len(head) >= 10:
        return 10
    if head.startswith(b"LYRICSBEGIN"):
        text = os.pread(fd, _MAX_LYRICS, offset)
        ends = [at + 9 for at in (text.find(b"LYRICS200"), text.find(b"LYRICSEND")) if at >= 0]
        return min(ends) if ends else 11
    return None


def leading_tags(fd: int) -> list[tuple[int, int]]:
    """Offset and length of each tag in front of an open file; its offset is kept. The last may end behind the file."""
    tags: list[tuple[int, int]] = []
    offset = 0
    # A tag may follow a tag; eight are more than any tagger writes.
    while len(tags) < 8:
        head = os.pread(fd, 32, offset)
        size = tag_size(fd, offset, head) if head[:3] in (b"ID3", b"APE", b"TAG") else None
        if size is None:
            break
        tags.append((offset, size))
        offset += size
    return tags


def skip_leading(fd: int) -> int:
    """Where the content begins behind the tags in front of an open file; its offset is kept."""
    return sum(size for _, size in leading_tags(fd))


def trailing_tags(fd: int, size: int) -> list[tuple[int, int]]:
    """Offset and length of each tag at the end of an open file of ``size`` bytes, the last one first."""
    tags: list[tuple[int, int]] = []
    end = size
    while len(tags) < 8:
        tail_at = max(0, end - 160)
        tail = os.pread(fd, end - tail_at, tail_at)
        if tail[-128:-125] == b"TAG" and len(tail) >= 128:
            length = 128
        elif tail[-32:-24] == b"APETAGEX":
            length = int.from_bytes(tail[-20:-16], "little")
            length += 32 if int.from_bytes(tail[-12:-8], "little") & (1 << 31) else 0
        elif tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
            length = int(tail[-15:-9]) + 15
        elif tail[-10:-7] == b"3DI":
            length = 20 + sum((b & 0x7F) << s for b, s in zip(tail[-4:], (21, 14, 7, 0), strict=True))
        else:
            break
        end -= length
        if end <= 0:
            return []
        tags.append((end, length))
    return tags


def trailing_start(fd: int, size: int) -> int:
    """Where the tags at the end of an open file of ``size`` bytes begin; ``size`` where there are none."""
    tags = trailing_tags(fd, size)
    return tags[-1][0] if tags else size
