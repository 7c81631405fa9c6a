"""MPEG audio without decoding it: how long it is, and where its frames lie between tags and damage.

libmpg123 (in libsndfile) takes the length from the Xing, Info or VBRI tag of the first frame; without one it
estimates from the file's size, tags and pictures included. A tag may be wrong: zero, of a file that was cut off or
joined to another, or behind it lies what is no audio. Where it does not fit the file's size, the frames are counted.
Frame header and tables: ISO/IEC 11172-3 §2.4.2.3, ISO/IEC 13818-3 §2.4.2.3; MPEG 2.5 halves the rates again.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Final

from edge_reclass.audio.pieces import Piece
from edge_reclass.audio.tags import skip_leading, tag_size, trailing_start

_READ_BYTES: Final = 1 << 20
_MAX_JUNK_BYTES: Final = 16 << 20
"""So much in one piece that is neither frame nor tag ends the walk."""

_MARK_EVERY: Final = 64
"""Of so many frames, one's place is kept."""

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
    layer: int
    channels: int

    @property
    def kind(self) -> tuple[int, int, int]:
        """What does not change from frame to frame: rate, samples, layer."""
        return self.rate, self.samples, self.layer


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
    return FrameHeader(size if bit_rate else 0, samples, rate, layer, 1 if head[3] >> 6 == 3 else 2)


def tag_fits(fd: int, offset: int) -> bool | None:
    """Return whether the Xing, Info or VBRI tag in the frame at ``offset`` of an open file is of this file.

    It is where its bytes are those that lie between the tags, to a frame. None where there is no such tag; the file's
    offset is kept.
    """
    body = os.pread(fd, 192, offset)
    header = parse_header(body)
    if header is None:
        return None
    frames = size = None
    if (at := max(body.find(b"Xing", 0, 64), body.find(b"Info", 0, 64))) >= 0:
        flags = int.from_bytes(body[at + 4 : at + 8], "big")
        frames = int.from_bytes(body[at + 8 : at + 12], "big") if flags & 1 else 0
        if flags & 3 == 3:
            size = int.from_bytes(body[at + 12 : at + 16], "big")
    elif (at := body.find(b"VBRI", 0, 64)) >= 0:
        size, frames = int.from_bytes(body[at + 10 : at + 14], "big"), int.from_bytes(body[at + 14 : at + 18], "big")
    if frames is None:
        return None
    end = trailing_start(fd, os.fstat(fd).st_size)
    return frames > 0 and size is not None and abs(size - (end - offset)) <= header.size


@dataclass
class _Run:
    """Frames that follow one another without a gap."""

    first: int  # its first frame's number in the track
    lost: int  # frames that are missing in front of it
    end: int = 0  # behind its last frame
    count: int = 0
    marks: list[int] = field(default_factory=list)  # where every _MARK_EVERY-th frame lies


class Frames:
    """The frames of one rate and layer that lie in a file, numbered with those that are lost between them."""

    def __init__(self, fd: int, header: FrameHeader, head: bytes) -> None:
        self._fd = fd
        self._head = head
        self.kind = header.kind
        self.rate, self.samples, self.layer = self.kind
        self.channels = header.channels
        self.runs: list[_Run] = []
        self._bytes = 0

    @property
    def count(self) -> int:
        """Frames, those that are lost included."""
        return self.runs[-1].first + self.runs[-1].count if self.runs else 0

    @property
    def total(self) -> int:
        """Samples per channel."""
        return self.count * self.samples

    def begin_run(self, junk: int) -> _Run:
        """A new run behind ``junk`` bytes that are neither frames nor tags."""
        known = sum(run.count for run in self.runs)
        lost = round(junk * known / self._bytes) if self._bytes else 0
        self.runs.append(_Run(self.count + lost, lost))
        return self.runs[-1]

    def end_run(self, run: _Run) -> None:
        """Keep a run's length; an empty run is dropped."""
        if run.count:
            self._bytes += run.end - run.marks[0]
        else:
            self.runs.pop()

    def lost(self, first: int, count: int) -> list[tuple[int, int]]:
        """Number and count of the frames that are lost among ``count`` from ``first`` on."""
        end = first + count
        spans = ((max(first, run.first - run.lost), min(end, run.first)) for run in self.runs)
        return [(begin, stop - begin) for begin, stop in spans if begin < stop]

    def view(self, first: int, count: int) -> list[Piece]:
        """A file of the frames from ``first`` on, with silent ones for those that are lost, and a Xing tag in front."""
        pieces: list[Piece] = [] if self.layer < 3 else [self._xing(count)]
        end = first + count
        for run in self.runs:
            begin = max(first, run.first - run.lost)
            pieces.extend([self._silent()] * (min(end, run.first) - begin))
            low, high = max(first, run.first) - run.first, min(end, run.first + run.count) - run.first
            if low < high:
                at = self._place(run, low)
                pieces.append((at, self._place(run, high) - at))
        return pieces

    def _place(self, run: _Run, number: int) -> int:
        if number >= run.count:
            return run.end
        at = run.marks[number // _MARK_EVERY]
        for _ in range(number % _MARK_EVERY):
            header = parse_header(os.pread(self._fd, 4, at))
            if header is None:
                return run.end  # the file has changed since
            at += header.size
        return at

    def _silent(self) -> bytes:
        """A frame without sound: no checksum, and zeros in the place of side information and data."""
        head = bytes([self._head[0], self._head[1] | 1, *self._head[2:4]])
        header = parse_header(head)
        return head + bytes(0 if header is None else header.size - 4)

    def _xing(self, frames: int) -> bytes:
        """A silent frame that says how many frames follow, so that libmpg123 need not guess."""
        # 128 or 64 kbit/s: large enough for the tag in every version.
        head = bytes([self._head[0], self._head[1] | 1, (self._head[2] & 0x0C) | 0x90, self._head[3]])
        header = parse_header(head)
        if header is None:
            return b""
        first = (self._head[1] >> 3) & 3 == 3
        side = (17 if self.channels == 1 else 32) if first else (9 if self.channels == 1 else 17)
        return (head + bytes(side) + b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")).ljust(
            header.size, b"\0"
        )


def walk(fd: int) -> list[Frames]:
    """All frames of an open MPEG audio file; its offset is kept. Empty where there are none, or of free format.

    Tags are stepped over by their size, wherever they lie; what else lies between frames counts as lost frames.
    Files that were joined are one, but for those of another rate or layer, which begin a Frames of their own.
    """
    return _Walk(fd).groups


class _Walk:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data, self._base = b"", 0
        self.groups: list[Frames] = []
        self._known: dict[bytes, int] = {}
        position, junk = skip_leading(fd), 0
        while True:
            found = self._next(position)
            if found is None:
                break
            position, skipped, header = found
            junk += skipped
            group = self.groups[-1] if self.groups else None
            head = self._peek(position, 4)
            if group is None or header.kind != group.kind:
                group = Frames(fd, header, head)
                self.groups.append(group)
                self._known = {}
                junk = 0
            run = group.begin_run(junk)
            if tag_fits(fd, position) is not None:
                position += header.size  # it holds no sound
            position = self._run(run, group, position)
            group.end_run(run)
            junk = 0
        self.groups = [group for group in self.groups if group.runs]

    def _peek(self, position: int, count: int) -> bytes:
        at = position - self._base
        if at < 0 or at + count > len(self._data):
            self._data, self._base, at = os.pread(self._fd, _READ_BYTES, position), position, 0
        return self._data[at : at + count]

    def _run(self, run: _Run, group: Frames, position: int) -> int:
        """Follow frames from ``position`` on as long as one follows the other; where they end."""
        known, marks, count = self._known, run.marks, 0
        data, at = self._data, position - self._base
        while True:
            if at < 0 or at + 4 > len(data):
                position = at + self._base
                self._data, self._base = os.pread(self._fd, _READ_BYTES, position), position
                data, at = self._data, 0
            size = known.get(data[at : at + 3])
            if size is None:
                head = data[at : at + 4]
                header = parse_header(head)
                if header is None or header.size == 0 or header.kind != group.kind:
                    break
                size = known[head[:3]] = header.size
            if count % _MARK_EVERY == 0:
                marks.append(at + self._base)
            count += 1
            at += size
        run.count = count
        end = at + self._base
        size = os.fstat(self._fd).st_size
        if count and end > size:
            # The last frame is cut off; a decoder gives nothing for it.
            run.count -= 1
            end = size
        run.end = end
        return at + self._base

    def _next(self, position: int) -> tuple[int, int, FrameHeader] | None:
        """Where the next run of frames begins, how many bytes of junk lie before it, and its header."""
        junk = 0
        while junk < _MAX_JUNK_BYTES:
            head = self._peek(position, 32)
            if len(head) < 4:
                return None
            size = tag_size(self._fd, position, head)
            if size is not None:
                if head.startswith(b"APETAGEX") and size == 32:
                    # A footer whose tag has no header: what was taken for junk are its items.
                    junk = max(0, junk - max(0, int.from_bytes(head[12:16], "little") - 32))
                position += size
                continue
            header = self._confirmed(position)
            if header is not None:
                return position, junk, header
            step = self._to_candidate(position)
            position += step
            junk += step
        return None

    def _to_candidate(self, position: int) -> int:
        """Bytes to the next place behind ``position`` where a frame or a tag may begin."""
        data, at = self._data, position - self._base
        found = _CANDIDATE.search(data, at + 1)
        # What lies across the end of what was read is looked at again from there.
        return (found.start() if found else max(len(data) - 10, at + 1)) - at

    def _confirmed(self, position: int) -> FrameHeader | None:
        """The header at ``position`` if two like it follow, or the end of the file."""
        first = header = parse_header(os.pread(self._fd, 4, position))
        if first is None or header is None:
            return None
        for _ in range(2):
            if header.size == 0:
                return None
            position += header.size
            head = os.pread(self._fd, 4, position)
            if len(head) < 4 or head[:3] in (b"TAG", b"ID3", b"APE", b"LYR"):
                break
            header = parse_header(head)
            if header is None or header.kind != first.kind:
                return None
        return first


_CANDIDATE: Final = re.compile(rb"\xff[\xe2-\xff]|ID3[\x02-\x04]|APETAGEX|LYRICSBEGIN|TAG")
