"""Files out of the kernel's page cache, and the proof: whoever can read a clean file can ask for that."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path


def drop(paths: Iterable[Path]) -> None:
    """Ask the kernel to forget these files' pages (``POSIX_FADV_DONTNEED``); those that are mapped or dirty stay."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def resident_share(paths: Iterable[Path]) -> float | None:
    """How much of these files is in memory, 0 to 1, by ``mincore(2)``; None where that cannot be asked."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mincore"):
        return None
    pages = resident = 0
    for path in paths:
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
                count = -(-len(view) // mmap.PAGESIZE)
                found = (ctypes.c_ubyte * count)()
                start = ctypes.addressof(ctypes.c_char.from_buffer(view))
                if libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(view)), found):
                    return None
        except (OSError, ValueError):  # empty, or gone
            continue
        pages += count
        resident += sum(byte & 1 for byte in found)
    return resident / pages if pages else None
