"""The links of a chained ogg file: streams that were written one behind the other, as radio recorders do it."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Final

_HEADER_BYTES: Final = 27
_MAX_PAGE_BYTES: Final = 27 + 255 + 255 * 255
_BEGINS: Final = 2
"""Header flag of a stream's first page; RFC 3533 §6."""


def links(fd: int, offset: int) -> list[tuple[int, int]]:
    """Offset and length of each link of the ogg file that begins at ``offset`` of an open file.

    Pages are walked only where the last one is not of a stream that the first ones begin, or where their numbers do
    not ascend: most files have one link, and that takes a few reads.
    """
    end = os.fstat(fd).st_size
    if not _may_be_chained(fd, offset, end):
        return [(offset, end - offset)]
    starts: list[int] = []
    position, beginning = offset, False
    while (page := _page(fd, position)) is not None:
        first = bool(page.flags & _BEGINS)
        # A link begins with the first pages of all of its streams.
        if first and not beginning:
            starts.append(page.offset)
        beginning = first
        position = page.offset + page.size
    if not starts:
        return [(offset, end - offset)]
    return [(start, stop - start) for start, stop in zip(starts, [*starts[1:], end], strict=True)]


class _Page:
    def __init__(self, offset: int, head: bytes) -> None:
        self.offset = offset
        self.flags = head[5]
        self.serial = head[14:18]
        self.number = int.from_bytes(head[18:22], "little")
        self.size = _HEADER_BYTES + head[26] + sum(head[27 : 27 + head[26]])


def _page(fd: int, position: int) -> _Page | None:
    """The page at ``position`` or the next one behind it."""
    head = os.pread(fd, _HEADER_BYTES + 255, position)
    if head.startswith(b"OggS\0"):
        return _Page(position, head) if len(head) >= _HEADER_BYTES else None
    while True:
        data = os.pread(fd, _MAX_PAGE_BYTES, position)
        at = data.find(b"OggS\0")
        if at >= 0:
            head = data[at : at + _HEADER_BYTES + 255]
            if len(head) < _HEADER_BYTES + 255:
                head = os.pread(fd, _HEADER_BYTES + 255, position + at)
            return _Page(position + at, head) if len(head) >= _HEADER_BYTES else None
        if len(data) < _MAX_PAGE_BYTES:
            return None
        position += len(data) - 4


def _may_be_chained(fd: int, offset: int, end: int) -> bool:
    serials = set()
    position = offset
    while (page := _page(fd, position)) is not None and page.flags & _BEGINS:
        serials.add(page.serial)
        position = page.offset + page.size
    last = _last_page(fd, offset, end)
    if last is None:
        return False
    if last.serial not in serials:
        return True
    # Joined copies of one file have the same serial number, but their pages are numbered anew.
    numbers = [
        found.number
        for found in (_page(fd, offset + int((end - offset) * part)) for part in (0.3, 0.55, 0.8))
        if found is not None and found.serial == last.serial and found.offset < last.offset
    ]
    ascending = [*numbers, last.number]
    return any(second <= first for first, second in pairwise(ascending))


def _last_page(fd: int, offset: int, end: int) -> _Page | None:
    start = max(offset, end - _MAX_PAGE_BYTES)
    data = os.pread(fd, end - start, start)
    at = len(data)
    while (at := data.rfind(b"OggS\0", 0, at)) >= 0:
        if len(data) - at >= _HEADER_BYTES:
            return _Page(start + at, data[at : at + _HEADER_BYTES + 255])
    return None
