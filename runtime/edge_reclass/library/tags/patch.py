"""The difference of two files, small: what makes the old one out of the new one."""

from __future__ import annotations

import mmap
import os
import zlib
from typing import Any, Final

import msgspec
import numpy as np

from edge_reclass.audio.pieces import Piece

_BLOCK: Final = 1 << 16
_ANCHOR: Final = 32
"""Bytes by which a part of the old file is looked for in the new one."""

_NEAR: Final = 1 << 16
_FAR: Final = 1 << 12
"""Bytes until the whole new file is searched again where nothing is found nearby; twice as many each time."""

_STEPS: Final = (8, 16, 64, 256, 1024)


def make_patch(old: int, new: int) -> bytes:
    """What makes the file open as ``old`` out of the one open as ``new``: a few hundred bytes, not the file.

    The beginnings and ends that are the same are not looked at closer. Between them, parts of the old file are looked
    for in the new one, near where the last one was: tags that moved are found, and what was renumbered on the way
    (ogg pages, chunk offsets) is kept as bytes.
    """
    size, length = os.fstat(old).st_size, os.fstat(new).st_size
    if not size or not length:
        pieces: list[Piece] = [os.pread(old, size, 0)]
    else:
        with mmap.mmap(old, size, prot=mmap.PROT_READ) as a, mmap.mmap(new, length, prot=mmap.PROT_READ) as b:
            pieces = _pieces(a, b)
    return zlib.compress(msgspec.msgpack.encode(pieces))


def read_patch(patch: bytes) -> list[Piece]:
    """The old file as pieces of the new one."""
    return [
        one if isinstance(one, bytes) else (one[0], one[1]) for one in msgspec.msgpack.decode(zlib.decompress(patch))
    ]


def _pieces(a: Any, b: Any) -> list[Piece]:
    shortest = min(len(a), len(b))
    front = _same(a, 0, b, 0, shortest)
    back = _same_back(a, b, shortest - front)
    end = len(a) - back
    pieces: list[Piece] = [(0, front)] if front else []
    at, shift, literal, far, wait = front, 0, front, front, _FAR
    while at < end:
        if _goes_on(a, b, at, shift, end):
            found = at + shift
        else:
            # What was renumbered is a few bytes; behind them, the files go on side by side.
            near = next((at + step for step in _STEPS if _goes_on(a, b, at + step, shift, end)), None)
            if near is not None:
                at = near
                continue
            found = _find(b, bytes(a[at : at + _ANCHOR]), at + shift) if at + _ANCHOR <= end else -1
            if found < 0 and at + _ANCHOR <= end and at >= far:
                found, far, wait = b.find(a[at : at + _ANCHOR]), at + wait, 2 * wait
        if found < 0:
            at = min(at + _ANCHOR, end)
            continue
        if literal < at:
            pieces.append(bytes(a[literal:at]))
        count = _same(a, at, b, found, min(end - at, len(b) - found))
        pieces.append((found, count))
        at, shift = at + count, found - at
        literal = at
    if literal < end:
        pieces.append(bytes(a[literal:end]))
    if back:
        pieces.append((len(b) - back, back))
    return pieces


def _goes_on(a: Any, b: Any, at: int, shift: int, end: int) -> bool:
    return at + _ANCHOR <= end and at + shift >= 0 and a[at : at + _ANCHOR] == b[at + shift : at + shift + _ANCHOR]


def _find(b: Any, anchor: bytes, expected: int) -> int:
    return int(b.find(anchor, max(0, expected - _NEAR), max(0, expected + _NEAR)))


def _same(a: Any, at: int, b: Any, begin: int, limit: int) -> int:
    """How many bytes from ``at`` and ``begin`` on are the same."""
    done = 0
    while done < limit:
        size = min(_BLOCK, limit - done)
        left, right = a[at + done : at + done + size], b[begin + done : begin + done + size]
        if left != right:
            return done + _first_difference(left, right)
        done += size
    return limit


def _same_back(a: Any, b: Any, limit: int) -> int:
    done = 0
    while done < limit:
        size = min(_BLOCK, limit - done)
        left, right = a[len(a) - done - size : len(a) - done], b[len(b) - done - size : len(b) - done]
        if left != right:
            return done + _first_difference(left[::-1], right[::-1])
        done += size
    return limit


def _first_difference(left: bytes, right: bytes) -> int:
    return int(np.argmax(np.frombuffer(left, np.uint8) != np.frombuffer(right, np.uint8)))
