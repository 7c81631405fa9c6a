"""A file put together from parts of another and from bytes, without a copy: what decoders are given to read."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

Piece = bytes | tuple[int, int]
"""Bytes, or (offset, length) of a part of the file."""


class Pieces(io.RawIOBase):
    """Reads an open file's parts, and bytes between them, as one file; the descriptor's own offset is not used.

    ``error``: the OSError that reading met, if any; readers that cannot take an exception see the end instead.
    """

    def __init__(self, fd: int, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._fd = fd
        self._pieces = [piece for piece in pieces if (len(piece) if isinstance(piece, bytes) else piece[1])]
        self._starts = [0]
        for piece in self._pieces:
            self._starts.append(self._starts[-1] + (len(piece) if isinstance(piece, bytes) else piece[1]))
        self._position = 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position in the pieces put together."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As io's, but -1, which decoders take for a failure, for a place before the beginning."""
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}[whence]
        if at < 0:
            return -1
        self._position = at
        return at

    def readinto(self, buffer: Any, /) -> int:
        """Fill ``buffer``, across pieces; less only at the end, or where reading failed."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._starts[-1]:
            i = bisect_right(self._starts, self._position) - 1
            within = self._position - self._starts[i]
            room = min(len(view) - done, self._starts[i + 1] - self._position)
            piece = self._pieces[i]
            try:
                got = (
                    piece[within : within + room]
                    if isinstance(piece, bytes)
                    else os.pread(self._fd, room, piece[0] + within)
                )
            except OSError as error:
                self.error = error
                break
            if not got:
                break
            view[done : done + len(got)] = got
            done += len(got)
            self._position += len(got)
        return done

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; all that is left for a negative size."""
        size = max(0, self._starts[-1] - self._position) if size is None or size < 0 else size
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(buffer)])
