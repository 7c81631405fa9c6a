"""Empties the device code of other GPUs in a CUDA shared library, so that the library compresses well.

    python prune_cubins.py SOURCE TARGET 90[,100…]

A CUDA library carries machine code (cubins) and PTX for several architectures in "fat binaries". The bytes of those
that are not kept become zeros; offsets, headers and the file's size stay, so the library loads as before, and the
driver never looks at code for another GPU. The layout is as found in the libraries of CUDA 13: a region begins with
u32 0xBA55ED50, u16 version 1, u16 header size 16, u64 size; then entries follow, each u16 kind (1 PTX, 2 ELF), u16
version, u32 header size, u64 payload size, …, u32 architecture at byte 28.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Entry", "Pruned", "entries", "prune", "prune_file"]

MAGIC = 0xBA55ED50
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_REGION = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQ")
_ARCHITECTURE_AT = 28
_LEAST_HEADER, _MOST_HEADER = 48, 4096


class Buffer(Protocol):
    """Writable bytes: a bytearray or an mmap."""

    def __len__(self) -> int: ...
    def find(self, sub: bytes, start: int = 0, /) -> int: ...


@dataclass(frozen=True)
class Entry:
    """Code for one ``architecture`` (90 is SM 9.0): ``size`` bytes from ``start`` on."""

    architecture: int
    start: int
    size: int


@dataclass(frozen=True)
class Pruned:
    """Bytes of device code that stayed and that were emptied, and how many entries each were."""

    kept: int
    emptied: int
    kept_entries: int
    emptied_entries: int


def entries(data: Buffer) -> Iterator[Entry]:
    """Every entry of every fat binary in ``data``. What only looks like one is passed over."""
    position = data.find(_MAGIC_BYTES)
    while position >= 0:
        after = position + len(_MAGIC_BYTES)
        if position + _REGION.size <= len(data):
            _, version, header, size = _REGION.unpack_from(data, position)  # type: ignore[arg-type]
            end = position + header + size
            if version == 1 and header == _REGION.size and end <= len(data):
                yield from _region(data, position + header, end)
                after = max(after, end)
        position = data.find(_MAGIC_BYTES, after)


def _region(data: Buffer, start: int, end: int) -> Iterator[Entry]:
    while start + _LEAST_HEADER <= end:
        _, _, header, size = _ENTRY.unpack_from(data, start)  # type: ignore[arg-type]
        if not _LEAST_HEADER <= header <= _MOST_HEADER or start + header + size > end:
            return
        (architecture,) = struct.unpack_from("<I", data, start + _ARCHITECTURE_AT)  # type: ignore[arg-type]
        yield Entry(architecture, start + header, size)
        start += header + size


def prune(data: bytearray | mmap.mmap, keep: frozenset[int]) -> Pruned:
    """Empty, in place, every entry whose architecture is not in ``keep``.

    Raises:
        ValueError: there is device code, and none of it is for an architecture of ``keep``: the library would be of no
            use there.
    """
    found = list(entries(data))
    kept = [entry for entry in found if entry.architecture in keep]
    if found and not kept:
        there = sorted({entry.architecture for entry in found})
        raise ValueError(f"no device code for {sorted(keep)}: the library has {there}")
    emptied = [entry for entry in found if entry.architecture not in keep]
    for entry in emptied:
        data[entry.start : entry.start + entry.size] = bytes(entry.size)
    return Pruned(sum(e.size for e in kept), sum(e.size for e in emptied), len(kept), len(emptied))


def prune_file(source: Path, target: Path, keep: frozenset[int]) -> Pruned:
    """Copy ``source`` to ``target`` and prune the copy. Raises as :func:`prune`."""
    shutil.copyfile(source, target)
    with target.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        return prune(data, keep)


def main(arguments: list[str]) -> None:
    """See the module."""
    if len(arguments) != 3:
        raise SystemExit(__doc__)
    source, target, keep = arguments
    found = prune_file(Path(source), Path(target), frozenset(int(part) for part in keep.split(",")))
    print(
        f"{source}: kept {found.kept / 2**20:.1f} MiB in {found.kept_entries} entries,"
        f" emptied {found.emptied / 2**20:.1f} MiB in {found.emptied_entries}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
