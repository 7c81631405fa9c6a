"""Decode MPEG audio whose frames lie between tags, pictures and damage, from a view that holds frames only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edge_reclass.audio.mono import MonoWriter
from edge_reclass.audio.mpeg import Frames
from edge_reclass.audio.pieces import Pieces
from edge_reclass.audio.reading import Source

_PREROLL: Final = 12
"""Frames in front of the excerpt: more than the bit reservoir reaches back, and the decoder's own memory."""


class FramesSource:
    """Frames of one kind, with silent ones in the place of those that are lost.

    Samples count from the first frame; what an encoder adds in front stays in. ``open`` makes a source of a view.
    """

    def __init__(self, fd: int, frames: Frames, open: Callable[[Pieces], Source]) -> None:
        self._fd, self._frames, self._open = fd, frames, open
        self.rate, self.channels, self.total = frames.rate, frames.channels, frames.total
        self.packets = self.bad_packets = 0
        self.error: str | None = None

    def read(self, start: int, writer: MonoWriter) -> int | None:
        """See ``Source.read``."""
        per = self._frames.samples
        first = start // per
        count = -(-(start + writer.missing) // per) - first
        begin = max(0, first - _PREROLL)
        source = self._open(Pieces(self._fd, self._frames.view(begin, first + count - begin + 2)))
        source.read(start - begin * per, writer)
        self.packets += count
        self.bad_packets += source.bad_packets
        for number, lost in self._frames.lost(first, count):
            writer.note_gap(number * per - start, lost * per)
            self.bad_packets += lost
        self.error = source.error
        return None

    def measure(self, writer: MonoWriter) -> int:
        """See ``Source.measure``."""
        del writer
        return self.total
