"""Empties the device code of other GPUs in a CUDA shared library, so that the library compresses well.

A CUDA library carries machine code (cubins) and PTX for several architectures in "fat binaries". The bytes of those
that are not kept become zeros; offsets, headers and the file's size stay, so the library loads as before, and the
driver never looks at code for another GPU. The layout is as found in the libraries of CUDA 13: a region begins with
u32 0xBA55ED50, u16 version 1, u16 header size 16, u64 size; then entries follow, each u16 kind (1 PTX, 2 ELF), u16
version, u32 header size, u64 payload size, …, u32 architecture at byte 28.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAGIC = 0xBA55ED50
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_REGION = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQ")
_ARCHITECTURE_AT = 28
_LEAST_HEADER, _MOST_HEADER = 48, 4096


def entries(data: bytearray) -> Iterator[tuple[int, int, int]]:
    """(architecture, start, size) of every entry of every fat binary; what only looks like one is passed over."""
    position = data.find(_MAGIC_BYTES)
    while position >= 0:
        after = position + len(_MAGIC_BYTES)
        if position + _REGION.size <= len(data):
            _, version, header, size = _REGION.unpack_from(data, position)
            end = position + header + size
            if version == 1 and header == _REGION.size and end <= len(data):
                yield from _region(data, position + header, end)
                after = max(after, end)
        position = data.find(_MAGIC_BYTES, after)


def _region(data: bytearray, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    while start + _LEAST_HEADER <= end:
        _, _, header, size = _ENTRY.unpack_from(data, start)
        if not _LEAST_HEADER <= header <= _MOST_HEADER or start + header + size > end:
            return
        (architecture,) = struct.unpack_from("<I", data, start + _ARCHITECTURE_AT)
        yield architecture, start + header, size
        start += header + size


def prune(data: bytearray, keep: frozenset[int]) -> tuple[int, int]:
    """Empty, in place, every entry whose architecture is not in ``keep``; gives the bytes that stayed and that went.

    Raises:
        ValueError: there is device code, and none of it is for an architecture of ``keep``: the library would be of no
            use there.
    """
    found = list(entries(data))
    there = {architecture for architecture, _, _ in found}
    if found and not there & keep:
        raise ValueError(f"no device code for {sorted(keep)}: the library has {sorted(there)}")
    kept = 0
    for architecture, start, size in found:
        if architecture in keep:
            kept += size
        else:
            data[start : start + size] = bytes(size)
    return kept, sum(size for _, _, size in found) - kept
